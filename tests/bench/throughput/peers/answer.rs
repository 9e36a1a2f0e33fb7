//! What a peer has counted, beside what is right.
//!
//! Used by `run.rs`. A peer leaves its counts in a topic, as `peers/peer.py` says; the last one of a group is what it holds to be true. That a peer counts
//! wrong is a result, told in its table. Failure: a record that is no answer, or a broker that stops sending.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use anyhow::{Context, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::throughput::oracle::Group;
use crate::topic::PARTITION_COUNT;

/// Windows that a watermark five minutes behind the last click may not have passed.
const OPEN_WINDOWS_MAX: usize = 6;
/// As far as an answer's minute goes in a timestamp's text.
const MINUTE_CHARS: usize = "2026-05-01T10:00".len();
/// A broker that is silent for this long will not go on.
const PATIENCE: Duration = Duration::from_secs(30);

type Counts = BTreeMap<Group, u64>;

/// How a peer's counts compare.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::throughput) struct Answer {
    /// Groups whose count is another one, or that are missing or made up.
    pub(in crate::throughput) wrong_groups: usize,
    /// Groups that there should be.
    groups: usize,
    /// More or fewer in all of the wrong groups together.
    views_off: u64,
    views: u64,
    /// Groups of open windows that it kept to itself, as it may.
    open_groups: usize,
}

impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.wrong_groups > 0 {
            let share = self.views_off as f64 * 100.0 / self.views.max(1) as f64;
            let (wrong, groups) = (self.wrong_groups, self.groups);
            return write!(
                formatter,
                "WRONG in {wrong} of {groups} groups, by {share:.1} % of the views"
            );
        }
        match self.open_groups {
            0 => write!(formatter, "exact"),
            open => write!(formatter, "exact, without {open} groups of open windows"),
        }
    }
}

/// Compares them; where a peer keeps open windows, those may be missing.
pub(super) fn compare(found: &Counts, expected: &Counts, keeps_open_windows: bool) -> Answer {
    let minutes: BTreeSet<&str> = expected.keys().map(|(minute, _)| minute.as_str()).collect();
    let is_open = |minute: &str| {
        let mut last = minutes.iter().rev().take(OPEN_WINDOWS_MAX);
        keeps_open_windows && last.any(|open| *open == minute)
    };
    let mut answer = Answer {
        groups: expected.len(),
        views: expected.values().sum(),
        ..Answer::default()
    };
    for (group, right) in expected {
        match found.get(group) {
            Some(count) if count == right => {}
            None if is_open(&group.0) => answer.open_groups += 1,
            other => {
                answer.wrong_groups += 1;
                answer.views_off += right.abs_diff(other.copied().unwrap_or_default());
            }
        }
    }
    for (_, count) in found
        .iter()
        .filter(|(group, _)| !expected.contains_key(*group))
    {
        answer.wrong_groups += 1;
        answer.views_off += count;
    }
    answer
}

/// A record as a group and its count.
fn parse(record: &[u8]) -> Option<(Group, u64)> {
    let record: serde_json::Value = serde_json::from_slice(record).ok()?;
    let minute = record.get("window_start")?.as_str()?.get(..MINUTE_CHARS)?;
    let url = record.get("url")?.as_str()?;
    let views = record.get("views")?.as_u64()?;
    Some(((minute.replace(' ', "T"), url.to_owned()), views))
}

/// Reads the topic to its end, as far as it is committed.
pub(super) fn read(brokers: &str, topic: &str) -> anyhow::Result<Counts> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "millstream-bench")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()
        .context("start consumer of answers")?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITION_COUNT {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment).context("assign partitions")?;
    let mut counts = Counts::new();
    let mut ended = BTreeSet::new();
    while ended.len() < PARTITION_COUNT as usize {
        match consumer.poll(PATIENCE) {
            Some(Ok(record)) => {
                let payload = record.payload().unwrap_or_default();
                let (group, views) = parse(payload).with_context(|| {
                    format!("read an answer from {:?}", String::from_utf8_lossy(payload))
                })?;
                counts.insert(group, views);
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
            }
            Some(Err(error)) => return Err(error).context("read answers"),
            None => bail!("no record of {topic} for {} s", PATIENCE.as_secs()),
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(minutes: std::ops::Range<u32>) -> Counts {
        let group = |minute| ((format!("2026-05-01T10:{minute:02}"), "/a".to_owned()), 100);
        minutes.map(group).collect()
    }

    #[test]
    fn open_windows_may_be_missing_where_a_peer_keeps_them() {
        let expected = counts(0..10);
        assert_eq!(compare(&expected, &expected, false).to_string(), "exact");
        let closed = counts(0..4);
        let text = compare(&closed, &expected, true).to_string();
        assert_eq!(text, "exact, without 6 groups of open windows");
        let text = compare(&closed, &expected, false).to_string();
        assert_eq!(text, "WRONG in 6 of 10 groups, by 60.0 % of the views");
        assert_eq!(compare(&counts(0..3), &expected, true).wrong_groups, 1);
    }

    #[test]
    fn wrong_counts_and_made_up_groups_are_found() {
        let expected = counts(0..10);
        let mut found = counts(0..11);
        for count in found.values_mut().take(1) {
            *count -= 50;
        }
        let text = compare(&found, &expected, true).to_string();
        assert_eq!(text, "WRONG in 2 of 10 groups, by 15.0 % of the views");
    }

    #[test]
    fn answers_are_read_as_every_peer_writes_them() {
        let group = ("2026-05-01T10:07".to_owned(), "/a".to_owned());
        for start in [
            "2026-05-01T10:07:00",
            "2026-05-01T10:07:00Z",
            "2026-05-01 10:07:00.000",
        ] {
            let record = format!(r#"{{"window_start":"{start}","url":"/a","views":3}}"#);
            assert_eq!(parse(record.as_bytes()), Some((group.clone(), 3)));
        }
        assert_eq!(
            parse(br#"{"window_start":"10:07","url":"/a","views":3}"#),
            None
        );
        assert_eq!(parse(b"views"), None);
    }
}
