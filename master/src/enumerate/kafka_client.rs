//! A Kafka client that only asks: topics, partitions, offsets. For discovery and for `check`.
//!
//! Every call blocks and is to be made where that is allowed; made, used and dropped within one piece of blocking
//! work. Failure: [`ClientError`] tells an unreachable broker from a refused user, within ten seconds.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use millstream_common::error::Kind;
use millstream_common::plan::connector::KafkaTopicSpec;
use millstream_common::secret;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

/// How long the brokers may take for names: a short first try tells soon that nobody is there.
const METADATA_PATIENCE: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(3),
];
/// How long the brokers may take for offsets.
const OFFSETS_PATIENCE: Duration = Duration::from_secs(3);

/// What a question can fail with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClientError {
    /// A reference in an option that does not resolve.
    #[error("{0}")]
    Reference(String),
    /// No answer.
    #[error(
        "no broker answers at {brokers}: {reason}; check the address, and that Kafka runs and advertises it"
    )]
    Unreachable { brokers: String, reason: String },
    /// An answer that lets nobody in.
    #[error(
        "the brokers refuse the user: {0}; check \"kafka.sasl.username\" and \"kafka.sasl.password\""
    )]
    Denied(String),
    /// Anything else.
    #[error("{cause}")]
    Other { kind: Kind, cause: String },
}

impl ClientError {
    /// Who has to act.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Reference(_) | Self::Denied(_) => Kind::User,
            Self::Unreachable { .. } => Kind::External,
            Self::Other { kind, .. } => *kind,
        }
    }

    pub(crate) fn for_user(cause: impl Into<String>) -> Self {
        let cause = cause.into();
        Self::Other {
            kind: Kind::User,
            cause,
        }
    }

    fn external(cause: impl Into<String>) -> Self {
        let cause = cause.into();
        Self::Other {
            kind: Kind::External,
            cause,
        }
    }
}

impl From<secret::Error> for ClientError {
    fn from(error: secret::Error) -> Self {
        Self::Reference(error.to_string())
    }
}

/// A topic of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) partitions: Vec<i32>,
}

/// Which offset of a partition is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Of the first record kept.
    Earliest,
    /// Behind the last record.
    Latest,
    /// Of the first record at or after this time, or behind the last.
    At { unix_ms: i64 },
}

/// Keeps what the client says went wrong, since its calls return only that they took too long.
#[derive(Default)]
struct Listener {
    errors: Mutex<Vec<(RDKafkaErrorCode, String)>>,
}

impl ClientContext for Listener {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!(facility, "{text}");
    }

    fn error(&self, error: KafkaError, text: &str) {
        if let KafkaError::Global(code) = error {
            self.errors
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((code, text.to_owned()));
        }
    }
}

impl ConsumerContext for Listener {}

pub(crate) struct KafkaClient {
    consumer: BaseConsumer<Listener>,
    /// As the user wrote them: references stay references.
    brokers: String,
}

impl KafkaClient {
    /// A client for the brokers of `spec`; connects at the first question.
    pub(crate) fn new(spec: &KafkaTopicSpec) -> Result<Self, ClientError> {
        let mut config = ClientConfig::new();
        config.set("client.id", "millstream-master");
        for (name, value) in &spec.properties {
            config.set(name, secret::resolve(value)?.expose());
        }
        let brokers = secret::resolve(&spec.brokers)?;
        config.set("bootstrap.servers", brokers.expose());
        config.remove("group.id");
        config.set_log_level(RDKafkaLogLevel::Notice);
        let consumer = config
            .create_with_context(Listener::default())
            .map_err(|error| ClientError::for_user(refused_option(&error)))?;
        Ok(Self {
            consumer,
            brokers: spec.brokers.clone(),
        })
    }

    /// All topics, by name, for suggestions: the cluster's own and those that this user may not see are left out.
    pub(crate) fn topics(&self) -> Result<Vec<Topic>, ClientError> {
        let metadata = self.metadata(None)?;
        let mut topics: Vec<Topic> = metadata
            .topics()
            .iter()
            .filter(|topic| !topic.name().starts_with("__"))
            .map(topic_of)
            .collect();
        topics.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(topics)
    }

    /// One topic; `None` if the cluster has none of this name.
    pub(crate) fn topic(&self, name: &str) -> Result<Option<Topic>, ClientError> {
        let metadata = self.metadata(Some(name))?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
            return Ok(None);
        };
        match topic.error() {
            None => Ok(Some(topic_of(topic)).filter(|topic| !topic.partitions.is_empty())),
            Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => Ok(None),
            Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) => {
                let cause = format!("the brokers do not let this user DESCRIBE topic {name}");
                Err(ClientError::for_user(cause))
            }
            Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION) => Err(ClientError::for_user(
                "a topic's name has only letters, digits, '.', '_' and '-'",
            )),
            Some(other) => Err(ClientError::external(
                RDKafkaErrorCode::from(other).to_string(),
            )),
        }
    }

    /// One offset of each partition.
    pub(crate) fn offsets(
        &self,
        topic: &str,
        partitions: &[i32],
        wanted: Wanted,
    ) -> Result<BTreeMap<i32, i64>, ClientError> {
        // Time -1 asks for the end and -2 for the beginning, as in Kafka's own protocol.
        let time = match wanted {
            Wanted::Earliest => Offset::Beginning,
            Wanted::Latest => Offset::End,
            Wanted::At { unix_ms } => Offset::Offset(unix_ms.max(0)),
        };
        let mut asked = TopicPartitionList::new();
        for partition in partitions {
            asked
                .add_partition_offset(topic, *partition, time)
                .map_err(|error| self.explained(&error))?;
        }
        let answer = self
            .consumer
            .offsets_for_times(asked, OFFSETS_PATIENCE)
            .map_err(|error| self.explained(&error))?;
        let mut offsets = BTreeMap::new();
        let mut behind_the_last = Vec::new();
        for element in answer.elements() {
            element.error().map_err(|error| self.explained(&error))?;
            match element.offset() {
                Offset::Offset(offset) => {
                    offsets.insert(element.partition(), offset);
                }
                _ => behind_the_last.push(element.partition()),
            }
        }
        if behind_the_last.is_empty() {
            return Ok(offsets);
        }
        if wanted == Wanted::Latest {
            let cause = format!("partitions {behind_the_last:?} have no leader now");
            return Err(ClientError::external(cause));
        }
        offsets.extend(self.offsets(topic, &behind_the_last, Wanted::Latest)?);
        Ok(offsets)
    }

    fn metadata(&self, topic: Option<&str>) -> Result<Metadata, ClientError> {
        let mut last = ClientError::external("no question was asked");
        for patience in METADATA_PATIENCE {
            match self.consumer.fetch_metadata(topic, patience) {
                Ok(metadata) => return Ok(metadata),
                Err(error) => last = self.explained(&error),
            }
            if !last.kind().is_retryable() || self.has_heard(RDKafkaErrorCode::AllBrokersDown) {
                break;
            }
        }
        Err(last)
    }

    /// An error with what the client has said meanwhile, which is nearer to the cause.
    fn explained(&self, error: &KafkaError) -> ClientError {
        // Errors reach the listener only through a poll.
        while self.consumer.poll(Duration::ZERO).is_some() {}
        let heard = self
            .consumer
            .context()
            .errors
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_refusal = |code| {
            matches!(
                code,
                RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed
            )
        };
        if let Some((_, text)) = heard.iter().find(|(code, _)| is_refusal(*code)) {
            return ClientError::Denied(text.clone());
        }
        let reason = heard
            .iter()
            .find(|(code, _)| *code != RDKafkaErrorCode::AllBrokersDown)
            .map_or_else(|| error.to_string(), |(_, text)| text.clone());
        ClientError::Unreachable {
            brokers: self.brokers.clone(),
            reason,
        }
    }

    fn has_heard(&self, wanted: RDKafkaErrorCode) -> bool {
        self.consumer
            .context()
            .errors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .any(|(code, _)| *code == wanted)
    }
}

fn topic_of(topic: &rdkafka::metadata::MetadataTopic) -> Topic {
    let mut partitions: Vec<i32> = topic
        .partitions()
        .iter()
        .map(rdkafka::metadata::MetadataPartition::id)
        .collect();
    partitions.sort_unstable();
    Topic {
        name: topic.name().to_owned(),
        partitions,
    }
}

/// What the client says of an option, without its value, which may be a secret.
fn refused_option(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, description, name, _) => {
            format!("option \"kafka.{name}\": {description}")
        }
        other => other.to_string(),
    }
}
