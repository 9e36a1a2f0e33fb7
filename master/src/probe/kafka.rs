//! The topics of a cluster.
//!
//! Called by [`super::RealProbe`] only; asks in blocking work.

use millstream_common::blocking::{self, BlockingRef};
use millstream_common::error::Kind;
use millstream_common::plan::connector::KafkaSourceSpec;

use super::{ProbeError, TopicInfo};
use crate::enumerate::kafka_client::KafkaClient;

pub(super) async fn topics(
    blocking: &BlockingRef,
    spec: &KafkaSourceSpec,
) -> Result<Vec<TopicInfo>, ProbeError> {
    let what = format!("ask Kafka at {} for its topics", spec.brokers);
    let spec = spec.clone();
    let asked = blocking::run(blocking, move || {
        KafkaClient::new(&spec).and_then(|client| client.topics())
    });
    match asked.await {
        Ok(Ok(topics)) => Ok(topics
            .into_iter()
            .map(|topic| TopicInfo {
                name: topic.name,
                partition_count: topic.partitions.len(),
            })
            .collect()),
        Ok(Err(error)) => Err(ProbeError {
            kind: error.kind,
            what,
            cause: error.cause,
        }),
        Err(panicked) => Err(ProbeError {
            kind: Kind::Internal,
            what,
            cause: panicked.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use millstream_common::blocking::ThreadPool;
    use millstream_common::plan::connector::KafkaStart;
    use rdkafka::mocking::MockCluster;

    use super::*;

    fn spec(brokers: String) -> KafkaSourceSpec {
        KafkaSourceSpec {
            brokers,
            topic: "clicks".to_owned(),
            start: KafkaStart::Earliest,
            end: None,
            group_id: None,
            properties: BTreeMap::new(),
            discovery_interval_ms: 1_000,
        }
    }

    #[tokio::test]
    async fn the_topics_of_a_cluster_are_listed_by_name() {
        let cluster = MockCluster::new(1).expect("mock cluster");
        cluster.create_topic("orders", 1, 1).expect("topic");
        cluster.create_topic("clicks", 4, 1).expect("topic");
        let blocking: BlockingRef = Arc::new(ThreadPool);
        let found = topics(&blocking, &spec(cluster.bootstrap_servers())).await;
        let topic = |name: &str, partition_count| TopicInfo {
            name: name.to_owned(),
            partition_count,
        };
        assert_eq!(found, Ok(vec![topic("clicks", 4), topic("orders", 1)]));
    }

    #[tokio::test]
    async fn a_broker_that_is_not_there_is_no_fault_of_the_options() {
        let blocking: BlockingRef = Arc::new(ThreadPool);
        let refused = topics(&blocking, &spec("127.0.0.1:1".to_owned())).await;
        let refused = refused.expect_err("nobody listens");
        assert_eq!(refused.kind, Kind::External);
        assert!(refused.to_string().contains("127.0.0.1:1"), "{refused}");
    }

    #[tokio::test]
    async fn an_option_that_the_client_does_not_know_is_named_without_its_value() {
        let mut spec = spec("127.0.0.1:1".to_owned());
        let option = ("sasl.passwort".to_owned(), "hunter2".to_owned());
        spec.properties.extend([option]);
        let blocking: BlockingRef = Arc::new(ThreadPool);
        let refused = topics(&blocking, &spec).await.expect_err("no such option");
        assert_eq!(refused.kind, Kind::User);
        assert!(refused.cause.contains("kafka.sasl.passwort"), "{refused}");
        assert!(!refused.cause.contains("hunter2"), "{refused}");
    }
}
