//! The root of a master's actors: jobs, workers, and the commands of people.
//!
//! Supervision tree: 1. the log actor; 2. one job actor a job (which supervises its enumerators); 3. the collector; 4. the clerk.
//! Receives frames from the link service and commands from the control service; nothing in its handlers waits for storage or
//! a service, for heartbeats come through them. Failure: a job's actor that ends is started anew from the log (`jobs.rs`);
//! a log actor that ends (another master reigns) ends this reign.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_common::control::ControlError;
use millstream_common::ids::{JobName, WorkerId};
use millstream_common::link::{ToMaster, ToWorker, WorkerHello};
use millstream_common::log::Entry;
use millstream_common::log::entry::{JobEnd, JobProgress};
use millstream_common::log::savepoint::Savepoints;
use millstream_common::store::StoreRef;
use millstream_common::time::ClockRef;
use millstream_common::trace::TracerRef;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{error, info};

use super::jobs::{Reread, RunningJob};
use super::submission::{Asked, Started, Starting, Submission};
use super::workers::WorkerStatus;
use crate::cluster::registry::{NameTaken, Registry, Session};
use crate::config::ConnectorsRef;
use crate::job::job_actor::JobMessage;
use crate::job::recorded::Recorded;
use crate::log_actor::LogMessage;
use crate::replay::ReplayedJob;
use crate::retention::Looked;

/// What the supervisor takes.
pub enum SupervisorMessage {
    /// A worker has opened its stream; answered with its session.
    Joined {
        /// Who.
        hello: WorkerHello,
        /// Where frames for it go.
        frames: mpsc::Sender<ToWorker>,
        /// Its session.
        reply: RpcReplyPort<Result<Session, NameTaken>>,
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
    /// A worker does not take its frames: its queue is full.
    Overrun {
        /// Who.
        worker: WorkerId,
        /// In which session.
        session: u64,
    },
    /// A job does not count on a leaving worker any more.
    Vacated {
        /// Which worker.
        worker: WorkerId,
        /// In which session.
        session: u64,
        /// The job.
        job: JobName,
    },
    /// A person wants a worker to be given no tasks.
    DrainWorker(WorkerId, RpcReplyPort<Result<(), ControlError>>),
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
        /// What a person should know of what was carried over.
        notes: Vec<String>,
        /// Who asked.
        asked: Asked,
    },
    /// The log has been read again for a job whose actor had ended.
    JobReread(Box<Reread>),
    /// A job has ended; it can be resumed from here.
    JobEnded {
        /// Which.
        job: JobName,
        /// How.
        end: JobEnd,
        /// What it came to.
        progress: Box<JobProgress>,
    },
    /// A job has other savepoints than before.
    SavepointsChanged {
        /// Which.
        job: JobName,
        /// All of them.
        savepoints: Box<Savepoints>,
    },
    /// A savepoint is dropped, or made of a job that has ended: between submissions, which go on from savepoints.
    RecordSavepoint {
        /// Of which job.
        job: JobName,
        /// Who asks.
        actor: ActorRef<JobMessage>,
        /// What the log is to say.
        entry: Box<Entry>,
        /// For whoever asks, once it does.
        recorded: Box<Recorded>,
    },
    /// The log cannot be written, or can again.
    LogTroubled(Option<String>),
    /// The collector has looked at what storage holds for each job.
    Looked(BTreeMap<JobName, Looked>),
    /// The actor of a job, or why there is none to be asked.
    FindJob(
        JobName,
        RpcReplyPort<Result<ActorRef<JobMessage>, ControlError>>,
    ),
    /// The actors of all jobs, by name.
    AllJobs(RpcReplyPort<Vec<ActorRef<JobMessage>>>),
    /// What is known of the workers.
    AllWorkers(RpcReplyPort<Vec<WorkerStatus>>),
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
    /// Where spans go.
    pub tracer: TracerRef,
    /// For enumerators.
    pub connectors: ConnectorsRef,
    /// As [`Retention::recent_weight_max`](crate::retention::Retention::recent_weight_max).
    pub recent_weight_max: usize,
}

/// The state of the supervisor.
pub struct SupervisorState {
    pub(super) store: StoreRef,
    pub(super) log: ActorRef<LogMessage>,
    pub(super) clock: ClockRef,
    pub(super) tracer: TracerRef,
    pub(super) connectors: ConnectorsRef,
    pub(super) recent_weight_max: usize,
    pub(super) registry: Registry,
    pub(super) jobs: BTreeMap<JobName, RunningJob>,
    /// Jobs whose entries are on their way into the log.
    pub(super) starting: BTreeMap<JobName, Starting>,
    pub(super) myself: ActorRef<SupervisorMessage>,
    /// Reads of the log for jobs whose actors have ended.
    pub(super) rereads: JoinSet<()>,
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
            tracer: config.tracer,
            connectors: config.connectors,
            recent_weight_max: config.recent_weight_max,
            registry: Registry::default(),
            jobs: BTreeMap::new(),
            starting: BTreeMap::new(),
            myself: myself.clone(),
            rereads: JoinSet::new(),
        };
        for job in config.jobs.into_values() {
            info!(job = %job.entry.job, epoch = %job.progress.epoch, end = ?job.end, "job found in the log");
            state.start_job(job, None).await?;
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
            Message::Overrun { worker, session } => state.overrun(&worker, session),
            Message::Vacated {
                worker,
                session,
                job,
            } => state.vacated(&worker, session, job),
            Message::DrainWorker(worker, reply) => answer(reply, state.drain_worker(&worker)),
            Message::Expire => state.expire(),
            Message::Submit { submission, reply } => state.submit(*submission, reply)?,
            Message::SubmissionRecorded { job, notes, asked } => {
                state.submission_recorded(*job, notes, asked).await?
            }
            // A job and its start are large, and this is rare.
            Message::JobReread(reread) => Box::pin(state.job_reread(*reread)).await?,
            Message::JobEnded { job, end, progress } => state.job_ended(&job, end, *progress),
            Message::SavepointsChanged { job, savepoints } => {
                state.savepoints_changed(&job, *savepoints)
            }
            Message::RecordSavepoint {
                job,
                actor,
                entry,
                recorded,
            } => state.record_savepoint(&job, actor, *entry, *recorded)?,
            Message::LogTroubled(trouble) => {
                state.tell_jobs(|| JobMessage::LogTroubled(trouble.clone()))
            }
            Message::Looked(looked) => state.looked(looked)?,
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
                // Nobody stops the actor of a job that is still in the list.
                let cause = reason.unwrap_or_else(|| "it ended by itself".to_owned());
                state.job_failed(child.get_id(), &cause);
                Ok(())
            }
            SupervisionEvent::ActorFailed(child, cause) => {
                if child.get_id() == state.log.get_id() {
                    error!(%cause, "the log cannot be written by this master");
                    myself.stop(Some(cause.to_string()));
                    return Ok(());
                }
                state.job_failed(child.get_id(), &cause.to_string());
                Ok(())
            }
        }
    }
}

/// Answers a question; whoever has stopped waiting is not told.
pub(crate) fn answer<T: Send + 'static>(reply: RpcReplyPort<T>, value: T) {
    let _ = reply.send(value);
}
