//! What the jobs over clicks must come to, computed a second time without any of Millstream's code.
//!
//! Fed with every record in the order of its partition, as Kafka gives them back; the rules are those
//! that `jobs/page_views.sql` and `jobs/action_counts.sql` state. Pure.

use std::collections::{BTreeMap, HashSet};

use chrono::NaiveDateTime;
use serde_json::{Map, Value};

use crate::topic::Stored;

/// `WATERMARK FOR "timestamp" AS "timestamp" - INTERVAL '5 minutes'`.
const DELAY_US: i64 = 5 * 60 * 1_000_000;
/// `TUMBLE(..., INTERVAL '1 minute')`.
const WINDOW_US: i64 = 60 * 1_000_000;

/// Start of a minute (microseconds since 1970) and what is counted in it: a url or an action.
pub type Group = (i64, String);
/// Where a dead letter comes from, its offset there, and its code.
pub type Rejected = (String, i64, String);
/// How often each dead letter is there.
pub type RejectedCounts = BTreeMap<Rejected, u64>;

/// The results of the jobs over the clicks of one topic.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Views of each minute and url, each event once.
    pub page_views: BTreeMap<Group, i64>,
    /// Clicks of each minute and action, duplicates counted again.
    pub action_counts: BTreeMap<Group, i64>,
    /// Clicks of each action, each event once.
    pub unique_actions: BTreeMap<String, i64>,
    /// What must be in dead letters.
    pub rejected: RejectedCounts,
    /// Clicks that had been seen before.
    pub duplicate_count: u64,
    /// Greatest event time accepted, by partition.
    greatest_us: BTreeMap<i32, i64>,
    seen: HashSet<String>,
}

struct Click {
    event: String,
    url: String,
    action: String,
    time_us: i64,
}

impl Oracle {
    /// What the records of `topic` come to.
    pub fn of(topic: &str, records: &[Stored]) -> Self {
        let mut oracle = Self::default();
        for record in records {
            oracle.take(topic, record);
        }
        oracle
    }

    /// How often each code must be in dead letters.
    pub fn rejected_by_code(&self) -> BTreeMap<&str, u64> {
        let mut counts = BTreeMap::new();
        for ((_, _, code), count) in &self.rejected {
            *counts.entry(code.as_str()).or_default() += count;
        }
        counts
    }

    /// Every event that is not rejected, once.
    pub fn unique_events(&self) -> BTreeMap<String, u64> {
        let events = self.seen.iter();
        events.map(|event| (event.clone(), 1)).collect()
    }

    fn take(&mut self, topic: &str, record: &Stored) {
        match self.accept(record) {
            Ok(click) => self.count(click),
            Err(code) => {
                let origin = format!("{topic}-{}", record.partition);
                let rejected = (origin, record.offset, code.to_owned());
                *self.rejected.entry(rejected).or_default() += 1;
            }
        }
    }

    fn accept(&mut self, record: &Stored) -> Result<Click, &'static str> {
        let click = decode(record.payload.as_deref())?;
        let greatest_us = self.greatest_us.entry(record.partition).or_insert(i64::MIN);
        if click.time_us < greatest_us.saturating_sub(DELAY_US) {
            return Err("late");
        }
        *greatest_us = click.time_us.max(*greatest_us);
        Ok(click)
    }

    fn count(&mut self, click: Click) {
        let minute = click.time_us - click.time_us.rem_euclid(WINDOW_US);
        let by_action = (minute, click.action.clone());
        *self.action_counts.entry(by_action).or_default() += 1;
        if !self.seen.insert(click.event) {
            self.duplicate_count += 1;
            return;
        }
        *self.unique_actions.entry(click.action.clone()).or_default() += 1;
        if click.action == "view" {
            *self.page_views.entry((minute, click.url)).or_default() += 1;
        }
    }
}

/// How often each event stands among the clicks that break no rule; late ones count too.
pub fn events(records: &[Stored]) -> BTreeMap<String, u64> {
    let mut events = BTreeMap::new();
    for record in records {
        if let Ok(click) = decode(record.payload.as_deref()) {
            *events.entry(click.event).or_default() += 1;
        }
    }
    events
}

/// Whether the record breaks no rule; a late one does not.
pub fn is_sound(record: &Stored) -> bool {
    decode(record.payload.as_deref()).is_ok()
}

/// The click in a payload, or the code of the first column that is wrong.
fn decode(payload: Option<&[u8]>) -> Result<Click, &'static str> {
    let payload = payload.ok_or("null_payload")?;
    let fields: Map<String, Value> = serde_json::from_slice(payload).map_err(|_| "malformed")?;
    let event = required(&fields, "eventid")?;
    let url = required(&fields, "url")?;
    let time_us = moment(&required(&fields, "timestamp")?).ok_or("type_mismatch")?;
    let action = required(&fields, "action")?;
    if !["view", "click", "purchase"].contains(&action.as_str()) {
        return Err("check_violation");
    }
    Ok(Click {
        event,
        url,
        action,
        time_us,
    })
}

fn required(fields: &Map<String, Value>, name: &str) -> Result<String, &'static str> {
    match fields.get(name) {
        None | Some(Value::Null) => Err("null_violation"),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err("type_mismatch"),
    }
}

fn moment(text: &str) -> Option<i64> {
    let parsed = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f");
    parsed.ok().map(|time| time.and_utc().timestamp_micros())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::Clicks;

    fn stored(partition: i32, offset: i64, event: &str, time: &str) -> Stored {
        let payload = format!(
            r#"{{"eventid":"{event}","url":"/a","timestamp":"2026-01-01T{time}","action":"view"}}"#
        );
        Stored {
            partition,
            offset,
            key: None,
            payload: Some(payload.into_bytes()),
        }
    }

    #[test]
    fn late_is_decided_by_partition_and_equal_is_not_late() {
        let records = [
            stored(0, 0, "a", "10:05:00"),
            stored(0, 1, "b", "10:00:00"),
            stored(0, 2, "c", "09:59:59.999"),
            stored(1, 0, "d", "09:59:59.999"),
        ];
        let oracle = Oracle::of("t", &records);
        let late = ("t-0".to_owned(), 2, "late".to_owned());
        assert_eq!(oracle.rejected, BTreeMap::from([(late, 1)]));
        assert_eq!(oracle.page_views.values().sum::<i64>(), 3);
    }

    #[test]
    fn a_duplicate_is_one_view_and_two_actions() {
        let records = [stored(0, 0, "a", "10:00:00"), stored(1, 0, "a", "10:00:00")];
        let oracle = Oracle::of("t", &records);
        assert_eq!(oracle.page_views.values().sum::<i64>(), 1);
        assert_eq!(oracle.action_counts.values().sum::<i64>(), 2);
    }

    #[test]
    fn generated_clicks_hold_everything_that_goes_wrong() {
        let made = Clicks::new(3, 1, 100).take(30_000);
        let records: Vec<Stored> = made
            .into_iter()
            .zip(0..)
            .map(|(record, offset)| Stored {
                partition: record.partition,
                offset,
                key: None,
                payload: record.payload.map(String::into_bytes),
            })
            .collect();
        let oracle = Oracle::of("t", &records);
        let codes: Vec<&str> = oracle.rejected_by_code().into_keys().collect();
        let expected = [
            "check_violation",
            "late",
            "malformed",
            "null_payload",
            "null_violation",
            "type_mismatch",
        ];
        assert_eq!(codes, expected);
        assert!(oracle.duplicate_count > 1000);
    }
}
