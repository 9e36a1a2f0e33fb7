//! Topics of the bench: made, filled and emptied.
//!
//! Called by every part. A topic of clicks is named by its size and seed and reused as long as it holds the
//! right number of records. Failure: a broker that does not answer within its time.

use std::time::Duration;

use anyhow::{Context, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use crate::clicks::Clicks;

/// Partitions of a topic, unless it is asked for with others.
pub(crate) const PARTITION_COUNT: i32 = 4;

const TIMEOUT: Duration = Duration::from_secs(30);
/// Of a topic that is being deleted while it is made again.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// How long a full queue of the producer is given to become shorter.
const FULL_QUEUE_WAIT: Duration = Duration::from_millis(10);

/// Makes an empty topic of [`PARTITION_COUNT`] partitions; one of that name is deleted.
pub(crate) async fn make(brokers: &str, topic: &str) -> anyhow::Result<()> {
    make_of(brokers, topic, PARTITION_COUNT).await
}

/// The same of another number of partitions.
pub(crate) async fn make_of(
    brokers: &str,
    topic: &str,
    partition_count: i32,
) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .context("start client of Kafka")?;
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    admin
        .delete_topics(&[topic], &options)
        .await
        .with_context(|| format!("delete topic {topic}"))?;
    let new = NewTopic::new(topic, partition_count, TopicReplication::Fixed(1));
    let made = async {
        loop {
            let results = admin.create_topics([&new], &options).await?;
            match results.into_iter().next() {
                Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
                Some(Err((_, code))) => return Err(KafkaError::AdminOp(code)),
                Some(Ok(_)) | None => return Ok(()),
            }
        }
    };
    tokio::time::timeout(TIMEOUT, made)
        .await
        .context("wait until the old topic is gone")?
        .with_context(|| format!("create topic {topic}"))
}

/// A topic full of clicks.
#[derive(Clone, Copy)]
pub(crate) struct ClicksTopic {
    pub(crate) count: u64,
    /// Of the clicks.
    pub(crate) seed: u64,
    pub(crate) partition_count: i32,
}

impl ClicksTopic {
    /// Of [`PARTITION_COUNT`] partitions.
    pub(crate) fn new(count: u64, seed: u64) -> Self {
        Self {
            count,
            seed,
            partition_count: PARTITION_COUNT,
        }
    }

    /// Makes and fills it if it is not there. Returns its name.
    pub(crate) async fn fill(self, brokers: &str) -> anyhow::Result<String> {
        let (count, seed, partition_count) = (self.count, self.seed, self.partition_count);
        let topic = format!("bench_clicks_{count}_{seed}_{partition_count}");
        if self.record_count(brokers, &topic)? == Some(count) {
            return Ok(topic);
        }
        make_of(brokers, &topic, partition_count).await?;
        let producer = Sender::new(brokers, &topic)?;
        let mut clicks = Clicks::new(seed);
        for number in 0..count {
            let partition = number % partition_count as u64;
            producer.send(partition as i32, clicks.next())?;
        }
        producer.flush()?;
        match self.record_count(brokers, &topic)? {
            Some(found) if found == count => Ok(topic),
            found => bail!("topic {topic} holds {found:?} records after {count} were sent"),
        }
    }

    /// How many records the topic holds; `None`: it is not there, or has another number of partitions.
    fn record_count(self, brokers: &str, topic: &str) -> anyhow::Result<Option<u64>> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "millstream-bench")
            .set("allow.auto.create.topics", "false")
            .create()
            .context("start client of Kafka")?;
        let metadata = consumer
            .fetch_metadata(Some(topic), TIMEOUT)
            .with_context(|| format!("ask {brokers} for topic {topic}"))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let partitions = found.map_or(0, |found| found.partitions().len());
        if partitions != self.partition_count as usize {
            return Ok(None);
        }
        let mut count = 0;
        for partition in 0..self.partition_count {
            let (low, high) = consumer
                .fetch_watermarks(topic, partition, TIMEOUT)
                .with_context(|| format!("ask for the ends of {topic}"))?;
            count += u64::try_from(high - low).unwrap_or(0);
        }
        Ok(Some(count))
    }
}

/// Writes records to one topic.
pub(crate) struct Sender {
    producer: ThreadedProducer<DefaultProducerContext>,
    topic: String,
}

impl Sender {
    pub(crate) fn new(brokers: &str, topic: &str) -> anyhow::Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            .create()
            .context("start producer")?;
        Ok(Self {
            producer,
            topic: topic.to_owned(),
        })
    }

    /// Hands a record to the client, waiting while its queue is full.
    pub(crate) fn send(&self, partition: i32, payload: &str) -> anyhow::Result<()> {
        loop {
            let record: BaseRecord<'_, (), str> = BaseRecord::to(&self.topic)
                .partition(partition)
                .payload(payload);
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    // Ends early by its timeout; what matters is that the queue got shorter.
                    let _ = self.producer.flush(FULL_QUEUE_WAIT);
                }
                Err((error, _)) => {
                    return Err(error).with_context(|| format!("send to {}", self.topic));
                }
            }
        }
    }

    /// Waits until every record is acknowledged.
    pub(crate) fn flush(&self) -> anyhow::Result<()> {
        self.producer
            .flush(TIMEOUT)
            .with_context(|| format!("send last records to {}", self.topic))
    }
}
