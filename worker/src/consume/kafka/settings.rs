//! The settings of the Kafka client, and how a split's name is read.
//!
//! Called by `reader_thread.rs`. References in options are resolved here, in the process that connects, and nowhere
//! printed. Options of the user come before what only tunes and behind what the protocol rests on.
//! Failure: an unset reference, or an option that librdkafka refuses, both for the user.

use millstream_common::plan::connector::KafkaSourceSpec;
use millstream_common::secret;
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

/// Bounds and waits; a user may set others.
const TUNING: [(&str, &str); 11] = [
    ("client.id", "millstream"),
    // The default of 1 s halves a consumer that is slower than its broker.
    ("fetch.queue.backoff.ms", "2"),
    // What is fetched ahead, for all partitions of the reader (INV-9). The client counts payloads only, and keeps about
    // 400 bytes beside each: small records are bounded by their number. A fetch may come on top of either.
    ("queued.max.messages.kbytes", "32768"),
    ("queued.min.messages", "65536"),
    ("fetch.message.max.bytes", "1048576"),
    ("fetch.max.bytes", "4194304"),
    // A broker answers at once when it has a byte; this is how often it says that it has none.
    ("fetch.wait.max.ms", "100"),
    ("fetch.error.backoff.ms", "100"),
    // Back within a second of a broker's restart.
    ("reconnect.backoff.max.ms", "1000"),
    ("socket.keepalive.enable", "true"),
    ("log.connection.close", "false"),
];

/// What exactly-once and watermarks rest on.
const FIXED: [(&str, &str); 5] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("enable.partition.eof", "true"),
    // Says which brokers answer: without it, an outage could not be told from silence.
    ("statistics.interval.ms", "2000"),
];

/// The client's settings; the group is named because the client insists, and joined never.
pub(super) fn client_config(
    spec: &KafkaSourceSpec,
    group_id: &str,
) -> Result<ClientConfig, secret::Error> {
    let mut config = ClientConfig::new();
    for (name, value) in TUNING {
        config.set(name, value);
    }
    for (name, value) in &spec.properties {
        config.set(name, secret::resolve(value)?.expose());
    }
    for (name, value) in FIXED {
        config.set(name, value);
    }
    config.set(
        "bootstrap.servers",
        secret::resolve(&spec.brokers)?.expose(),
    );
    config.set("group.id", secret::resolve(group_id)?.expose());
    config.set_log_level(RDKafkaLogLevel::Notice);
    Ok(config)
}

/// The partition in a split's name (`topic-3`), if it is one of this topic's.
pub(super) fn partition_of(split: &str, topic: &str) -> Option<i32> {
    let number = split.strip_prefix(topic)?.strip_prefix('-')?;
    number
        .parse()
        .ok()
        .filter(|partition: &i32| *partition >= 0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millstream_common::plan::connector::KafkaStart;

    use super::*;

    #[test]
    fn a_split_names_a_partition_of_its_topic_only() {
        assert_eq!(partition_of("a-b-12", "a-b"), Some(12));
        assert_eq!(partition_of("a-b-12", "a"), None);
        assert_eq!(partition_of("a--1", "a"), None);
    }

    #[test]
    fn options_are_resolved_and_tune_the_client_but_cannot_make_it_commit() {
        let spec = KafkaSourceSpec {
            brokers: "${MILLSTREAM_TEST_UNSET:-one:9092}".to_owned(),
            topic: "clicks".to_owned(),
            start: KafkaStart::Earliest,
            end: None,
            group_id: Some("${MILLSTREAM_TEST_UNSET:-ours}".to_owned()),
            properties: BTreeMap::from([
                ("enable.auto.commit".to_owned(), "true".to_owned()),
                ("fetch.max.bytes".to_owned(), "5000000".to_owned()),
            ]),
            discovery_interval_ms: 30_000,
            on_gap: Default::default(),
        };
        let group_id = spec.group_id.as_deref().expect("a group");
        let config = client_config(&spec, group_id).expect("settings");
        assert_eq!(config.get("group.id"), Some("ours"));
        assert_eq!(config.get("enable.auto.commit"), Some("false"));
        assert_eq!(config.get("fetch.max.bytes"), Some("5000000"));
        assert_eq!(config.get("bootstrap.servers"), Some("one:9092"));
    }

    #[test]
    fn what_is_fetched_ahead_is_bounded_for_small_records_too() {
        /// What the client keeps beside a payload, about.
        const MESSAGE_BYTES: u64 = 400;
        let setting = |name: &str| -> u64 {
            let found = TUNING.iter().find(|(known, _)| *known == name);
            found.map_or(0, |(_, value)| value.parse().expect("a number"))
        };
        let queue_bytes = setting("queued.max.messages.kbytes") << 10;
        assert_eq!(queue_bytes, 32 << 20);
        assert!(setting("queued.min.messages") * MESSAGE_BYTES <= queue_bytes);
        assert!(setting("fetch.max.bytes") <= queue_bytes / 8);
        assert!(setting("fetch.message.max.bytes") <= setting("fetch.max.bytes"));
    }
}
