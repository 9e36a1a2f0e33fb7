//! The root of a master's actors: jobs, workers, and the commands of people.
//!
//! Supervision tree: 1. the log actor; 2. one job actor a job (which supervises its enumerators).
//! Receives frames from the link service and commands from the control service; forwards, and decides only whether a
//! submission begins a job, resumes one, or is refused. Failure: a job's actor that fails is started anew from the log;
//! a log actor that ends (a newer master reigns) ends this master.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_common::control::ControlError;
use millstream_common::ids::{Epoch, Generation, Incarnation, JobName, WorkerId};
use millstream_common::link::{JobGeneration, ToMaster, ToWorker, WorkerHello};
use millstream_common::log::entry::{JobEnd, JobEntry, JobProgress};
use millstream_common::log::{self, Entry};
use millstream_common::plan::JobPlan;
use millstream_common::store::StoreRef;
use millstream_common::suggest::nearest;
use millstream_common::time::ClockRef;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::cluster::registry::{Registry, Session};
use crate::config::ConnectorsRef;
use crate::job::job_actor::{JobActor, JobConfig, JobMessage};
use crate::log_actor::LogMessage;
use crate::replay::{ReplayedJob, replay};
use crate::submit::{self, Decision};

/// What the supervisor takes.
pub enum SupervisorMessage {
    /// A worker has opened its stream; answered with its session.
    Joined {
        /// Who.
        hello: WorkerHello,
        /// Where frames for it go.
        frames: mpsc::Sender<ToWorker>,
        /// Its session.
        reply: RpcReplyPort<Session>,
    },
    /// A worker says something.
    Frame {
        /// Who.
        worker: WorkerId,
        /// In which session.
        session: u64,
        /// What.
        frame: Box<ToMaster>,
    },
    /// A worker's stream has ended.
    Left {
        /// Whose.
        worker: WorkerId,
        /// Which session.
        session: u64,
    },
    /// Look for workers that have gone silent.
    Expire,
    /// Begin or resume a job.
    Submit {
        /// What to run.
        submission: Box<Submission>,
        /// The job and the epoch it goes on from.
        reply: RpcReplyPort<Result<Started, ControlError>>,
    },
    /// A submission is durable.
    SubmissionRecorded {
        /// The job to start.
        job: Box<ReplayedJob>,
        /// Who asked.
        reply: RpcReplyPort<Result<Started, ControlError>>,
    },
    /// A job has ended; it can be resumed from here.
    JobEnded {
        /// Which.
        job: JobName,
        /// How.
        end: JobEnd,
        /// What it came to.
        progress: Box<JobProgress>,
    },
    /// The log cannot be written, or can again.
    LogTroubled(Option<String>),
    /// The actor of a job, or the nearest job's name.
    FindJob(
        JobName,
        RpcReplyPort<Result<ActorRef<JobMessage>, Option<String>>>,
    ),
    /// The actors of all jobs, by name.
    AllJobs(RpcReplyPort<Vec<ActorRef<JobMessage>>>),
    /// What is known of the workers.
    AllWorkers(RpcReplyPort<Vec<WorkerStatus>>),
}

/// A planned job to begin or resume.
#[derive(Debug)]
pub struct Submission {
    /// Its name.
    pub job: JobName,
    /// As written.
    pub sql: String,
    /// As planned.
    pub plan: JobPlan,
    /// Begin a new life even if the old one could go on.
    pub fresh: bool,
}

/// A job that has been begun or resumed.
#[derive(Clone, Debug)]
pub struct Started {
    /// Its actor.
    pub actor: ActorRef<JobMessage>,
    /// It goes on from this epoch; 0 is from nothing.
    pub resumed_from: Epoch,
}

/// A worker as the registry knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Its name.
    pub worker: WorkerId,
    /// Where its Flight server is reached.
    pub flight_address: String,
    /// Tasks of each stage that it runs.
    pub slots: u32,
    /// Of its program.
    pub version: String,
    /// Since it joined.
    pub age: Duration,
    /// Since it was last heard of.
    pub heartbeat_age: Duration,
}

/// What a supervisor begins with.
pub struct SupervisorConfig {
    /// Where the log lives.
    pub store: StoreRef,
    /// The one writer of the log.
    pub log: ActorRef<LogMessage>,
    /// What the log tells.
    pub jobs: BTreeMap<JobName, ReplayedJob>,
    /// Time.
    pub clock: ClockRef,
    /// For enumerators.
    pub connectors: ConnectorsRef,
}

/// The state of the supervisor.
pub struct SupervisorState {
    store: StoreRef,
    log: ActorRef<LogMessage>,
    clock: ClockRef,
    connectors: ConnectorsRef,
    registry: Registry,
    jobs: BTreeMap<JobName, RunningJob>,
    myself: ActorRef<SupervisorMessage>,
}

struct RunningJob {
    entry: JobEntry,
    actor: ActorRef<JobMessage>,
    /// How it ended and what it came to, once it has.
    ended: Option<(JobEnd, JobProgress)>,
    /// A submission that goes on with it is on its way into the log.
    is_starting: bool,
}

/// Half a heartbeat: a lost worker is noticed within three and a half.
const EXPIRE_INTERVAL: Duration = Duration::from_millis(150);

/// The actor.
pub struct SupervisorActor;

impl Actor for SupervisorActor {
    type Msg = SupervisorMessage;
    type State = SupervisorState;
    type Arguments = SupervisorConfig;

    async fn pre_start(
        &self,
        myself: ActorRef<SupervisorMessage>,
        config: SupervisorConfig,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        config.log.get_cell().link(myself.get_cell());
        let mut state = SupervisorState {
            store: config.store,
            log: config.log,
            clock: config.clock,
            connectors: config.connectors,
            registry: Registry::default(),
            jobs: BTreeMap::new(),
            myself: myself.clone(),
        };
        for job in config.jobs.into_values() {
            info!(job = %job.entry.job, epoch = %job.progress.epoch, end = ?job.end, "job found in the log");
            state.start_job(job).await?;
        }
        drop(myself.send_interval(EXPIRE_INTERVAL, || SupervisorMessage::Expire));
        Ok(state)
    }

    async fn handle(
        &self,
        _: ActorRef<SupervisorMessage>,
        message: SupervisorMessage,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        use SupervisorMessage as Message;
        match message {
            Message::Joined {
                hello,
                frames,
                reply,
            } => state.joined(hello, frames, reply),
            Message::Frame {
                worker,
                session,
                frame,
            } => state.frame(worker, session, *frame),
            Message::Left { worker, session } => state.left(worker, session),
            Message::Expire => state.expire(),
            Message::Submit { submission, reply } => state.submit(*submission, reply)?,
            Message::SubmissionRecorded { job, reply } => {
                state.submission_recorded(*job, reply).await?
            }
            Message::JobEnded { job, end, progress } => state.job_ended(&job, end, *progress),
            Message::LogTroubled(trouble) => {
                state.tell_jobs(|| JobMessage::LogTroubled(trouble.clone()))
            }
            Message::FindJob(job, reply) => answer(reply, state.find(&job)),
            Message::AllJobs(reply) => answer(
                reply,
                state.jobs.values().map(|job| job.actor.clone()).collect(),
            ),
            Message::AllWorkers(reply) => answer(reply, state.worker_statuses()),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SupervisorMessage>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => Ok(()),
            SupervisionEvent::ActorTerminated(child, _, reason) => {
                if child.get_id() == state.log.get_id() {
                    return Err(format!("the log actor ended: {reason:?}").into());
                }
                Ok(())
            }
            SupervisionEvent::ActorFailed(child, cause) => {
                if child.get_id() == state.log.get_id() {
                    error!(%cause, "the log cannot be written by this master");
                    myself.stop(Some(cause.to_string()));
                    return Ok(());
                }
                state.restart_job(&child, &cause.to_string()).await
            }
        }
    }
}

/// Answers a question; whoever has stopped waiting is not told.
pub(crate) fn answer<T: Send + 'static>(reply: RpcReplyPort<T>, value: T) {
    let _ = reply.send(value);
}

impl SupervisorState {
    fn joined(
        &mut self,
        hello: WorkerHello,
        frames: mpsc::Sender<ToWorker>,
        reply: RpcReplyPort<Session>,
    ) {
        info!(worker = %hello.worker, flight = %hello.flight_address, slots = hello.slots, "worker joined");
        let session = self.registry.join(hello, frames, self.clock.monotonic());
        answer(reply, session);
        self.tell_workers();
    }

    fn frame(&mut self, worker: WorkerId, session: u64, frame: ToMaster) {
        if !self
            .registry
            .heard(&worker, session, self.clock.monotonic())
        {
            return;
        }
        if let Some(at) = job_of(&frame)
            && let Some(job) = self.jobs.get(&at.job)
        {
            // A job whose actor is gone is being started anew and waits for no frame of before.
            let _ = job.actor.cast(JobMessage::Frame(worker, frame));
        }
    }

    fn left(&mut self, worker: WorkerId, session: u64) {
        if self.registry.leave(&worker, session) {
            info!(%worker, "worker left");
            self.tell_workers();
        }
    }

    fn expire(&mut self) {
        let lost = self.registry.expire(self.clock.monotonic());
        if lost.is_empty() {
            return;
        }
        warn!(workers = ?lost, "workers are silent and count as lost");
        self.tell_workers();
    }

    fn tell_workers(&self) {
        let workers = self.registry.workers();
        self.tell_jobs(|| JobMessage::WorkersChanged(workers.clone()));
    }

    fn tell_jobs(&self, message: impl Fn() -> JobMessage) {
        for job in self.jobs.values() {
            let _ = job.actor.cast(message());
        }
    }

    fn submit(
        &mut self,
        submission: Submission,
        reply: RpcReplyPort<Result<Started, ControlError>>,
    ) -> Result<(), ActorProcessingErr> {
        let existing = self.jobs.get_mut(&submission.job);
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
                answer(reply, Err(refused));
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
                let replayed = ReplayedJob {
                    entry: job.entry.clone(),
                    progress,
                    end: None,
                    generation: Generation::default(),
                };
                (resumed, replayed)
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
                let replayed = ReplayedJob {
                    entry: entry.clone(),
                    progress: JobProgress::default(),
                    end: None,
                    generation: Generation::default(),
                };
                (Entry::Job(Box::new(entry)), replayed)
            }
        };
        let myself = self.myself.clone();
        let on_written = Box::new(move |_| {
            let job = Box::new(job);
            let _ = myself.cast(SupervisorMessage::SubmissionRecorded { job, reply });
        });
        self.log.cast(LogMessage::Append {
            entry: Box::new(entry),
            on_written,
        })?;
        Ok(())
    }

    async fn submission_recorded(
        &mut self,
        job: ReplayedJob,
        reply: RpcReplyPort<Result<Started, ControlError>>,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(old) = self.jobs.remove(&job.entry.job) {
            old.actor.stop(None);
        }
        let resumed_from = job.progress.epoch;
        let actor = self.start_job(job).await?;
        answer(
            reply,
            Ok(Started {
                actor,
                resumed_from,
            }),
        );
        Ok(())
    }

    async fn start_job(
        &mut self,
        job: ReplayedJob,
    ) -> Result<ActorRef<JobMessage>, ActorProcessingErr> {
        let ended = job.end.clone().map(|end| (end, job.progress.clone()));
        let entry = job.entry.clone();
        let config = JobConfig {
            entry: job.entry,
            progress: job.progress,
            end: job.end,
            log: self.log.clone(),
            supervisor: self.myself.clone(),
            workers: self.registry.workers(),
            clock: self.clock.clone(),
            connectors: self.connectors.clone(),
        };
        let (actor, _) =
            Actor::spawn_linked(None, JobActor, config, self.myself.get_cell()).await?;
        let running = RunningJob {
            actor: actor.clone(),
            ended,
            is_starting: false,
            entry: entry.clone(),
        };
        self.jobs.insert(entry.job, running);
        Ok(actor)
    }

    /// A job's actor has failed, which is a defect of ours; the log knows where it stood.
    async fn restart_job(
        &mut self,
        child: &ractor::ActorCell,
        cause: &str,
    ) -> Result<(), ActorProcessingErr> {
        let failed = self
            .jobs
            .iter()
            .find(|(_, job)| job.actor.get_id() == child.get_id());
        let Some(name) = failed.map(|(name, _)| name.clone()) else {
            return Ok(());
        };
        error!(job = %name, %cause, "job actor failed; starting it anew from the log");
        let objects = log::read_all(&self.store).await?;
        let mut jobs = replay(log::canonical(&objects))?;
        if let Some(job) = jobs.remove(&name) {
            self.start_job(job).await?;
        }
        Ok(())
    }

    fn job_ended(&mut self, job: &JobName, end: JobEnd, progress: JobProgress) {
        if let Some(job) = self.jobs.get_mut(job) {
            job.ended = Some((end, progress));
        }
    }

    fn find(&self, job: &JobName) -> Result<ActorRef<JobMessage>, Option<String>> {
        match self.jobs.get(job) {
            Some(found) => Ok(found.actor.clone()),
            None => {
                let names = self.jobs.keys().map(JobName::as_str);
                Err(nearest(job.as_str(), names).map(str::to_owned))
            }
        }
    }

    fn worker_statuses(&self) -> Vec<WorkerStatus> {
        let now = self.clock.monotonic();
        let members = self.registry.members().iter();
        members
            .map(|(worker, member)| WorkerStatus {
                worker: worker.clone(),
                flight_address: member.handle.flight_address.clone(),
                slots: member.handle.slots,
                version: member.version.clone(),
                age: now.saturating_sub(member.joined_at),
                heartbeat_age: now.saturating_sub(member.heard_at),
            })
            .collect()
    }
}

fn job_of(frame: &ToMaster) -> Option<&JobGeneration> {
    match frame {
        ToMaster::Hello(_) | ToMaster::Heartbeat => None,
        ToMaster::Deployed(at)
        | ToMaster::Snapshotted(at, _)
        | ToMaster::PipelineFailed(at, _)
        | ToMaster::SinkAdvanced { at, .. }
        | ToMaster::SinkTroubled { at, .. }
        | ToMaster::TornDown(at) => Some(at),
    }
}
