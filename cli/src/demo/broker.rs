//! A Kafka-protocol broker inside this process, and the producer that fills it.
//!
//! librdkafka's mock cluster: it speaks the protocol over loopback and keeps 5 MiB a partition, which is
//! why the generator runs beside its readers and compresses. The producer is idempotent, so a record has
//! exactly the offset of its turn; the delivery reports are checked for it, as the independent count
//! rests on it. Failure: a record that is refused or lands elsewhere ends the demo.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{
    BaseRecord, DefaultProducerContext, Producer, ProducerContext, ThreadedProducer,
};
use rdkafka::{ClientConfig, ClientContext};

use super::PARTITION_COUNT;
use super::clicks::Record;

/// As `jobs/demo.sql` names it.
const TOPIC: &str = "clicks";
/// What is still under way when the generator ends takes far less.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);

/// The broker and its producer.
pub(super) struct Broker {
    producer: ThreadedProducer<Deliveries>,
    next_offsets: [i64; PARTITION_COUNT],
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl Broker {
    /// Listens on a free port of loopback, with the topic made.
    pub(super) fn start() -> anyhow::Result<Self> {
        let cluster = MockCluster::new(1).context("start broker")?;
        let partition_count = PARTITION_COUNT as i32;
        cluster
            .create_topic(TOPIC, partition_count, 1)
            .context("create topic")?;
        let producer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", "20")
            .create_with_context(Deliveries::default())
            .context("start producer")?;
        Ok(Self {
            producer,
            next_offsets: [0; PARTITION_COUNT],
            cluster,
        })
    }

    /// `host:port`, for the job's source.
    pub(super) fn addresses(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Sends the next record of its partition; it is on its way when this returns.
    pub(super) fn send(&mut self, record: &Record) -> anyhow::Result<()> {
        let next_offset = &mut self.next_offsets[record.partition];
        let mut message: BaseRecord<'_, (), str, Box<i64>> =
            BaseRecord::with_opaque_to(TOPIC, Box::new(*next_offset))
                .partition(record.partition as i32);
        if let Some(payload) = &record.payload {
            message = message.payload(payload);
        }
        if let Err((error, _)) = self.producer.send(message) {
            return Err(error).context("send click");
        }
        *next_offset += 1;
        self.check()
    }

    /// Waits until every record is acknowledged.
    pub(super) fn flush(&self) -> anyhow::Result<()> {
        self.producer
            .flush(FLUSH_TIMEOUT)
            .context("send last clicks")?;
        self.check()
    }

    fn check(&self) -> anyhow::Result<()> {
        let failure = &self.producer.context().failure;
        match &*failure.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(failure) => bail!("{failure}"),
            None => Ok(()),
        }
    }
}

/// Checks that each record got the offset of its turn.
#[derive(Default)]
struct Deliveries {
    failure: Mutex<Option<String>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<i64>;

    fn delivery(&self, result: &DeliveryResult<'_>, expected: Box<i64>) {
        let failure = match result {
            Ok(message) if message.offset() == *expected => return,
            Ok(message) => format!("a click has offset {}, not {expected}", message.offset()),
            Err((error, _)) => format!("a click was not taken: {error}"),
        };
        let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(failure);
    }
}

#[cfg(test)]
mod tests {
    use super::super::clicks::Clicks;
    use super::*;

    #[test]
    fn every_record_gets_the_offset_of_its_turn() {
        let mut broker = Broker::start().unwrap();
        let mut clicks = Clicks::new(7, 2000);
        for _ in 0..2000 {
            broker.send(&clicks.next()).unwrap();
        }
        broker.flush().unwrap();
    }
}
