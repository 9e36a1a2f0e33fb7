//! Rows into a topic of Kafka, each run in one transaction with its marker.
//!
//! The order of a fence stands in `fence.rs`, that of a run in `write.rs`: begin, records, keep refused rows, marker, commit. A
//! commit whose answer is lost is never repeated: after any error the producer is dropped, and the next fence finds out what
//! became of it. Owns one producer. Failure: a fenced producer looks for the token of who fenced it before it gives up.

mod client;
mod cluster;
mod encode;
mod error;
mod fence;
mod memory;
mod offload;
mod producer;
mod progress;
mod reader;
mod write;

use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use millstream_common::ids::{Epoch, Seq};
use millstream_common::plan::OnViolation;
use millstream_common::plan::connector::KafkaSinkSpec;

pub use self::client::RealCluster;
pub use self::cluster::{
    Cluster, ClusterError, ClusterRef, CommittedReader, ProducerSettings, ReadRecord, ReadRecords,
    Records, Slices, TopicShape, TransactionalProducer,
};
pub use self::memory::{Fault, MemoryCluster, MemoryRecord};

use self::encode::Layout;
use self::progress::Slot;
use self::write::Failed;
use crate::sink::{Applied, Cadence, Deliverer, EpochRun, Held, Rejects, RunRows, Sink, SinkError};

/// A topic of Kafka.
pub struct KafkaSink {
    target: Target,
    open: Option<Open>,
}

/// Where rows go and as what; lasts as long as the sink.
struct Target {
    spec: KafkaSinkSpec,
    deliverer: Deliverer,
    /// Without `_op`.
    schema: SchemaRef,
    layout: Layout,
    on_violation: OnViolation,
    cluster: ClusterRef,
}

/// A producer that nobody has fenced yet, as far as it knows.
struct Open {
    producer: Box<dyn TransactionalProducer>,
    names: Names,
    marker: Epoch,
    /// The last rewind that the sink has followed.
    rewound: Seq,
    message_bytes_max: usize,
}

/// What the options name, with references resolved.
#[derive(Clone)]
struct Names {
    topic: String,
    progress_topic: String,
    slot: Slot,
}

impl KafkaSink {
    /// A sink for rows of `schema` (without `_op`); connects when it is fenced.
    pub fn new(
        spec: KafkaSinkSpec,
        deliverer: Deliverer,
        schema: SchemaRef,
        on_violation: OnViolation,
        cluster: ClusterRef,
    ) -> Result<Self, SinkError> {
        let target = Target {
            layout: Layout::new(&spec, &schema)?,
            spec,
            deliverer,
            schema,
            on_violation,
            cluster,
        };
        Ok(Self { target, open: None })
    }
}

impl Target {
    fn what(&self, verb: &str) -> String {
        let KafkaSinkSpec { topic, brokers, .. } = &self.spec;
        format!("{verb} topic {topic} of kafka at {brokers}")
    }
}

#[async_trait]
impl Sink for KafkaSink {
    fn cadence(&self) -> Cadence {
        Cadence {
            run_bytes_max: 64 << 20,
            run_epochs_max: 64,
            gather: Duration::ZERO,
        }
    }

    async fn fence(&mut self) -> Result<Held, SinkError> {
        self.open = None;
        let open = self.target.open().await?;
        let held = Held {
            marker: Some(open.marker),
            begun: None,
        };
        self.open = Some(open);
        Ok(held)
    }

    async fn apply(
        &mut self,
        run: &EpochRun,
        rows: &dyn RunRows,
        rejects: &dyn Rejects,
    ) -> Result<Applied, SinkError> {
        // Taken out: an error, or a caller that goes away, drops the producer and so the transaction.
        let open = self.open.take();
        let mut open = open
            .ok_or_else(|| SinkError::unavailable("write to kafka", "the sink is not connected"))?;
        // Whoever moves the marker has fenced this producer first, so what it read at its own fence holds.
        if open.marker == run.last {
            self.open = Some(open);
            return Ok(Applied {
                row_count: run.row_count,
                ..Applied::default()
            });
        }
        if open.marker != run.guard {
            return Err(SinkError::MarkerMismatch {
                found: open.marker,
                expected: run.guard,
                advice: "the run does not follow what the sink holds".to_owned(),
            });
        }
        match self.target.write(&mut open, run, rows, rejects).await {
            Ok(applied) => {
                open.marker = run.last;
                self.open = Some(open);
                Ok(applied)
            }
            Err(Failed::Cluster(ClusterError::Fenced)) => {
                Err(self.target.explain_fence(&open.names).await)
            }
            Err(Failed::Cluster(error)) => Err(sink_error(&self.target.what("write to"), error)),
            Err(Failed::Other(error)) => {
                // Only so that readers need not wait; the next fence would end it too.
                let _ = open.producer.abort().await;
                Err(error)
            }
        }
    }
}

fn sink_error(what: &str, error: ClusterError) -> SinkError {
    match error {
        ClusterError::Refused(cause) => SinkError::refused(what, cause),
        ClusterError::Fenced | ClusterError::Unavailable(_) => SinkError::unavailable(what, error),
    }
}

#[cfg(test)]
mod tests;
