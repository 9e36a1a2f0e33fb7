//! Submissions: from a planned job to its entry in the log, and from there to its actor.
//!
//! Called by the supervisor's actor; [`super::submit`] decides whether a submission begins a job, resumes one, or is refused.
//! Nothing runs before its entry is durable. Failure: a refusal is the answer; what the log never takes is never answered.

use millstream_common::control::{ControlError, FromCheckpoint};
use millstream_common::ids::{Epoch, Generation, Incarnation, JobName};
use millstream_common::log::Entry;
use millstream_common::log::entry::{JobEntry, JobProgress};
use millstream_common::log::savepoint::Savepoints;
use millstream_common::plan::JobPlan;
use ractor::{ActorProcessingErr, ActorRef, RpcReplyPort};

use super::submit::{self, Decision};
use super::supervisor_actor::{SupervisorMessage, SupervisorState, answer};
use crate::carry::outputs::numbered_as;
use crate::job::job_actor::JobMessage;
use crate::letters::index::Letters;
use crate::log_actor::LogMessage;
use crate::replay::ReplayedJob;
use crate::submission_trace::SubmissionTrace;

/// A planned job to begin or resume.
#[derive(Debug)]
pub struct Submission {
    /// Of the call.
    pub trace: SubmissionTrace,
    /// Its name.
    pub job: JobName,
    /// As written.
    pub sql: String,
    /// As planned.
    pub plan: JobPlan,
    /// Begin a new life even if the old one could go on.
    pub fresh: bool,
    /// What it goes on from.
    pub from: Option<FromCheckpoint>,
}

/// A job that has been begun or resumed.
#[derive(Clone, Debug)]
pub struct Started {
    /// Its actor.
    pub actor: ActorRef<JobMessage>,
    /// It goes on from this epoch; 0 is from nothing.
    pub resumed_from: Epoch,
    /// What a person should know of what was carried over.
    pub notes: Vec<String>,
}

/// Whoever has asked for a submission: told once it is settled, and its trace with them.
pub struct Asked {
    reply: RpcReplyPort<Result<Started, ControlError>>,
    trace: SubmissionTrace,
}

impl Asked {
    pub(super) fn refuse(self, refused: ControlError) {
        self.trace.refused(&refused);
        answer(self.reply, Err(refused));
    }

    fn begun(self, started: Started, entry: &JobEntry) {
        self.trace.recorded(entry, started.resumed_from);
        answer(self.reply, Ok(started));
    }
}

impl SupervisorState {
    pub(super) fn submit(
        &mut self,
        mut submission: Submission,
        reply: RpcReplyPort<Result<Started, ControlError>>,
    ) -> Result<(), ActorProcessingErr> {
        let trace = std::mem::take(&mut submission.trace);
        let asked = Asked { reply, trace };
        if let Some(from) = submission.from.clone() {
            return self.submit_from(submission, &from, asked);
        }
        let existing = self.jobs.get_mut(&submission.job);
        let savepoints = existing.as_ref().map(|job| job.savepoints.clone());
        let savepoints = savepoints.unwrap_or_default();
        let submission = Submission {
            plan: match &existing {
                Some(job) => numbered_as(&job.entry.plan, submission.plan),
                None => submission.plan,
            },
            ..submission
        };
        let before = existing.as_ref().map(|job| submit::Existing {
            plan: &job.entry.plan,
            ended: job
                .ended
                .as_ref()
                .map(|(end, _)| end)
                .filter(|_| !job.is_starting),
        });
        let decision = submit::decide(&submission.job, &submission.plan, submission.fresh, before);
        let (entry, job) = match (decision, existing) {
            (Err(refused), _) => {
                asked.refuse(refused);
                return Ok(());
            }
            (Ok(Decision::Resume), Some(job)) => {
                job.is_starting = true;
                let progress = job
                    .ended
                    .as_ref()
                    .map(|(_, progress)| progress.clone())
                    .unwrap_or_default();
                let resumed = Entry::Resumed {
                    job: submission.job,
                    incarnation: job.entry.incarnation,
                };
                (resumed, beginning(job.entry.clone(), progress, savepoints))
            }
            (Ok(Decision::Begin | Decision::Resume), existing) => {
                if let Some(job) = existing {
                    job.is_starting = true;
                }
                let entry = JobEntry {
                    job: submission.job,
                    incarnation: Incarnation::fresh(),
                    sql: submission.sql,
                    plan: submission.plan,
                    submitted_at_us: self.clock.unix_micros(),
                };
                let job = beginning(entry.clone(), JobProgress::default(), savepoints);
                (Entry::Job(Box::new(entry)), job)
            }
        };
        self.record_submission(entry, job, Vec::new(), asked)
    }

    /// Nothing runs before the entry is durable.
    pub(super) fn record_submission(
        &mut self,
        entry: Entry,
        job: ReplayedJob,
        notes: Vec<String>,
        asked: Asked,
    ) -> Result<(), ActorProcessingErr> {
        let myself = self.myself.clone();
        let on_written = Box::new(move |_| {
            let job = Box::new(job);
            let _ = myself.cast(SupervisorMessage::SubmissionRecorded { job, notes, asked });
        });
        self.log.cast(LogMessage::Append {
            entry: Box::new(entry),
            on_written,
        })?;
        Ok(())
    }

    pub(super) async fn submission_recorded(
        &mut self,
        job: ReplayedJob,
        notes: Vec<String>,
        asked: Asked,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(old) = self.jobs.remove(&job.entry.job) {
            old.actor.stop(None);
        }
        let resumed_from = job.progress.epoch;
        let entry = job.entry.clone();
        let actor = self.start_job(job, None).await?;
        let started = Started {
            actor,
            resumed_from,
            notes,
        };
        asked.begun(started, &entry);
        Ok(())
    }
}

/// A job that goes on from `progress` and has no assignment yet.
pub(super) fn beginning(
    entry: JobEntry,
    progress: JobProgress,
    savepoints: Savepoints,
) -> ReplayedJob {
    ReplayedJob {
        entry,
        progress,
        end: None,
        generation: Generation::default(),
        assignment: None,
        letters: Letters::default(),
        newest: Default::default(),
        savepoints,
    }
}
