//! Whether brokers answer: how long a partition from which nothing comes is known to be silent.
//!
//! Pure; owned by `reader_thread.rs`, which hands in the client's statistics. The client says once that a partition is at
//! its end, and not again after an outage; and a broker that is down, or whose answers are lost on the way, sends no
//! records either. So silence lasts only as far as the leaders of all partitions are known to have answered, and is
//! counted anew behind every break. Failure: statistics that cannot be read are no answer.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

/// What is known of the answers of the leaders.
#[derive(Debug)]
pub(super) struct Answers {
    /// When they came again after the last break; `None` before the first.
    since: Option<Duration>,
    /// All have answered then.
    until: Duration,
    is_broken: bool,
    /// The leaders, with how often their connections were lost; `None` before the first statistics.
    leaders: Option<BTreeMap<String, i64>>,
}

/// For how long silence can be told from an outage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    /// Silence before this says nothing; `None` if there was no break.
    pub(super) since: Option<Duration>,
    /// What has not come by then was not there.
    pub(super) until: Duration,
}

impl Answers {
    /// Nothing has been asked before `now`.
    pub(super) fn new(now: Duration) -> Self {
        Self {
            since: None,
            until: now,
            is_broken: false,
            leaders: None,
        }
    }

    /// Takes the client's statistics; true if the leaders of all partitions in `reading` answer.
    pub(super) fn heard(
        &mut self,
        statistics: &[u8],
        reading: impl Iterator<Item = i32>,
        now: Duration,
    ) -> bool {
        let Some((leaders, answered_ago)) = leaders(statistics, reading) else {
            self.is_broken = true;
            return false;
        };
        let has_changed = |known: &BTreeMap<String, i64>| *known != leaders;
        // A new connection has shown that its broker is there, not yet that it has nothing to send.
        if self.leaders.as_ref().is_some_and(has_changed) {
            self.is_broken = true;
        }
        self.leaders = Some(leaders);
        if std::mem::take(&mut self.is_broken) {
            self.since = Some(now);
        }
        self.until = self.until.max(now.saturating_sub(answered_ago));
        true
    }

    /// As of the last statistics.
    pub(super) fn so_far(&self) -> Heard {
        Heard {
            since: self.since,
            until: self.until,
        }
    }
}

#[derive(Deserialize)]
struct Statistics {
    brokers: BTreeMap<String, Broker>,
}

#[derive(Deserialize)]
struct Broker {
    state: String,
    /// Microseconds since something came from it; negative if nothing has since it was connected.
    rxidle: i64,
    disconnects: i64,
    toppars: BTreeMap<String, Partition>,
}

#[derive(Deserialize)]
struct Partition {
    partition: i32,
}

/// The leaders of the partitions and how long ago the last of them has answered, if each has.
fn leaders(
    statistics: &[u8],
    reading: impl Iterator<Item = i32>,
) -> Option<(BTreeMap<String, i64>, Duration)> {
    let statistics: Statistics = serde_json::from_slice(statistics).ok()?;
    let leads = |broker: &Broker, number: i32| {
        let mut partitions = broker.toppars.values();
        partitions.any(|partition| partition.partition == number)
    };
    let mut leaders = BTreeMap::new();
    let mut answered_ago = Duration::ZERO;
    for number in reading {
        // A partition without leader is nobody's.
        let mut brokers = statistics.brokers.iter();
        let (name, leader) = brokers.find(|(_, broker)| leads(broker, number))?;
        if leader.state != "UP" {
            return None;
        }
        let ago = Duration::from_micros(u64::try_from(leader.rxidle).ok()?);
        answered_ago = answered_ago.max(ago);
        leaders.insert(name.clone(), leader.disconnects);
    }
    let is_up = |broker: &Broker| broker.state == "UP";
    let is_any_up = statistics.brokers.values().any(is_up);
    is_any_up.then_some((leaders, answered_ago))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// One broker without partitions, and the leader of partition 3.
    fn statistics(state: &str, answered_ago: i64, disconnects: i64) -> Vec<u8> {
        format!(
            r#"{{"brokers":{{
                "a/1":{{"state":"UP","rxidle":-1,"disconnects":0,"toppars":{{}}}},
                "b/2":{{"state":"{state}","rxidle":{answered_ago},"disconnects":{disconnects},
                        "toppars":{{"clicks-3":{{"topic":"clicks","partition":3}}}}}}
            }}}}"#
        )
        .into_bytes()
    }

    fn heard(answers: &mut Answers, statistics: &[u8], now: Duration) -> bool {
        answers.heard(statistics, std::iter::once(3), now)
    }

    #[test]
    fn silence_is_known_up_to_the_last_answer_of_the_leader() {
        let mut answers = Answers::new(at(0));
        assert!(heard(&mut answers, &statistics("UP", 1_000_000, 0), at(10)));
        assert_eq!(answers.so_far().until, at(9));
        assert!(heard(
            &mut answers,
            &statistics("UP", 31_000_000, 0),
            at(40)
        ));
        assert_eq!(answers.so_far().until, at(9), "it hangs");
        assert_eq!(answers.so_far().since, None);
    }

    #[test]
    fn an_outage_is_no_silence_and_silence_is_counted_anew_behind_it() {
        let mut answers = Answers::new(at(0));
        assert!(heard(&mut answers, &statistics("UP", 0, 0), at(10)));
        for now in [12, 100] {
            assert!(!heard(&mut answers, &statistics("CONNECT", -1, 1), at(now)));
            assert_eq!(answers.so_far().until, at(10));
        }
        assert!(heard(&mut answers, &statistics("UP", 0, 1), at(102)));
        let heard = answers.so_far();
        assert_eq!((heard.since, heard.until), (Some(at(102)), at(102)));
    }

    #[test]
    fn a_connection_that_was_lost_between_two_looks_is_a_break() {
        let mut answers = Answers::new(at(0));
        heard(&mut answers, &statistics("UP", 0, 0), at(10));
        assert!(heard(&mut answers, &statistics("UP", 0, 1), at(12)));
        assert_eq!(answers.so_far().since, Some(at(12)));
    }

    #[test]
    fn a_partition_without_leader_is_not_answered_for() {
        let mut answers = Answers::new(at(0));
        let statistics = statistics("UP", 0, 0);
        assert!(!answers.heard(&statistics, [3, 4].into_iter(), at(10)));
        assert!(answers.heard(&statistics, std::iter::empty(), at(10)));
        assert!(!answers.heard(b"{}", std::iter::empty(), at(10)));
    }
}
