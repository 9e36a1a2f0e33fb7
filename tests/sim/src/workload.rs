//! What a simulation computes: a topic drawn from the seed, one SQL file over it, and what its tables must hold at the end.
//!
//! The expectation is worked out from the records alone, by the rules of the manual and with none of the production's code: which
//! records are refused or late, which events are distinct, how many fall into each window. Pure but for the chance handed in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use millstream_common::ids::SplitId;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::entropy;
use crate::outside::kafka::{Record, Topic};
use crate::outside::postgres::{Cell, Row, Tables};

/// Microseconds of a window.
const WINDOW_US: i64 = 20_000_000;
/// Microseconds by which the watermark lags.
const DELAY_US: i64 = 5_000_000;
const URLS: [&str; 5] = ["/", "/cart", "/help", "/news", "/search"];

/// A job with its input.
pub(crate) struct Workload {
    pub(crate) sql: String,
    pub(crate) topic: Arc<Topic>,
    pub(crate) record_count: u64,
    expected: BTreeMap<&'static str, Vec<Row>>,
    /// The columns of each table that are compared; the others say when, or where, a row was made.
    columns: BTreeMap<&'static str, Vec<&'static str>>,
}

/// A record before it is text.
#[derive(Clone, Debug)]
enum Click {
    Good(Event),
    /// Its url is NULL, against the rule.
    Nameless(Event),
    /// No JSON.
    Broken,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    id: i64,
    time_us: i64,
    url: &'static str,
}

impl Workload {
    /// A job with its input, drawn by `chance`.
    pub(crate) fn draw(chance: &mut SmallRng) -> Self {
        let interval_ms = chance.random_range(200..1_500);
        let clicks = draw_clicks(chance);
        let span = Duration::from_millis(chance.random_range(4_000..12_000));
        let mut topic = Topic::new();
        for (partition, clicks) in clicks.iter().enumerate() {
            let count = clicks.len() as u32;
            let record = |(index, click): (usize, &Click)| Record {
                at: span * index as u32 / count,
                payload: click.payload(),
            };
            let records = clicks.iter().enumerate().map(record).collect();
            topic.insert(SplitId(format!("clicks-{partition}")), records);
        }
        let expected = expect(&clicks);
        Self {
            sql: sql(interval_ms),
            topic: Arc::new(topic),
            record_count: clicks.iter().map(|clicks| clicks.len() as u64).sum(),
            expected,
            columns: BTreeMap::from([
                ("distinct_clicks", vec!["eventid", "url", "time"]),
                ("counts", vec!["window_start", "url", "views"]),
                ("closed", vec!["window_start", "window_end", "url", "views"]),
                ("rejected", vec!["origin", "position", "code"]),
            ]),
        }
    }

    /// The tables that the job writes.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &'static str> {
        self.columns.keys().copied()
    }

    /// Rows that have to be in the dead letters.
    pub(crate) fn rejected_count(&self) -> u64 {
        self.expected["rejected"].len() as u64
    }

    /// The first table that does not hold what it must, with the difference.
    pub(crate) fn difference(&self, tables: &Tables) -> Option<String> {
        self.tables().find_map(|name| {
            let rows = tables
                .get(name)
                .map(|table| table.rows())
                .unwrap_or_default();
            let mut found: Vec<Row> = rows.iter().map(|row| self.compared(name, row)).collect();
            found.sort();
            let expected = &self.expected[name];
            let lost = without(expected, &found);
            let extra = without(&found, expected);
            let differs = !lost.is_empty() || !extra.is_empty();
            differs.then(|| {
                format!(
                    "table {name}: {} rows lost {lost:?}, {} rows too many {extra:?}",
                    lost.len(),
                    extra.len()
                )
            })
        })
    }

    fn compared(&self, table: &str, row: &Row) -> Row {
        let columns = self.columns[table].iter();
        let cells = columns.map(|column| {
            let cell = row.get(*column).cloned().unwrap_or(Cell::Null);
            ((*column).to_owned(), cell)
        });
        cells.collect()
    }
}

/// The rows of `left` that `right` does not hold as often; both sorted.
fn without(left: &[Row], right: &[Row]) -> Vec<Row> {
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

fn draw_clicks(chance: &mut SmallRng) -> Vec<Vec<Click>> {
    let partition_count = chance.random_range(1..=4);
    let record_count = chance.random_range(20..80);
    let start_us = entropy::EPOCH.as_micros() as i64;
    let mut clicks = vec![Vec::new(); partition_count];
    let mut events: Vec<Event> = Vec::new();
    for index in 0..record_count * partition_count as i64 {
        let partition = (index % partition_count as i64) as usize;
        let time_us = start_us + index * 1_000_000 / partition_count as i64;
        let event = Event {
            id: index,
            time_us: time_us + chance.random_range(-3_000_000..3_000_000),
            url: URLS[chance.random_range(0..URLS.len())],
        };
        let click = match chance.random_range(0..100) {
            0..3 => Click::Broken,
            3..6 => Click::Nameless(event),
            6..10 => Click::Good(Event {
                time_us: event.time_us - chance.random_range(5_000_000..60_000_000),
                ..event
            }),
            10..25 if !events.is_empty() => {
                let near = events.len().saturating_sub(12);
                Click::Good(events[chance.random_range(near..events.len())].clone())
            }
            _ => Click::Good(event),
        };
        if let Click::Good(event) = &click {
            events.push(event.clone());
        }
        clicks[partition].push(click);
    }
    clicks
}

impl Click {
    fn payload(&self) -> String {
        let json = |event: &Event, url: Option<&str>| {
            let (id, time_us) = (event.id, event.time_us);
            serde_json::json!({ "eventid": id, "url": url, "time": time_us }).to_string()
        };
        match self {
            Self::Good(event) => json(event, Some(event.url)),
            Self::Nameless(event) => json(event, None),
            Self::Broken => "{\"eventid\": ".to_owned(),
        }
    }
}

fn row<const N: usize>(cells: [(&str, Cell); N]) -> Row {
    let cells = cells.into_iter();
    cells.map(|(name, cell)| (name.to_owned(), cell)).collect()
}

fn expect(clicks: &[Vec<Click>]) -> BTreeMap<&'static str, Vec<Row>> {
    let text = |text: &str| Cell::Text(text.to_owned());
    let mut accepted = BTreeSet::new();
    let mut rejected = Vec::new();
    for (partition, clicks) in clicks.iter().enumerate() {
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
                    accepted.insert(event.clone());
                    continue;
                }
            };
            rejected.push(row([
                ("origin", text(&format!("clicks-{partition}"))),
                ("position", Cell::Number(position as i64)),
                ("code", text(code)),
            ]));
        }
    }
    let mut views: BTreeMap<(i64, &str), i64> = BTreeMap::new();
    for event in &accepted {
        let start = event.time_us.div_euclid(WINDOW_US) * WINDOW_US;
        *views.entry((start, event.url)).or_default() += 1;
    }
    let number = Cell::Number;
    let distinct = accepted.iter().map(|event| {
        row([
            ("eventid", number(event.id)),
            ("url", text(event.url)),
            ("time", number(event.time_us)),
        ])
    });
    let counts = views.iter().map(|((start, url), views)| {
        row([
            ("window_start", number(*start)),
            ("url", text(url)),
            ("views", number(*views)),
        ])
    });
    let closed = counts
        .clone()
        .zip(views.keys())
        .map(|(mut row, (start, _))| {
            row.insert("window_end".to_owned(), number(start + WINDOW_US));
            row
        });
    let mut expected = BTreeMap::from([
        ("distinct_clicks", distinct.collect::<Vec<Row>>()),
        ("counts", counts.collect()),
        ("closed", closed.collect()),
        ("rejected", rejected),
    ]);
    expected.values_mut().for_each(|rows| rows.sort());
    expected
}

fn sql(interval_ms: u64) -> String {
    let sink = |table: &str, relation: &str, more: &str| {
        format!(
            "CREATE SINK {table} FROM {relation} WITH (connector = 'postgres', url = 'postgres://simulated/db', \
             table = '{table}', create = 'if_missing'{more});\n"
        )
    };
    [
        format!("SET checkpoint_interval = '{interval_ms} milliseconds';\n"),
        "CREATE SOURCE clicks (eventid BIGINT NOT NULL, url TEXT NOT NULL, \"time\" TIMESTAMP NOT NULL, \
         WATERMARK FOR \"time\" AS \"time\" - INTERVAL '5 seconds') WITH (connector = 'kafka', \
         brokers = 'simulated:9092', topic = 'clicks', format = 'json', timestamp_format = 'unix_us', \
         start = 'earliest', \"end\" = 'latest', idle_timeout = 'never');\n"
            .to_owned(),
        "CREATE VIEW unique_clicks AS SELECT DISTINCT ON (eventid) * FROM clicks;\n".to_owned(),
        "CREATE VIEW page_views AS SELECT window_start, window_end, url, count(*) AS views \
         FROM TUMBLE(unique_clicks, \"time\", INTERVAL '20 seconds') \
         GROUP BY window_start, window_end, url;\n"
            .to_owned(),
        sink("distinct_clicks", "unique_clicks", ""),
        sink(
            "counts",
            "page_views",
            ", primary_key = 'window_start,url', emit = 'changes'",
        ),
        sink("closed", "page_views", ", emit = 'final'"),
        sink("rejected", "clicks.dead_letters", ""),
    ]
    .concat()
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
        let expected = expect(&[clicks(&[30, 25, 24]), clicks(&[1])]);
        assert_eq!(expected["rejected"].len(), 1);
        assert_eq!(
            expected["rejected"][0]["position"],
            Cell::Number(2),
            "25 is at the watermark, 24 behind it"
        );
    }

    #[test]
    fn an_event_counts_once_wherever_it_comes_again() {
        let expected = expect(&[clicks(&[5, 6]), clicks(&[5])]);
        assert_eq!(expected["distinct_clicks"].len(), 2);
        assert_eq!(expected["counts"][0]["views"], Cell::Number(2));
    }

    #[test]
    fn a_row_that_is_there_once_too_often_is_a_difference() {
        let row = row([("eventid", Cell::Number(1))]);
        let twice = [row.clone(), row.clone()];
        assert_eq!(without(&twice, std::slice::from_ref(&row)), vec![row]);
    }
}
