//! The root of a worker's actors: one pipeline a job, and the link to the master.
//!
//! Supervision tree: 1. one pipeline actor a job (and generation), which supervises its tasks and sinks. Receives the master's frames
//! from `link.rs`, forwards those of a running generation to its pipeline, and says back what pipelines report. Keeps INV-4: frames of another
//! generation than the pipeline's are dropped; a new generation ends the old one first; a master of an older term is let go.
//! Failure: a pipeline that ends by itself is reported to the master, which rewinds the job. Without a master, pipelines that
//! have begun run on for [`HOLD_MAX`]: what they say is kept (`holding`) for the next master, which goes on with them or
//! deploys anew from the last epoch in its log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream_common::error::{Failure, Kind};
use millstream_common::ids::{JobName, Term, nonce};
use millstream_common::link::{JobGeneration, ToMaster, ToWorker, WorkerHello};
use millstream_common::plan::expression::Functions;
use millstream_common::store::StoreRef;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::config::WorkerConfig;
use crate::exchange::registry::EdgeRegistry;
use crate::figures::Figures;
use crate::holding::Holding;
use crate::leaving::{Leaving, Left};
use crate::link::{LinkConfig, keep_link};
use crate::pipeline::pipeline_actor::PipelineMessage;
use crate::preview::board::TapBoard;
use crate::spans::EndedSpans;
use millstream_common::task;

/// How long pipelines run on while no master has confirmed them. They read on and fold, but nothing of it can be
/// recorded; after this, a rewind costs less than what they hold.
pub const HOLD_MAX: Duration = Duration::from_secs(30);

/// What the supervisor takes.
pub enum SupervisorMessage {
    /// Who the worker is and what it holds, for a dial.
    Hello(RpcReplyPort<WorkerHello>),
    /// A master has said Welcome.
    Attached {
        /// Where frames for it go.
        frames: mpsc::Sender<ToMaster>,
        /// The master's reign.
        term: Term,
        /// The storage to use.
        storage_url: String,
    },
    /// The link is lost.
    Detached,
    /// Pipelines that no master has confirmed since this loss end.
    GiveUp {
        /// Which loss.
        loss: u64,
    },
    /// The master says something.
    Frame(Box<ToWorker>),
    /// A pipeline says something to the master.
    Report(ToMaster),
    /// The process is to end: answered when nothing counts on the worker any more.
    Leave(RpcReplyPort<Left>),
    /// A leaving worker has had its time to find another master after this loss.
    LeaveAlone {
        /// Which loss.
        loss: u64,
    },
}

/// What a worker's supervisor begins with.
pub struct SupervisorConfig {
    /// The worker's surroundings.
    pub worker: WorkerConfig,
    /// How others reach the Flight server.
    pub flight_address: String,
    /// The incoming edges, shared with the Flight server.
    pub edges: Arc<EdgeRegistry>,
    /// What can be looked at, shared with the Flight server.
    pub taps: Arc<TapBoard>,
    /// Told what is counted.
    pub figures: Arc<Figures>,
    /// Whether a master counts on the worker, for whoever asks.
    pub has_joined: watch::Sender<bool>,
}

/// The state of a worker's supervisor.
pub struct SupervisorState {
    pub(crate) config: SupervisorConfig,
    /// Unique to this worker process.
    process: String,
    pub(crate) functions: Functions,
    /// The master and its storage, while attached.
    pub(crate) attached: Option<(mpsc::Sender<ToMaster>, StoreRef)>,
    /// The newest reign heard of.
    term: Term,
    storage: Option<(String, StoreRef)>,
    pub(crate) pipelines: BTreeMap<JobName, Pipeline>,
    ended_spans: EndedSpans,
    /// The last failure of each job that no master could be told of.
    untold: BTreeMap<JobName, (JobGeneration, Failure)>,
    pub(crate) leaving: Leaving,
    /// Counts how often a master was lost.
    pub(crate) losses: u64,
    pub(crate) myself: ActorRef<SupervisorMessage>,
    _tasks: JoinSet<()>,
}

pub(crate) struct Pipeline {
    pub(crate) holding: Holding,
    pub(crate) actor: ActorRef<PipelineMessage>,
    /// Its master was lost, and no other has taken it over.
    pub(crate) is_orphan: bool,
}

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
        let link = LinkConfig {
            net: config.worker.net.clone(),
            addresses: config
                .worker
                .master
                .split(',')
                .map(|address| address.trim().to_owned())
                .collect(),
            supervisor: myself.clone(),
        };
        let mut tasks = JoinSet::new();
        let supervisor = myself.clone();
        tasks.spawn(async move {
            if let Err(panicked) = task::caught(keep_link(link)).await {
                // Without a link the worker is of no use; whoever runs it starts it again.
                supervisor.stop(Some(format!("link: {panicked}")));
            }
        });
        Ok(SupervisorState {
            config,
            process: nonce(),
            functions: Functions::new(),
            attached: None,
            term: Term::default(),
            storage: None,
            pipelines: BTreeMap::new(),
            ended_spans: EndedSpans::default(),
            untold: BTreeMap::new(),
            leaving: Leaving::default(),
            losses: 0,
            myself,
            _tasks: tasks,
        })
    }

    async fn handle(
        &self,
        _: ActorRef<SupervisorMessage>,
        message: SupervisorMessage,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMessage::Hello(reply) => state.hello(reply),
            SupervisorMessage::Attached {
                frames,
                term,
                storage_url,
            } => state.attached(frames, term, storage_url).await,
            SupervisorMessage::Detached => state.detached(),
            SupervisorMessage::GiveUp { loss } => state.give_up(loss),
            SupervisorMessage::Frame(frame) => state.frame(*frame).await?,
            SupervisorMessage::Report(frame) => state.report(frame),
            SupervisorMessage::Leave(reply) => state.leave(reply),
            SupervisorMessage::LeaveAlone { loss } => state.leave_alone(loss),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<SupervisorMessage>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => {}
            SupervisionEvent::ActorTerminated(child, _, reason) => {
                state.pipeline_ended(&child, reason.unwrap_or_else(|| "ended".to_owned()));
            }
            SupervisionEvent::ActorFailed(child, cause) => {
                state.pipeline_ended(&child, cause.to_string())
            }
        }
        Ok(())
    }
}

impl SupervisorState {
    fn hello(&self, reply: RpcReplyPort<WorkerHello>) {
        let pipelines = self.pipelines.values();
        let hello = WorkerHello {
            worker: self.config.worker.name.clone(),
            process: self.process.clone(),
            flight_address: self.config.flight_address.clone(),
            slots: self.config.worker.slots,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            held: pipelines
                .filter_map(|pipeline| pipeline.holding.held())
                .collect(),
            is_leaving: self.leaving.is_leaving(),
        };
        // A link that does not wait any more asks again.
        let _ = reply.send(hello);
    }

    /// Whoever is not attached is let go: dropping `frames` ends the link, and the next dial tries again.
    async fn attached(&mut self, frames: mpsc::Sender<ToMaster>, term: Term, url: String) {
        if term < self.term {
            warn!(%term, newest = %self.term, "a master of an older reign is let go");
            return;
        }
        self.term = term;
        let store = match self.open_storage(&url).await {
            Ok(store) => store,
            Err(error) => {
                // Without storage nothing can run.
                warn!(%url, %error, "open storage");
                return;
            }
        };
        self.attached = Some((frames, store));
        self.config.has_joined.send_replace(true);
        if self.leaving.is_leaving() {
            // Hello may have been said before.
            self.send(ToMaster::Leaving);
        }
        for (at, failure) in std::mem::take(&mut self.untold).into_values() {
            self.send(ToMaster::PipelineFailed(at, failure));
        }
    }

    async fn open_storage(
        &mut self,
        url: &str,
    ) -> Result<StoreRef, millstream_common::store::Error> {
        if let Some((known, store)) = &self.storage
            && known == url
        {
            return Ok(store.clone());
        }
        let store = self.config.worker.stores.open(url).await?;
        let known = self.storage.replace((url.to_owned(), store.clone()));
        if known.is_some() {
            let pipelines = self.pipelines.values();
            let running = pipelines.map(|pipeline| pipeline.holding.at().clone());
            for at in running.collect::<Vec<_>>() {
                let failure = Failure {
                    kind: Kind::External,
                    origin: "storage".to_owned(),
                    cause: format!("the master's storage is {url} now"),
                };
                self.report(ToMaster::PipelineFailed(at, failure));
            }
        }
        Ok(store)
    }

    /// Told at the end of every link, also of one that was let go.
    fn detached(&mut self) {
        if self.attached.is_some() {
            self.lose_master();
        }
    }

    /// Pipelines that have begun run on for a while; the others have nothing that would be lost.
    fn lose_master(&mut self) {
        self.attached = None;
        self.config.has_joined.send_replace(false);
        let fresh = self.pipelines.values();
        let fresh = fresh.filter(|pipeline| !pipeline.holding.is_started());
        let fresh: Vec<JobName> = fresh.map(|fresh| fresh.holding.at().job.clone()).collect();
        for job in fresh {
            self.end_pipeline(&job);
        }
        for pipeline in self.pipelines.values_mut() {
            pipeline.is_orphan = true;
        }
        self.losses += 1;
        let loss = self.losses;
        let give_up = move || SupervisorMessage::GiveUp { loss };
        // The timer ends with the actor, which is the only one that waits for it.
        drop(self.myself.send_after(HOLD_MAX, give_up));
        if self.leaving.is_ending() {
            self.leave_soon();
        }
    }

    fn give_up(&mut self, loss: u64) {
        if loss != self.losses {
            return;
        }
        let pipelines = self.pipelines.values();
        let orphans = pipelines.filter(|pipeline| pipeline.is_orphan);
        let orphans: Vec<JobGeneration> =
            orphans.map(|orphan| orphan.holding.at().clone()).collect();
        if self.attached.is_none() {
            // Whoever reigns now, perhaps over new storage: there is nothing left that another could spoil.
            self.term = Term::default();
        }
        for at in orphans {
            warn!(job = %at.job, generation = %at.generation, "no master goes on with the pipeline");
            self.end_pipeline(&at.job);
        }
    }

    /// A master goes on with a pipeline.
    fn resume(&mut self, at: &JobGeneration) {
        let pipeline = self.pipelines.get_mut(&at.job);
        let Some(pipeline) = pipeline.filter(|pipeline| pipeline.holding.at() == at) else {
            // It has ended since the worker said Hello: whoever goes on with it would wait for ever.
            let failure = Failure {
                kind: Kind::External,
                origin: "pipeline".to_owned(),
                cause: "ended before a master went on with it".to_owned(),
            };
            return self.send(ToMaster::PipelineFailed(at.clone(), failure));
        };
        pipeline.is_orphan = false;
        info!(job = %at.job, generation = %at.generation, "the master goes on with the pipeline");
        for frame in pipeline.holding.unheard() {
            self.send(frame);
        }
    }

    async fn frame(&mut self, frame: ToWorker) -> Result<(), ActorProcessingErr> {
        if self.attached.is_none() {
            // On its way from a master that the worker has let go of, perhaps of an older term: without effect (INV-4).
            return Ok(());
        }
        if let Some(pipeline) = frame.at().and_then(|at| self.running(at))
            && !pipeline.holding.heard(&frame)
        {
            return Ok(());
        }
        match frame {
            ToWorker::Deploy(deploy) => self.deploy(*deploy).await?,
            ToWorker::Start(at) => self.forward(&at, PipelineMessage::Start),
            ToWorker::Barrier(at, barrier) => self.forward(&at, PipelineMessage::Barrier(barrier)),
            ToWorker::EpochCommitted {
                at,
                epoch,
                positions,
                trace,
            } => {
                self.ended_spans.committed(&at, epoch.epoch, trace);
                self.forward(&at, PipelineMessage::EpochCommitted { epoch, positions });
            }
            ToWorker::AssignSplits(at, splits) => {
                self.forward(&at, PipelineMessage::AssignSplits(splits))
            }
            ToWorker::Backlog(at, parts) => self.forward(&at, PipelineMessage::Backlog(parts)),
            ToWorker::Resume(at) => self.resume(&at),
            ToWorker::CommandSink(at, sink, command) => {
                self.forward(&at, PipelineMessage::CommandSink(sink, command));
            }
            ToWorker::Teardown(at) => self.tear_down(at),
            ToWorker::Drain => self.leaving.drain(),
            ToWorker::Released { is_last } => self.released(is_last),
            ToWorker::Welcome { .. } | ToWorker::Ping => {}
        }
        Ok(())
    }

    /// The pipeline of exactly this generation.
    fn running(&mut self, at: &JobGeneration) -> Option<&mut Pipeline> {
        let pipeline = self.pipelines.get_mut(&at.job)?;
        (pipeline.holding.at() == at).then_some(pipeline)
    }

    fn forward(&mut self, at: &JobGeneration, message: PipelineMessage) {
        if let Some(pipeline) = self.running(at) {
            // A pipeline that has just ended is reported by its supervision event.
            let _ = pipeline.actor.cast(message);
        }
    }

    fn tear_down(&mut self, at: JobGeneration) {
        let pipeline = self.running(&at);
        let rows_reread = pipeline.map_or(0, |pipeline| pipeline.holding.rows_unrecorded());
        if self.running(&at).is_some() {
            self.end_pipeline(&at.job);
        }
        self.send(ToMaster::TornDown(at, rows_reread));
    }

    /// Kill, not stop: a handler that waits for credit cannot answer a stop.
    pub(crate) fn end_pipeline(&mut self, job: &JobName) {
        if let Some(pipeline) = self.pipelines.remove(job) {
            self.config.figures.ended(job);
            self.ended_spans.keep(pipeline.holding.spans().clone());
            pipeline.actor.get_cell().unlink(self.myself.get_cell());
            pipeline.actor.kill();
        }
    }

    fn pipeline_ended(&mut self, child: &ractor::ActorCell, cause: String) {
        let ended = self
            .pipelines
            .iter()
            .find(|(_, pipeline)| pipeline.actor.get_id() == child.get_id());
        let Some(job) = ended.map(|(job, _)| job.clone()) else {
            return;
        };
        if let Some(pipeline) = self.pipelines.remove(&job) {
            self.config.figures.ended(&job);
            self.ended_spans.keep(pipeline.holding.spans().clone());
            let failure = Failure {
                kind: Kind::Internal,
                origin: "pipeline".to_owned(),
                cause,
            };
            let at = pipeline.holding.at().clone();
            self.report(ToMaster::PipelineFailed(at, failure));
        }
    }

    fn report(&mut self, frame: ToMaster) {
        if let Some(pipeline) = frame.at().and_then(|at| self.running(at)) {
            pipeline.holding.said(&frame);
        }
        if let ToMaster::PipelineFailed(at, failure) = &frame {
            warn!(job = %at.job, generation = %at.generation, %failure, "pipeline failed");
            // What a pipeline of before said last must not end the one that took its place (INV-4).
            if self.running(at).is_some() {
                self.end_pipeline(&at.job.clone());
            }
        }
        self.send(frame);
    }

    /// A full queue means that the master does not take frames: the link is as good as lost. What is said while there is
    /// none is kept: by `holding` for a pipeline that runs on, here for one that does not.
    pub(crate) fn send(&mut self, frame: ToMaster) {
        let unsent = match &self.attached {
            None => Some(frame),
            Some((frames, _)) => match frames.try_send(frame) {
                Ok(()) => None,
                Err(error) => {
                    warn!(%error, "report to the master");
                    self.lose_master();
                    Some(error.into_inner())
                }
            },
        };
        if let Some(ToMaster::PipelineFailed(at, failure)) = unsent {
            self.untold.insert(at.job.clone(), (at, failure));
        }
    }
}
