//! What tables and state must hold, worked out from the records alone.
//!
//! By the rules of the manual and with none of the production's code: which records are refused or late, which events are
//! distinct, how many fall into each window; at the end, and as of each epoch, for an epoch says how far each partition was
//! read and up to which time windows were closed. Pure.

use std::collections::{BTreeMap, BTreeSet};

use millstream_common::ids::SplitId;

use crate::outside::postgres::{CONSTRAINED, Cell, Row, is_refused};

/// Microseconds of a window.
pub(crate) const WINDOW_US: i64 = 20_000_000;
/// Microseconds by which the watermark lags.
pub(crate) const DELAY_US: i64 = 5_000_000;

/// A record before it is text.
#[derive(Clone, Debug)]
pub(crate) enum Click {
    Good(Event),
    /// Its url is NULL, against the rule.
    Nameless(Event),
    /// No JSON.
    Broken,
}

/// What a good record tells of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Event {
    pub(crate) id: i64,
    pub(crate) time_us: i64,
    pub(crate) url: &'static str,
}

/// How far an epoch has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Records read, by partition.
    pub(crate) positions: BTreeMap<SplitId, i64>,
    /// Operators have closed what ends at or before this time, and forgotten keys that are older.
    pub(crate) closed_to_us: Option<i64>,
}

/// What must be there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    pub(crate) accepted: BTreeSet<Event>,
    rejected: Vec<Row>,
    closed_to_us: Option<i64>,
}

/// The name of a partition.
pub(crate) fn split(partition: usize) -> SplitId {
    SplitId(format!("clicks-{partition}"))
}

/// What the records up to `progress` come to.
pub(crate) fn expect(clicks: &[Vec<Click>], progress: &Progress) -> Expected {
    let mut expected = Expected {
        closed_to_us: progress.closed_to_us,
        ..Expected::default()
    };
    for (partition, clicks) in clicks.iter().enumerate() {
        let end = progress.positions.get(&split(partition));
        let end = end.copied().unwrap_or_default() as usize;
        expected.read(partition, &clicks[..end.min(clicks.len())]);
    }
    expected.rejected.sort();
    expected
}

/// What all records come to, once everything is closed.
pub(crate) fn expect_all(clicks: &[Vec<Click>]) -> Expected {
    let ends = clicks.iter().enumerate();
    let positions = ends.map(|(partition, clicks)| (split(partition), clicks.len() as i64));
    let progress = Progress {
        positions: positions.collect(),
        closed_to_us: Some(i64::MAX),
    };
    expect(clicks, &progress)
}

impl Expected {
    fn read(&mut self, partition: usize, clicks: &[Click]) {
        let mut newest: Option<i64> = None;
        for (position, click) in clicks.iter().enumerate() {
            let code = match click {
                Click::Broken => "malformed",
                Click::Nameless(_) => "null_violation",
                Click::Good(event) if newest.is_some_and(|us| event.time_us < us - DELAY_US) => {
                    "late"
                }
                Click::Good(event) => {
                    newest = newest.max(Some(event.time_us));
                    self.accepted.insert(event.clone());
                    continue;
                }
            };
            self.rejected.push(row([
                ("origin", text(&split(partition).0)),
                ("position", Cell::Number(position as i64)),
                ("code", text(code)),
            ]));
        }
    }

    /// Rows in the dead letters.
    pub(crate) fn rejected_count(&self) -> u64 {
        self.rejected.len() as u64
    }

    /// Views by window and url.
    pub(crate) fn views(&self) -> BTreeMap<(i64, &'static str), i64> {
        let mut views = BTreeMap::new();
        for event in &self.accepted {
            let start = event.time_us.div_euclid(WINDOW_US) * WINDOW_US;
            *views.entry((start, event.url)).or_default() += 1;
        }
        views
    }

    /// Whether the window that begins then has been closed.
    pub(crate) fn is_closed(&self, start_us: i64) -> bool {
        let closed_to_us = self.closed_to_us;
        closed_to_us.is_some_and(|closed_to_us| start_us + WINDOW_US <= closed_to_us)
    }

    /// Whether keys of that time have been forgotten.
    pub(crate) fn is_forgotten(&self, time_us: i64) -> bool {
        self.closed_to_us.is_some_and(|passed| time_us < passed)
    }

    /// The rows of a table, sorted.
    pub(crate) fn rows(&self, table: &str) -> Vec<Row> {
        let views = self.views();
        let view = |((start, url), views): (&(i64, &str), &i64)| {
            row([
                ("window_start", Cell::Number(*start)),
                ("url", text(url)),
                ("views", Cell::Number(*views)),
            ])
        };
        let mut rows: Vec<Row> = match table {
            "rejected" => self.rejected.clone(),
            CONSTRAINED => {
                let taken = self.accepted.iter().filter(|event| !is_refused(event.id));
                taken.map(distinct).collect()
            }
            "refused" => {
                let refused = self.accepted.iter().filter(|event| is_refused(event.id));
                refused
                    .map(|_| row([("code", text("sink_rejected"))]))
                    .collect()
            }
            "counts" => views.iter().map(view).collect(),
            "closed" => {
                let closed = views
                    .iter()
                    .filter(|((start, _), _)| self.is_closed(*start));
                let ended = closed.map(|(key, views)| {
                    let mut row = view((key, views));
                    row.insert("window_end".to_owned(), Cell::Number(key.0 + WINDOW_US));
                    row
                });
                ended.collect()
            }
            _ => self.accepted.iter().map(without_time).collect(),
        };
        rows.sort();
        rows
    }
}

fn distinct(event: &Event) -> Row {
    let mut row = without_time(event);
    row.insert("time".to_owned(), Cell::Number(event.time_us));
    row
}

fn without_time(event: &Event) -> Row {
    row([
        ("eventid", Cell::Number(event.id)),
        ("url", text(event.url)),
    ])
}

fn text(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

pub(crate) fn row<const N: usize>(cells: [(&str, Cell); N]) -> Row {
    let cells = cells.into_iter();
    cells.map(|(name, cell)| (name.to_owned(), cell)).collect()
}

/// What is too few and too many in `found`, for people; both sorted.
pub(crate) fn difference(what: &str, expected: &[Row], found: &[Row]) -> Option<String> {
    let lost = without(expected, found);
    let extra = without(found, expected);
    let differs = !lost.is_empty() || !extra.is_empty();
    differs.then(|| {
        format!(
            "{what}: {} rows lost {lost:?}, {} rows too many {extra:?}",
            lost.len(),
            extra.len()
        )
    })
}

/// The rows of `left` that `right` does not hold as often.
pub(crate) fn without(left: &[Row], right: &[Row]) -> Vec<Row> {
    let mut counts: BTreeMap<&Row, i64> = BTreeMap::new();
    for row in right {
        *counts.entry(row).or_default() += 1;
    }
    let mut missing = Vec::new();
    for row in left {
        let count = counts.entry(row).or_default();
        *count -= 1;
        if *count < 0 {
            missing.push(row.clone());
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clicks(seconds: &[i64]) -> Vec<Click> {
        let events = seconds.iter().enumerate().map(|(index, second)| {
            Click::Good(Event {
                id: index as i64,
                time_us: second * 1_000_000,
                url: "/",
            })
        });
        events.collect()
    }

    #[test]
    fn a_record_is_late_only_behind_the_greatest_time_less_the_delay_of_its_own_partition() {
        let expected = expect_all(&[clicks(&[30, 25, 24]), clicks(&[1])]);
        let rejected = expected.rows("rejected");
        assert_eq!(rejected.len(), 1);
        assert_eq!(
            rejected[0]["position"],
            Cell::Number(2),
            "25 is at the watermark, 24 behind it"
        );
    }

    #[test]
    fn an_event_counts_once_wherever_it_comes_again() {
        let expected = expect_all(&[clicks(&[5, 6]), clicks(&[5])]);
        assert_eq!(expected.rows("distinct_clicks").len(), 2);
        assert_eq!(expected.rows("counts")[0]["views"], Cell::Number(2));
    }

    #[test]
    fn an_epoch_holds_what_was_read_and_closed_until_then() {
        let progress = Progress {
            positions: [(split(0), 2)].into(),
            closed_to_us: Some(20_000_000),
        };
        let expected = expect(&[clicks(&[5, 26, 50])], &progress);
        assert_eq!(expected.rows("distinct_clicks").len(), 2);
        assert_eq!(expected.rows("closed").len(), 1);
        assert!(expected.is_forgotten(19_999_999) && !expected.is_forgotten(20_000_000));
    }

    #[test]
    fn a_row_that_is_there_once_too_often_is_a_difference() {
        let row = row([("eventid", Cell::Number(1))]);
        let twice = [row.clone(), row.clone()];
        assert_eq!(
            without(&twice, std::slice::from_ref(&row)),
            vec![row.clone()]
        );
        assert!(difference("table", &twice, &twice).is_none());
    }
}
