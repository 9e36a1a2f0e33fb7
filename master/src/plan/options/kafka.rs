//! Options of the `kafka` source and the `kafka` sink.

use std::collections::BTreeMap;

use millstream_common::plan::connector::{
    KafkaEnd, KafkaPartitioner, KafkaSinkSpec, KafkaSourceSpec, KafkaStart, OnGap,
};

use super::Options;
use crate::plan::problem::Problem;
use crate::plan::value;

/// Properties of librdkafka that a job may set; the others would break what source and sink promise, or mean
/// nothing to them.
const CONNECTION_PROPERTIES: [&str; 31] = [
    "broker.address.family",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "connections.max.idle.ms",
    "enable.ssl.certificate.verification",
    "metadata.max.age.ms",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.timeout.ms",
    "sasl.kerberos.keytab",
    "sasl.kerberos.principal",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "socket.keepalive.enable",
    "socket.receive.buffer.bytes",
    "socket.timeout.ms",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
];
/// Those of a source besides.
const SOURCE_PROPERTIES: [&str; 11] = [
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "isolation.level",
    "max.partition.fetch.bytes",
    "message.max.bytes",
    "queued.max.messages.kbytes",
    "queued.min.messages",
];
/// Those of a sink besides.
const SINK_PROPERTIES: [&str; 5] = [
    "compression.codec",
    "compression.level",
    "compression.type",
    "linger.ms",
    "message.max.bytes",
];
/// Values that are secrets: a literal is refused.
const SECRET_PROPERTIES: [&str; 3] = [
    "sasl.password",
    "ssl.key.password",
    "sasl.oauthbearer.client.secret",
];
/// Whether librdkafka was built with OpenSSL.
const HAS_TLS: bool = cfg!(feature = "kafka-tls");
const BUILD: &str = "cargo build --workspace --release --features millstream-cli/kafka-tls";
const DISCOVERY_INTERVAL_MS: u64 = 30_000;
/// It spans one delivery, not the time between two epochs.
const TRANSACTION_TIMEOUT_MS: u64 = 60_000;
/// librdkafka takes no less.
const TRANSACTION_TIMEOUT_MS_MIN: u64 = 1_000;
const PROGRESS_TOPIC: &str = "__millstream_progress";

/// Takes the options of a `kafka` source.
pub(super) fn read_source(options: &mut Options<'_>) -> KafkaSourceSpec {
    KafkaSourceSpec {
        brokers: options.required_text("brokers", "${KAFKA_BROKERS:-localhost:9092}"),
        topic: options.required_text("topic", "clicks_topic"),
        start: options
            .parsed("start", start)
            .unwrap_or(KafkaStart::Earliest),
        end: options.parsed("end", end),
        group_id: options.text("group_id"),
        properties: properties(options, &SOURCE_PROPERTIES),
        discovery_interval_ms: options.positive_millis("discovery_interval", DISCOVERY_INTERVAL_MS),
        on_gap: options
            .word("on_gap", &[("fail", OnGap::Fail), ("skip", OnGap::Skip)])
            .unwrap_or_default(),
    }
}

/// Takes the options of a `kafka` sink.
pub(super) fn read_sink(options: &mut Options<'_>) -> KafkaSinkSpec {
    let partitioners = [
        ("murmur2", KafkaPartitioner::Murmur2),
        ("crc32", KafkaPartitioner::Crc32),
        ("fnv1a", KafkaPartitioner::Fnv1a),
        ("random", KafkaPartitioner::Random),
    ];
    let brokers = options.required_text("brokers", "${KAFKA_BROKERS:-localhost:9092}");
    let topic = options.required_text("topic", "page_views");
    options.word("format", &[("json", ())]);
    let key = options.names("key");
    let primary_key = options.names("primary_key");
    if !key.is_empty() && !primary_key.is_empty() {
        options
            .refuse("key", "the key of a record is its primary_key")
            .hint = Some("leave key out".to_owned());
    }
    let upsert = !primary_key.is_empty();
    KafkaSinkSpec {
        brokers,
        topic,
        key: if upsert { primary_key } else { key },
        upsert,
        headers: options.names("headers"),
        partitioner: options
            .word("partitioner", &partitioners)
            .unwrap_or(KafkaPartitioner::Murmur2),
        transaction_timeout_ms: transaction_timeout(options),
        progress_topic: options
            .text("progress_topic")
            .unwrap_or_else(|| PROGRESS_TOPIC.to_owned()),
        properties: properties(options, &SINK_PROPERTIES),
    }
}

fn transaction_timeout(options: &mut Options<'_>) -> u64 {
    const NAME: &str = "transaction_timeout";
    let millis = options.millis(NAME, TRANSACTION_TIMEOUT_MS);
    if millis < TRANSACTION_TIMEOUT_MS_MIN {
        options.refuse(NAME, format!("option {NAME} must be at least a second"));
        return TRANSACTION_TIMEOUT_MS;
    }
    millis
}

fn start(text: &str) -> Result<KafkaStart, String> {
    match text {
        "earliest" => Ok(KafkaStart::Earliest),
        "latest" => Ok(KafkaStart::Latest),
        _ => {
            moment_ms(text, "'earliest', 'latest'").map(|unix_ms| KafkaStart::Timestamp { unix_ms })
        }
    }
}

fn end(text: &str) -> Result<KafkaEnd, String> {
    match text {
        "latest" => Ok(KafkaEnd::Latest),
        _ => moment_ms(text, "'latest'").map(|unix_ms| KafkaEnd::Timestamp { unix_ms }),
    }
}

fn moment_ms(text: &str, words: &str) -> Result<i64, String> {
    match value::moment_micros(text) {
        Ok(micros) => Ok(micros.div_euclid(1_000)),
        Err(_) => Err(format!(
            "{text:?} is neither {words} nor a time as '2026-01-17T10:15:00Z'"
        )),
    }
}

/// The connection's properties, and those of `own`.
fn properties(options: &mut Options<'_>, own: &[&str]) -> BTreeMap<String, String> {
    let known: Vec<&str> = CONNECTION_PROPERTIES.iter().chain(own).copied().collect();
    let mut properties = BTreeMap::new();
    for option in options.with_prefix("kafka.") {
        let property = option.rest.as_str();
        if !known.contains(&property) {
            let message = format!("kafka property {property} cannot be set");
            let problem = Problem::at(option.name_place, message);
            let nearest = millstream_common::suggest::nearest(property, known.iter().copied());
            options.problems.push(problem.hint(match nearest {
                Some(nearest) => format!("did you mean \"kafka.{nearest}\"?"),
                None => format!("these can be: {}", known.join(", ")),
            }));
            continue;
        }
        if SECRET_PROPERTIES.contains(&property) && !option.value.contains("${") {
            let name = &option.name;
            let variable = property.to_uppercase().replace('.', "_");
            options
                .refuse(name, format!("{property} is a literal secret"))
                .hint = Some(format!(
                "write \"{name}\" = '${{KAFKA_{variable}}}' and set that variable"
            ));
            continue;
        }
        if needs_tls(property, &option.value) && !HAS_TLS {
            let message = format!(
                "this millstream was built without TLS to Kafka, which {property} = '{}' needs",
                option.value
            );
            options.refuse(&option.name, message).hint =
                Some(format!("build one that has it: {BUILD}"));
            continue;
        }
        properties.insert(option.rest, option.value);
    }
    properties
}

/// Whether the client can do this only with OpenSSL. What a reference stands for is not known yet: then the client
/// itself refuses, when it is made.
fn needs_tls(property: &str, value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    match property {
        "security.protocol" => value == "ssl" || value == "sasl_ssl",
        "sasl.mechanism" | "sasl.mechanisms" => {
            value.starts_with("scram-") || value == "oauthbearer"
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encryption_and_salted_logins_need_a_client_with_tls() {
        for (property, value) in [
            ("security.protocol", "SASL_SSL"),
            ("security.protocol", "ssl"),
            ("sasl.mechanisms", "SCRAM-SHA-512"),
        ] {
            assert!(needs_tls(property, value), "{property} = {value}");
        }
        assert!(!needs_tls("security.protocol", "SASL_PLAINTEXT"));
        assert!(!needs_tls("sasl.mechanism", "PLAIN"));
        assert!(!needs_tls("client.id", "ssl"));
    }
}
