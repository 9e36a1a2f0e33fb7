//! The yardstick: librdkafka alone, reading a topic in batches on one thread and throwing it away.
//!
//! Called by `throughput.rs`. It uses the client's batch call and the settings of our reader, so the ratio says what
//! everything behind the client costs. Failure: a broker that stops sending.

#![allow(
    unsafe_code,
    reason = "rd_kafka_consume_batch_queue is bound only as a foreign function"
)]

use std::ptr;
use std::time::Duration;

use anyhow::{Context, bail};
use millstream_common::time::Clock;
use rdkafka::bindings as native;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::topic::PARTITION_COUNT;

const BATCH_SIZE: usize = 10_000;
const WAIT_MS: i32 = 1_000;
/// A broker that is silent for this long will not go on.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was read, and how long it took from the first record to the last.
pub(crate) struct Consumed {
    pub(crate) records: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) elapsed: Duration,
}

/// Reads `count` records of `topic` from its beginning.
pub(crate) fn consume(
    clock: &dyn Clock,
    brokers: &str,
    topic: &str,
    count: u64,
) -> anyhow::Result<Consumed> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "millstream-bench")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("fetch.queue.backoff.ms", "2")
        .set("queued.max.messages.kbytes", "32768")
        .set("queued.min.messages", "65536")
        .set("fetch.message.max.bytes", "1048576")
        .set("fetch.max.bytes", "4194304")
        .set("fetch.wait.max.ms", "100")
        .create()
        .context("start raw consumer")?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITION_COUNT {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment).context("assign partitions")?;
    let mut consumed = Consumed {
        records: 0,
        payload_bytes: 0,
        elapsed: Duration::ZERO,
    };
    let mut began = None;
    let mut last = clock.monotonic();
    while consumed.records < count {
        let (records, bytes) = take_batch(&consumer);
        let now = clock.monotonic();
        if records > 0 {
            began.get_or_insert(now);
            last = now;
        }
        if now.saturating_sub(last) > PATIENCE {
            bail!("{topic}: no record for {} s", PATIENCE.as_secs());
        }
        consumed.records += records;
        consumed.payload_bytes += bytes;
    }
    consumed.elapsed = last.saturating_sub(began.unwrap_or(last));
    Ok(consumed)
}

/// Takes what is there, at most a batch, and lets go of it: records and bytes.
fn take_batch(consumer: &BaseConsumer) -> (u64, u64) {
    let mut messages: [*mut native::rd_kafka_message_t; BATCH_SIZE] = [ptr::null_mut(); BATCH_SIZE];
    let (mut records, mut bytes) = (0, 0);
    // SAFETY: the client lives longer than this call, its queue reference is given back at the end; it writes at most
    // BATCH_SIZE message pointers, each of which is read and destroyed once.
    unsafe {
        let queue = native::rd_kafka_queue_get_consumer(consumer.client().native_ptr());
        let come =
            native::rd_kafka_consume_batch_queue(queue, WAIT_MS, messages.as_mut_ptr(), BATCH_SIZE);
        for message in &messages[..usize::try_from(come).unwrap_or(0)] {
            let code = ptr::addr_of!((**message).err).cast::<i32>().read();
            if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR as i32 {
                records += 1;
                bytes += (**message).len as u64;
            }
            native::rd_kafka_message_destroy(*message);
        }
        native::rd_kafka_queue_destroy(queue);
    }
    (records, bytes)
}
