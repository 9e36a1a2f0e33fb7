//! Clicks as people and broken programs send them: mostly good ones, and everything that goes wrong.
//!
//! Pure, and repeatable by its seed. Event time follows from the number of the record alone, so that
//! all partitions go forward in step unless a test holds one back.

use std::collections::VecDeque;

use chrono::DateTime;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// 2026-01-01T00:00:00, in milliseconds.
const FIRST_EVENT_MS: i64 = 1_767_225_600_000;
const MINUTE_MS: i64 = 60_000;
/// Good clicks are up to this much behind the newest one: far from late (5 minutes).
const DISORDER_MS: i64 = 2 * MINUTE_MS;
/// Late clicks are at least this much behind: beyond doubt, also where a partition was idle.
const LATENESS_MS: std::ops::Range<i64> = 10 * MINUTE_MS..20 * MINUTE_MS;
/// A duplicate repeats one of this many clicks.
const RECENT_MAX: usize = 2000;
const URL_COUNT: u32 = 20;
const USER_COUNT: u32 = 500;

/// What is sent to a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where to.
    pub partition: i32,
    /// `None` is a record without a value.
    pub payload: Option<String>,
}

/// Makes records, one after another.
pub struct Clicks {
    random: StdRng,
    seed: u64,
    made: i64,
    step_ms: i64,
    partitions: std::ops::Range<i32>,
    recent: VecDeque<String>,
}

impl Clicks {
    /// Clicks for `partition_count` partitions, each `step_ms` of event time after the one before.
    pub fn new(seed: u64, partition_count: i32, step_ms: i64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            seed,
            made: 0,
            step_ms,
            partitions: 0..partition_count,
            recent: VecDeque::with_capacity(RECENT_MAX),
        }
    }

    /// From now on, only for these partitions.
    pub fn only(mut self, partitions: std::ops::Range<i32>) -> Self {
        self.partitions = partitions;
        self
    }

    /// The next `count` records.
    pub fn take(&mut self, count: usize) -> Vec<Record> {
        (0..count).map(|_| self.next_record()).collect()
    }

    fn next_record(&mut self) -> Record {
        let now = FIRST_EVENT_MS + self.made * self.step_ms;
        self.made += 1;
        let partition = self.random.random_range(self.partitions.clone());
        let payload = match self.random.random_range(0..1000) {
            0..4 => Some(self.torn(now)),
            4..7 => None,
            7..10 => Some(self.click(&text(now), "null", "view")),
            10..13 => Some(self.click("yesterday", "\"/\"", "view")),
            13..17 => Some(self.click(&text(now), "\"/\"", "hover")),
            17..30 => self.late(now),
            30..90 => Some(self.duplicate(now)),
            _ => Some(self.good(now)),
        };
        Record { partition, payload }
    }

    fn good(&mut self, now: i64) -> String {
        let time = text(now - self.random.random_range(0..DISORDER_MS));
        let url = format!("\"/product/{}\"", self.random.random_range(0..URL_COUNT));
        let action = match self.random.random_range(0..10) {
            0 => "purchase",
            1..4 => "click",
            _ => "view",
        };
        let click = self.click(&time, &url, action);
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(click.clone());
        click
    }

    /// The same click once more, in whichever partition.
    fn duplicate(&mut self, now: i64) -> String {
        match self.recent.len() {
            0 => self.good(now),
            count => self.recent[self.random.random_range(0..count)].clone(),
        }
    }

    fn late(&mut self, now: i64) -> Option<String> {
        let time = now - self.random.random_range(LATENESS_MS);
        Some(self.click(&text(time), "\"/late\"", "view"))
    }

    fn torn(&mut self, now: i64) -> String {
        let mut click = self.click(&text(now), "\"/\"", "view");
        click.truncate(self.random.random_range(1..click.len()));
        click
    }

    fn click(&mut self, time: &str, url: &str, action: &str) -> String {
        let (seed, number) = (self.seed, self.made);
        let user = self.random.random_range(0..USER_COUNT);
        format!(
            r#"{{"eventid":"e{seed}-{number}","userid":"u{user}","url":{url},"timestamp":"{time}","action":"{action}"}}"#
        )
    }
}

fn text(time_ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(time_ms).expect("a time in this century");
    time.format("%Y-%m-%dT%H:%M:%S%.3f").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_records() {
        let records = |seed| Clicks::new(seed, 4, 10).take(1000);
        assert_eq!(records(7), records(7));
        assert_ne!(records(7), records(8));
    }

    #[test]
    fn records_go_to_the_partitions_named() {
        let records = Clicks::new(1, 4, 10).only(3..4).take(100);
        assert!(records.iter().all(|record| record.partition == 3));
    }
}
