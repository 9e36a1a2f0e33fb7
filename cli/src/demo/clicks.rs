//! The clicks of the demo: mostly good ones, and everything that goes wrong with clicks.
//!
//! Pure and repeatable by its seed. Event time follows from the number of the record alone and runs
//! faster than the clock, so that many minutes pass in half a minute.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::PARTITION_COUNT;

/// 2026-05-01T10:00:00, in microseconds.
const FIRST_EVENT_US: i64 = 1_777_629_600_000_000;
/// Event time passes this many times as fast as the clock.
const SPEED: u64 = 20;
const SECOND_US: i64 = 1_000_000;
/// Clicks arrive up to this much behind the newest one: never late.
const DISORDER_US: i64 = 20 * SECOND_US;
/// Late clicks are this much behind at least; some are just within the delay of the watermark.
const LATENESS_US: std::ops::Range<i64> = 50 * SECOND_US..300 * SECOND_US;
/// A duplicate repeats one of this many clicks.
const RECENT_MAX: usize = 1000;
const URL_COUNT: u32 = 12;

/// What is sent to a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) partition: usize,
    /// `None` is a record without a value.
    pub(super) payload: Option<String>,
}

/// Makes records, one after another.
pub(super) struct Clicks {
    random: StdRng,
    made: u64,
    event_step_us: i64,
    recent: VecDeque<String>,
}

impl Clicks {
    /// Clicks of which `rate` a second will be sent.
    pub(super) fn new(seed: u64, rate: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            made: 0,
            event_step_us: SECOND_US * SPEED as i64 / rate.max(1) as i64,
            recent: VecDeque::with_capacity(RECENT_MAX),
        }
    }

    /// The next record.
    pub(super) fn next(&mut self) -> Record {
        let now = FIRST_EVENT_US + self.made as i64 * self.event_step_us;
        self.made += 1;
        let partition = self.random.random_range(0..PARTITION_COUNT);
        let payload = match self.random.random_range(0..1000) {
            0..5 => Some(self.malformed(now)),
            5..8 => None,
            8..13 => Some(self.click(now, "null", "view")),
            13..16 => Some(self.click_at("yesterday", "\"/\"", "view")),
            16..20 => Some(self.good_url(now, "hover")),
            20..35 => {
                let lateness = self.random.random_range(LATENESS_US);
                Some(self.good_url(now - lateness, "view"))
            }
            35..85 => Some(self.duplicate(now)),
            _ => Some(self.good(now)),
        };
        Record { partition, payload }
    }

    fn good(&mut self, now: i64) -> String {
        let time = now - self.random.random_range(0..DISORDER_US);
        let action = match self.random.random_range(0..10) {
            0 => "purchase",
            1..4 => "click",
            _ => "view",
        };
        let click = self.good_url(time, action);
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(click.clone());
        click
    }

    fn duplicate(&mut self, now: i64) -> String {
        if self.recent.is_empty() {
            return self.good(now);
        }
        let index = self.random.random_range(0..self.recent.len());
        self.recent[index].clone()
    }

    fn malformed(&mut self, now: i64) -> String {
        let mut click = self.good_url(now, "view");
        click.truncate(click.len() / 2);
        click
    }

    fn good_url(&mut self, time: i64, action: &str) -> String {
        // The smaller of two is more often small: some pages are seen more than others.
        let first = self.random.random_range(0..URL_COUNT);
        let page = first.min(self.random.random_range(0..URL_COUNT));
        self.click(time, &format!("\"/products/{page}\""), action)
    }

    fn click(&mut self, time: i64, url: &str, action: &str) -> String {
        let moment = millstream_common::time::EventTime(time).to_string();
        self.click_at(&moment, url, action)
    }

    fn click_at(&mut self, moment: &str, url: &str, action: &str) -> String {
        let event = self.made;
        let user = self.random.random_range(0..500);
        format!(
            r#"{{"eventid":"e{event}","userid":"u{user}","url":{url},"timestamp":"{moment}","action":"{action}"}}"#
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_clicks() {
        let make = |seed| {
            let mut clicks = Clicks::new(seed, 2000);
            (0..500).map(|_| clicks.next()).collect::<Vec<_>>()
        };
        assert_eq!(make(7), make(7));
        assert_ne!(make(7), make(8));
    }
}
