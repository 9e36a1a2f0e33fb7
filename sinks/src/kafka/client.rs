//! A real Kafka cluster, through librdkafka.
//!
//! Made by the worker. Every call runs as blocking work and gives up within seconds. References in options are resolved here,
//! in the process that connects, and nowhere printed. Options of the user come before what only tunes and behind what
//! the protocol rests on. Failure: `error.rs` judges what librdkafka says.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::executor::block_on;
use millstream_common::blocking::BlockingRef;
use millstream_common::plan::connector::{KafkaPartitioner, KafkaSinkSpec};
use millstream_common::secret;
use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, ClientContext};

use super::cluster::{
    Cluster, ClusterError, CommittedReader, ProducerSettings, TopicShape, TransactionalProducer,
};
use super::error::{judge, judge_code};
use super::offload;
use super::producer::RealProducer;
use super::reader::RealReader;

/// How long the brokers may take for an answer about topics.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bounds and waits; a user may set others.
const TUNING: [(&str, &str); 5] = [
    ("client.id", "millstream"),
    // Back within a second of a broker's restart.
    ("reconnect.backoff.max.ms", "1000"),
    ("socket.keepalive.enable", "true"),
    ("log.connection.close", "false"),
    // A transaction waits for its last record: do not linger.
    ("linger.ms", "2"),
];

/// Kafka as it is.
pub struct RealCluster {
    blocking: BlockingRef,
}

impl RealCluster {
    /// Calls run in `blocking`.
    pub fn new(blocking: BlockingRef) -> Self {
        Self { blocking }
    }
}

#[async_trait]
impl Cluster for RealCluster {
    async fn topics(
        &self,
        spec: &KafkaSinkSpec,
        names: &[&str],
    ) -> Result<Vec<Option<TopicShape>>, ClusterError> {
        let config = config(spec)?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        offload::run(&self.blocking, move || topics(&config, &names)).await
    }

    async fn create_compacted(
        &self,
        spec: &KafkaSinkSpec,
        name: &str,
        partition_count: usize,
    ) -> Result<(), ClusterError> {
        let config = config(spec)?;
        let name = name.to_owned();
        let work = move || create_compacted(&config, &name, partition_count);
        offload::run(&self.blocking, work).await
    }

    async fn reader(
        &self,
        spec: &KafkaSinkSpec,
        topic: &str,
        partition: i32,
    ) -> Result<Box<dyn CommittedReader>, ClusterError> {
        let config = config(spec)?;
        let reader = RealReader::open(&self.blocking, config, topic, partition).await?;
        Ok(Box::new(reader))
    }

    async fn producer(
        &self,
        spec: &KafkaSinkSpec,
        settings: &ProducerSettings,
    ) -> Result<Box<dyn TransactionalProducer>, ClusterError> {
        let mut config = config(spec)?;
        config.set("partitioner", partitioner(spec.partitioner));
        let timeout = Duration::from_millis(spec.transaction_timeout_ms);
        let producer = RealProducer::open(&self.blocking, config, settings, timeout).await?;
        Ok(Box::new(producer))
    }
}

fn partitioner(partitioner: KafkaPartitioner) -> &'static str {
    match partitioner {
        KafkaPartitioner::Murmur2 => "murmur2_random",
        KafkaPartitioner::Crc32 => "consistent_random",
        KafkaPartitioner::Fnv1a => "fnv1a_random",
        KafkaPartitioner::Random => "random",
    }
}

/// What every client of the sink shares.
fn config(spec: &KafkaSinkSpec) -> Result<ClientConfig, ClusterError> {
    let refused = |error: secret::Error| ClusterError::Refused(error.to_string());
    let mut config = ClientConfig::new();
    for (name, value) in TUNING {
        config.set(name, value);
    }
    for (name, value) in &spec.properties {
        let value = secret::resolve(value).map_err(refused)?;
        config.set(name, value.expose());
    }
    let brokers = secret::resolve(&spec.brokers).map_err(refused)?;
    config.set("bootstrap.servers", brokers.expose());
    config.set_log_level(RDKafkaLogLevel::Notice);
    Ok(config)
}

/// Keeps what a client says went wrong, since its calls return only that they took too long.
#[derive(Default)]
pub(super) struct Listener {
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    reason: Option<String>,
    undelivered: Option<Code>,
}

impl Listener {
    /// Judges `error` together with what was heard.
    pub(super) fn judge(&self, error: &KafkaError) -> ClusterError {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        judge(error, heard.reason.as_deref())
    }

    /// Why a record that was handed over did not arrive.
    pub(super) fn undelivered(&self) -> Option<ClusterError> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let code = heard.undelivered?;
        Some(judge_code(code, format!("deliver a record: {code}")))
    }
}

impl ClientContext for Listener {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!(facility, "{text}");
    }

    fn error(&self, error: KafkaError, text: &str) {
        if error.rdkafka_error_code() != Some(Code::AllBrokersDown) {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.reason = Some(text.to_owned());
        }
    }
}

impl ConsumerContext for Listener {}

impl ProducerContext for Listener {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            let code = error.rdkafka_error_code();
            heard.undelivered = heard.undelivered.or(code);
        }
    }
}

fn topics(
    config: &ClientConfig,
    names: &[String],
) -> Result<Vec<Option<TopicShape>>, ClusterError> {
    // A consumer: asking as a producer would create what is missing.
    let mut config = config.clone();
    config.remove("linger.ms");
    let consumer: BaseConsumer<Listener> = config
        .create_with_context(Listener::default())
        .map_err(|error| judge(&error, None))?;
    let mut shapes = Vec::new();
    for name in names {
        shapes.push(topic(&consumer, name)?);
    }
    let there = names.iter().zip(&mut shapes);
    let there: Vec<(&String, &mut TopicShape)> = there
        .filter_map(|(name, shape)| Some((name, shape.as_mut()?)))
        .collect();
    if !there.is_empty() {
        describe(&config, there)?;
    }
    Ok(shapes)
}

fn topic(
    consumer: &BaseConsumer<Listener>,
    name: &str,
) -> Result<Option<TopicShape>, ClusterError> {
    let metadata = consumer.fetch_metadata(Some(name), PATIENCE);
    let metadata = metadata.map_err(|error| {
        // What went wrong reaches the listener only through a poll.
        while consumer.poll(Duration::ZERO).is_some() {}
        consumer.context().judge(&error)
    })?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
        return Ok(None);
    };
    match topic.error() {
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => Ok(None),
        Some(error) => {
            let code = Code::from(error);
            Err(judge_code(code, format!("ask for topic {name}: {code}")))
        }
        None => Ok(Some(TopicShape {
            partition_count: topic.partitions().len(),
            message_bytes_max: None,
            cleanup_policy: None,
        })),
    }
}

fn admin(config: &ClientConfig) -> Result<AdminClient<Listener>, ClusterError> {
    let created = config.create_with_context(Listener::default());
    created.map_err(|error| judge(&error, None))
}

/// Fills in what the configuration of the topics says; a user who may not ask is told nothing.
fn describe(
    config: &ClientConfig,
    shapes: Vec<(&String, &mut TopicShape)>,
) -> Result<(), ClusterError> {
    let admin = admin(config)?;
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let asked: Vec<ResourceSpecifier<'_>> = shapes
        .iter()
        .map(|(name, _)| ResourceSpecifier::Topic(name))
        .collect();
    let described = block_on(admin.describe_configs(&asked, &options));
    let described = described.map_err(|error| judge(&error, None))?;
    for ((name, shape), configuration) in shapes.into_iter().zip(described) {
        match configuration {
            Ok(configuration) => fill(shape, &configuration),
            Err(code) => tracing::debug!(topic = %name, %code, "describe topic"),
        }
    }
    Ok(())
}

fn fill(shape: &mut TopicShape, configuration: &ConfigResource) {
    let value = |name| configuration.get(name)?.value.clone();
    shape.message_bytes_max = value("max.message.bytes").and_then(|size| size.parse().ok());
    shape.cleanup_policy = value("cleanup.policy");
}

fn create_compacted(
    config: &ClientConfig,
    name: &str,
    partition_count: usize,
) -> Result<(), ClusterError> {
    let admin = admin(config)?;
    // The brokers' own replication; small segments, so that what is superseded is soon compacted away.
    let topic = NewTopic::new(name, partition_count as i32, TopicReplication::Fixed(-1))
        .set("cleanup.policy", "compact")
        .set("segment.bytes", "16777216")
        .set("segment.ms", "3600000");
    let options = AdminOptions::new()
        .request_timeout(Some(PATIENCE))
        .operation_timeout(Some(PATIENCE));
    let created = block_on(admin.create_topics([&topic], &options));
    for result in created.map_err(|error| judge(&error, None))? {
        match result {
            Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
            Err((_, code)) => {
                let text = format!("create progress topic {name}: {code}");
                return Err(judge_code(code, text));
            }
        }
    }
    Ok(())
}
