//! The actor of a pipeline: builds all tasks of one generation here, gathers their reports, ends them together.
//!
//! Supervision tree: 1. sink actors; 2. ship actors; 3. keyed tasks, last stage first; 4. readers. Started by the worker's supervisor
//! for a Deploy; told Start, barriers, commits and new splits; tells the supervisor what goes to the master. Failure: all for one. The first error
//! or ended child is reported as `PipelineFailed`, and the supervisor kills this actor with its children; the master rewinds the job.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use millstream_common::control::SinkCommand;
use millstream_common::error::{Failure, Kind};
use millstream_common::ids::{SinkIndex, SourceIndex, StageIndex, TaskId};
use millstream_common::link::{BarrierCommand, Deploy, JobGeneration, SplitPositions, ToMaster};
use millstream_common::log::backlog::BacklogPart;
use millstream_common::log::entry::CommittedEpoch;
use millstream_common::plan::StageHead;
use millstream_common::plan::expression::Functions;
use millstream_common::report::{AssignedSplit, SplitStart};
use millstream_common::store::StoreRef;
use millstream_sinks::sink_actor::SinkMessage;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::task::JoinSet;
use tracing::debug;

use super::build::{self, Built};
use super::report::{Gathering, TaskReport};
use crate::config::WorkerConfig;
use crate::consume::reader_actor::ReaderMessage;
use crate::consume::reader_task::ReaderCommand;
use crate::exchange::registry::EdgeRegistry;
use crate::figures::Figures;
use crate::preview::board::TapBoard;
use crate::spans::PipelineSpans;
use crate::supervisor_actor::SupervisorMessage;

/// What a pipeline takes.
pub enum PipelineMessage {
    /// Build the tasks; sent by the pipeline to itself.
    Build,
    /// All workers have deployed: read.
    Start,
    /// Cut the streams.
    Barrier(BarrierCommand),
    /// An epoch is in the log.
    EpochCommitted {
        /// For the sinks.
        epoch: CommittedEpoch,
        /// For outside tools.
        positions: SplitPositions,
    },
    /// Epochs that sinks lack are in storage by now.
    Backlog(Vec<BacklogPart>),
    /// Read more splits.
    AssignSplits(Vec<AssignedSplit>),
    /// A person wants a sink to wait, or to go on.
    CommandSink(SinkIndex, SinkCommand),
    /// A task has finished its part of an epoch.
    Reported(TaskReport),
    /// A sink says something to the master.
    SinkSays(ToMaster),
    /// A task cannot go on.
    Failed(Failure),
}

/// What a pipeline starts with.
pub struct PipelineConfig {
    /// What to build.
    pub deploy: Box<Deploy>,
    /// The worker's surroundings.
    pub worker: WorkerConfig,
    /// For expressions.
    pub functions: Functions,
    /// State and segments.
    pub store: StoreRef,
    /// Incoming edges from other workers.
    pub edges: Arc<EdgeRegistry>,
    /// Where its rows can be looked at.
    pub taps: Arc<TapBoard>,
    /// The way to the master.
    pub supervisor: ActorRef<SupervisorMessage>,
    /// Counts the rows that its readers hand on.
    pub rows_read: Arc<AtomicU64>,
    /// Told what is counted.
    pub figures: Arc<Figures>,
    /// Told what was done when.
    pub spans: Arc<PipelineSpans>,
}

impl PipelineConfig {
    /// The name of an actor of this pipeline. Names are global to a process, in which several workers may live: so they
    /// begin with the worker's, and say whose life of a job it is. For texts only: nobody is looked up by name.
    pub(crate) fn actor_name(&self, what: &str) -> String {
        let Deploy {
            at, incarnation, ..
        } = self.deploy.as_ref();
        let worker = &self.worker.name;
        format!("{worker}/{}/{incarnation}/{}/{what}", at.job, at.generation)
    }
}

/// The state of a pipeline.
pub struct PipelineState {
    pub(super) config: PipelineConfig,
    built: Option<Built>,
    gathering: Gathering,
    /// A barrier has ended the input: sinks deliver what they have without gathering more.
    is_ending: bool,
    /// The first failure has been reported; what follows is its echo.
    has_failed: bool,
    pub(super) myself: ActorRef<PipelineMessage>,
    /// Outgoing Flight streams.
    pub(super) streams: JoinSet<()>,
}

/// The actor.
pub struct PipelineActor;

impl Actor for PipelineActor {
    type Msg = PipelineMessage;
    type State = PipelineState;
    type Arguments = PipelineConfig;

    async fn pre_start(
        &self,
        myself: ActorRef<PipelineMessage>,
        config: PipelineConfig,
    ) -> Result<PipelineState, ActorProcessingErr> {
        let deploy = &config.deploy;
        let wiring =
            super::wiring::Wiring::new(&deploy.plan, &deploy.assignment, &config.worker.name);
        let gathering = Gathering::new(config.worker.name.clone(), wiring.speakers());
        myself.cast(PipelineMessage::Build)?;
        Ok(PipelineState {
            built: None,
            is_ending: config
                .deploy
                .restore
                .undelivered
                .last()
                .is_some_and(|epoch| epoch.last),
            gathering,
            has_failed: false,
            myself,
            streams: JoinSet::new(),
            config,
        })
    }

    async fn handle(
        &self,
        _: ActorRef<PipelineMessage>,
        message: PipelineMessage,
        state: &mut PipelineState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            PipelineMessage::Build => state.build().await,
            PipelineMessage::Start => state.start(),
            PipelineMessage::Barrier(barrier) => state.barrier(&barrier),
            PipelineMessage::EpochCommitted { epoch, positions } => {
                state.committed(&epoch, positions)
            }
            PipelineMessage::Backlog(parts) => state.fold(&parts),
            PipelineMessage::AssignSplits(splits) => state.assign_splits(splits),
            PipelineMessage::CommandSink(sink, command) => state.command_sink(sink, command),
            PipelineMessage::Reported(report) => state.reported(report),
            PipelineMessage::SinkSays(frame) => state.say(frame),
            PipelineMessage::Failed(failure) => state.failed(failure),
        }
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<PipelineMessage>,
        event: SupervisionEvent,
        state: &mut PipelineState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => Ok(()),
            SupervisionEvent::ActorTerminated(child, _, reason) => {
                if state.is_sink(&child) {
                    // Only a sink whose newer deliverer is at work ends by itself.
                    debug!(sink = ?child.get_name(), ?reason, "sink actor ended");
                    return Ok(());
                }
                let cause = reason.unwrap_or_else(|| "ended by itself".to_owned());
                state.child_ended(&child, cause)
            }
            SupervisionEvent::ActorFailed(child, cause) => {
                state.child_ended(&child, cause.to_string())
            }
        }
    }
}

type Handled = Result<(), ActorProcessingErr>;

impl PipelineState {
    pub(super) fn at(&self) -> &JobGeneration {
        &self.config.deploy.at
    }

    pub(super) fn say(&self, frame: ToMaster) -> Handled {
        self.config
            .supervisor
            .cast(SupervisorMessage::Report(frame))?;
        Ok(())
    }

    async fn build(&mut self) -> Handled {
        let begun = self.config.worker.clock.monotonic();
        let built = build::build(self).await;
        let error = built.as_ref().err().map(ToString::to_string);
        let PipelineConfig { spans, deploy, .. } = &self.config;
        spans.restored(deploy, begun, error);
        match built {
            Ok(built) => {
                let at = self.at();
                debug!(job = %at.job, generation = %at.generation, "pipeline built");
                self.built = Some(built);
                self.flush_at_end();
                self.say(ToMaster::Deployed(self.at().clone()))
            }
            Err(failure) => self.failed(failure),
        }
    }

    /// Readers begin with their splits; until now nothing has moved.
    fn start(&mut self) -> Handled {
        let splits = std::mem::take(&mut self.config.deploy.restore.splits);
        self.assign_splits(splits)
    }

    fn assign_splits(&mut self, splits: Vec<AssignedSplit>) -> Handled {
        let mut by_reader: BTreeMap<TaskId, Vec<SplitStart>> = BTreeMap::new();
        for split in splits {
            if let Some(task) = self.reader_of(split.start.source, split.task_index) {
                by_reader.entry(task).or_default().push(split.start);
            }
        }
        for (task, starts) in by_reader {
            self.command(task, ReaderCommand::AddSplits(starts))?;
        }
        Ok(())
    }

    fn reader_of(&self, source: SourceIndex, index: u32) -> Option<TaskId> {
        let stages = self.config.deploy.plan.stages.iter();
        let stage = stages
            .enumerate()
            .find(|(_, stage)| stage.head == StageHead::Source(source))
            .map(|(index, _)| index as u32)?;
        let task = TaskId {
            stage: StageIndex(stage),
            index,
        };
        let built = self.built.as_ref()?;
        built.readers.contains_key(&task).then_some(task)
    }

    fn command(&self, task: TaskId, command: ReaderCommand) -> Handled {
        if let Some(reader) = self
            .built
            .as_ref()
            .and_then(|built| built.readers.get(&task))
        {
            // A reader that has just ended is reported by its supervision event.
            let _ = reader.cast(ReaderMessage::Command(command));
        }
        Ok(())
    }

    fn flush_at_end(&self) {
        let sinks = self.built.iter().flat_map(|built| built.sinks.values());
        for sink in sinks.filter(|_| self.is_ending) {
            // A sink that has ended was fenced: another one delivers.
            let _ = sink.cast(SinkMessage::Flush);
        }
    }

    fn fold(&self, parts: &[BacklogPart]) -> Handled {
        let sinks = self.built.iter().flat_map(|built| built.sinks.values());
        for sink in sinks {
            for part in parts {
                // A sink that has ended was fenced: another one delivers.
                let _ = sink.cast(SinkMessage::Folded(part.clone()));
            }
        }
        Ok(())
    }

    fn command_sink(&self, sink: SinkIndex, command: SinkCommand) -> Handled {
        let message = match command {
            SinkCommand::Pause => SinkMessage::Pause,
            SinkCommand::Resume => SinkMessage::Resume,
        };
        if let Some(sink) = self.built.as_ref().and_then(|built| built.sinks.get(&sink)) {
            // A sink that has ended was fenced: another one delivers.
            let _ = sink.cast(message);
        }
        Ok(())
    }

    fn barrier(&mut self, barrier: &BarrierCommand) -> Handled {
        self.is_ending |= !barrier.kind.reads_on();
        self.flush_at_end();
        let Some(built) = &self.built else {
            return Ok(());
        };
        for reader in built.readers.values() {
            let _ = reader.cast(ReaderMessage::Command(ReaderCommand::Barrier(
                barrier.clone(),
            )));
        }
        Ok(())
    }

    fn committed(&mut self, epoch: &CommittedEpoch, positions: SplitPositions) -> Handled {
        let Some(built) = &self.built else {
            return Ok(());
        };
        for sink in built.sinks.values() {
            let _ = sink.cast(SinkMessage::EpochCommitted(epoch.clone()));
        }
        self.flush_at_end();
        for (task, reader) in &built.readers {
            let StageHead::Source(source) =
                &self.config.deploy.plan.stages[task.stage.index()].head
            else {
                continue;
            };
            if let Some(positions) = positions.get(source) {
                let command = ReaderCommand::Committed(positions.clone());
                let _ = reader.cast(ReaderMessage::Command(command));
            }
        }
        Ok(())
    }

    fn reported(&mut self, report: TaskReport) -> Handled {
        let Deploy { at, plan, .. } = self.config.deploy.as_ref();
        self.config.figures.reported(&at.job, plan, &report);
        self.config.spans.reported(plan, &report);
        match self.gathering.take(report) {
            Some(report) => self.say(ToMaster::Snapshotted(self.at().clone(), Box::new(report))),
            None => Ok(()),
        }
    }

    fn failed(&mut self, failure: Failure) -> Handled {
        if std::mem::replace(&mut self.has_failed, true) {
            return Ok(());
        }
        self.say(ToMaster::PipelineFailed(self.at().clone(), failure))
    }

    fn child_ended(&mut self, child: &ractor::ActorCell, cause: String) -> Handled {
        let name = child.get_name().unwrap_or_default();
        let within = self.config.actor_name("");
        self.failed(Failure {
            kind: Kind::Internal,
            origin: format!("task {}", name.strip_prefix(&within).unwrap_or(&name)),
            cause,
        })
    }

    fn is_sink(&self, child: &ractor::ActorCell) -> bool {
        let built = self.built.as_ref();
        built.is_some_and(|built| {
            built
                .sinks
                .values()
                .any(|sink| sink.get_id() == child.get_id())
        })
    }
}
