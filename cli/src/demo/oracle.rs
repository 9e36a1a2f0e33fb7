//! Counts the demo's clicks a second time, by the rules of `jobs/demo.sql` and without our engine: the
//! result is compared with what the cluster delivered.
//!
//! Fed with every record in the order of its partition. Owns what it has seen: every event id. Pure.

use std::collections::{BTreeMap, HashSet};

use chrono::NaiveDateTime;
use serde_json::{Map, Value};

use super::PARTITION_COUNT;
use super::clicks::Record;

/// `WATERMARK FOR "timestamp" AS "timestamp" - INTERVAL '1 minute'`.
const DELAY_US: i64 = 60_000_000;
/// `TUMBLE(..., INTERVAL '1 minute')`.
const WINDOW_US: i64 = 60_000_000;

/// A minute (microseconds since 1970) and an action.
pub(super) type Window = (i64, String);
/// A partition and an offset in it.
pub(super) type Position = (usize, u64);

/// What the job must come to.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    /// Clicks of each window.
    pub(super) counts: BTreeMap<Window, u64>,
    /// Records that must be dead letters, with their code.
    pub(super) rejected: BTreeMap<Position, &'static str>,
    /// Records taken.
    pub(super) record_count: u64,
    /// Clicks that had been seen before.
    pub(super) duplicate_count: u64,
    seen: HashSet<String>,
    partitions: [Partition; PARTITION_COUNT],
}

#[derive(Debug, Default)]
struct Partition {
    next_offset: u64,
    /// The greatest event time accepted so far.
    greatest_us: Option<i64>,
}

/// A click that keeps all rules of its columns.
struct Click {
    event: String,
    action: String,
    time_us: i64,
}

impl Oracle {
    /// Takes the next record of its partition.
    pub(super) fn take(&mut self, record: &Record) {
        self.record_count += 1;
        let partition = &mut self.partitions[record.partition];
        let offset = partition.next_offset;
        partition.next_offset += 1;
        let accepted = decode(record.payload.as_deref()).and_then(|click| {
            let watermark = partition.greatest_us.map(|greatest| greatest - DELAY_US);
            match watermark {
                Some(watermark) if click.time_us < watermark => Err("late"),
                _ => Ok(click),
            }
        });
        let click = match accepted {
            Ok(click) => click,
            Err(code) => {
                self.rejected.insert((record.partition, offset), code);
                return;
            }
        };
        partition.greatest_us = partition.greatest_us.max(Some(click.time_us));
        if !self.seen.insert(click.event) {
            self.duplicate_count += 1;
            return;
        }
        let minute = click.time_us - click.time_us.rem_euclid(WINDOW_US);
        *self.counts.entry((minute, click.action)).or_default() += 1;
    }
}

/// The click in a payload, or the code of what is wrong with it: the first wrong column counts.
fn decode(payload: Option<&str>) -> Result<Click, &'static str> {
    let payload = payload.ok_or("null_payload")?;
    let fields: Map<String, Value> = serde_json::from_str(payload).map_err(|_| "malformed")?;
    let event = required(&fields, "eventid")?;
    required(&fields, "url")?;
    let time_us = moment(&required(&fields, "timestamp")?).ok_or("type_mismatch")?;
    let action = required(&fields, "action")?;
    if !["view", "click", "purchase"].contains(&action.as_str()) {
        return Err("check_violation");
    }
    Ok(Click {
        event,
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

/// Microseconds since 1970 of a time without a zone.
pub(super) fn moment(text: &str) -> Option<i64> {
    let parsed = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f");
    parsed.ok().map(|time| time.and_utc().timestamp_micros())
}

#[cfg(test)]
mod tests {
    use super::super::{DEMO_SQL, clicks::Clicks};
    use super::*;

    fn record(partition: usize, payload: &str) -> Record {
        Record {
            partition,
            payload: Some(payload.to_owned()),
        }
    }

    fn click(event: &str, time: &str) -> String {
        format!(
            r#"{{"eventid":"{event}","userid":null,"url":"/a","timestamp":"2026-05-01T{time}","action":"view"}}"#
        )
    }

    fn minute(time: &str) -> Window {
        let start = moment(&format!("2026-05-01T{time}")).expect("a time");
        (start, "view".to_owned())
    }

    #[test]
    fn the_rules_are_those_of_the_job() {
        let rules = [
            r#"WATERMARK FOR "timestamp" AS "timestamp" - INTERVAL '1 minute'"#,
            r#"TUMBLE(unique_clicks, "timestamp", INTERVAL '1 minute')"#,
            "DISTINCT ON (eventid)",
            "CHECK (action IN ('view', 'click', 'purchase'))",
            "SELECT window_start, window_end, action, count(*) AS clicks",
        ];
        for rule in rules {
            assert!(DEMO_SQL.contains(rule), "{rule}");
        }
    }

    #[test]
    fn a_click_counts_once_however_often_and_wherever_it_arrives() {
        let mut oracle = Oracle::default();
        for partition in [0, 3, 0] {
            oracle.take(&record(partition, &click("e1", "10:00:59.999999")));
        }
        oracle.take(&record(1, &click("e2", "10:01:00")));
        assert_eq!(oracle.counts[&minute("10:00:00")], 1);
        assert_eq!(oracle.counts[&minute("10:01:00")], 1);
        assert_eq!(oracle.duplicate_count, 2);
    }

    #[test]
    fn late_is_decided_by_partition_and_equal_is_not_late() {
        let mut oracle = Oracle::default();
        oracle.take(&record(0, &click("e1", "10:05:00")));
        oracle.take(&record(0, &click("e2", "10:04:00")));
        oracle.take(&record(0, &click("e3", "10:03:59.999999")));
        oracle.take(&record(1, &click("e4", "10:03:59.999999")));
        assert_eq!(oracle.rejected, BTreeMap::from([((0, 2), "late")]));
        assert_eq!(oracle.counts[&minute("10:03:00")], 1);
    }

    #[test]
    fn a_refused_click_does_not_move_the_watermark() {
        let mut oracle = Oracle::default();
        let later = click("e1", "11:00:00").replace("view", "hover");
        oracle.take(&record(0, &later));
        oracle.take(&record(0, &click("e2", "10:00:00")));
        assert_eq!(
            oracle.rejected,
            BTreeMap::from([((0, 0), "check_violation")])
        );
    }

    #[test]
    fn every_kind_of_bad_record_has_its_code() {
        let mut oracle = Oracle::default();
        let null = Record {
            partition: 0,
            payload: None,
        };
        oracle.take(&null);
        oracle.take(&record(0, "{\"eventid\":"));
        oracle.take(&record(0, "[1]"));
        oracle.take(&record(
            0,
            &click("e1", "10:00:00").replace("\"/a\"", "null"),
        ));
        oracle.take(&record(0, &click("e1", "noon")));
        let codes: Vec<_> = oracle.rejected.values().copied().collect();
        assert_eq!(
            codes,
            [
                "null_payload",
                "malformed",
                "malformed",
                "null_violation",
                "type_mismatch"
            ]
        );
    }

    #[test]
    fn the_generated_clicks_hold_everything_that_goes_wrong() {
        let mut clicks = Clicks::new(7, 2000);
        let mut oracle = Oracle::default();
        for _ in 0..20_000 {
            oracle.take(&clicks.next());
        }
        let codes: std::collections::BTreeSet<_> = oracle.rejected.values().copied().collect();
        let expected = [
            "check_violation",
            "late",
            "malformed",
            "null_payload",
            "null_violation",
            "type_mismatch",
        ];
        assert!(codes.iter().eq(expected.iter()), "{codes:?}");
        assert!(oracle.duplicate_count > 500, "{}", oracle.duplicate_count);
        let minutes: std::collections::BTreeSet<_> = oracle.counts.keys().map(|w| w.0).collect();
        assert!(minutes.len() >= 4, "several minutes pass: {minutes:?}");
    }
}
