//! Builds a pipeline: registers and dials edges, restores state, and starts tasks from the last stage to the readers.
//!
//! Called once by `pipeline_actor.rs`; `edges.rs` connects. Incoming edges are registered before anything is dialled, so that two workers that build at
//! the same time do not wait for each other; their messages go through a [`Mailbox`] that is filled when the task exists, which is before any worker
//! is told to start. Failure: whatever cannot be built ends the pipeline with its reason.

mod edges;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use millstream_common::error::{Failure, Kind};
use millstream_common::ids::{OutputIndex, SinkIndex, StageIndex, TaskId};
use millstream_common::plan::{Emit, JobPlan, KeyedKind, KeyedPlan, StageHead, Target};
use millstream_sinks::row_group;
use millstream_sinks::sink_actor::SinkMessage;
use ractor::{Actor, ActorRef};

use super::pipeline_actor::{PipelineMessage, PipelineState};
use super::restore::{Restore, Restored};
use super::sinks;
use super::wiring::{Wiring, ship_edge};
use crate::branch::{BranchRunner, BranchTarget, Branches};
use crate::consume::ReaderContext;
use crate::consume::reader_actor::{ReaderActor, ReaderMessage};
use crate::consume::reader_task::ReaderTask;
use crate::consume::replay::{ReplayReader, Replays};
use crate::exchange::credit::EDGE_BUDGET_BYTES;
use crate::exchange::message::{Closed, Deliver, EdgeId, OnLost};
use crate::exchange::registry::RegisteredEdges;
use crate::exchange::sender::EdgeSender;
use crate::operator::keyed_actor::{KeyedActor, KeyedConfig, KeyedMessage};
use crate::operator::task_state::StateSeat;
use crate::preview::board::PostedTaps;
use crate::ship::segment::{SegmentCache, SegmentReader};
use crate::ship::ship_actor::{ShipActor, ShipConfig, ShipMessage};
use crate::snapshot::PartScope;
use crate::transform::BranchProgram;

/// The running parts of a pipeline that it sends to.
pub(super) struct Built {
    pub(super) readers: BTreeMap<TaskId, ActorRef<ReaderMessage>>,
    pub(super) sinks: BTreeMap<SinkIndex, ActorRef<SinkMessage>>,
    /// Ends the incoming Flight streams when dropped.
    _edges: RegisteredEdges,
    /// Ends previews when dropped.
    _taps: PostedTaps,
}

/// Where messages of an edge go once the task exists.
type Mailbox = Arc<OnceLock<ActorRef<KeyedMessage>>>;

/// What is shared while a pipeline is built.
struct Builder<'a> {
    state: &'a mut PipelineState,
    plan: Arc<JobPlan>,
    mailboxes: BTreeMap<TaskId, Mailbox>,
    ships: BTreeMap<OutputIndex, ActorRef<ShipMessage>>,
    /// Of what travels to the tasks of each keyed stage.
    edge_schemas: BTreeMap<StageIndex, SchemaRef>,
    /// Dialled edges that no task has taken yet.
    remote: BTreeMap<EdgeId, EdgeSender>,
    cache: Arc<SegmentCache>,
    taps: PostedTaps,
}

pub(super) async fn build(state: &mut PipelineState) -> Result<Built, Failure> {
    let deploy = &state.config.deploy;
    let plan = Arc::new(deploy.plan.clone());
    let assignment = deploy.assignment.clone();
    let worker = state.config.worker.name.clone();
    let wiring = Wiring::new(&plan, &assignment, &worker);
    let sinks_here = wiring.local_sinks().into_iter();
    let read_here = sinks_here.map(|sink| plan.sinks[sink.index()].output);
    let functions = state.config.functions.clone();
    let at = &deploy.at;
    let mut builder = Builder {
        taps: state
            .config
            .taps
            .post(&at.job, at.generation, plan.clone(), functions),
        mailboxes: mailboxes(&plan, &wiring),
        edge_schemas: edges::schemas(&plan, &state.config.functions)?,
        plan: plan.clone(),
        ships: BTreeMap::new(),
        remote: BTreeMap::new(),
        cache: Arc::new(SegmentCache::new(read_here)),
        state,
    };
    let edges = builder.register(&wiring)?;
    builder.dial(&wiring).await?;
    let sinks = builder.start_sinks(&wiring).await?;
    builder.start_ships(&wiring).await?;
    let mut restored = builder.restore(&wiring).await?;
    let mut readers = BTreeMap::new();
    for task in wiring.local_tasks() {
        match &plan.stages[task.stage.index()].head {
            StageHead::Keyed(keyed) => {
                builder
                    .start_keyed(&wiring, task, keyed, &mut restored)
                    .await?;
            }
            StageHead::Source(_) => {
                readers.insert(task, builder.start_reader(&wiring, task).await?);
            }
        }
    }
    Ok(Built {
        readers,
        sinks,
        _edges: edges,
        _taps: builder.taps,
    })
}

fn mailboxes(plan: &JobPlan, wiring: &Wiring<'_>) -> BTreeMap<TaskId, Mailbox> {
    let tasks = wiring.local_tasks().into_iter();
    let keyed =
        tasks.filter(|task| matches!(plan.stages[task.stage.index()].head, StageHead::Keyed(_)));
    keyed.map(|task| (task, Mailbox::default())).collect()
}

fn deliver_to(mailbox: Mailbox) -> Deliver {
    Arc::new(move |edge, message| {
        let actor = mailbox.get().ok_or(Closed)?;
        actor
            .cast(KeyedMessage::Stream { edge, message })
            .map_err(|_| Closed)
    })
}

fn broken(origin: &str, error: &dyn std::error::Error) -> Failure {
    Failure::new(Kind::Internal, origin, error)
}

impl Builder<'_> {
    fn on_lost(&self) -> OnLost {
        let pipeline = self.state.myself.clone();
        Arc::new(move |lost| {
            let failure = Failure::new(Kind::External, "exchange", &lost);
            // A pipeline that has ended needs no telling.
            let _ = pipeline.cast(PipelineMessage::Failed(failure));
        })
    }

    async fn start_sinks(
        &self,
        wiring: &Wiring<'_>,
    ) -> Result<BTreeMap<SinkIndex, ActorRef<SinkMessage>>, Failure> {
        let reader = Arc::new(SegmentReader {
            store: self.state.config.store.clone(),
            cache: self.cache.clone(),
        });
        let mut started = BTreeMap::new();
        for sink in wiring.local_sinks() {
            let actor = sinks::start(self.state, sink, reader.clone()).await?;
            started.insert(sink, actor);
        }
        Ok(started)
    }

    async fn start_ships(&mut self, wiring: &Wiring<'_>) -> Result<(), Failure> {
        let config = &self.state.config;
        for (index, output) in self.plan.outputs.iter().enumerate() {
            let index = OutputIndex(index as u32);
            let edges = wiring.ship_inputs(index);
            if edges.is_empty() {
                continue;
            }
            let arguments = ShipConfig {
                incarnation: config.deploy.incarnation,
                generation: config.deploy.at.generation,
                restored: config.deploy.restore.epoch,
                worker: config.worker.name.clone(),
                output: index,
                relation: output.relation.clone(),
                schema: output.schema.0.clone(),
                edges,
                row_groups_taken: row_group::are_taken(&self.plan, index),
                store: config.store.clone(),
                cache: self.cache.clone(),
                blocking: config.worker.blocking.clone(),
                clock: config.worker.clock.clone(),
                pipeline: self.state.myself.clone(),
            };
            let supervisor = self.state.myself.get_cell();
            // A relation may have several outputs, one for each way of emitting it.
            let name = config.actor_name(&format!("ship {} {index}", output.relation));
            let spawned = Actor::spawn_linked(Some(name), ShipActor, arguments, supervisor).await;
            let (actor, _) = spawned.map_err(|error| broken(&output.relation, &error))?;
            self.ships.insert(index, actor);
        }
        Ok(())
    }

    async fn restore(&self, wiring: &Wiring<'_>) -> Result<Restored, Failure> {
        let config = &self.state.config;
        let restore = Restore {
            wiring,
            point: &config.deploy.restore,
            functions: &config.functions,
            store: &config.store,
            spill: &config.worker.spill,
            blocking: &config.worker.blocking,
        };
        restore.run().await
    }

    async fn start_keyed(
        &mut self,
        wiring: &Wiring<'_>,
        task: TaskId,
        keyed: &KeyedPlan,
        restored: &mut Restored,
    ) -> Result<(), Failure> {
        let name = wiring.name_of(task);
        let (mut state, parts) = restored.remove(&task).ok_or_else(|| Failure {
            kind: Kind::Internal,
            origin: name.clone(),
            cause: "its state was not restored".to_owned(),
        })?;
        let branches = self.branches(wiring, task, &name)?;
        let config = &self.state.config;
        let emits_all = config.deploy.restore.snapshots.contains(&keyed.operator);
        if emits_all {
            state.operator().mark_all_changed();
        }
        let arguments = KeyedConfig {
            seat: StateSeat::new(state, config.worker.blocking.clone(), name.clone()),
            keeps_first_rows: matches!(keyed.kind, KeyedKind::Distinct { .. }),
            parts,
            scope: PartScope {
                incarnation: config.deploy.incarnation,
                generation: config.deploy.at.generation,
                operator: keyed.operator.clone(),
                task,
            },
            edges: wiring.inputs_of(task),
            sources: self.plan.stages[task.stage.index()].sources.clone(),
            branches,
            changes_interval: changes_interval(&self.plan, task.stage),
            emits_all,
            store: config.store.clone(),
            blocking: config.worker.blocking.clone(),
            clock: config.worker.clock.clone(),
            pipeline: self.state.myself.clone(),
            name: name.clone(),
        };
        let supervisor = self.state.myself.get_cell();
        let actor_name = config.actor_name(&name);
        let spawned =
            Actor::spawn_linked(Some(actor_name), KeyedActor, arguments, supervisor).await;
        let (actor, _) = spawned.map_err(|error| broken(&name, &error))?;
        let mailbox = &self.mailboxes[&task];
        mailbox.set(actor).map_err(|_| Failure {
            kind: Kind::Internal,
            origin: name,
            cause: "the task was built twice".to_owned(),
        })
    }

    async fn start_reader(
        &mut self,
        wiring: &Wiring<'_>,
        task: TaskId,
    ) -> Result<ActorRef<ReaderMessage>, Failure> {
        let name = wiring.name_of(task);
        let branches = self.branches(wiring, task, &name)?;
        let config = &self.state.config;
        let StageHead::Source(source) = self.plan.stages[task.stage.index()].head else {
            return Err(Failure {
                kind: Kind::Internal,
                origin: name,
                cause: "a reader for a stage without a source".to_owned(),
            });
        };
        let source_plan = &self.plan.sources[source.index()];
        let context = ReaderContext {
            name: name.clone(),
            group_id: format!("millstream-{}", config.deploy.at.job),
            functions: config.functions.clone(),
            clock: config.worker.clock.clone(),
            blocking: config.worker.blocking.clone(),
            late_rows_needed: wiring.late_rows_needed(task.stage),
            links_wanted: config.spans.is_on(),
        };
        let connectors = &config.worker.connectors;
        let replays = Replays::new(source_plan, &context, config.store.clone());
        let replays = replays.map_err(|error| Failure::new(error.kind, &name, &error))?;
        let reader = connectors
            .open_reader(source_plan, context)
            .map_err(|error| Failure::new(error.kind, &name, &error))?;
        let reader = Box::new(ReplayReader::new(reader, replays));
        let arguments = ReaderTask {
            task,
            source,
            on_violation: source_plan.on_violation,
            reader,
            branches,
            clock: config.worker.clock.clone(),
            rows_read: config.rows_read.clone(),
            pipeline: self.state.myself.clone(),
            name: source_plan.name.clone(),
        };
        let supervisor = self.state.myself.get_cell();
        let actor_name = config.actor_name(&name);
        let spawned =
            Actor::spawn_linked(Some(actor_name), ReaderActor, arguments, supervisor).await;
        let (actor, _) = spawned.map_err(|error| broken(&name, &error))?;
        Ok(actor)
    }

    fn branches(
        &mut self,
        wiring: &Wiring<'_>,
        task: TaskId,
        name: &str,
    ) -> Result<Branches, Failure> {
        let plan = self.plan.clone();
        let stage = &plan.stages[task.stage.index()];
        let mut runners = Vec::new();
        for (index, branch) in stage.branches.iter().enumerate() {
            let input = crate::branch::input_schema(&plan, stage, branch.port);
            let program = BranchProgram::build(branch, &input, &self.state.config.functions)
                .map_err(|error| broken(name, &error))?;
            let target = match branch.target {
                Target::Exchange(stage) => {
                    let (exchange, partial) = self.exchange(wiring, task, index as u32, stage)?;
                    let partial = partial.map(Box::new);
                    BranchTarget::Exchange { exchange, partial }
                }
                Target::Output(output) => {
                    BranchTarget::Ship(self.ship_sender(task, index as u32, output))
                }
            };
            runners.push(BranchRunner {
                port: branch.port,
                program,
                target,
            });
        }
        let clock = self.state.config.worker.clock.clone();
        let tap = self.taps.of(task.stage);
        Ok(Branches::new(name.to_owned(), runners, clock).tapped(tap))
    }

    fn ship_sender(&self, from: TaskId, branch: u32, output: OutputIndex) -> EdgeSender {
        let ship = self.ships[&output].clone();
        let deliver: Deliver = Arc::new(move |edge, message| {
            ship.cast(ShipMessage::Stream { edge, message })
                .map_err(|_| Closed)
        });
        EdgeSender::local(ship_edge(from, branch, output), EDGE_BUDGET_BYTES, deliver)
    }
}

/// The least interval at which an output of the stage wants changes.
fn changes_interval(plan: &JobPlan, stage: StageIndex) -> Duration {
    let branches = plan.stages[stage.index()].branches.iter();
    let intervals = branches.filter_map(|branch| match branch.target {
        Target::Output(output) => match plan.outputs[output.index()].emit {
            Emit::Changes { interval_ms } => Some(interval_ms),
            Emit::Final => None,
        },
        Target::Exchange(_) => None,
    });
    Duration::from_millis(intervals.min().unwrap_or_default())
}
