//! A producer of librdkafka with transactions.
//!
//! Made by `client.rs`: its start fences older producers of its transactional id. Owns what is under way, bounded by
//! [`QUEUE_KBYTES`]. Failure: the first record that does not arrive fails the transaction; the caller drops the producer.

use std::time::Duration;

use async_trait::async_trait;
use millstream_common::blocking::BlockingRef;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::client::Listener;
use super::cluster::{ClusterError, ProducerSettings, Records, TransactionalProducer};
use super::error::judge_code;
use super::offload::Offloaded;

/// Records that are under way, in KiB (INV-9).
const QUEUE_KBYTES: &str = "32768";
/// Most bytes of one batch of records.
const BATCH_BYTES_MAX: usize = 1_000_000;
/// How long the coordinator may take to end what an older producer left.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// How long giving up may take; the next producer ends the transaction anyway.
const ABORT_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at what is under way.
const POLL: Duration = Duration::from_millis(2);

/// What exactly-once rests on: transactions imply idempotence and acks=all.
const FIXED: [(&str, &str); 2] = [
    ("enable.idempotence", "true"),
    ("queue.buffering.max.kbytes", QUEUE_KBYTES),
];

/// A producer and its bounds.
pub(super) struct RealProducer {
    producer: Offloaded<BaseProducer<Listener>>,
    /// How long a commit may take.
    timeout: Duration,
}

impl RealProducer {
    /// Fences older producers.
    pub(super) async fn open(
        blocking: &BlockingRef,
        mut config: ClientConfig,
        settings: &ProducerSettings,
        timeout: Duration,
    ) -> Result<Self, ClusterError> {
        let record_bytes_max = settings.message_bytes_max;
        let batch_bytes_max = record_bytes_max.min(BATCH_BYTES_MAX);
        config
            .set("transactional.id", &settings.transactional_id)
            .set("transaction.timeout.ms", timeout.as_millis().to_string())
            .set("message.max.bytes", record_bytes_max.to_string())
            .set("batch.size", batch_bytes_max.to_string());
        for (name, value) in FIXED {
            config.set(name, value);
        }
        let make = move || {
            let producer: BaseProducer<Listener> = config
                .create_with_context(Listener::default())
                .map_err(|error| Listener::default().judge(&error))?;
            let started = producer.init_transactions(START_PATIENCE);
            started.map_err(|error| explain(&producer, &error))?;
            Ok(producer)
        };
        Ok(Self {
            producer: Offloaded::make(blocking, make).await?,
            timeout,
        })
    }
}

#[async_trait]
impl TransactionalProducer for RealProducer {
    async fn begin(&mut self) -> Result<(), ClusterError> {
        let begin = |producer: &BaseProducer<Listener>| {
            let begun = producer.begin_transaction();
            begun.map_err(|error| explain(producer, &error))
        };
        self.producer.call(begin).await
    }

    async fn send(&mut self, records: Records) -> Result<Vec<usize>, ClusterError> {
        let send = move |producer: &BaseProducer<Listener>| send(producer, &records);
        self.producer.call(send).await
    }

    async fn commit(&mut self) -> Result<(), ClusterError> {
        let timeout = self.timeout;
        let commit = move |producer: &BaseProducer<Listener>| commit(producer, timeout);
        self.producer.call(commit).await
    }

    async fn abort(&mut self) -> Result<(), ClusterError> {
        let abort = |producer: &BaseProducer<Listener>| {
            let aborted = producer.abort_transaction(ABORT_PATIENCE);
            aborted.map_err(|error| explain(producer, &error))
        };
        self.producer.call(abort).await
    }
}

fn send(producer: &BaseProducer<Listener>, records: &Records) -> Result<Vec<usize>, ClusterError> {
    let mut too_large = Vec::new();
    for index in 0..records.count() {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&records.topic);
        record.partition = records.partition;
        record.key = records.keys.get(index);
        record.payload = records.values.get(index);
        record.headers = headers(records, index);
        if !send_one(producer, record)? {
            too_large.push(index);
        }
    }
    producer.poll(Duration::ZERO);
    undelivered(producer)?;
    Ok(too_large)
}

/// Waits for room; false if the record is too large.
fn send_one(
    producer: &BaseProducer<Listener>,
    mut record: BaseRecord<'_, [u8], [u8]>,
) -> Result<bool, ClusterError> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(true),
            Err((KafkaError::MessageProduction(Code::MessageSizeTooLarge), _)) => {
                return Ok(false);
            }
            Err((KafkaError::MessageProduction(Code::QueueFull), back)) => {
                producer.poll(POLL);
                undelivered(producer)?;
                record = back;
            }
            Err((error, _)) => return Err(explain(producer, &error)),
        }
    }
}

fn headers(records: &Records, index: usize) -> Option<OwnedHeaders> {
    let mut headers = None;
    for (name, values) in &records.headers {
        if let Some(value) = values.get(index) {
            let some: OwnedHeaders = headers.unwrap_or_default();
            headers = Some(some.insert(Header {
                key: name,
                value: Some(value),
            }));
        }
    }
    headers
}

fn commit(producer: &BaseProducer<Listener>, timeout: Duration) -> Result<(), ClusterError> {
    // The client's own flush waits a tenth of a second at a time.
    let mut left = timeout;
    while producer.in_flight_count() > 0 {
        producer.poll(POLL);
        undelivered(producer)?;
        left = left.saturating_sub(POLL);
        if left.is_zero() {
            let error = KafkaError::Flush(Code::OperationTimedOut);
            return Err(explain(producer, &error));
        }
    }
    let committed = producer.commit_transaction(timeout);
    committed.map_err(|error| explain(producer, &error))
}

fn undelivered(producer: &BaseProducer<Listener>) -> Result<(), ClusterError> {
    match producer.context().undelivered() {
        Some(error) => Err(fatal(producer).unwrap_or(error)),
        None => Ok(()),
    }
}

/// A fatal error is nearer to the cause than what follows from it.
fn explain(producer: &BaseProducer<Listener>, error: &KafkaError) -> ClusterError {
    producer.poll(Duration::ZERO);
    let known = fatal(producer).or_else(|| producer.context().undelivered());
    known.unwrap_or_else(|| producer.context().judge(error))
}

fn fatal(producer: &BaseProducer<Listener>) -> Option<ClusterError> {
    let (code, text) = producer.client().fatal_error()?;
    Some(judge_code(code, text))
}
