//! The yardstick: librdkafka alone, reading a topic in batches on one thread or two and throwing it away.
//!
//! Called by `mod.rs`. Each thread has a client and its share of the partitions, as our readers have. It uses the client's batch call and the settings of our reader, so the ratio says what
//! everything behind the client costs. Failure: a broker that stops sending.

#![allow(
    unsafe_code,
    reason = "rd_kafka_consume_batch_queue is bound only as a foreign function"
)]

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use millstream_common::time::{Clock, SystemClock};
use rdkafka::bindings as native;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::process;
use crate::topic::ClicksTopic;

const BATCH_SIZE: usize = 10_000;
/// Short, so that a thread which has read its share soon sees that the others are done.
const WAIT_MS: i32 = 20;
/// A broker that is silent for this long will not go on.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was read, and how long it took from the first record to the last.
pub(crate) struct Consumed {
    pub(crate) records: u64,
    pub(crate) elapsed: Duration,
    /// Of all threads, the client's own among them.
    pub(crate) cpu: Duration,
}

/// Reads what `clicks` put into `topic`, from its beginning, on so many threads.
#[allow(
    clippy::disallowed_methods,
    reason = "the bench measures threads, and joins them here"
)]
pub(crate) fn consume(
    clock: &SystemClock,
    brokers: &str,
    topic: &str,
    clicks: ClicksTopic,
    thread_count: i32,
) -> anyhow::Result<Consumed> {
    let count = clicks.count;
    let share = |thread| (thread..clicks.partition_count).step_by(thread_count as usize);
    let consumers = (0..thread_count)
        .map(|thread| consumer(brokers, topic, share(thread)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let shared = Shared {
        read: AtomicU64::new(0),
        count,
        began: OnceLock::new(),
    };
    let results = thread::scope(|scope| {
        let threads = consumers.iter().map(|consumer| {
            let shared = &shared;
            scope.spawn(move || shared.read(clock, consumer))
        });
        let threads: Vec<_> = threads.collect();
        let results = threads.into_iter().map(|thread| {
            let result = thread.join();
            result.unwrap_or_else(|_| bail!("a thread of the raw consumer panicked"))
        });
        results.collect::<anyhow::Result<Vec<Duration>>>()
    });
    let last = results?.into_iter().max().unwrap_or_default();
    let (began, cpu_before) = shared.began.get().copied().context("no record came")?;
    Ok(Consumed {
        records: count,
        elapsed: last.saturating_sub(began),
        cpu: process::own_cpu().saturating_sub(cpu_before),
    })
}

/// A client with these partitions.
fn consumer(
    brokers: &str,
    topic: &str,
    partitions: impl Iterator<Item = i32>,
) -> anyhow::Result<BaseConsumer> {
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
    for partition in partitions {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment).context("assign partitions")?;
    Ok(consumer)
}

/// What the threads know of each other.
struct Shared {
    read: AtomicU64,
    count: u64,
    /// When the first record came, and the CPU time spent until then.
    began: OnceLock<(Duration, Duration)>,
}

impl Shared {
    /// Reads until all threads together have read everything; when this one read its last record.
    fn read(&self, clock: &SystemClock, consumer: &BaseConsumer) -> anyhow::Result<Duration> {
        let mut last = clock.monotonic();
        while self.read.load(Ordering::Relaxed) < self.count {
            let records = take_batch(consumer);
            let now = clock.monotonic();
            if records > 0 {
                self.began.get_or_init(|| (now, process::own_cpu()));
                last = now;
                self.read.fetch_add(records, Ordering::Relaxed);
            }
            if now.saturating_sub(last) > PATIENCE {
                bail!("no record for {} s", PATIENCE.as_secs());
            }
        }
        Ok(last)
    }
}

/// Takes what is there, at most a batch, and lets go of it; how many records it was.
fn take_batch(consumer: &BaseConsumer) -> u64 {
    let mut messages: [*mut native::rd_kafka_message_t; BATCH_SIZE] = [ptr::null_mut(); BATCH_SIZE];
    let mut records = 0;
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
            }
            native::rd_kafka_message_destroy(*message);
        }
        native::rd_kafka_queue_destroy(queue);
    }
    records
}
