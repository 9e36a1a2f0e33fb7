//! Submissions that go on from a checkpoint: of the job's own past or of another job's, perhaps with other SQL.
//!
//! Called by `submission.rs`. Where the checkpoint is the job's last epoch, its life goes on, and sinks that stay with it: no row comes twice or
//! is missing. From any other checkpoint a new life begins, and that only if it is asked for, because sinks may hold what came behind.
//! Failure: whatever is not kept, behind what sinks hold, or does not fit ([`crate::carry`]) is refused with the choices.

use millstream_common::control::{ControlError, FromCheckpoint, LATEST};
use millstream_common::ids::{Epoch, Incarnation, JobName};
use millstream_common::log::Entry;
use millstream_common::log::entry::{JobEnd, JobEntry, JobProgress};
use millstream_common::log::savepoint::CarriedEntry;
use millstream_common::suggest::nearest;
use ractor::ActorProcessingErr;

use super::jobs::RunningJob;
use super::submission::{Asked, Started, Submission, beginning};
use super::supervisor_actor::SupervisorState;
use crate::carry::outputs::numbered_as;
use crate::carry::{Carried, Terms, carry};
use crate::job::savepoint;
use crate::replay::ReplayedJob;

/// A checkpoint that was found.
#[derive(Debug)]
struct Found<'a> {
    entry: &'a JobEntry,
    progress: &'a JobProgress,
}

/// What a submission comes to.
type Taken = (Box<CarriedEntry>, Vec<String>);

impl SupervisorState {
    pub(super) fn submit_from(
        &mut self,
        submission: Submission,
        from: &FromCheckpoint,
        asked: Asked,
    ) -> Result<(), ActorProcessingErr> {
        let id = submission.id.clone();
        let own = self.jobs.get(&submission.job);
        if let Some(own) = own.filter(|own| id.is_some() && id == own.entry.submission) {
            // This very submission: its answer was lost.
            asked.left(Started::before(own, id.as_deref()));
            return Ok(());
        }
        let (entry, notes) = match self.take(submission, from) {
            Ok(taken) => taken,
            Err(refused) => {
                asked.refuse(refused);
                return Ok(());
            }
        };
        let existing = self.jobs.get_mut(&entry.job.job);
        let savepoints = existing.map(|job| {
            job.is_starting = true;
            job.savepoints.clone()
        });
        let savepoints = savepoints.unwrap_or_default();
        let job: ReplayedJob = beginning(entry.job.clone(), entry.progress.clone(), savepoints);
        self.record_submission(Entry::Carried(entry), job, id, notes, asked)
    }

    fn take(&self, submission: Submission, from: &FromCheckpoint) -> Result<Taken, ControlError> {
        let name = submission.job.clone();
        let own = self.jobs.get(&name);
        if own.is_some_and(|own| own.ended.is_none() || own.is_starting) {
            return Err(ControlError::AlreadyRunning {
                name: name.to_string(),
            });
        }
        let (of, checkpoint) = match from.checkpoint.split_once('/') {
            Some((job, checkpoint)) => (JobName::from(job), checkpoint),
            None => (name.clone(), from.checkpoint.as_str()),
        };
        let Some(source) = self.jobs.get(&of) else {
            let names = self.jobs.keys().map(JobName::as_str);
            return Err(ControlError::NotFound {
                nearest: nearest(of.as_str(), names).map(str::to_owned),
                name: of.0,
            });
        };
        let found = find(&of, source, checkpoint)?;
        if found.progress.drained {
            return Err(ControlError::Invalid(format!(
                "job {of} had finished at epoch {}: there is nothing to go on with",
                found.progress.epoch
            )));
        }
        let (goes_on, found) = match own {
            _ if submission.fresh => (false, found),
            None => (false, found),
            Some(own) => {
                refuse_behind(&name, own, &found)?;
                // A savepoint does not say what sinks still lack; the life's end does.
                (true, head(own).unwrap_or(found))
            }
        };
        let plan = numbered_as(&found.entry.plan, submission.plan);
        let terms = Terms {
            goes_on,
            may_drop: from.may_drop,
        };
        let carried = carry(&found.entry.plan, &plan, found.progress, terms);
        let Carried { progress, notes } = carried.map_err(|reasons| refusal(from, &reasons))?;
        let job = JobEntry {
            job: name,
            incarnation: match goes_on {
                true => found.entry.incarnation,
                false => Incarnation::fresh(),
            },
            sql: submission.sql,
            plan,
            submitted_at_us: self.clock.unix_micros(),
            submission: submission.id,
        };
        Ok((Box::new(CarriedEntry { job, progress }), notes))
    }
}

/// The checkpoint of that name, number, or the latest.
fn find<'a>(
    name: &JobName,
    job: &'a RunningJob,
    checkpoint: &str,
) -> Result<Found<'a>, ControlError> {
    let head = head(job);
    if checkpoint == LATEST {
        let running = || {
            ControlError::Invalid(format!(
                "job {name} is running: keep an epoch of it first (`millstream savepoint {name}`)"
            ))
        };
        return head.ok_or_else(running).and_then(|head| begun(name, head));
    }
    let kept = |savepoint: &'a millstream_common::log::savepoint::Savepoint| Found {
        entry: &savepoint.entry,
        progress: &savepoint.progress,
    };
    let Ok(epoch) = checkpoint.parse().map(Epoch) else {
        let savepoint = job.savepoints.get(checkpoint);
        let unknown = || savepoint::unknown(name.as_str(), checkpoint, &job.savepoints);
        return savepoint.map(kept).ok_or_else(unknown);
    };
    let is_it = |found: &Found<'_>| found.progress.epoch == epoch;
    let mut savepoints = job.savepoints.values().map(kept);
    if let Some(found) = head.filter(is_it).or_else(|| savepoints.find(is_it)) {
        return begun(name, found);
    }
    let named = job.savepoints.iter();
    let named = named.map(|(name, kept)| format!("{name} (epoch {})", kept.progress.epoch));
    let ended = job.ended.iter();
    let latest = ended.map(|(_, progress)| format!("{LATEST} (epoch {})", progress.epoch));
    let kept: Vec<String> = named.chain(latest).collect();
    Err(ControlError::Invalid(match kept.as_slice() {
        [] => format!("epoch {epoch} of job {name} is not kept by name; nothing is"),
        kept => format!(
            "epoch {epoch} of job {name} is not kept by name; kept are {}",
            kept.join(", ")
        ),
    }))
}

/// Where a job that has ended stands.
fn head(job: &RunningJob) -> Option<Found<'_>> {
    let (_, progress) = job.ended.as_ref()?;
    Some(Found {
        entry: &job.entry,
        progress,
    })
}

fn begun<'a>(name: &JobName, found: Found<'a>) -> Result<Found<'a>, ControlError> {
    match found.progress.epoch == Epoch::default() {
        true => Err(ControlError::Invalid(format!(
            "job {name} has committed no epoch: there is nothing to go on from"
        ))),
        false => Ok(found),
    }
}

/// A life goes on from its last epoch only: behind an older one, sinks hold what would be computed again.
fn refuse_behind(name: &JobName, own: &RunningJob, found: &Found<'_>) -> Result<(), ControlError> {
    let Some((end, head)) = &own.ended else {
        return Ok(());
    };
    let is_own = found.entry.incarnation == own.entry.incarnation;
    let is_head = is_own && found.progress.epoch == head.epoch;
    let epoch = found.progress.epoch;
    if !is_own {
        return Err(ControlError::Invalid(format!(
            "job {name} is there, and this checkpoint is of another life: submit it under another name, \
             or begin a new life with --fresh (append sinks receive rows behind epoch {epoch} again)"
        )));
    }
    match (is_head, end) {
        (true, JobEnd::Stopped | JobEnd::Failed { .. }) => Ok(()),
        (_, JobEnd::Finished | JobEnd::Stopped | JobEnd::Failed { .. }) => {
            Err(ControlError::Invalid(format!(
                "job {name} went on to epoch {} behind this checkpoint of epoch {epoch}, and sinks may hold what came between: \
                 go on from its last epoch with --from-checkpoint {LATEST}, or begin a new life behind epoch {epoch} with --fresh \
                 (append sinks receive the rows behind it again)",
                head.epoch
            )))
        }
    }
}

fn refusal(from: &FromCheckpoint, reasons: &[String]) -> ControlError {
    let list: Vec<String> = reasons
        .iter()
        .map(|reason| format!("\n  {reason}"))
        .collect();
    ControlError::Invalid(format!(
        "the SQL cannot go on from {}:{}",
        from.checkpoint,
        list.concat()
    ))
}
