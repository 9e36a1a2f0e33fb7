//! The sinks of a pipeline: started with a token of their generation, heard by the master through the pipeline.
//!
//! Called by `build.rs`. A sink's refused rows are kept as an object before the run that leaves them out commits (INV-10): create-only, so a
//! retry of the same run keeps the first. Failure: a sink that cannot be started ends the pipeline; one that cannot deliver only says so.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use millstream_common::error::{Failure, Kind, chain};
use millstream_common::ids::{Epoch, Incarnation, SinkIndex};
use millstream_common::link::{JobGeneration, ToMaster};
use millstream_common::log::entry::sink_token;
use millstream_common::plan::{OnViolation, OutputPlan, SinkPlan};
use millstream_common::store::{self, StoreRef};
use millstream_sinks::console::standard_output;
use millstream_sinks::factory::SinkSetup;
use millstream_sinks::kafka::RealCluster;
use millstream_sinks::sink::{Applied, Deliverer, EpochRun, RejectedRow, Rejects, SinkError};
use millstream_sinks::sink_actor::{
    SinkActor, SinkArguments, SinkFactory, SinkMessage, SinkObserver, Trouble, TroubleState,
};
use ractor::{Actor, ActorRef};
use tracing::warn;

use super::pipeline_actor::{PipelineMessage, PipelineState};
use crate::ship::segment::SegmentReader;
use crate::ship::ship_actor::segment_schema;

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
    };
    let schema = output.schema.0.clone();
    let arguments = SinkArguments {
        deliverer: deliverer.clone(),
        output: sink_plan.output,
        schema: segment_schema(&schema),
        factory: sink_factory(state, sink_plan.clone(), deliverer, schema, output),
        segments,
        undelivered: config.deploy.restore.undelivered.clone(),
        head: config.deploy.restore.epoch,
        clock: config.worker.clock.clone(),
        observer: Arc::new(Observer {
            at: config.deploy.at.clone(),
            incarnation: config.deploy.incarnation,
            sink,
            name: sink_plan.name.clone(),
            store: config.store.clone(),
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
    output: &OutputPlan,
) -> SinkFactory {
    // A sink that reads dead letters never makes any: it is suspended instead.
    let on_violation = match output.is_dead_letters() {
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
    incarnation: Incarnation,
    sink: SinkIndex,
    name: String,
    store: StoreRef,
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

impl SinkObserver for Observer {
    fn advanced(&self, marker: Epoch, applied: &Applied) {
        self.say(ToMaster::SinkAdvanced {
            at: self.at.clone(),
            sink: self.sink,
            marker,
            row_count: applied.row_count,
        });
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
}

#[async_trait]
impl Rejects for Observer {
    async fn keep(&self, run: &EpochRun, rejected: &[RejectedRow]) -> Result<(), SinkError> {
        let key = format!(
            "rejects/{}/{}/{:012}.jsonl",
            self.incarnation, self.name, run.last.0
        );
        let mut lines = String::new();
        for row in rejected {
            let line = serde_json::json!({
                "sink": self.name,
                "epoch": run.last,
                "code": millstream_common::dead_letter::Code::SinkRejected.as_str(),
                "reason": row.reason,
                "payload": row.payload,
            });
            lines.push_str(&line.to_string());
            lines.push('\n');
        }
        match self.store.create(&key, Bytes::from(lines)).await {
            Ok(()) | Err(store::Error::Exists { .. }) => Ok(()),
            Err(error) => Err(SinkError::Unavailable {
                what: format!("keep the rows that sink {} refused", self.name),
                cause: chain(&error),
            }),
        }
    }
}
