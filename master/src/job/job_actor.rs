//! The actor of one job: receives everything about it and keeps its state.
//!
//! Child of the master's supervisor, which sends it commands of people, the workers as they come and go, and the frames of
//! its workers; the log actor answers its entries. Children: one enumerator a source. Decisions are in `lifecycle.rs` and the pure
//! modules beside it. Keeps INV-4: frames of another generation than the running one are dropped.
//! Failure: an error here is a defect; the supervisor starts the job anew from the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use millstream_common::control::{
    CheckpointView, ControlError, JobView, PlanView, RewindTerms, SavepointView, SinkCommand,
    SinkView, StopMode, Stopped, StorageUse, WatermarksView,
};
use millstream_common::error::Failure;
use millstream_common::ids::{
    Epoch, Generation, Incarnation, JobName, Seq, SinkIndex, SourceIndex, WorkerId,
};
use millstream_common::link::{BarrierKind, Held, ToMaster, ToWorker};
use millstream_common::log::backlog::BacklogPart;
use millstream_common::log::entry::{Assignment, JobEnd, JobEntry, JobProgress, ReplayEntry};
use millstream_common::log::savepoint::Savepoints;
use millstream_common::report::SplitStart;
use millstream_common::store::StoreRef;
use millstream_common::time::ClockRef;
use millstream_common::trace::TracerRef;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinSet;

use super::barrier_pace::BarrierPace;
use super::claims::Claims;
use super::enumerator_actor::{Discovery, EnumeratorMessage, spawn_enumerators};
use super::epochs::ShownEpochs;
use super::figures::{JobFigures, Tally, Told};
use super::paces::Paces;
use super::placed::Placed;
use super::quotas::Quotas;
use super::reattach::Lasting;
use super::recorded::Recorded;
use super::recovery_time::RecoveryTime;
use super::refused::Refusals;
use super::rescale::Rescale;
use super::restart::RestartPolicy;
use super::rewind::{FoundRewind, Rewinds};
use super::savepoint::Kept;
use super::takeover::first_phase;
use super::traces::JobTraces;
use super::watermarks::Sightings;
use crate::checkpoint::coordinator::Coordinator;
use crate::config::ConnectorsRef;
use crate::log_actor::LogMessage;
use crate::replay::retold::Retold;
use crate::retention::Looked;
use crate::supervisor::supervisor_actor::SupervisorMessage;

/// A worker as a job sees it.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    /// Tells one connection of a worker from its next one.
    pub session: u64,
    /// Tasks of each stage that it runs.
    pub slots: u32,
    /// Where its Flight server is reached.
    pub flight_address: String,
    /// The pipelines that it held when it joined.
    pub held: Arc<[Held]>,
    /// It is to be given no tasks, and goes once nothing counts on it.
    pub is_leaving: bool,
    /// Monotonic microseconds of its last sign of life.
    pub heard_us: Arc<AtomicU64>,
    /// What it is sent; bounded (INV-9), see [`Sent::Overrun`].
    pub frames: mpsc::Sender<ToWorker>,
}

/// What became of a frame for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It waits to be sent, or the session has ended, which its workers are told of.
    Settled,
    /// Too many wait already: the session has to end, for the worker would miss this one for ever.
    Overrun,
}

impl WorkerHandle {
    /// Hands a frame to the worker's link.
    pub fn send(&self, frame: ToWorker) -> Sent {
        match self.frames.try_send(frame) {
            Ok(()) | Err(TrySendError::Closed(_)) => Sent::Settled,
            Err(TrySendError::Full(_)) => Sent::Overrun,
        }
    }
}

/// The workers that have joined.
pub type Workers = Arc<BTreeMap<WorkerId, WorkerHandle>>;

/// What a worker has of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The worker.
    pub worker: WorkerId,
    /// The job.
    pub job: JobName,
    /// Its tasks there.
    pub tasks: u32,
    /// Its splits there.
    pub splits: u32,
}

/// What a timer reminds of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// The next barrier of this generation.
    Barrier(Generation),
    /// Another attempt after a failure.
    Retry,
    /// A look for splits of the source.
    Discovery(SourceIndex),
    /// Sinks have had their time to hold the last epoch of a stop.
    Delivery(Generation),
    /// Workers have had their time to come back with what they hold.
    Reattachment,
    /// Workers that come and go have been gathered.
    Rescale,
}

/// What a job's actor takes.
pub enum JobMessage {
    /// The workers have changed.
    WorkersChanged(Workers),
    /// A worker says something about this job.
    Frame(WorkerId, ToMaster),
    /// An entry is durable; the position of its object.
    Recorded(Recorded, Seq),
    /// An enumerator has looked.
    Discovered {
        /// The source.
        source: SourceIndex,
        /// What was found.
        result: Result<Discovery, Failure>,
    },
    /// Epochs that sinks lack are in storage, or why not.
    PutAway(Result<Option<Box<BacklogPart>>, String>),
    /// A timer.
    Due(Due),
    /// The log cannot be written, or can again.
    LogTroubled(Option<String>),
    /// The collector has looked at what storage holds for the job.
    Looked(Looked),
    /// End the job.
    Stop {
        /// How.
        mode: StopMode,
        /// Answered when it has ended.
        reply: RpcReplyPort<Stopped>,
    },
    /// Pause or resume a sink.
    CommandSink {
        /// Its name.
        sink: String,
        /// What to do.
        command: SinkCommand,
        /// The sink as it is then, or why not.
        reply: RpcReplyPort<Result<SinkView, ControlError>>,
    },
    /// Send a sink back to an earlier epoch.
    RewindSink {
        /// Its name.
        sink: String,
        /// How.
        terms: RewindTerms,
        /// The sink as it is then, or why not.
        reply: RpcReplyPort<Result<SinkView, ControlError>>,
    },
    /// The epoch to send a sink back to was found, or why not.
    RewindFound(Box<FoundRewind>),
    /// Whether rows can be sent through the job again; asked before any are stored.
    TakesReplays {
        /// Which life of it.
        incarnation: Incarnation,
        /// Why not.
        reply: RpcReplyPort<Result<(), ControlError>>,
    },
    /// Send stored rows through the job.
    Replay {
        /// Which.
        entry: Box<ReplayEntry>,
        /// Once the log has it: whether it was unknown.
        reply: RpcReplyPort<Result<bool, ControlError>>,
    },
    /// Keep the next epoch by name.
    Savepoint {
        /// Its name; by default of the epoch's number.
        name: Option<String>,
        /// The savepoint once it is in the log, or why not.
        reply: RpcReplyPort<Result<SavepointView, ControlError>>,
    },
    /// Keep a savepoint no longer.
    DropSavepoint {
        /// Its name.
        name: String,
        /// As it was, once the log says so, or why not.
        reply: RpcReplyPort<Result<SavepointView, ControlError>>,
    },
    /// Its savepoints, oldest first.
    Savepoints(RpcReplyPort<Vec<SavepointView>>),
    /// The job as people see it.
    View(RpcReplyPort<JobView>),
    /// Its SQL, and what that was planned to.
    Plan(RpcReplyPort<PlanView>),
    /// What it runs, and where.
    Placed(RpcReplyPort<Result<Placed, ControlError>>),
    /// How far time has come in it.
    Watermarks(RpcReplyPort<WatermarksView>),
    /// The job for a scrape.
    Figures(RpcReplyPort<JobFigures>),
    /// What each worker has of it.
    Shares(RpcReplyPort<Vec<Share>>),
    /// Its newest epochs, newest first.
    Checkpoints(usize, RpcReplyPort<Vec<CheckpointView>>),
}

/// Where a job stands.
#[derive(Debug)]
pub(super) enum Phase {
    /// For the workers that ran it under the last master.
    Reattaching {
        /// What they ran.
        lasting: Lasting,
        /// One of them is back, and the time of the others runs.
        is_timed: bool,
    },
    /// For the first look at its sources, or for a worker.
    Waiting,
    /// The Assign entry is on its way into the log.
    Assigning,
    /// Workers build; those named have not answered.
    Deploying(BTreeSet<WorkerId>),
    /// Epoch after epoch.
    Running,
    /// A timer runs until the next attempt.
    Recovering,
    /// The last epoch is committed; sinks catch up.
    Delivering(JobEnd),
    /// The Ended entry is on its way into the log.
    Ending,
    /// Over.
    Ended(JobEnd),
}

/// What a job begins with.
pub struct JobConfig {
    /// As submitted.
    pub entry: JobEntry,
    /// Folded from the log.
    pub progress: JobProgress,
    /// How it ended, if it did.
    pub end: Option<JobEnd>,
    /// Folded from the log.
    pub savepoints: Savepoints,
    /// What its workers may hold under a new master; `None` under the one that placed it.
    pub(crate) lasting: Option<Lasting>,
    /// By the log, what may be missing in its traces.
    pub(crate) retold: Retold,
    /// Where epochs that sinks lack are put away.
    pub store: StoreRef,
    /// As [`Retention::recent_weight_max`](crate::retention::Retention::recent_weight_max).
    pub recent_weight_max: usize,
    /// The one writer of the log.
    pub log: ActorRef<LogMessage>,
    /// Told when the job has ended.
    pub supervisor: ActorRef<SupervisorMessage>,
    /// The workers now.
    pub workers: Workers,
    /// Time.
    pub clock: ClockRef,
    /// Where spans go.
    pub tracer: TracerRef,
    /// For enumerators.
    pub connectors: ConnectorsRef,
}

/// The state of a job's actor.
pub struct JobState {
    pub(super) entry: JobEntry,
    pub(super) progress: JobProgress,
    pub(super) phase: Phase,
    pub(super) generation: Generation,
    pub(super) assignment: Assignment,
    /// The sessions that the assignment counts on.
    pub(super) sessions: BTreeMap<WorkerId, u64>,
    pub(super) coordinator: Coordinator,
    pub(super) workers: Workers,
    pub(super) claims: Claims,
    /// The splits of the assignment that is on its way into the log.
    pub(super) starts: Vec<SplitStart>,
    /// Counts the Assign entries that this actor has asked for.
    pub(super) attempt: u64,
    /// An Epoch entry is on its way into the log: nothing may be placed before its answer.
    pub(super) committing: bool,
    /// The barrier that all tasks have passed, until its epoch is recorded or found empty.
    pub(super) passed: Option<(BarrierKind, bool)>,
    /// By source: has been looked at, and no split can appear any more.
    pub(super) looked: Vec<bool>,
    pub(super) exhausted: Vec<bool>,
    pub(super) enumerators: Vec<ActorRef<EnumeratorMessage>>,
    pub(super) restarts: RestartPolicy,
    pub(super) stop: Option<StopMode>,
    pub(super) stop_replies: Vec<RpcReplyPort<Stopped>>,
    pub(super) rescale: Rescale,
    pub(super) savepoints: Kept,
    /// Of this generation.
    pub(super) barrier_pace: BarrierPace,
    pub(super) refusals: Refusals,
    pub(super) quotas: Quotas,
    pub(super) rewinds: Rewinds,
    /// Epochs on their way into storage, and whether any are, or are not in the log yet.
    pub(super) puts_away: JoinSet<()>,
    pub(super) is_putting_away: bool,
    pub(super) observed: Observed,
    pub(super) traces: JobTraces,
    pub(super) store: StoreRef,
    pub(super) recent_weight_max: usize,
    pub(super) log: ActorRef<LogMessage>,
    pub(super) supervisor: ActorRef<SupervisorMessage>,
    pub(super) clock: ClockRef,
    pub(super) myself: ActorRef<JobMessage>,
}

/// What is kept only to be shown.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// Why the job waits or recovers.
    pub(super) cause: String,
    /// When it was interrupted last, and why.
    pub(super) last_failure: Option<(Duration, String)>,
    /// Why the log cannot be written.
    pub(super) log_trouble: Option<String>,
    pub(super) restart_count: u32,
    /// Read behind the last committed epoch of some generation.
    pub(super) rows_reread: u64,
    pub(super) recovery: RecoveryTime,
    /// Monotonic microseconds of the last sign of life of a worker that is lost.
    pub(super) heard_us: Option<u64>,
    /// When the barrier that is being committed was triggered.
    pub(super) barrier_since: Duration,
    pub(super) rows_per_second: f64,
    pub(super) last_commit: Option<Duration>,
    /// Why nobody can look for splits of a source.
    pub(super) discovery_troubles: BTreeMap<SourceIndex, String>,
    /// What hinders the readers of a worker.
    pub(super) reader_troubles: BTreeMap<WorkerId, BTreeMap<SourceIndex, String>>,
    pub(super) sink_causes: BTreeMap<SinkIndex, String>,
    /// When rows last arrived in a sink.
    pub(super) sink_moved: BTreeMap<SinkIndex, Duration>,
    /// When this actor began.
    pub(super) begun: Duration,
    /// When the epochs that some sink lacks were committed, as far as this actor saw it.
    pub(super) commit_times: BTreeMap<Epoch, Duration>,
    pub(super) epochs: ShownEpochs,
    /// As of the collector's last look.
    pub(super) storage: Option<StorageUse>,
    pub(super) tally: Tally,
    pub(super) told: Told,
    pub(super) paces: Paces,
    pub(super) sightings: Sightings,
}

/// The actor.
pub struct JobActor;

impl Actor for JobActor {
    type Msg = JobMessage;
    type State = JobState;
    type Arguments = JobConfig;

    async fn pre_start(
        &self,
        myself: ActorRef<JobMessage>,
        config: JobConfig,
    ) -> Result<JobState, ActorProcessingErr> {
        let source_count = config.entry.plan.sources.len();
        let enumerators = match config.end {
            None => spawn_enumerators(&config, &myself).await?,
            Some(_) => Vec::new(),
        };
        let traces = JobTraces::begin(&config);
        let mut state = JobState {
            traces,
            restarts: RestartPolicy::new(&config.entry.plan.settings),
            coordinator: Coordinator::new(BTreeSet::new(), config.progress.epoch),
            phase: first_phase(config.end, config.lasting, &config.progress),
            entry: config.entry,
            progress: config.progress,
            generation: Generation(0),
            assignment: Assignment::default(),
            sessions: BTreeMap::new(),
            workers: config.workers,
            claims: Claims::default(),
            starts: Vec::new(),
            attempt: 0,
            committing: false,
            passed: None,
            looked: vec![false; source_count],
            exhausted: vec![false; source_count],
            enumerators,
            stop: None,
            stop_replies: Vec::new(),
            rescale: Rescale::default(),
            savepoints: Kept::of(config.savepoints),
            barrier_pace: BarrierPace::default(),
            refusals: Refusals::default(),
            quotas: Quotas::default(),
            rewinds: Rewinds::default(),
            observed: Observed {
                begun: config.clock.monotonic(),
                ..Observed::default()
            },
            puts_away: JoinSet::new(),
            is_putting_away: false,
            store: config.store,
            recent_weight_max: config.recent_weight_max,
            log: config.log,
            supervisor: config.supervisor,
            clock: config.clock,
            myself,
        };
        state.claim_replays();
        state.discover_all()?;
        state.begin_reattaching()?;
        state.vacate()?;
        Ok(state)
    }

    async fn handle(
        &self,
        _: ActorRef<JobMessage>,
        message: JobMessage,
        state: &mut JobState,
    ) -> Result<(), ActorProcessingErr> {
        let handled = match message {
            JobMessage::WorkersChanged(workers) => state.workers_changed(workers),
            JobMessage::Frame(worker, frame) => state.frame(worker, frame),
            JobMessage::Recorded(recorded, seq) => state.recorded(recorded, seq),
            JobMessage::Discovered { source, result } => state.discovered(source, result),
            JobMessage::PutAway(stored) => state.stored(stored),
            JobMessage::Due(due) => state.due(due),
            JobMessage::LogTroubled(trouble) => state.log_troubled(trouble),
            JobMessage::Looked(looked) => state.looked(looked),
            JobMessage::Stop { mode, reply } => state.stop(mode, reply),
            JobMessage::CommandSink {
                sink,
                command,
                reply,
            } => state.command_sink(&sink, command, reply),
            JobMessage::RewindSink { sink, terms, reply } => state.rewind_sink(&sink, terms, reply),
            JobMessage::RewindFound(found) => state.rewind_found(*found),
            JobMessage::TakesReplays { incarnation, reply } => {
                state.answer(reply, |state| state.takes_replays(incarnation))
            }
            JobMessage::Replay { entry, reply } => state.replay(*entry, reply),
            JobMessage::Savepoint { name, reply } => state.create_savepoint(name, reply),
            JobMessage::DropSavepoint { name, reply } => state.drop_savepoint(name, reply),
            JobMessage::Savepoints(reply) => state.answer(reply, JobState::savepoint_views),
            JobMessage::View(reply) => state.answer(reply, JobState::view),
            JobMessage::Plan(reply) => state.answer(reply, JobState::plan_view),
            JobMessage::Placed(reply) => state.answer(reply, JobState::placed),
            JobMessage::Watermarks(reply) => state.answer(reply, JobState::watermarks),
            JobMessage::Figures(reply) => state.tell_figures(reply),
            JobMessage::Shares(reply) => state.answer(reply, JobState::shares),
            JobMessage::Checkpoints(limit, reply) => {
                state.answer(reply, |state| state.newest_checkpoints(limit))
            }
        };
        handled?;
        state.vacate()
    }

    /// An enumerator answers with errors and does not end by itself: its end is a defect.
    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<JobMessage>,
        event: SupervisionEvent,
        _: &mut JobState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => Ok(()),
            SupervisionEvent::ActorTerminated(child, _, reason) => {
                Err(format!("enumerator {} ended: {reason:?}", child.get_id()).into())
            }
            SupervisionEvent::ActorFailed(child, cause) => {
                Err(format!("enumerator {} failed: {cause}", child.get_id()).into())
            }
        }
    }
}
