//! A Kafka topic of one test: made under a name of its own, filled, and read back as Kafka has it.
//!
//! Called by the end-to-end tests. Owns a producer. Failure: a record that Kafka does not take is an
//! error of the test; a broker that is away is waited for, since a test may have killed it.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::DefaultProducerContext;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::util::Timeout;

use crate::generator::Record;
use crate::quiet::From;

const DEADLINE: Duration = Duration::from_secs(60);
const FLUSH_LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// Records of a second are sent in this many portions.
const PORTIONS_PER_SECOND: usize = 20;

/// A record as Kafka gives it back.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Partition.
    pub partition: i32,
    /// Offset in it.
    pub offset: i64,
    /// Key; `None` where there is none.
    pub key: Option<Vec<u8>>,
    /// Value; `None` where there is none.
    pub payload: Option<Vec<u8>>,
}

/// A topic and a producer to it.
pub struct Topic {
    /// Its name: what the test is called and a number, since topics outlive tests.
    pub name: String,
    brokers: String,
    partition_count: i32,
    producer: ThreadedProducer<DefaultProducerContext>,
}

impl Topic {
    /// Creates the topic.
    pub async fn create(brokers: &str, test: &str, partition_count: i32) -> anyhow::Result<Self> {
        let name = format!("{test}-{:08x}", rand::random::<u32>());
        let admin: AdminClient<_> = config(brokers).create().context("make admin client")?;
        let new = NewTopic::new(&name, partition_count, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(Timeout::After(DEADLINE)));
        let created = admin.create_topics([&new], &options).await;
        for result in created.context("create topic")? {
            result.map_err(|(name, code)| anyhow::anyhow!("create topic {name}: {code}"))?;
        }
        Ok(Self {
            name,
            brokers: brokers.to_owned(),
            partition_count,
            producer: producer(brokers)?,
        })
    }

    /// Adds partitions until there are `partition_count`.
    pub async fn grow(&mut self, partition_count: i32) -> anyhow::Result<()> {
        let admin: AdminClient<_> = config(&self.brokers)
            .create()
            .context("make admin client")?;
        let grown = NewPartitions::new(&self.name, usize::try_from(partition_count)?);
        let options = AdminOptions::new().operation_timeout(Some(Timeout::After(DEADLINE)));
        let results = admin.create_partitions([&grown], &options).await;
        for result in results.context("add partitions")? {
            result.map_err(|(name, code)| anyhow::anyhow!("add partitions to {name}: {code}"))?;
        }
        self.partition_count = partition_count;
        // The old producer knows the new partitions only after minutes.
        self.producer = producer(&self.brokers)?;
        Ok(())
    }

    /// Sends the records and waits until Kafka has them.
    pub async fn send(&self, records: &[Record]) -> anyhow::Result<()> {
        self.enqueue(records, None).await?;
        self.flush().await
    }

    /// As [`Self::send`], as if it were this time, milliseconds since 1970 UTC.
    pub async fn send_at(&self, unix_ms: i64, records: &[Record]) -> anyhow::Result<()> {
        self.enqueue(records, Some(unix_ms)).await?;
        self.flush().await
    }

    /// Sends `rate` records a second, and waits until Kafka has the last one.
    pub async fn send_paced(&self, records: &[Record], rate: usize) -> anyhow::Result<()> {
        let portion = Duration::from_secs(1) / PORTIONS_PER_SECOND as u32;
        let mut ticks = tokio::time::interval(portion);
        for records in records.chunks((rate / PORTIONS_PER_SECOND).max(1)) {
            ticks.tick().await;
            self.enqueue(records, None).await?;
        }
        self.flush().await
    }

    async fn enqueue(&self, records: &[Record], unix_ms: Option<i64>) -> anyhow::Result<()> {
        for record in records {
            loop {
                let mut next: BaseRecord<'_, (), str> =
                    BaseRecord::to(&self.name).partition(record.partition);
                next.payload = record.payload.as_deref();
                next.timestamp = unix_ms;
                match self.producer.send(next) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    Err((error, _)) => return Err(error).context("send record"),
                }
            }
        }
        Ok(())
    }

    /// Waits until Kafka has all records; the client's own call would block the thread.
    async fn flush(&self) -> anyhow::Result<()> {
        let delivered = async {
            while self.producer.in_flight_count() > 0 {
                tokio::time::sleep(FLUSH_LOOK_INTERVAL).await;
            }
        };
        let delivered = tokio::time::timeout(DEADLINE, delivered).await;
        delivered.context("wait until Kafka has what was sent")
    }

    /// Where Kafka is.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The beginning of each partition.
    pub fn beginnings(&self) -> Vec<From> {
        let beginning = |partition| From {
            topic: self.name.clone(),
            partition,
            offset: 0,
        };
        (0..self.partition_count).map(beginning).collect()
    }

    /// Lets Kafka delete the records of a partition before `offset`, as retention does.
    pub async fn delete_before(&self, partition: i32, offset: i64) -> anyhow::Result<()> {
        let admin: AdminClient<_> = config(&self.brokers)
            .create()
            .context("make admin client")?;
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&self.name, partition, Offset::Offset(offset))?;
        let options = AdminOptions::new().operation_timeout(Some(Timeout::After(DEADLINE)));
        let deleted = admin.delete_records(&offsets, &options).await;
        let deleted = deleted.context("delete records")?;
        for element in deleted.elements() {
            element.error().context("delete records of a partition")?;
        }
        Ok(())
    }

    /// Everything that is in the topic, in the order of each partition.
    pub fn read_back(&self) -> anyhow::Result<Vec<Stored>> {
        let consumer: BaseConsumer = config(&self.brokers)
            .set("group.id", "oracle")
            .set("enable.auto.commit", "false")
            .create()
            .context("make consumer")?;
        let mut assignment = TopicPartitionList::new();
        let mut expected = 0;
        for partition in 0..self.partition_count {
            let (low, high) = consumer
                .fetch_watermarks(&self.name, partition, DEADLINE)
                .context("ask for the end of a partition")?;
            expected += usize::try_from(high - low)?;
            assignment.add_partition_offset(&self.name, partition, Offset::Offset(low))?;
        }
        consumer.assign(&assignment).context("assign partitions")?;
        let mut records = Vec::with_capacity(expected);
        while records.len() < expected {
            let message = match consumer.poll(DEADLINE) {
                Some(Ok(message)) => message,
                // The client says so of a broker that is just coming back, and goes on.
                Some(Err(error)) if is_passing(&error) => continue,
                Some(Err(error)) => return Err(error).context("read topic back"),
                None => bail!(
                    "{} of {expected} records of {} came",
                    records.len(),
                    self.name
                ),
            };
            records.push(stored(&message));
        }
        ensure!(
            records.len() == expected,
            "records came while the topic was read"
        );
        Ok(records)
    }

    /// A reader of committed records from the beginning.
    pub fn follow(&self) -> anyhow::Result<Follower> {
        let consumer: BaseConsumer = config(&self.brokers)
            .set("group.id", "reader")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .create()
            .context("make consumer")?;
        let mut assignment = TopicPartitionList::new();
        for partition in 0..self.partition_count {
            assignment.add_partition_offset(&self.name, partition, Offset::Beginning)?;
        }
        consumer.assign(&assignment).context("assign partitions")?;
        Ok(Follower { consumer })
    }

    /// What a reader of committed records sees now, in the order of each partition.
    pub fn committed(&self) -> anyhow::Result<Vec<Stored>> {
        let Follower { consumer } = self.follow()?;
        let mut records = Vec::new();
        let mut open = self.partition_count;
        while open > 0 {
            match consumer.poll(DEADLINE) {
                Some(Ok(message)) => records.push(stored(&message)),
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(error)) if is_passing(&error) => continue,
                Some(Err(error)) => return Err(error).context("read committed records"),
                None => bail!("no end of {} came", self.name),
            }
        }
        Ok(records)
    }
}

/// Reads committed records as they come.
pub struct Follower {
    consumer: BaseConsumer,
}

impl Follower {
    /// What has come since the last call; does not wait.
    pub fn drain(&mut self) -> anyhow::Result<Vec<Stored>> {
        let mut records = Vec::new();
        while let Some(polled) = self.consumer.poll(Duration::ZERO) {
            match polled {
                Ok(message) => records.push(stored(&message)),
                Err(KafkaError::PartitionEOF(_)) => {}
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error).context("follow committed records"),
            }
        }
        Ok(records)
    }
}

pub(crate) fn stored(message: &BorrowedMessage<'_>) -> Stored {
    Stored {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        payload: message.payload().map(<[u8]>::to_vec),
    }
}

fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure};
    let code = error.rdkafka_error_code();
    matches!(code, Some(AllBrokersDown | BrokerTransportFailure))
}

fn producer(brokers: &str) -> anyhow::Result<ThreadedProducer<DefaultProducerContext>> {
    config(brokers)
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .create()
        .context("make producer")
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}
