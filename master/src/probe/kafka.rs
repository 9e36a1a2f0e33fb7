//! Whether a topic is there, and which others are.
//!
//! Called by [`super::RealProbe`] only; asks in blocking work.

use millstream_common::blocking::{self, BlockingRef};
use millstream_common::error::Kind;
use millstream_common::plan::connector::KafkaTopicSpec;
use millstream_common::secret;

use crate::enumerate::kafka_client::{ClientError, KafkaClient};
use crate::plan::check::{KafkaTopics, ProbeError};

pub(super) async fn topics(
    blocking: &BlockingRef,
    spec: &KafkaTopicSpec,
) -> Result<KafkaTopics, ProbeError> {
    let what = format!("ask Kafka at {} for its topics", spec.brokers);
    let spec = spec.clone();
    match blocking::run(blocking, move || ask(&spec)).await {
        Ok(Ok(topics)) => Ok(topics),
        Ok(Err(error)) => Err(ProbeError {
            kind: error.kind(),
            what,
            cause: error.to_string(),
            is_advised: !matches!(error, ClientError::Other { .. }),
        }),
        Err(panicked) => Err(ProbeError {
            kind: Kind::Internal,
            what,
            cause: panicked.to_string(),
            is_advised: false,
        }),
    }
}

fn ask(spec: &KafkaTopicSpec) -> Result<KafkaTopics, ClientError> {
    let wanted = secret::resolve(&spec.topic)?.expose().to_owned();
    let client = KafkaClient::new(spec)?;
    // Asked by its name, a topic is found that a list leaves out, and one that this user may not see is told from one that is
    // not there. Others are looked at only to suggest one.
    let topics = match client.topic(&wanted)? {
        Some(found) => vec![found],
        None => client.topics()?,
    };
    let topics = topics.into_iter().map(|topic| topic.name).collect();
    Ok(KafkaTopics { wanted, topics })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use millstream_common::blocking::ThreadPool;
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::RDKafkaRespErr;

    use super::*;

    async fn ask_at(
        brokers: &str,
        properties: BTreeMap<String, String>,
    ) -> Result<KafkaTopics, ProbeError> {
        ask_for("${MILLSTREAM_TEST_UNSET:-clicks}", brokers, properties).await
    }

    async fn ask_for(
        topic: &str,
        brokers: &str,
        properties: BTreeMap<String, String>,
    ) -> Result<KafkaTopics, ProbeError> {
        let spec = KafkaTopicSpec {
            brokers: brokers.to_owned(),
            topic: topic.to_owned(),
            properties,
        };
        let blocking: BlockingRef = Arc::new(ThreadPool);
        topics(&blocking, &spec).await
    }

    #[tokio::test]
    async fn a_topic_is_found_by_its_name_also_where_lists_leave_it_out() {
        let cluster = MockCluster::new(1).expect("mock cluster");
        let brokers = cluster.bootstrap_servers();
        for topic in ["clicks", "__audit"] {
            cluster.create_topic(topic, 1, 1).expect("topic");
            let found = ask_for(topic, &brokers, BTreeMap::new()).await;
            let found = found.expect("an answer");
            assert_eq!(found.wanted, topic);
            assert_eq!(found.topics, vec![topic.to_owned()]);
        }
    }

    #[tokio::test]
    async fn a_topic_that_this_user_may_not_see_is_not_said_to_be_missing() {
        let cluster = MockCluster::new(1).expect("mock cluster");
        cluster.create_topic("clicks", 1, 1).expect("topic");
        let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        cluster.topic_error("clicks", denied).expect("denied");
        let refused = ask_at(&cluster.bootstrap_servers(), BTreeMap::new()).await;
        let refused = refused.expect_err("the user may not");
        assert_eq!(refused.kind, Kind::User);
        assert!(refused.cause.contains("DESCRIBE topic clicks"), "{refused}");
    }

    #[tokio::test]
    async fn a_broker_that_is_not_there_does_not_answer() {
        let refused = ask_at("127.0.0.1:1", BTreeMap::new()).await;
        let refused = refused.expect_err("nobody listens");
        assert_eq!(refused.kind, Kind::External);
        assert!(refused.to_string().contains("127.0.0.1:1"), "{refused}");
    }

    #[tokio::test]
    async fn an_option_that_the_client_does_not_know_is_named_without_its_value() {
        let option = ("sasl.passwort".to_owned(), "hunter2".to_owned());
        let refused = ask_at("127.0.0.1:1", BTreeMap::from([option])).await;
        let text = refused.expect_err("no such option").to_string();
        assert!(text.contains("kafka.sasl.passwort"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}
