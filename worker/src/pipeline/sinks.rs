//! The sinks of a pipeline: started with a token of their generation, heard by the master through the pipeline.
//!
//! Called by `build`. What a sink refuses is stored by `refused.rs` and told to the master, for the next Epoch to name.
//! Failure: a sink that cannot be started ends the pipeline; one that cannot deliver only says so.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use millstream_common::error::{Failure, Kind};
use millstream_common::ids::{Epoch, SinkIndex};
use millstream_common::link::{JobGeneration, ToMaster};
use millstream_common::log::entry::sink_token;
use millstream_common::plan::{OnViolation, SinkPlan};
use millstream_common::report::Refusal;
use millstream_common::time::ClockRef;
use millstream_common::trace::TraceContext;
use millstream_sinks::console::standard_output;
use millstream_sinks::delivery::{DeliveredEpoch, Lacking};
use millstream_sinks::factory::SinkSetup;
use millstream_sinks::kafka::RealCluster;
use millstream_sinks::refused_rows::PlacedRow;
use millstream_sinks::sink::{Applied, Deliverer, SinkError};
use millstream_sinks::sink_actor::{
    SinkActor, SinkArguments, SinkFactory, SinkMessage, SinkObserver, Trouble, TroubleState,
};
use ractor::{Actor, ActorRef};
use tracing::{debug, warn};

use super::pipeline_actor::{PipelineMessage, PipelineState};
use super::refused::{self, RefusedStore};
use crate::ship::segment::SegmentReader;
use crate::ship::ship_actor::segment_schema;
use crate::spans::PipelineSpans;

pub(super) async fn start(
    state: &PipelineState,
    sink: SinkIndex,
    segments: Arc<SegmentReader>,
) -> Result<ActorRef<SinkMessage>, Failure> {
    let config = &state.config;
    let plan = &config.deploy.plan;
    let sink_plan = plan.sinks[sink.index()].clone();
    let output = &plan.outputs[sink_plan.output.index()];
    let deliverer = Deliverer {
        job: config.deploy.at.job.clone(),
        incarnation: config.deploy.incarnation,
        sink: sink_plan.name.clone(),
        token: sink_token(config.deploy.at.generation),
        rewind: config.deploy.restore.sink_rewinds.get(&sink).copied(),
    };
    let schema = output.schema.0.clone();
    let refused = RefusedStore {
        incarnation: config.deploy.incarnation,
        sink,
        name: sink_plan.name.clone(),
        relation: output.relation.clone(),
        outputs: refused::programs(&sink_plan, &config.functions)?,
        store: config.store.clone(),
    };
    let starts = &config.deploy.restore.sink_starts;
    let markers = &config.deploy.restore.sink_markers;
    let arguments = SinkArguments {
        deliverer: deliverer.clone(),
        sink,
        output: sink_plan.output,
        schema: segment_schema(&schema),
        factory: sink_factory(state, sink_plan.clone(), deliverer, schema),
        segments,
        lacking: Lacking {
            backlog: config.deploy.restore.backlog.clone(),
            left_out: config.deploy.restore.left_out.clone(),
            undelivered: config.deploy.restore.undelivered.clone(),
            head: config.deploy.restore.epoch,
            start: starts.get(&sink).copied().unwrap_or_default(),
            known: markers.get(&sink).copied().unwrap_or_default(),
        },
        is_paused: config.deploy.restore.paused_sinks.contains(&sink),
        clock: config.worker.clock.clone(),
        observer: Arc::new(Observer {
            at: config.deploy.at.clone(),
            sink,
            name: sink_plan.name.clone(),
            refused,
            clock: config.worker.clock.clone(),
            spans: config.spans.clone(),
            pipeline: state.myself.clone(),
        }),
    };
    let supervisor = state.myself.get_cell();
    let name = config.actor_name(&format!("sink {}", sink_plan.name));
    let spawned = Actor::spawn_linked(Some(name), SinkActor, arguments, supervisor).await;
    match spawned {
        Ok((actor, _)) => Ok(actor),
        Err(error) => Err(Failure::new(
            Kind::Internal,
            format!("sink {}", sink_plan.name),
            &error,
        )),
    }
}

fn sink_factory(
    state: &PipelineState,
    plan: SinkPlan,
    deliverer: Deliverer,
    schema: SchemaRef,
) -> SinkFactory {
    // A sink that reads dead letters never makes any: it is suspended instead.
    let on_violation = match plan.reads_dead_letters {
        true => OnViolation::Fail,
        false => plan.on_violation,
    };
    let setup = SinkSetup {
        spec: plan.spec,
        deliverer,
        schema,
        on_violation,
        kafka: Arc::new(RealCluster::new(state.config.worker.blocking.clone())),
        blocking: state.config.worker.blocking.clone(),
        console: standard_output(),
    };
    let connectors = state.config.worker.connectors.clone();
    Arc::new(move || connectors.build_sink(&setup))
}

/// Carries what a sink does to the master.
struct Observer {
    at: JobGeneration,
    sink: SinkIndex,
    name: String,
    refused: RefusedStore,
    clock: ClockRef,
    spans: Arc<PipelineSpans>,
    pipeline: ActorRef<PipelineMessage>,
}

impl Observer {
    fn say(&self, frame: ToMaster) {
        // A pipeline that has ended has nobody to tell.
        let _ = self.pipeline.cast(PipelineMessage::SinkSays(frame));
    }

    fn trouble(&self, cause: String, suspended: bool) {
        self.say(ToMaster::SinkTroubled {
            at: self.at.clone(),
            sink: self.sink,
            cause,
            suspended,
        });
    }
}

#[async_trait]
impl SinkObserver for Observer {
    fn advanced(&self, marker: Epoch, applied: &Applied) {
        debug!(
            job = %self.at.job, sink = %self.name, generation = %self.at.generation, epoch = %marker, rows = applied.row_count,
            rejected = applied.rejected_count, dropped = applied.dropped_count, "delivered up to this epoch"
        );
        self.say(ToMaster::SinkAdvanced {
            at: self.at.clone(),
            sink: self.sink,
            marker,
            dropped_count: applied.dropped_count,
        });
    }

    fn fenced(&self, begun: Duration) {
        self.spans.fenced(&self.name, begun);
    }

    fn delivered(&self, epochs: &[DeliveredEpoch], begun: Duration) {
        self.spans.delivered(&self.name, epochs, begun);
    }

    fn trace(&self, last: Epoch) -> Option<TraceContext> {
        self.spans.delivery(&self.name, last)
    }

    fn troubled(&self, trouble: &Trouble) {
        let suspended = trouble.state == TroubleState::Suspended;
        warn!(job = %self.at.job, sink = %self.name, cause = %trouble.cause, suspended, "sink troubled");
        let next = match suspended {
            true => "suspended; looked at again every 30 s",
            false => "trying on",
        };
        self.trouble(format!("{} ({next})", trouble.cause), suspended);
    }

    async fn keep(&self, last: Epoch, rows: &[PlacedRow]) -> Result<Refusal, SinkError> {
        let now_us = self.clock.unix_micros();
        self.refused.keep(last, rows, now_us).await
    }

    fn refused(&self, refusal: &Refusal) {
        let refusal = Box::new(refusal.clone());
        self.say(ToMaster::SinkRefused(self.at.clone(), refusal));
    }
}
