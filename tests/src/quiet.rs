//! Reads committed records of several partitions at one moment, as far as Kafka has one.
//!
//! Called by `make chaos`. A transaction becomes visible in one partition after the other; only between two transactions do the
//! partitions of a reader belong together. So the ends are asked for before and after: nothing may be open, and nothing may have
//! come. Blocks its thread. Failure: a moment that was not quiet, or a broker that does not answer, is no look at all.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::topic::{Stored, stored};

/// A look that takes longer is not worth waiting for: there is a next one.
const PATIENCE: Duration = Duration::from_secs(3);

/// A partition, and where to begin in it.
#[derive(Clone, Debug)]
pub struct From {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// The first offset that is wanted.
    pub offset: i64,
}

/// The committed records of each of `partitions`, if no transaction was under way in them meanwhile.
pub fn read_quiet(brokers: &str, partitions: &[From]) -> Option<Vec<Vec<Stored>>> {
    let all = consumer(brokers, "read_uncommitted")?;
    let committed = consumer(brokers, "read_committed")?;
    let before = ends(&all, partitions)?;
    if ends(&committed, partitions)? != before {
        return None;
    }
    let records = read(&committed, partitions)?;
    (ends(&all, partitions)? == before).then_some(records)
}

fn consumer(brokers: &str, isolation: &str) -> Option<BaseConsumer> {
    let created = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "quiet")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", isolation)
        .create();
    created.ok()
}

/// Behind the last record, of those that a reader of this isolation may see.
fn ends(consumer: &BaseConsumer, partitions: &[From]) -> Option<Vec<i64>> {
    let end = |from: &From| {
        let marks = consumer.fetch_watermarks(&from.topic, from.partition, PATIENCE);
        marks.ok().map(|(_, end)| end)
    };
    partitions.iter().map(end).collect()
}

fn read(consumer: &BaseConsumer, partitions: &[From]) -> Option<Vec<Vec<Stored>>> {
    let mut assignment = TopicPartitionList::new();
    for from in partitions {
        let offset = Offset::Offset(from.offset);
        let added = assignment.add_partition_offset(&from.topic, from.partition, offset);
        added.ok()?;
    }
    consumer.assign(&assignment).ok()?;
    let mut records = vec![Vec::new(); partitions.len()];
    let mut open = partitions.len();
    while open > 0 {
        match consumer.poll(PATIENCE)? {
            Ok(message) => {
                let is_of = |from: &From| {
                    use rdkafka::message::Message;
                    from.topic == message.topic() && from.partition == message.partition()
                };
                let index = partitions.iter().position(is_of)?;
                records[index].push(stored(&message));
            }
            Err(KafkaError::PartitionEOF(_)) => open -= 1,
            Err(_) => return None,
        }
    }
    Some(records)
}
