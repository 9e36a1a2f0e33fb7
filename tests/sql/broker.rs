//! A Kafka-protocol broker in this process: librdkafka's mock cluster, and a producer.
//!
//! Used by `cluster.rs`. A topic has two partitions. Failure: an error with what was to be done.

use std::time::Duration;

use anyhow::Context;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{ClientConfig, ClientContext};

use crate::script::Step;

const PARTITION_COUNT: i32 = 2;
/// Over loopback, within one process.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);

/// The producer's client owns the broker: unlike a `MockCluster` of its own, it can move between threads.
pub(crate) struct Broker {
    producer: FutureProducer,
}

impl Broker {
    pub(crate) fn start() -> anyhow::Result<Self> {
        let producer = ClientConfig::new()
            .set("test.mock.num.brokers", "1")
            .set("enable.idempotence", "true")
            .set("linger.ms", "0")
            .create()
            .context("start broker")?;
        Ok(Self { producer })
    }

    fn cluster(&self) -> anyhow::Result<MockCluster<'_, impl ClientContext>> {
        let cluster = self.producer.client().mock_cluster();
        cluster.context("the producer has no broker of its own")
    }

    pub(crate) fn addresses(&self) -> anyhow::Result<String> {
        Ok(self.cluster()?.bootstrap_servers())
    }

    pub(crate) fn create_topic(&self, topic: &str) -> anyhow::Result<()> {
        let created = self.cluster()?.create_topic(topic, PARTITION_COUNT, 1);
        created.with_context(|| format!("create topic {topic}"))
    }

    /// Sends the records of a step in their order; they are acknowledged when this returns.
    pub(crate) async fn send(&self, step: &Step) -> anyhow::Result<()> {
        for payload in &step.records {
            let mut record: FutureRecord<'_, str, [u8]> =
                FutureRecord::to(&step.topic).partition(step.partition);
            record.payload = payload.as_deref();
            record.key = step.key.as_deref();
            record.timestamp = step.timestamp_ms;
            record.headers = step.header.as_ref().map(|(name, value)| {
                OwnedHeaders::new().insert(Header {
                    key: name,
                    value: Some(value),
                })
            });
            let sent = self.producer.send(record, SEND_TIMEOUT).await;
            sent.map_err(|(error, _)| error)
                .with_context(|| format!("send to {} {}", step.topic, step.partition))?;
        }
        Ok(())
    }
}
