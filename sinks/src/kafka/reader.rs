//! Reads a partition of the progress topic: committed records only, from the first one kept.
//!
//! Made by `client.rs`. Owns a consumer that is in no group and commits nothing. Failure: a lost broker is waited for, since the
//! client comes back by itself; everything else ends the reader.

use std::time::Duration;

use async_trait::async_trait;
use millstream_common::blocking::BlockingRef;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::client::Listener;
use super::cluster::{ClusterError, CommittedReader, ReadRecord, ReadRecords};
use super::offload::Offloaded;

/// Most records handed over at once.
const RECORDS_MAX: usize = 1_000;
/// How long one look waits for a record.
const POLL: Duration = Duration::from_millis(500);

const SETTINGS: [(&str, &str); 7] = [
    // The client insists on a name; no group is joined.
    ("group.id", "millstream-progress"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "earliest"),
    ("isolation.level", "read_committed"),
    ("enable.partition.eof", "true"),
    ("fetch.wait.max.ms", "100"),
];

/// A consumer of one partition.
pub(super) struct RealReader {
    consumer: Offloaded<BaseConsumer<Listener>>,
}

impl RealReader {
    /// Reads `partition` of `topic`.
    pub(super) async fn open(
        blocking: &BlockingRef,
        mut config: ClientConfig,
        topic: &str,
        partition: i32,
    ) -> Result<Self, ClusterError> {
        for (name, value) in SETTINGS {
            config.set(name, value);
        }
        config.remove("linger.ms");
        let topic = topic.to_owned();
        let make = move || {
            let listener = Listener::default();
            let consumer: BaseConsumer<Listener> = config
                .create_with_context(listener)
                .map_err(|error| Listener::default().judge(&error))?;
            let mut assignment = TopicPartitionList::new();
            let added = assignment.add_partition_offset(&topic, partition, Offset::Beginning);
            added
                .and_then(|()| consumer.assign(&assignment))
                .map_err(|error| consumer.context().judge(&error))?;
            Ok(consumer)
        };
        Ok(Self {
            consumer: Offloaded::make(blocking, make).await?,
        })
    }
}

#[async_trait]
impl CommittedReader for RealReader {
    async fn next(&mut self) -> Result<ReadRecords, ClusterError> {
        self.consumer.call(read).await
    }
}

fn read(consumer: &BaseConsumer<Listener>) -> Result<ReadRecords, ClusterError> {
    let mut read = ReadRecords::default();
    let mut patience = POLL;
    while read.records.len() < RECORDS_MAX {
        match consumer.poll(patience) {
            None => break,
            Some(Ok(message)) => read.records.push(ReadRecord {
                key: message.key().unwrap_or_default().to_vec(),
                value: message.payload().map(<[u8]>::to_vec),
            }),
            Some(Err(KafkaError::PartitionEOF(_))) => {
                read.is_end = true;
                break;
            }
            Some(Err(error)) if is_passing(&error) => continue,
            Some(Err(error)) => return Err(consumer.context().judge(&error)),
        }
        patience = Duration::ZERO;
    }
    Ok(read)
}

fn is_passing(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(
        code,
        Some(
            Code::AllBrokersDown
                | Code::BrokerTransportFailure
                | Code::Resolve
                | Code::OperationTimedOut
                | Code::LeaderNotAvailable
                | Code::NotLeaderForPartition
        )
    )
}
