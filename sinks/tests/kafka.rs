//! The Kafka sink against a real Kafka: exactly once, fenced, readable by any client that reads what is committed.
//!
//! Goal: what the notes promise holds on the broker that users have. Method: each test has its own topics in the Kafka at
//! `KAFKA_BROKERS`, writes through the sink and reads with a consumer of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, Int8Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use millstream_common::blocking::{self, BlockingRef, ThreadPool};
use millstream_common::ids::{Epoch, Incarnation};
use millstream_common::plan::OnViolation;
use millstream_common::plan::connector::{KafkaPartitioner, KafkaSinkSpec};
use millstream_sinks::conformance::{
    self, Change, MemoryRejects, MemoryRows, Row, Subject, apply, deliverer, fence,
};
use millstream_sinks::kafka::{Cluster, KafkaSink, RealCluster};
use millstream_sinks::sink::{Deliverer, EpochRun, Sink, SinkError};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(30);

static TOPICS: AtomicU64 = AtomicU64::new(0);

fn brokers() -> String {
    std::env::var("KAFKA_BROKERS")
        .expect("these tests need Kafka: run `make test`, or set KAFKA_BROKERS to yours")
}

fn config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers());
    config
}

fn pool() -> BlockingRef {
    Arc::new(ThreadPool)
}

/// A name that no other test has.
fn name(kind: &str) -> String {
    let count = TOPICS.fetch_add(1, Ordering::Relaxed);
    format!("sinks-{kind}-{}-{count}", std::process::id())
}

async fn create(name: &str, partition_count: i32, settings: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = config().create().expect("an admin client");
    let mut topic = NewTopic::new(name, partition_count, TopicReplication::Fixed(1));
    for (name, value) in settings {
        topic = topic.set(name, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let created = admin.create_topics([&topic], &options).await;
    created.expect("created")[0].as_ref().expect("created");
}

/// A record as any client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, String)>,
}

impl Seen {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = message
            .headers()
            .into_iter()
            .flat_map(|headers| headers.iter());
        let headers = headers.map(|header| {
            let value = header.value.map(text).unwrap_or_default();
            (header.key.to_owned(), value)
        });
        Self {
            key: message.key().map(text),
            value: message.payload().map(text),
            headers: headers.collect(),
        }
    }

    fn row(&self) -> Option<Row> {
        let value: serde_json::Value = serde_json::from_str(self.value.as_deref()?).expect("JSON");
        let name = value["name"].as_str().map(str::to_owned);
        Some((value["id"].as_i64().expect("an id"), name))
    }
}

fn reader(topic: &str, partition_count: i32) -> BaseConsumer {
    let consumer: BaseConsumer = config()
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partition_count {
        let added = assignment.add_partition_offset(topic, partition, Offset::Beginning);
        added.expect("added");
    }
    consumer.assign(&assignment).expect("assigned");
    consumer
}

/// All that is committed now.
fn read(topic: &str, partition_count: i32) -> Vec<Seen> {
    let consumer = reader(topic, partition_count);
    let mut seen = Vec::new();
    let mut open = partition_count;
    while open > 0 {
        match consumer.poll(PATIENCE) {
            Some(Ok(message)) => seen.push(Seen::of(&message)),
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            other => panic!("no end of the topic: {other:?}"),
        }
    }
    seen
}

async fn read_off_thread(topic: &str, partition_count: i32) -> Vec<Seen> {
    let topic = topic.to_owned();
    let pool = pool();
    let reading = blocking::run(&pool, move || read(&topic, partition_count));
    reading.await.expect("read")
}

/// A topic of its own for the rules of every sink.
struct Topic {
    spec: KafkaSinkSpec,
    partition_count: i32,
}

impl Topic {
    async fn new(partition_count: i32, key: &[&str]) -> Self {
        let topic = name("rows");
        create(&topic, partition_count, &[]).await;
        Self {
            spec: spec(&topic, key),
            partition_count,
        }
    }

    async fn seen(&self) -> Vec<Seen> {
        read_off_thread(&self.spec.topic, self.partition_count).await
    }
}

fn spec(topic: &str, key: &[&str]) -> KafkaSinkSpec {
    KafkaSinkSpec {
        brokers: brokers(),
        topic: topic.to_owned(),
        key: key.iter().map(|key| (*key).to_owned()).collect(),
        upsert: !key.is_empty(),
        headers: Vec::new(),
        partitioner: KafkaPartitioner::Murmur2,
        transaction_timeout_ms: 10_000,
        progress_topic: format!("sinks-progress-{}", std::process::id()),
        properties: BTreeMap::new(),
    }
}

/// The deliverers of all tests are of one incarnation; in one cluster each topic needs its own.
fn sink(spec: &KafkaSinkSpec, deliverer: Deliverer, schema: SchemaRef) -> KafkaSink {
    let of_topic = u128::from(crc32c::crc32c(spec.topic.as_bytes())) << 64;
    let of_topic = of_topic ^ deliverer.incarnation.0.as_u128();
    let deliverer = Deliverer {
        incarnation: Incarnation(Uuid::from_u128(of_topic)),
        ..deliverer
    };
    let cluster = Arc::new(RealCluster::new(pool()));
    let on_violation = OnViolation::DeadLetter;
    KafkaSink::new(spec.clone(), deliverer, schema, on_violation, cluster).expect("known columns")
}

#[async_trait]
impl Subject for Topic {
    fn sink(&self, deliverer: Deliverer) -> Box<dyn Sink> {
        Box::new(sink(&self.spec, deliverer, conformance::schema()))
    }

    async fn read(&self) -> Vec<Row> {
        let seen = self.seen().await;
        if !self.is_keyed() {
            return seen.iter().filter_map(Seen::row).collect();
        }
        let mut rows = BTreeMap::new();
        for record in seen {
            rows.insert(record.key.clone(), record.row());
        }
        rows.into_values().flatten().collect()
    }

    fn is_keyed(&self) -> bool {
        self.spec.upsert
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn appending_keeps_the_rules_of_every_sink() {
    conformance::check(async || Topic::new(3, &[]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_sent_back_goes_back_once() {
    millstream_sinks::sent_back::check(async || Topic::new(3, &[]).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upserting_keeps_the_rules_of_every_sink() {
    conformance::check(async || Topic::new(3, &["id"]).await).await;
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> (SchemaRef, MemoryRows) {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, values)| Field::new(*name, values.data_type().clone(), true))
        .collect();
    let own = Arc::new(Schema::new(fields[..fields.len() - 1].to_vec()));
    let schema = Arc::new(Schema::new(fields));
    let values = columns.into_iter().map(|(_, values)| values).collect();
    let batch = RecordBatch::try_new(schema.clone(), values).expect("a batch");
    (own, MemoryRows::new(schema, vec![batch]))
}

fn run(rows: &MemoryRows) -> EpochRun {
    EpochRun {
        guard: Epoch(0),
        last: Epoch(1),
        row_count: rows.row_count(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_values_headers_and_tombstones_are_what_any_client_expects() {
    let topic = name("shape");
    create(&topic, 1, &[]).await;
    let spec = KafkaSinkSpec {
        headers: vec!["trace".to_owned()],
        ..spec(&topic, &["id", "url"])
    };
    let (schema, rows) = batch(vec![
        ("id", Arc::new(Int64Array::from(vec![1, 2]))),
        ("url", Arc::new(StringArray::from(vec!["/a", "/ü\""]))),
        ("trace", Arc::new(StringArray::from(vec![Some("t1"), None]))),
        ("_op", Arc::new(Int8Array::from(vec![0, 1]))),
    ]);
    let mut sink = sink(&spec, deliverer(1), schema);
    fence(&mut sink).await;
    let rejects = MemoryRejects::default();
    let applied = sink.apply(&run(&rows), &rows, &rejects).await;
    applied.expect("applied");
    let seen = read_off_thread(&topic, 1).await;
    let text = |text: &str| Some(text.to_owned());
    let expected = [
        Seen {
            key: text(r#"{"id":1,"url":"/a"}"#),
            value: text(r#"{"id":1,"url":"/a"}"#),
            headers: vec![("trace".to_owned(), "t1".to_owned())],
        },
        Seen {
            key: text(r#"{"id":2,"url":"/ü\""}"#),
            value: None,
            headers: Vec::new(),
        },
    ];
    assert_eq!(seen, expected);
}

const EPOCHS: u64 = 25;
const ROWS_PER_EPOCH: i64 = 40;

#[tokio::test(flavor = "multi_thread")]
async fn a_concurrent_reader_of_a_partition_sees_whole_epochs_only_although_deliverers_die() {
    let topic = Topic::new(1, &[]).await;
    let name = topic.spec.topic.clone();
    let pool = pool();
    let reading = blocking::run(&pool, move || watch(&name));
    let ((), partial) = tokio::join!(deliver_and_die(&topic), reading);
    assert_eq!(partial.expect("read"), Vec::<usize>::new());
    let mut ids: Vec<i64> = topic.read().await.into_iter().map(|(id, _)| id).collect();
    ids.sort_unstable();
    let wanted: Vec<i64> = (0..EPOCHS as i64 * ROWS_PER_EPOCH).collect();
    assert_eq!(ids, wanted);
}

/// Every other epoch is given up half way and taken up by the next deliverer.
async fn deliver_and_die(topic: &Topic) {
    for epoch in 0..EPOCHS {
        let first = epoch as i64 * ROWS_PER_EPOCH;
        let rows: Vec<Change> = (first..first + ROWS_PER_EPOCH)
            .map(|id| Change::Put(id, "x"))
            .collect();
        let halves: [&[Change]; 2] = [&rows[..20], &rows[20..]];
        if epoch % 2 == 1 {
            let mut dying = topic.sink(deliverer(epoch * 2));
            fence(&mut *dying).await;
            let applying = apply(&mut *dying, epoch, epoch + 1, &halves);
            let gone = tokio::time::timeout(Duration::from_millis(epoch % 7), applying);
            // Whether it was in time shows at the next fence.
            let _ = gone.await;
        }
        let mut sink = topic.sink(deliverer(epoch * 2 + 1));
        if fence(&mut *sink).await == Epoch(epoch) {
            let applied = apply(&mut *sink, epoch, epoch + 1, &halves).await;
            applied.expect("applied");
        }
    }
}

/// At each end of the partition, how many records there were, where that is no number of whole epochs.
fn watch(topic: &str) -> Vec<usize> {
    let consumer = reader(topic, 1);
    let mut partial = Vec::new();
    let mut count = 0;
    while count < EPOCHS as usize * ROWS_PER_EPOCH as usize {
        match consumer.poll(PATIENCE) {
            Some(Ok(_)) => count += 1,
            Some(Err(KafkaError::PartitionEOF(_))) if count % ROWS_PER_EPOCH as usize != 0 => {
                partial.push(count);
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            other => panic!("no more records: {other:?}"),
        }
    }
    partial
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_larger_than_the_topic_takes_is_a_refused_row() {
    let topic = name("small");
    create(&topic, 1, &[("max.message.bytes", "2000")]).await;
    let long = "x".repeat(3_000);
    let names: Vec<&str> = std::iter::repeat_n("short", 500)
        .chain([long.as_str()])
        .collect();
    let ids: Int64Array = (0..501).map(Some).collect();
    let (schema, rows) = batch(vec![
        ("id", Arc::new(ids)),
        ("name", Arc::new(StringArray::from(names))),
        ("_op", Arc::new(Int8Array::from(vec![0; 501]))),
    ]);
    let mut sink = sink(&spec(&topic, &[]), deliverer(1), schema);
    fence(&mut sink).await;
    let rejects = MemoryRejects::default();
    let applied = sink.apply(&run(&rows), &rows, &rejects).await;
    let applied = applied.expect("applied");
    assert_eq!((applied.row_count, applied.rejected_count), (500, 1));
    let kept = rejects.kept();
    assert!(
        kept[0].1[0].payload.starts_with(r#"{"id":500,"#),
        "{kept:?}"
    );
    assert_eq!(read_off_thread(&topic, 1).await.len(), 500);
}

fn refusal<T: std::fmt::Debug>(result: Result<T, SinkError>) -> String {
    match result {
        Err(error @ SinkError::Refused { .. }) => error.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_not_made_and_a_missing_progress_topic_is_made_compacted() {
    let spec = KafkaSinkSpec {
        progress_topic: name("progress"),
        ..spec(&name("missing"), &[])
    };
    let mut first = sink(&spec, deliverer(1), conformance::schema());
    let refused = refusal(first.fence().await);
    assert!(refused.contains("kafka-topics --create"), "{refused}");
    let cluster = RealCluster::new(pool());
    let asked = [spec.topic.as_str(), spec.progress_topic.as_str()];
    let shapes = cluster.topics(&spec, &asked).await.expect("asked");
    assert_eq!(shapes, [None, None]);
    create(&spec.topic, 1, &[]).await;
    fence(&mut first).await;
    let shapes = cluster.topics(&spec, &asked).await.expect("asked");
    let progress = shapes[1].as_ref().expect("made");
    assert_eq!(progress.cleanup_policy.as_deref(), Some("compact"));
    assert_eq!(progress.partition_count, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_brokers_refuse_says_what_to_do() {
    let topic = name("refusing");
    create(&topic, 1, &[]).await;
    let patient = KafkaSinkSpec {
        transaction_timeout_ms: 48 * 3_600_000,
        ..spec(&topic, &[])
    };
    let mut first = sink(&patient, deliverer(1), conformance::schema());
    let refused = refusal(first.fence().await);
    assert!(refused.contains("lower transaction_timeout"), "{refused}");
    let compacted = name("compacted");
    create(&compacted, 1, &[("cleanup.policy", "compact")]).await;
    let mut second = sink(&spec(&compacted, &[]), deliverer(1), conformance::schema());
    fence(&mut second).await;
    let refused = apply(&mut second, 0, 1, &[&[Change::Put(1, "a")]]).await;
    let refused = refusal(refused);
    assert!(refused.contains("give the sink a key"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_are_away_are_waited_for() {
    let spec = KafkaSinkSpec {
        brokers: "127.0.0.1:1".to_owned(),
        ..spec("rows", &[])
    };
    let mut sink = sink(&spec, deliverer(1), conformance::schema());
    let failed = sink.fence().await;
    assert!(
        matches!(failed, Err(SinkError::Unavailable { .. })),
        "{failed:?}"
    );
    let text = failed.expect_err("nobody listens").to_string();
    assert!(text.contains("127.0.0.1:1"), "{text}");
}
