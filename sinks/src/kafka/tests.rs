//! The protocol of the sink on a cluster in memory: what no real broker does on demand.
//!
//! Goal: lost and late commits, zombies and topics that do not fit neither lose nor double a record. Method: faults of
//! [`MemoryCluster`], then the log as a reader of committed records sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream_common::plan::connector::KafkaPartitioner;

use super::*;
use crate::conformance::{self, Change, Row, Subject, deliverer, fence};

const TOPIC: &str = "rows";
const PROGRESS: &str = "progress";

pub(super) fn spec(brokers: &str, topic: &str) -> KafkaSinkSpec {
    KafkaSinkSpec {
        brokers: brokers.to_owned(),
        topic: topic.to_owned(),
        key: Vec::new(),
        upsert: false,
        headers: Vec::new(),
        partitioner: KafkaPartitioner::Murmur2,
        transaction_timeout_ms: 10_000,
        progress_topic: PROGRESS.to_owned(),
        properties: BTreeMap::new(),
    }
}

fn shape(partition_count: usize) -> TopicShape {
    TopicShape {
        partition_count,
        message_bytes_max: Some(1_000),
        cleanup_policy: None,
    }
}

struct Topic {
    cluster: MemoryCluster,
    is_keyed: bool,
}

impl Topic {
    fn new(is_keyed: bool) -> Self {
        let cluster = MemoryCluster::default();
        cluster.create_topic(TOPIC, shape(3));
        Self { cluster, is_keyed }
    }

    fn make(&self, deliverer: Deliverer, on_violation: OnViolation) -> KafkaSink {
        let mut spec = spec("memory", TOPIC);
        if self.is_keyed {
            spec.key = vec!["id".to_owned()];
        }
        let cluster = Arc::new(self.cluster.clone());
        let schema = conformance::schema();
        KafkaSink::new(spec, deliverer, schema, on_violation, cluster).expect("known columns")
    }

    async fn ids(&self) -> Vec<i64> {
        let mut ids: Vec<i64> = self.read().await.into_iter().map(|(id, _)| id).collect();
        ids.sort_unstable();
        ids
    }
}

#[async_trait]
impl Subject for Topic {
    fn sink(&self, deliverer: Deliverer) -> Box<dyn Sink> {
        Box::new(self.make(deliverer, OnViolation::Fail))
    }

    async fn read(&self) -> Vec<Row> {
        let records = self.cluster.committed(TOPIC).into_iter().flatten();
        let mut by_key = BTreeMap::new();
        let mut rows = Vec::new();
        for record in records {
            let value = record.value.map(|value| {
                let value: serde_json::Value = serde_json::from_slice(&value).expect("JSON");
                let name = value["name"].as_str().map(str::to_owned);
                (value["id"].as_i64().expect("an id"), name)
            });
            match (record.key, value) {
                (Some(key), Some(row)) => drop(by_key.insert(key, row)),
                (Some(key), None) => drop(by_key.remove(&key)),
                (None, row) => rows.extend(row),
            }
        }
        rows.extend(by_key.into_values());
        rows
    }

    fn is_keyed(&self) -> bool {
        self.is_keyed
    }
}

async fn put(sink: &mut dyn Sink, guard: u64, id: i64) -> Result<Applied, SinkError> {
    conformance::apply(sink, guard, guard + 1, &[&[Change::Put(id, "a")]]).await
}

#[tokio::test]
async fn appending_keeps_the_rules_of_every_sink() {
    conformance::check(async || Topic::new(false)).await;
}

#[tokio::test]
async fn a_sink_that_is_sent_back_goes_back_once() {
    crate::sent_back::check(async || Topic::new(false)).await;
}

#[tokio::test]
async fn upserting_keeps_the_rules_of_every_sink() {
    conformance::check(async || Topic::new(true)).await;
}

#[tokio::test]
async fn a_commit_without_an_answer_is_found_out_and_never_repeated() {
    for (fault, marker) in [
        (Fault::CommitLost, Epoch(0)),
        (Fault::CommitAnswerLost, Epoch(1)),
        (Fault::CommitDelayed, Epoch(0)),
    ] {
        let topic = Topic::new(false);
        let mut sink = topic.sink(deliverer(1));
        fence(&mut *sink).await;
        topic.cluster.fail_next(fault);
        let lost = put(&mut *sink, 0, 7).await;
        assert!(
            matches!(lost, Err(SinkError::Unavailable { .. })),
            "{fault:?}"
        );
        let again = put(&mut *sink, 0, 7).await;
        assert!(again.is_err(), "{fault:?}: not before a new fence");
        assert_eq!(fence(&mut *sink).await, marker, "{fault:?}");
        topic.cluster.deliver_late();
        put(&mut *sink, 0, 7).await.expect("applied or held");
        topic.cluster.deliver_late();
        assert_eq!(topic.ids().await, [7], "{fault:?}");
    }
}

#[tokio::test]
async fn an_older_deliverer_that_starts_again_does_not_stop_the_newer_one() {
    let topic = Topic::new(false);
    let mut new = topic.sink(deliverer(2));
    fence(&mut *new).await;
    let mut old = topic.sink(deliverer(1));
    let refused = old.fence().await;
    assert!(
        matches!(refused, Err(SinkError::Fenced { .. })),
        "{refused:?}"
    );
    put(&mut *new, 0, 1).await.expect("nobody has fenced it");
}

#[tokio::test]
async fn a_deliverer_fenced_by_one_of_its_own_token_tries_again() {
    let topic = Topic::new(false);
    let mut first = topic.sink(deliverer(1));
    fence(&mut *first).await;
    let mut second = topic.sink(deliverer(1));
    fence(&mut *second).await;
    let refused = put(&mut *first, 0, 1).await;
    assert!(
        matches!(refused, Err(SinkError::Unavailable { .. })),
        "{refused:?}"
    );
    assert_eq!(fence(&mut *first).await, Epoch(0));
    put(&mut *first, 0, 1).await.expect("it is the last now");
    assert_eq!(topic.ids().await, [1]);
}

#[tokio::test]
async fn readers_see_nothing_of_a_run_that_was_not_committed() {
    let topic = Topic::new(false);
    let mut sink = topic.sink(deliverer(1));
    fence(&mut *sink).await;
    topic.cluster.fail_next(Fault::SendFails);
    assert!(put(&mut *sink, 0, 1).await.is_err());
    assert!(topic.ids().await.is_empty());
    topic.cluster.fail_next(Fault::StartFails);
    assert!(sink.fence().await.is_err());
    fence(&mut *sink).await;
    put(&mut *sink, 0, 1).await.expect("applied");
    assert_eq!(topic.ids().await, [1]);
}

#[tokio::test]
async fn a_record_that_is_too_large_is_a_refused_row_and_the_others_go_on() {
    let topic = Topic::new(false);
    let long: &'static str = Box::leak("x".repeat(2_000).into_boxed_str());
    let rows = conformance::MemoryRows::of(&[&[Change::Put(1, "a"), Change::Put(2, long)]]);
    let run = EpochRun {
        guard: Epoch(0),
        last: Epoch(1),
        row_count: 2,
    };
    let rejects = conformance::MemoryRejects::default();
    let mut sink = topic.make(deliverer(1), OnViolation::Fail);
    fence(&mut sink).await;
    let failed = sink.apply(&run, &rows, &rejects).await;
    assert!(
        matches!(failed, Err(SinkError::Refused { .. })),
        "{failed:?}"
    );
    assert!(rejects.kept().is_empty());
    let mut sink = topic.make(deliverer(1), OnViolation::DeadLetter);
    fence(&mut sink).await;
    let applied = sink.apply(&run, &rows, &rejects).await.expect("applied");
    assert_eq!((applied.row_count, applied.rejected_count), (1, 1));
    let kept = &rejects.kept()[0].1[0];
    assert!(kept.reason.contains("max.message.bytes"), "{}", kept.reason);
    assert!(kept.payload.starts_with(r#"{"id":2,"#), "{}", kept.payload);
    assert_eq!(topic.ids().await, [1]);
}

#[tokio::test]
async fn a_missing_topic_and_an_unsafe_progress_topic_are_refused_with_what_to_do() {
    let cause = async |cluster: &MemoryCluster| {
        let spec = spec("memory", TOPIC);
        let schema = conformance::schema();
        let shared = Arc::new(cluster.clone());
        let sink = KafkaSink::new(spec, deliverer(1), schema, OnViolation::Fail, shared);
        match sink.expect("known columns").fence().await {
            Err(error @ SinkError::Refused { .. }) => error.to_string(),
            other => panic!("not refused: {other:?}"),
        }
    };
    let cluster = MemoryCluster::default();
    let missing = cause(&cluster).await;
    assert!(
        missing.contains("kafka-topics --create --topic rows"),
        "{missing}"
    );
    cluster.create_topic(TOPIC, shape(1));
    cluster.create_topic(PROGRESS, shape(4));
    let moved = cause(&cluster).await;
    assert!(moved.contains("has 4 partitions, not 16"), "{moved}");
    let forgets = TopicShape {
        cleanup_policy: Some("delete".to_owned()),
        ..shape(16)
    };
    cluster.create_topic(PROGRESS, forgets);
    let forgets = cause(&cluster).await;
    assert!(forgets.contains("cleanup.policy=delete"), "{forgets}");
}
