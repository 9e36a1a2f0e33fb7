//! Partitions of a topic, each with the offsets to read from and, for a bounded job, to.
//!
//! Called through [`Enumerator`]; asks the brokers in blocking work. Offsets are fixed once, at submit: what `start` and
//! `end` mean never moves while the job runs. A partition that appears later is read from its first record, since
//! all of it came after the submit. Failure: no broker, no topic (with the nearest name), no permission.

use std::collections::BTreeMap;

use async_trait::async_trait;
use millstream_common::blocking::{self, BlockingRef};
use millstream_common::ids::SplitId;
use millstream_common::plan::connector::{KafkaEnd, KafkaSourceSpec, KafkaStart};
use millstream_common::report::SplitProgress;
use millstream_common::secret;
use millstream_common::suggest::nearest;

use super::kafka_client::{ClientError, KafkaClient, Topic, Wanted};
use super::{EnumerateError, Enumerator, FoundSplit, found, panicked};

pub(super) struct KafkaEnumerator {
    spec: KafkaSourceSpec,
    blocking: BlockingRef,
    /// A bounded job's partitions have been fixed.
    fixed: bool,
}

impl KafkaEnumerator {
    pub(super) fn new(spec: KafkaSourceSpec, blocking: BlockingRef) -> Self {
        Self {
            spec,
            blocking,
            fixed: false,
        }
    }
}

#[async_trait]
impl Enumerator for KafkaEnumerator {
    async fn discover(
        &mut self,
        known: &BTreeMap<SplitId, SplitProgress>,
    ) -> Result<Vec<FoundSplit>, EnumerateError> {
        let is_bounded = self.spec.end.is_some();
        if is_bounded && !known.is_empty() {
            self.fixed = true;
            return Ok(vec![]);
        }
        let what = format!("find partitions of topic {}", self.spec.topic);
        let spec = self.spec.clone();
        let known: Vec<SplitId> = known.keys().cloned().collect();
        let found = blocking::run(&self.blocking, move || find(&spec, &known))
            .await
            .map_err(|error| panicked(&what, &error))?
            .map_err(|error| EnumerateError {
                kind: error.kind(),
                what,
                cause: error.to_string(),
            })?;
        self.fixed = is_bounded;
        Ok(found)
    }

    fn is_exhausted(&self) -> bool {
        self.fixed
    }
}

fn find(spec: &KafkaSourceSpec, known: &[SplitId]) -> Result<Vec<FoundSplit>, ClientError> {
    let name = secret::resolve(&spec.topic)?;
    let name = name.expose();
    let client = KafkaClient::new(&spec.topic_spec())?;
    let Some(topic) = client.topic(name)? else {
        return Err(missing(&client, spec, name));
    };
    let split_of = |partition: i32| SplitId(format!("{name}-{partition}"));
    let new: Vec<i32> = topic
        .partitions
        .into_iter()
        .filter(|partition| !known.contains(&split_of(*partition)))
        .collect();
    if new.is_empty() {
        return Ok(vec![]);
    }
    let start = match spec.start {
        _ if !known.is_empty() => Wanted::Earliest,
        KafkaStart::Earliest => Wanted::Earliest,
        KafkaStart::Latest => Wanted::Latest,
        KafkaStart::Timestamp { unix_ms } => Wanted::At { unix_ms },
    };
    let starts = client.offsets(name, &new, start)?;
    let ends = match spec.end {
        None => BTreeMap::new(),
        Some(KafkaEnd::Latest) => client.offsets(name, &new, Wanted::Latest)?,
        Some(KafkaEnd::Timestamp { unix_ms }) => {
            client.offsets(name, &new, Wanted::At { unix_ms })?
        }
    };
    let splits = starts.into_iter().map(|(partition, position)| {
        let end = ends.get(&partition).map(|end| (*end).max(position));
        found(split_of(partition), position, end)
    });
    Ok(splits.collect())
}

/// The error of a topic that is not there: perhaps another was meant, perhaps it is yet to be made.
fn missing_topic(topics: &[Topic], brokers: &str, name: &str) -> String {
    let hint = nearest(name, topics.iter().map(|topic| topic.name.as_str()))
        .map(|near| format!("did you mean {near}? "))
        .unwrap_or_default();
    format!(
        "topic {name} does not exist: {hint}create it with: kafka-topics.sh --bootstrap-server {brokers} --create \
         --topic {name} --partitions 4"
    )
}

fn missing(client: &KafkaClient, spec: &KafkaSourceSpec, name: &str) -> ClientError {
    let topics = client.topics().unwrap_or_default();
    ClientError::for_user(missing_topic(&topics, &spec.brokers, name))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use millstream_common::blocking::ThreadPool;
    use millstream_common::error::Kind;
    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

    use super::*;

    type Cluster = MockCluster<'static, DefaultProducerContext>;

    fn cluster_with(topic: &str, counts: &[i64]) -> Cluster {
        let cluster = MockCluster::new(1).expect("mock cluster");
        let partition_count = i32::try_from(counts.len()).expect("few partitions");
        cluster
            .create_topic(topic, partition_count, 1)
            .expect("topic");
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap_servers())
            .create()
            .expect("producer");
        for (partition, count) in (0..).zip(counts) {
            for _ in 0..*count {
                let record: BaseRecord<'_, str, str> =
                    BaseRecord::to(topic).partition(partition).payload("{}");
                producer
                    .send(record)
                    .map_err(|(error, _)| error)
                    .expect("send");
            }
        }
        producer
            .flush(std::time::Duration::from_secs(30))
            .expect("flush");
        cluster
    }

    fn enumerator(brokers: &str, start: KafkaStart, end: Option<KafkaEnd>) -> KafkaEnumerator {
        let spec = KafkaSourceSpec {
            brokers: brokers.to_owned(),
            topic: "clicks".to_owned(),
            start,
            end,
            group_id: None,
            properties: BTreeMap::new(),
            discovery_interval_ms: 1_000,
            on_gap: Default::default(),
        };
        KafkaEnumerator::new(spec, Arc::new(ThreadPool))
    }

    fn bounds(splits: &[FoundSplit]) -> Vec<(&str, i64, Option<i64>)> {
        splits
            .iter()
            .map(|found| {
                let progress = &found.progress;
                (found.split.as_str(), progress.position, progress.end)
            })
            .collect()
    }

    fn known(splits: &[FoundSplit]) -> BTreeMap<SplitId, SplitProgress> {
        splits
            .iter()
            .map(|found| (found.split.clone(), found.progress.clone()))
            .collect()
    }

    #[tokio::test]
    async fn partitions_begin_where_start_says_at_submit() {
        let cluster = cluster_with("clicks", &[3, 0]);
        let brokers = cluster.bootstrap_servers();
        let mut earliest = enumerator(&brokers, KafkaStart::Earliest, None);
        let found = earliest.discover(&BTreeMap::new()).await.expect("splits");
        assert_eq!(
            bounds(&found),
            vec![("clicks-0", 0, None), ("clicks-1", 0, None)]
        );
        let mut latest = enumerator(&brokers, KafkaStart::Latest, None);
        let found = latest.discover(&BTreeMap::new()).await.expect("splits");
        assert_eq!(
            bounds(&found),
            vec![("clicks-0", 3, None), ("clicks-1", 0, None)]
        );
        assert!(!latest.is_exhausted());
    }

    #[tokio::test]
    async fn a_partition_that_appears_later_is_read_from_its_first_record() {
        let cluster = cluster_with("clicks", &[3, 2]);
        let mut enumerator = enumerator(&cluster.bootstrap_servers(), KafkaStart::Latest, None);
        let found = enumerator.discover(&BTreeMap::new()).await.expect("splits");
        let later = enumerator.discover(&known(&found[..1])).await;
        assert_eq!(bounds(&later.expect("splits")), vec![("clicks-1", 0, None)]);
        let none = enumerator.discover(&known(&found)).await.expect("splits");
        assert_eq!(none, vec![]);
    }

    #[tokio::test]
    async fn a_bounded_job_has_its_ends_fixed_at_submit() {
        let cluster = cluster_with("clicks", &[3, 0]);
        let mut enumerator = enumerator(
            &cluster.bootstrap_servers(),
            KafkaStart::Earliest,
            Some(KafkaEnd::Latest),
        );
        let found = enumerator.discover(&BTreeMap::new()).await.expect("splits");
        assert_eq!(
            bounds(&found),
            vec![("clicks-0", 0, Some(3)), ("clicks-1", 0, Some(0))]
        );
        assert!(enumerator.is_exhausted());
        let later = enumerator.discover(&known(&found)).await.expect("splits");
        assert_eq!(later, vec![]);
    }

    #[tokio::test]
    async fn a_broker_that_is_not_there_is_named() {
        let mut enumerator = enumerator("127.0.0.1:1", KafkaStart::Earliest, None);
        let error = enumerator.discover(&BTreeMap::new()).await;
        let error = error.expect_err("nobody listens");
        assert_eq!(error.kind, Kind::External);
        assert!(error.cause.contains("127.0.0.1:1"), "{error}");
    }

    #[test]
    fn a_missing_topic_is_told_with_the_nearest_name_and_how_to_make_it() {
        let topics = [Topic {
            name: "clicks_topic".to_owned(),
            partitions: vec![0],
        }];
        let text = missing_topic(&topics, "${KAFKA_BROKERS}", "click_topic");
        assert!(text.contains("did you mean clicks_topic?"), "{text}");
        assert!(text.contains("--create --topic click_topic"), "{text}");
    }
}
