//! Submissions: from a planned job to its entry in the log, and from there to its actor.
//!
//! Called by the supervisor's actor; [`super::submit`] decides whether a submission begins a job, resumes one, or is refused.
//! Nothing runs before its entry is durable, and while it is on its way the same submission waits for it, and any other of its name is
//! refused: a client that tries again begins nothing twice. Failure: a refusal is the answer; what the log never takes is never answered.

use millstream_common::control::{ControlError, FromCheckpoint};
use millstream_common::ids::{Epoch, Generation, Incarnation, JobName};
use millstream_common::log::Entry;
use millstream_common::log::entry::{JobEntry, JobProgress};
use millstream_common::log::savepoint::Savepoints;
use millstream_common::mutant::{self, Mutant};
use millstream_common::plan::JobPlan;
use ractor::{ActorProcessingErr, ActorRef, RpcReplyPort};

use super::jobs::RunningJob;
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
    /// As its client names it in each try.
    pub id: Option<String>,
}

/// A submission whose entry is on its way into the log.
pub(super) struct Starting {
    plan: JobPlan,
    id: Option<String>,
    /// Those who said it again.
    waiting: Vec<Asked>,
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
    /// Whether anything was done.
    pub unchanged: Unchanged,
}

/// Whether a job was there before it was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unchanged {
    /// It is begun, or goes on, by this submission.
    No,
    /// By an earlier try of this submission.
    Retry,
    /// Another submission has asked for the same.
    Alike,
}

impl Started {
    /// It is there, and stays as it is; asked for by that submission.
    pub(super) fn before(job: &RunningJob, id: Option<&str>) -> Self {
        let is_retry = id.is_some() && id == job.entry.submission.as_deref();
        Self {
            actor: job.actor.clone(),
            resumed_from: Epoch::default(),
            notes: Vec::new(),
            unchanged: match is_retry {
                true => Unchanged::Retry,
                false => Unchanged::Alike,
            },
        }
    }
}

impl RunningJob {
    fn known(&self) -> submit::Existing<'_> {
        let end = self.ended.as_ref().map(|(end, _)| end);
        submit::Existing {
            plan: &self.entry.plan,
            ended: end.filter(|_| !self.is_starting),
            submission: self.entry.submission.as_deref(),
        }
    }
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

    /// The job is there already, and stays as it is.
    pub(super) fn left(self, started: Started) {
        self.trace.unchanged();
        answer(self.reply, Ok(started));
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
        let Some(asked) = self.wait_for_start(&submission, asked) else {
            return Ok(());
        };
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
        let before = existing.as_deref().map(RunningJob::known);
        let decision = submit::decide(&submission.job, submission.wanted(), before);
        let (entry, job) = match (decision, existing) {
            (Err(refused), _) => {
                asked.refuse(refused);
                return Ok(());
            }
            (Ok(Decision::Leave), Some(job)) => {
                asked.left(Started::before(job, submission.id.as_deref()));
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
            (Ok(Decision::Begin | Decision::Resume | Decision::Leave), existing) => {
                if let Some(job) = existing {
                    job.is_starting = true;
                }
                let entry = JobEntry {
                    job: submission.job,
                    incarnation: Incarnation::fresh(),
                    sql: submission.sql,
                    plan: submission.plan,
                    submitted_at_us: self.clock.unix_micros(),
                    submission: submission.id.clone(),
                };
                let job = beginning(entry.clone(), JobProgress::default(), savepoints);
                (Entry::Job(Box::new(entry)), job)
            }
        };
        self.record_submission(entry, job, submission.id, Vec::new(), asked)
    }

    /// Lets whoever says again what is on its way wait for it; who asked comes back where nothing of that name is.
    fn wait_for_start(&mut self, submission: &Submission, asked: Asked) -> Option<Asked> {
        let starting = self.starting.get_mut(&submission.job);
        let starting = starting.filter(|_| !mutant::is(Mutant::BeginTwice));
        let Some(starting) = starting else {
            return Some(asked);
        };
        let under_way = submit::Existing {
            plan: &starting.plan,
            ended: None,
            submission: starting.id.as_deref(),
        };
        let plan = numbered_as(&starting.plan, submission.plan.clone());
        let wanted = submit::Wanted {
            plan: &plan,
            ..submission.wanted()
        };
        match wanted.is_running_as(under_way) {
            true => starting.waiting.push(asked),
            false => asked.refuse(ControlError::AlreadyRunning {
                name: submission.job.to_string(),
            }),
        }
        None
    }

    /// Nothing runs before the entry is durable.
    pub(super) fn record_submission(
        &mut self,
        entry: Entry,
        job: ReplayedJob,
        id: Option<String>,
        notes: Vec<String>,
        asked: Asked,
    ) -> Result<(), ActorProcessingErr> {
        let starting = Starting {
            plan: job.entry.plan.clone(),
            id,
            waiting: Vec::new(),
        };
        self.starting.insert(job.entry.job.clone(), starting);
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
        let starting = self.starting.remove(&job.entry.job);
        let waiting = starting.map_or_else(Vec::new, |starting| starting.waiting);
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
            unchanged: Unchanged::No,
        };
        for waiting in waiting {
            waiting.left(started.clone());
        }
        asked.begun(started, &entry);
        Ok(())
    }
}

impl Submission {
    fn wanted(&self) -> submit::Wanted<'_> {
        submit::Wanted {
            plan: &self.plan,
            fresh: self.fresh,
            is_from: self.from.is_some(),
            submission: self.id.as_deref(),
        }
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
        retold: Default::default(),
        savepoints,
    }
}
