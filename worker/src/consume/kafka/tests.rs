//! The reader against librdkafka's mock cluster, which speaks Kafka's protocol in this process.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type, TimeUnit};
use millstream_common::blocking::{Blocking, Panicked, ThreadPool};
use millstream_common::ids::{Epoch, SourceIndex};
use millstream_common::plan::connector::{KafkaSourceSpec, KafkaStart, TimestampFormat};
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{FormatSpec, OnViolation, SourceColumn, WatermarkPlan};
use millstream_common::report::{RowCounters, SplitStatus};
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

#[tokio::test]
async fn every_record_of_every_partition_comes_once_and_in_order() {
    let kafka = Kafka::start(3);
    for partition in 0..3 {
        let first = i64::from(partition) * 10_000;
        kafka.produce(partition, (0..4_000).map(|n| (first + n, n)));
    }
    let mut reader = kafka.reader();
    reader
        .reader
        .add_splits((0..3).map(|partition| start_at(partition, 0)).collect());
    reader.read(12_000).await;
    for partition in 0..3 {
        let ids: Vec<i64> = reader
            .ids
            .iter()
            .copied()
            .filter(|id| id / 10_000 == partition)
            .collect();
        let expected: Vec<i64> = (0..4_000).map(|n| partition * 10_000 + n).collect();
        assert_eq!(ids, expected);
    }
    let cut = reader.cut().await;
    assert!(cut.splits.values().all(|split| split.position == 4_000));
}

#[tokio::test]
async fn a_reader_begins_where_the_cut_of_another_was() {
    let kafka = Kafka::start(2);
    for partition in 0..2 {
        let first = i64::from(partition) * 100_000;
        kafka.produce(partition, (0..20_000).map(|n| (first + n, n)));
    }
    let mut first = kafka.reader();
    first
        .reader
        .add_splits(vec![start_at(0, 0), start_at(1, 0)]);
    first.read(1).await;
    let cut = first.cut_with(None, true).await;
    let position: i64 = cut.splits.values().map(|split| split.position).sum();
    assert_eq!(usize::try_from(position), Ok(first.ids.len()));
    let mut second = kafka.reader();
    second.reader.add_splits(starts_of(&cut));
    second.read(40_000 - first.counters.read).await;
    let all: BTreeSet<i64> = first.ids.iter().chain(&second.ids).copied().collect();
    assert_eq!(all.len(), 40_000);
    assert_eq!(first.ids.len() + second.ids.len(), 40_000);
}

#[tokio::test]
async fn a_cut_is_answered_while_nothing_comes_and_without_a_split() {
    let kafka = Kafka::start(1);
    let mut reader = kafka.reader();
    assert!(reader.cut().await.splits.is_empty());
    reader.reader.add_splits(vec![start_at(0, 0)]);
    for _ in 0..10 {
        let cut = reader.cut().await;
        assert_eq!(cut.splits[&split(0)].position, 0);
        assert_eq!(cut.splits[&split(0)].status, SplitStatus::Active);
    }
}

#[tokio::test]
async fn splits_added_while_running_are_read_beside_the_others() {
    let kafka = Kafka::start(2);
    kafka.produce(0, [(1, 0)]);
    kafka.produce(1, [(2, 0), (3, 0)]);
    let mut reader = kafka.reader();
    reader.reader.add_splits(vec![start_at(0, 0)]);
    reader.read(1).await;
    reader.reader.add_splits(vec![start_at(1, 1)]);
    reader.read(2).await;
    kafka.produce(0, [(4, 0)]);
    reader.read(3).await;
    assert_eq!(reader.ids, vec![1, 3, 4]);
}

#[tokio::test]
async fn a_bounded_partition_ends_once_and_an_empty_one_at_once() {
    let kafka = Kafka::start(3);
    kafka.produce(0, (0..10).map(|n| (n, n)));
    let mut reader = kafka.reader();
    reader.reader.add_splits(vec![
        start_between(0, 0, 6),
        start_between(1, 0, 0),
        start_at(2, 0),
    ]);
    reader.read(6).await;
    let cut = reader.cut().await;
    let status = |cut: &SourceCut, partition| {
        let progress = cut.splits.get(&split(partition));
        progress.map(|progress| (progress.position, progress.status))
    };
    assert_eq!(status(&cut, 0), Some((6, SplitStatus::Ended)));
    assert_eq!(status(&cut, 1), Some((0, SplitStatus::Ended)));
    assert_eq!(status(&cut, 2), Some((0, SplitStatus::Active)));
    let cut = reader.cut().await;
    assert_eq!(cut.splits.len(), 1);
    assert_eq!(reader.ids, (0..6).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_partition_that_wakes_brings_no_row_older_than_what_owners_act_on() {
    let kafka = Kafka::start(2);
    kafka.produce(0, [(1, 10 * MINUTE_MS)]);
    let mut reader = kafka.reader();
    reader
        .reader
        .add_splits(vec![start_at(0, 0), start_at(1, 0)]);
    reader.read(1).await;
    kafka.clock.advance(IDLE_TIMEOUT);
    reader.cut_until(1, SplitStatus::Idle).await;
    let owners = EventTime(9 * MINUTE_MS * 1_000);
    reader.cut_with(Some(owners), false).await;
    kafka.produce(1, [(2, 8 * MINUTE_MS), (3, 9 * MINUTE_MS)]);
    reader.read(3).await;
    assert_eq!(reader.ids, vec![1, 3]);
    assert_eq!(reader.counters.rejected, 1);
    let woken = reader.cut_until(1, SplitStatus::Active).await;
    assert_eq!(woken.watermark, Some(owners));
}

#[tokio::test]
async fn a_partition_is_not_idle_before_its_timeout() {
    let kafka = Kafka::start(1);
    kafka.produce(0, [(1, 0)]);
    let mut reader = kafka.reader();
    reader.reader.add_splits(vec![start_at(0, 0)]);
    reader.read(1).await;
    kafka.clock.advance(IDLE_TIMEOUT - Duration::from_millis(1));
    for _ in 0..10 {
        assert_eq!(
            reader.cut().await.splits[&split(0)].status,
            SplitStatus::Active
        );
    }
    kafka.clock.advance(Duration::from_millis(1));
    reader.cut_until(0, SplitStatus::Idle).await;
}

#[tokio::test]
async fn a_partition_minutes_behind_the_others_loses_no_row() {
    let kafka = Kafka::start(2);
    kafka.produce(0, (0..100).map(|n| (n, n * MINUTE_MS)));
    let mut reader = kafka.reader();
    reader
        .reader
        .add_splits(vec![start_at(0, 0), start_at(1, 0)]);
    reader.read(100).await;
    reader.cut().await;
    kafka.produce(1, (0..100).map(|n| (1_000 + n, n * MINUTE_MS)));
    reader.read(200).await;
    assert_eq!(reader.counters.accepted, 200);
}

#[tokio::test]
async fn a_record_without_a_value_is_refused_and_not_lost() {
    let kafka = Kafka::start(1);
    kafka.send(0, None);
    kafka.produce(0, [(1, 0)]);
    let mut reader = kafka.reader();
    reader.reader.add_splits(vec![start_at(0, 0)]);
    reader.read(2).await;
    assert_eq!((reader.counters.accepted, reader.counters.rejected), (1, 1));
}

#[tokio::test]
async fn reading_goes_on_by_itself_after_the_brokers_come_back() {
    let kafka = Kafka::start(1);
    kafka.produce(0, [(1, 0)]);
    let mut reader = kafka.reader();
    reader.reader.add_splits(vec![start_at(0, 0)]);
    reader.read(1).await;
    kafka.cluster.broker_down(-1).expect("down");
    while reader.reader.trouble().is_none() {
        reader.cut().await;
    }
    kafka.cluster.broker_up(-1).expect("up");
    kafka.produce(0, [(2, 0)]);
    reader.read(2).await;
    assert_eq!(reader.ids, vec![1, 2]);
    while reader.reader.trouble().is_some() {
        reader.cut().await;
    }
    reader.close().await;
}

#[tokio::test]
async fn a_position_that_the_partition_does_not_hold_is_an_error_for_the_user() {
    let kafka = Kafka::start(1);
    kafka.produce(0, [(1, 0)]);
    let mut reader = kafka.reader();
    reader.reader.add_splits(vec![start_at(0, 1_000)]);
    let error = reader.error().await;
    assert_eq!(error.kind, Kind::User);
    let text = error.to_string();
    assert!(text.contains("read partition clicks-0"), "{text}");
    assert!(text.contains("--fresh"), "{text}");
    reader.close().await;
}

#[tokio::test]
async fn a_dropped_reader_ends_its_thread_even_if_nobody_takes_its_rows() {
    let kafka = Kafka::start(1);
    kafka.produce(0, (0..50_000).map(|n| (n, n)));
    let mut reader = kafka.reader();
    reader.reader.add_splits(vec![start_at(0, 0)]);
    reader.read(1).await;
    reader.close().await;
}

#[tokio::test]
async fn positions_of_the_log_are_shown_to_outside_tools() {
    let kafka = Kafka::start(1);
    kafka.produce(0, (0..5).map(|n| (n, n)));
    let mut reader = kafka.reader();
    reader.reader.add_splits(vec![start_at(0, 0)]);
    reader.read(5).await;
    let cut = reader.cut().await;
    reader.reader.committed(&cut.splits);
    let outside: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka.cluster.bootstrap_servers())
        .set("group.id", "outside")
        .create()
        .expect("a consumer");
    loop {
        reader.cut().await;
        let mut asked = TopicPartitionList::new();
        asked.add_partition(TOPIC, 0);
        let committed = outside
            .committed_offsets(asked, PATIENCE)
            .expect("offsets of the group");
        if committed.elements()[0].offset() == Offset::Offset(5) {
            break;
        }
    }
}

#[tokio::test]
async fn the_lag_is_what_the_broker_holds_and_the_reader_has_not_read() {
    let kafka = Kafka::start(1);
    kafka.produce(0, (0..5).map(|n| (n, n)));
    let mut reader = kafka.reader();
    assert_eq!(reader.reader.lag_records(), None);
    reader.reader.add_splits(vec![start_at(0, 0)]);
    reader.read(5).await;
    while reader.reader.lag_records() != Some(0) {
        kafka.clock.advance(Duration::from_secs(1));
        reader.cut().await;
    }
}

#[tokio::test]
async fn an_unset_reference_is_an_error_for_the_user() {
    let kafka = Kafka::start(1);
    let mut plan = kafka.plan();
    if let SourceSpec::Kafka(spec) = &mut plan.spec {
        spec.brokers = "${MILLSTREAM_TEST_NO_SUCH_VARIABLE}".to_owned();
    }
    let mut reader = kafka.reader_of(&plan);
    let error = reader.error().await;
    assert_eq!(error.kind, Kind::User);
    assert!(error.cause.contains("MILLSTREAM_TEST_NO_SUCH_VARIABLE"));
}
