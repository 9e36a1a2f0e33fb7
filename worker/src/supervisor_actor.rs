//! The root of a worker's actors: one pipeline a job, and the link to the master.
//!
//! Supervision tree: 1. one pipeline actor a job (and generation), which supervises its tasks and sinks. Receives the master's frames
//! from `link.rs`, forwards those of a running generation to its pipeline, and says back what pipelines report. Keeps INV-4: frames of another
//! generation than the pipeline's are dropped; a new generation ends the old one first.
//! Failure: a pipeline that ends by itself is reported to the master, which rewinds the job. A lost master ends all pipelines:
//! it will deploy anew from the last epoch in its log.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_common::error::{Failure, Kind};
use millstream_common::ids::JobName;
use millstream_common::link::{Deploy, JobGeneration, ToMaster, ToWorker};
use millstream_common::plan::expression::Functions;
use millstream_common::store::StoreRef;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::config::WorkerConfig;
use crate::exchange::registry::EdgeRegistry;
use crate::link::{LinkConfig, keep_link};
use crate::pipeline::pipeline_actor::{PipelineActor, PipelineConfig, PipelineMessage};
use millstream_common::task;

/// What the supervisor takes.
pub enum SupervisorMessage {
    /// A master has said Welcome.
    Attached {
        /// Where frames for it go.
        frames: mpsc::Sender<ToMaster>,
        /// The storage to use.
        storage_url: String,
    },
    /// The link is lost.
    Detached,
    /// The master says something.
    Frame(Box<ToWorker>),
    /// A pipeline says something to the master.
    Report(ToMaster),
}

/// What a worker's supervisor begins with.
pub struct SupervisorConfig {
    /// The worker's surroundings.
    pub worker: WorkerConfig,
    /// How others reach the Flight server.
    pub flight_address: String,
    /// The incoming edges, shared with the Flight server.
    pub edges: Arc<EdgeRegistry>,
}

/// The state of a worker's supervisor.
pub struct SupervisorState {
    config: SupervisorConfig,
    functions: Functions,
    /// The master and its storage, while attached.
    attached: Option<(mpsc::Sender<ToMaster>, StoreRef)>,
    storage: Option<(String, StoreRef)>,
    pipelines: BTreeMap<JobName, Pipeline>,
    myself: ActorRef<SupervisorMessage>,
    _tasks: JoinSet<()>,
}

struct Pipeline {
    at: JobGeneration,
    actor: ActorRef<PipelineMessage>,
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
            hello: millstream_common::link::WorkerHello {
                worker: config.worker.name.clone(),
                flight_address: config.flight_address.clone(),
                slots: config.worker.slots,
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
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
            functions: Functions::new(),
            attached: None,
            storage: None,
            pipelines: BTreeMap::new(),
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
            SupervisorMessage::Attached {
                frames,
                storage_url,
            } => state.attached(frames, storage_url).await,
            SupervisorMessage::Detached => state.detached(),
            SupervisorMessage::Frame(frame) => state.frame(*frame).await?,
            SupervisorMessage::Report(frame) => state.report(frame),
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
    async fn attached(&mut self, frames: mpsc::Sender<ToMaster>, storage_url: String) {
        self.detached();
        match self.open_storage(&storage_url).await {
            Ok(store) => self.attached = Some((frames, store)),
            // Without storage nothing can run; dropping the sender ends the link, and the next dial tries again.
            Err(error) => warn!(url = %storage_url, %error, "open storage"),
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
        self.storage = Some((url.to_owned(), store.clone()));
        Ok(store)
    }

    fn detached(&mut self) {
        self.attached = None;
        let jobs: Vec<JobName> = self.pipelines.keys().cloned().collect();
        for job in jobs {
            self.end_pipeline(&job);
        }
    }

    async fn frame(&mut self, frame: ToWorker) -> Result<(), ActorProcessingErr> {
        match frame {
            ToWorker::Deploy(deploy) => self.deploy(*deploy).await?,
            ToWorker::Start(at) => self.forward(&at, PipelineMessage::Start),
            ToWorker::Barrier(at, barrier) => self.forward(&at, PipelineMessage::Barrier(barrier)),
            ToWorker::EpochCommitted {
                at,
                epoch,
                positions,
            } => {
                self.forward(&at, PipelineMessage::EpochCommitted { epoch, positions });
            }
            ToWorker::AssignSplits(at, splits) => {
                self.forward(&at, PipelineMessage::AssignSplits(splits))
            }
            ToWorker::CommandSink(at, sink, command) => {
                self.forward(&at, PipelineMessage::CommandSink(sink, command));
            }
            ToWorker::Teardown(at) => self.tear_down(at),
            ToWorker::Welcome { .. } | ToWorker::Ping => {}
        }
        Ok(())
    }

    async fn deploy(&mut self, deploy: Deploy) -> Result<(), ActorProcessingErr> {
        let Some((_, store)) = &self.attached else {
            return Ok(());
        };
        let job = deploy.at.job.clone();
        let at = deploy.at.clone();
        let store = store.clone();
        if self
            .pipelines
            .get(&job)
            .is_some_and(|old| old.at.generation >= at.generation)
        {
            return Ok(());
        }
        self.end_pipeline(&job);
        info!(%job, generation = %at.generation, epoch = %deploy.restore.epoch, "deploy");
        let config = PipelineConfig {
            deploy: Box::new(deploy),
            worker: self.config.worker.clone(),
            functions: self.functions.clone(),
            store,
            edges: self.config.edges.clone(),
            supervisor: self.myself.clone(),
        };
        let name = config.actor_name("pipeline");
        let supervisor = self.myself.get_cell();
        let (actor, _) = Actor::spawn_linked(Some(name), PipelineActor, config, supervisor).await?;
        self.pipelines.insert(job, Pipeline { at, actor });
        Ok(())
    }

    fn forward(&self, at: &JobGeneration, message: PipelineMessage) {
        if let Some(pipeline) = self.pipelines.get(&at.job)
            && pipeline.at == *at
        {
            // A pipeline that has just ended is reported by its supervision event.
            let _ = pipeline.actor.cast(message);
        }
    }

    fn tear_down(&mut self, at: JobGeneration) {
        if self.is_running(&at) {
            self.end_pipeline(&at.job);
        }
        self.report(ToMaster::TornDown(at));
    }

    fn is_running(&self, at: &JobGeneration) -> bool {
        let pipeline = self.pipelines.get(&at.job);
        pipeline.is_some_and(|pipeline| pipeline.at == *at)
    }

    /// Kill, not stop: a handler that waits for credit cannot answer a stop.
    fn end_pipeline(&mut self, job: &JobName) {
        if let Some(pipeline) = self.pipelines.remove(job) {
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
            let failure = Failure {
                kind: Kind::Internal,
                origin: "pipeline".to_owned(),
                cause,
            };
            self.report(ToMaster::PipelineFailed(pipeline.at, failure));
        }
    }

    /// A full queue means that the master does not take frames: the link is as good as lost.
    fn report(&mut self, frame: ToMaster) {
        if let ToMaster::PipelineFailed(at, failure) = &frame {
            warn!(job = %at.job, generation = %at.generation, %failure, "pipeline failed");
            // What a pipeline of before said last must not end the one that took its place (INV-4).
            if self.is_running(at) {
                self.end_pipeline(&at.job.clone());
            }
        }
        if let Some((frames, _)) = &self.attached
            && let Err(error) = frames.try_send(frame)
        {
            warn!(%error, "report to the master");
            self.detached();
        }
    }
}
