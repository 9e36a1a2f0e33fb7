//! The reader against librdkafka's mock cluster, which speaks Kafka's protocol in this process.

mod idleness;
mod reading;
mod trouble;

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type, TimeUnit};
use millstream_common::blocking::{Blocking, Panicked, ThreadPool};
use millstream_common::ids::{Epoch, SourceIndex};
use millstream_common::plan::connector::{KafkaSourceSpec, KafkaStart, OnGap, TimestampFormat};
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{FormatSpec, OnViolation, SourceColumn, WatermarkPlan};
use millstream_common::report::{RowCounters, SplitGaps, SplitStatus};
use millstream_common::time::{Clock, EventSpan, EventTime};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::*;
use crate::consume::SourceCut;

const TOPIC: &str = "clicks";
/// How long anything may take before a test is given up.
const PATIENCE: Duration = Duration::from_secs(60);
const MINUTE_MS: i64 = 60_000;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A clock that stands still until moved.
#[derive(Debug, Default)]
struct HandClock(AtomicU64);

impl HandClock {
    fn advance(&self, span: Duration) {
        let micros = u64::try_from(span.as_micros()).expect("a span");
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::SeqCst))
    }

    fn unix_micros(&self) -> i64 {
        1_700_000_000_000_000
    }
}

/// Starts threads and tells when each has ended.
struct WatchedThreads(mpsc::Sender<()>);

#[async_trait]
impl Blocking for WatchedThreads {
    async fn run_boxed(
        &self,
        _: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>,
    ) -> Result<Box<dyn Any + Send>, Panicked> {
        Err(Panicked("a reader has a thread of its own".to_owned()))
    }

    fn start_thread(&self, name: String, work: Box<dyn FnOnce() + Send>) {
        let ended = self.0.clone();
        ThreadPool.start_thread(
            name,
            Box::new(move || {
                work();
                // Not every test waits for the end.
                ended.blocking_send(()).ok();
            }),
        );
    }
}

struct Kafka {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
    clock: Arc<HandClock>,
}

impl Kafka {
    fn start(partition_count: i32) -> Self {
        let cluster = MockCluster::new(1).expect("mock cluster");
        cluster
            .create_topic(TOPIC, partition_count, 1)
            .expect("topic");
        let producer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .set("linger.ms", "0")
            .create()
            .expect("producer");
        Self {
            cluster,
            producer,
            clock: Arc::default(),
        }
    }

    /// Writes a record `{"id":…,"at":…}` and waits until the cluster has it; `at` in milliseconds.
    fn produce(&self, partition: i32, records: impl IntoIterator<Item = (i64, i64)>) {
        for (id, at) in records {
            let payload = format!(r#"{{"id":{id},"at":{at}}}"#);
            self.send(partition, Some(&payload));
        }
        self.producer.flush(PATIENCE).expect("flush");
    }

    /// Writes records until the cluster, which keeps about five megabytes of a partition, has let go of the first ones. The first
    /// offset that is there, and the next to be written.
    fn pass_retention(&self, partition: i32, ids: impl IntoIterator<Item = i64>) -> (i64, i64) {
        let padding = "x".repeat(900_000);
        for id in ids {
            let payload = format!(r#"{{"id":{id},"at":0,"padding":"{padding}"}}"#);
            self.send(partition, Some(&payload));
            self.producer.flush(PATIENCE).expect("flush");
        }
        let held = self
            .producer
            .client()
            .fetch_watermarks(TOPIC, partition, PATIENCE);
        let (first, next) = held.expect("watermarks");
        assert!(first > 0, "nothing is gone");
        (first, next)
    }

    fn send(&self, partition: i32, payload: Option<&str>) {
        let mut record: BaseRecord<'_, str, str> = BaseRecord::to(TOPIC).partition(partition);
        if let Some(payload) = payload {
            record = record.payload(payload);
        }
        self.producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("send");
    }

    fn plan(&self) -> SourcePlan {
        let column = |name: &str, data_type, type_name: &str| SourceColumn {
            field: Field::new(name, data_type, false),
            origin: millstream_common::plan::ColumnOrigin::Record,
            type_name: type_name.to_owned(),
        };
        SourcePlan {
            name: TOPIC.to_owned(),
            spec: SourceSpec::Kafka(KafkaSourceSpec {
                brokers: self.cluster.bootstrap_servers(),
                topic: TOPIC.to_owned(),
                start: KafkaStart::Earliest,
                end: None,
                group_id: Some("outside".to_owned()),
                properties: BTreeMap::new(),
                discovery_interval_ms: 30_000,
                on_gap: Default::default(),
            }),
            format: FormatSpec::Json {
                timestamp_format: TimestampFormat::UnixMs,
                record_bytes_max: 1 << 20,
            },
            columns: vec![
                column("id", DataType::Int64, "BIGINT"),
                column(
                    "at",
                    DataType::Timestamp(TimeUnit::Microsecond, None),
                    "TIMESTAMP",
                ),
            ],
            checks: vec![],
            on_violation: OnViolation::DeadLetter,
            watermark: Some(WatermarkPlan {
                column: 1,
                delay: EventSpan(MINUTE_MS * 1_000),
            }),
            keeps_time: true,
            idle_timeout_ms: Some(30_000),
            bounded: false,
        }
    }

    fn reader(&self) -> TestReader {
        self.reader_of(&self.plan())
    }

    fn reader_of(&self, plan: &SourcePlan) -> TestReader {
        let (sender, ended) = mpsc::channel(1);
        let context = ReaderContext {
            name: "clicks 0.0".to_owned(),
            group_id: "millstream".to_owned(),
            functions: Functions::new(),
            clock: self.clock.clone(),
            blocking: Arc::new(WatchedThreads(sender)),
            late_rows_needed: false,
            links_wanted: false,
        };
        TestReader {
            reader: KafkaReader::start(plan, context).expect("a reader"),
            ended,
            epoch: Epoch(0),
            ids: Vec::new(),
            counters: RowCounters::default(),
        }
    }
}

/// A reader, and what it has handed on so far.
struct TestReader {
    reader: KafkaReader,
    /// The thread has ended.
    ended: mpsc::Receiver<()>,
    epoch: Epoch,
    ids: Vec<i64>,
    counters: RowCounters,
}

impl TestReader {
    async fn event(&mut self) -> Result<Option<SourceCut>, ConsumeError> {
        let event = tokio::time::timeout(PATIENCE, self.reader.next())
            .await
            .expect("an event in time")?;
        match event {
            SourceEvent::Rows(rows) => {
                let ids = rows.batch.column(0).as_primitive::<Int64Type>();
                self.ids.extend(ids.values());
                self.counters.add(&rows.counters);
                Ok(None)
            }
            SourceEvent::Cut(cut) => Ok(Some(cut)),
        }
    }

    /// Takes rows until so many records have been read in all.
    async fn read(&mut self, record_count: u64) {
        while self.counters.read < record_count {
            let cut = self.event().await.expect("rows");
            assert_eq!(cut, None);
        }
    }

    async fn cut_with(&mut self, watermark: Option<EventTime>, stop: bool) -> SourceCut {
        self.epoch = self.epoch.next();
        self.reader.cut(CutRequest {
            epoch: self.epoch,
            watermark,
            stop,
        });
        loop {
            if let Some(cut) = self.event().await.expect("a cut") {
                assert_eq!(cut.epoch, self.epoch);
                return cut;
            }
        }
    }

    async fn cut(&mut self) -> SourceCut {
        self.cut_with(None, false).await
    }

    /// Cuts until the status of a partition is as wanted: the client learns of an end in its own time.
    async fn cut_until(&mut self, partition: i32, status: SplitStatus) -> SplitProgress {
        loop {
            let cut = self.cut().await;
            if let Some(progress) = cut.splits.get(&split(partition))
                && progress.status == status
            {
                return progress.clone();
            }
        }
    }

    /// Drops the reader and waits for its thread.
    async fn close(mut self) {
        drop(self.reader);
        let ended = tokio::time::timeout(PATIENCE, self.ended.recv()).await;
        assert_eq!(ended, Ok(Some(())));
    }

    async fn error(&mut self) -> ConsumeError {
        loop {
            if let Err(error) = self.event().await {
                return error;
            }
        }
    }
}

fn split(partition: i32) -> SplitId {
    SplitId(format!("{TOPIC}-{partition}"))
}

fn start_at(partition: i32, position: i64) -> SplitStart {
    SplitStart {
        source: SourceIndex(0),
        split: split(partition),
        progress: SplitProgress {
            position,
            end: None,
            watermark: None,
            status: SplitStatus::Active,
            identity: None,
            gaps: None,
        },
    }
}

fn start_between(partition: i32, position: i64, end: i64) -> SplitStart {
    let mut start = start_at(partition, position);
    start.progress.end = Some(end);
    start
}

fn starts_of(cut: &SourceCut) -> Vec<SplitStart> {
    let start = |(split, progress): (&SplitId, &SplitProgress)| SplitStart {
        source: SourceIndex(0),
        split: split.clone(),
        progress: progress.clone(),
    };
    cut.splits.iter().map(start).collect()
}
