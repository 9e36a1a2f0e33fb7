//! The actors of jobs: started from what the log tells, and started anew where one has ended by a defect.
//!
//! Called by the supervisor's actor. The log is read for a job only after everything that its old actor had handed to the log
//! actor is durable: a second actor that knew less would commit an epoch beside one on its way (INV-1). Reading waits for
//! storage and therefore happens in a task. Failure: a job that cannot be started, or whose actor has failed more often than its
//! restart budget allows, is kept as failed with the cause, until it is submitted again or the next master tries; a log that cannot be
//! understood ends the master.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_common::control::ControlError;
use millstream_common::error::{Failure, Kind, chain};
use millstream_common::ids::JobName;
use millstream_common::link::{JobGeneration, ToWorker};
use millstream_common::log::Entry;
use millstream_common::log::entry::{JobEnd, JobEntry, JobProgress};
use millstream_common::log::savepoint::Savepoints;
use millstream_common::store::StoreRef;
use millstream_common::suggest::nearest;
use millstream_common::task::caught;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SpawnErr, call};
use tracing::{error, warn};

use super::supervisor_actor::{SupervisorMessage, SupervisorState};
use crate::enumerate::EnumerateError;
use crate::job::job_actor::{JobActor, JobConfig, JobMessage};
use crate::job::recorded::Recorded;
use crate::job::restart::{Decision, RestartPolicy};
use crate::log_actor::LogMessage;
use crate::replay::ReplayedJob;
use crate::retention::Looked;
use crate::retention::history::read_history;

/// Between two attempts to read the log.
const READ_RETRY: Duration = Duration::from_millis(500);

/// A job and its actor.
pub(super) struct RunningJob {
    pub(super) entry: JobEntry,
    pub(super) actor: ActorRef<JobMessage>,
    /// How it ended and what it came to, once it has.
    pub(super) ended: Option<(JobEnd, JobProgress)>,
    /// A submission that goes on with it is on its way into the log.
    pub(super) is_starting: bool,
    /// Its checkpoints that are kept by name.
    pub(super) savepoints: Savepoints,
    /// Failures of its actors.
    restarts: RestartPolicy,
    /// Why its actor is gone, while the next one is not there.
    trouble: Option<String>,
}

/// What the log says of a job whose actor has ended.
pub struct Reread {
    /// The job.
    job: JobName,
    /// The actor that ended; where another has taken its place, nothing is to be done.
    ended: ActorId,
    /// The job's last attempt has failed: it is kept, and not run.
    given_up: Option<Failure>,
    /// The job, if the log tells of it.
    result: Result<Option<ReplayedJob>, String>,
}

impl SupervisorState {
    /// Starts the actor of a job; one that does not start is kept as failed.
    pub(super) async fn start_job(
        &mut self,
        job: ReplayedJob,
        restarts: Option<RestartPolicy>,
    ) -> Result<ActorRef<JobMessage>, ActorProcessingErr> {
        match self.spawn_job(job.clone(), restarts).await {
            Ok(actor) => Ok(actor),
            Err(failed) => {
                let failure = start_failure(failed);
                error!(job = %job.entry.job, %failure, "job cannot be started");
                self.keep_failed(job, failure).await
            }
        }
    }

    /// Keeps a job that is not to run. This is not written to the log: another master may be able to run it.
    async fn keep_failed(
        &mut self,
        mut job: ReplayedJob,
        failure: Failure,
    ) -> Result<ActorRef<JobMessage>, ActorProcessingErr> {
        self.tell_everybody(&ToWorker::Teardown(newest_generation(&job)));
        job.end = Some(JobEnd::Failed { failure });
        Ok(self.spawn_job(job, None).await?)
    }

    async fn spawn_job(
        &mut self,
        job: ReplayedJob,
        restarts: Option<RestartPolicy>,
    ) -> Result<ActorRef<JobMessage>, SpawnErr> {
        let ended = job.end.clone().map(|end| (end, job.progress.clone()));
        let entry = job.entry.clone();
        let config = JobConfig {
            lasting: job.lasting(),
            retold: job.retold,
            entry: job.entry,
            progress: job.progress,
            end: job.end,
            savepoints: job.savepoints.clone(),
            store: self.store.clone(),
            recent_weight_max: self.recent_weight_max,
            log: self.log.clone(),
            supervisor: self.myself.clone(),
            workers: self.registry.workers(),
            clock: self.clock.clone(),
            tracer: self.tracer.clone(),
            connectors: self.connectors.clone(),
        };
        let (actor, _) =
            Actor::spawn_linked(None, JobActor, config, self.myself.get_cell()).await?;
        let running = RunningJob {
            actor: actor.clone(),
            ended,
            is_starting: false,
            restarts: restarts.unwrap_or_else(|| RestartPolicy::new(&entry.plan.settings)),
            trouble: None,
            savepoints: job.savepoints,
            entry: entry.clone(),
        };
        self.jobs.insert(entry.job, running);
        Ok(actor)
    }

    /// A job's actor has ended, which is a defect of ours; the log knows where it stood.
    pub(super) fn job_failed(&mut self, ended: ActorId, cause: &str) {
        let now = self.clock.monotonic();
        let failed = self
            .jobs
            .iter_mut()
            .find(|(_, job)| job.actor.get_id() == ended);
        let Some((name, job)) = failed else {
            return;
        };
        job.trouble = Some(cause.to_owned());
        let (delay, given_up) = match job.restarts.failed(Kind::Internal, now) {
            Decision::RetryAfter(delay) => (delay, None),
            Decision::GiveUp => {
                let failure = Failure {
                    kind: Kind::Internal,
                    origin: "job actor".to_owned(),
                    cause: cause.to_owned(),
                };
                (Duration::ZERO, Some(failure))
            }
        };
        let name = name.clone();
        error!(job = %name, %cause, gives_up = given_up.is_some(), "job actor ended; reading the log again");
        self.reread(name, ended, given_up, delay);
    }

    fn reread(&mut self, job: JobName, ended: ActorId, given_up: Option<Failure>, delay: Duration) {
        while self.rereads.try_join_next().is_some() {}
        let read = read_settled(self.store.clone(), self.log.clone(), job.clone(), delay);
        let myself = self.myself.clone();
        self.rereads.spawn(async move {
            let read = caught(read).await;
            let result = read.map_err(|panicked| panicked.to_string()).flatten();
            let reread = Reread {
                job,
                ended,
                given_up,
                result,
            };
            // The actor outlives its tasks: they are in its state.
            let _ = myself.cast(SupervisorMessage::JobReread(Box::new(reread)));
        });
    }

    pub(super) async fn job_reread(&mut self, reread: Reread) -> Result<(), ActorProcessingErr> {
        let is_replaced = |job: &RunningJob| job.actor.get_id() != reread.ended || job.is_starting;
        if self.jobs.get(&reread.job).is_none_or(is_replaced) {
            return Ok(());
        }
        let replayed = reread
            .result
            .map_err(|cause| format!("read the log again: {cause}"))?;
        let Some(old) = self.jobs.remove(&reread.job) else {
            return Ok(());
        };
        match (replayed, reread.given_up) {
            (Some(mut job), None) => {
                // What workers held when they joined says nothing about what they run now: nobody goes on with it,
                // and whoever still runs it would do so until the next generation, which a stop never lets begin.
                self.tell_everybody(&ToWorker::Teardown(newest_generation(&job)));
                job.assignment = None;
                drop(self.start_job(job, Some(old.restarts)).await?);
            }
            (Some(job), Some(failure)) => drop(self.keep_failed(job, failure).await?),
            (None, _) => warn!(job = %reread.job, "the log does not tell of this job any more"),
        }
        Ok(())
    }

    pub(super) fn job_ended(&mut self, job: &JobName, end: JobEnd, progress: JobProgress) {
        if let Some(job) = self.jobs.get_mut(job) {
            job.ended = Some((end, progress));
        }
    }

    pub(super) fn savepoints_changed(&mut self, job: &JobName, savepoints: Savepoints) {
        if let Some(job) = self.jobs.get_mut(job) {
            job.savepoints = savepoints;
        }
    }

    /// Hands the entry to the log, unless a submission takes the job's place: its actor would not learn of it.
    pub(super) fn record_savepoint(
        &mut self,
        job: &JobName,
        actor: ActorRef<JobMessage>,
        entry: Entry,
        recorded: Recorded,
    ) -> Result<(), ActorProcessingErr> {
        let is_its =
            |job: &&mut RunningJob| job.actor.get_id() == actor.get_id() && !job.is_starting;
        let Some(job) = self.jobs.get_mut(job).filter(is_its) else {
            recorded.refuse(ControlError::Unavailable {
                cause: format!("job {job} is being submitted; say it again"),
                active: None,
            });
            return Ok(());
        };
        if let Entry::SavepointDropped { name, .. } = &entry {
            job.savepoints.remove(name);
        }
        if let Recorded::Savepoint {
            name, savepoint, ..
        } = &recorded
        {
            let savepoint = savepoint.as_ref().clone();
            job.savepoints.entry(name.clone()).or_insert(savepoint);
        }
        let on_written = Box::new(move |seq| {
            // A job whose actor is gone is started anew from the log, which holds the entry.
            let _ = actor.cast(JobMessage::Recorded(recorded, seq));
        });
        self.log.cast(LogMessage::Append {
            entry: Box::new(entry),
            on_written,
        })?;
        Ok(())
    }

    pub(super) fn looked(
        &mut self,
        looked: BTreeMap<JobName, Looked>,
    ) -> Result<(), ActorProcessingErr> {
        for (name, looked) in looked {
            if let Some(job) = self.jobs.get_mut(&name) {
                // A job whose actor is gone learns it at the next look.
                let _ = job.actor.cast(JobMessage::Looked(looked));
                forget_of_ended(job, &looked, &self.log)?;
            }
        }
        Ok(())
    }

    pub(super) fn find(&self, job: &JobName) -> Result<ActorRef<JobMessage>, ControlError> {
        let Some(found) = self.jobs.get(job) else {
            let names = self.jobs.keys().map(JobName::as_str);
            return Err(ControlError::NotFound {
                name: job.to_string(),
                nearest: nearest(job.as_str(), names).map(str::to_owned),
            });
        };
        match &found.trouble {
            None => Ok(found.actor.clone()),
            Some(trouble) => Err(ControlError::Unavailable {
                cause: format!(
                    "job {job} is being started anew from the log after a defect: {trouble}"
                ),
                active: None,
            }),
        }
    }
}

/// Reads `job` from the log once `delay` is over and everything handed to the log actor before is durable.
async fn read_settled(
    store: StoreRef,
    log: ActorRef<LogMessage>,
    job: JobName,
    delay: Duration,
) -> Result<Option<ReplayedJob>, String> {
    tokio::time::sleep(delay).await;
    call!(log, LogMessage::Flush).map_err(|error| error.to_string())?;
    loop {
        match read_history(&store).await {
            Ok(mut history) => return Ok(history.jobs.remove(&job)),
            Err(error) if error.is_passing() => {
                warn!(%job, error = %chain(&error), "read the log again; trying on");
                tokio::time::sleep(READ_RETRY).await;
            }
            Err(error) => return Err(chain(&error)),
        }
    }
}

fn newest_generation(job: &ReplayedJob) -> JobGeneration {
    JobGeneration {
        job: job.entry.job.clone(),
        generation: job.generation,
    }
}

/// The actor of a job that has ended records nothing any more. Not while a submission that goes on with it is on its way: that may begin
/// with what is kept.
fn forget_of_ended(
    job: &mut RunningJob,
    looked: &Looked,
    log: &ActorRef<LogMessage>,
) -> Result<(), ActorProcessingErr> {
    let Some((_, progress)) = job.ended.as_mut().filter(|_| !job.is_starting) else {
        return Ok(());
    };
    let through = progress.forgettable(looked.forgettable);
    if looked.life != job.entry.incarnation || through <= progress.retained_from {
        return Ok(());
    }
    progress.forget(through);
    let entry = Entry::Forgotten {
        job: job.entry.job.clone(),
        incarnation: job.entry.incarnation,
        through,
    };
    log.cast(LogMessage::Append {
        entry: Box::new(entry),
        on_written: Box::new(drop),
    })?;
    Ok(())
}

/// Options that do not resolve are the user's; anything else is a defect.
fn start_failure(failed: SpawnErr) -> Failure {
    match &failed {
        SpawnErr::StartupFailed(cause) => match cause.downcast_ref::<EnumerateError>() {
            Some(error) => Failure::new(error.kind, "start of the job", error),
            None => Failure::new(Kind::Internal, "start of the job", cause.as_ref()),
        },
        SpawnErr::ActorAlreadyStarted | SpawnErr::ActorAlreadyRegistered(_) => {
            Failure::new(Kind::Internal, "start of the job", &failed)
        }
    }
}
