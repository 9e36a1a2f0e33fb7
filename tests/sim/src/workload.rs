//! What a simulation computes: a topic drawn from the seed, and one SQL file over it.
//!
//! What its tables must hold is worked out in `expected.rs`. Pure but for the chance handed in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream_common::ids::Epoch;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::entropy;
use crate::expected::{self, Click, Event, Expected, Progress, difference};
use crate::outside::disk::{self, FOLDER};
use crate::outside::kafka::{Record, Topic};
use crate::outside::postgres::{Cell, Row};
use crate::outside::topics;
use crate::quota::Limit;

const URLS: [&str; 5] = ["/", "/cart", "/help", "/news", "/search"];
/// Of each table, the columns that are compared; the others say when, or where, a row was made.
const COLUMNS: [(&str, &[&str]); 5] = [
    ("distinct_clicks", &["eventid", "url", "time"]),
    ("counts", &["window_start", "url", "views"]),
    ("closed", &["window_start", "window_end", "url", "views"]),
    ("rejected", &["origin", "position", "code"]),
    (REFUSED, &["code"]),
];
/// Rows that a table refused are named by some later epoch; which one is chance.
pub(crate) const REFUSED: &str = "refused";
/// The table with a primary key.
const KEYED: &str = "counts";
/// What the sink into a topic of Kafka writes.
pub(crate) const TOPIC_OUT: &str = "clicks_out";

/// A job with its input.
pub(crate) struct Workload {
    pub(crate) sql: String,
    pub(crate) topic: Arc<Topic>,
    pub(crate) record_count: u64,
    /// When the last record comes, at the latest.
    pub(crate) span: Duration,
    /// Sinks that are no tables: a topic of Kafka, a folder of files.
    pub(crate) others: Vec<&'static str>,
    interval_ms: u64,
    clicks: Vec<Vec<Click>>,
    all: Expected,
    /// What was worked out for an epoch.
    by_epoch: BTreeMap<Epoch, (Progress, Expected)>,
}

impl Workload {
    /// A job with its input, drawn by `chance`; some write to a topic and a folder too. With `needs_all` all
    /// sinks are there, and the records come soon.
    pub(crate) fn draw(chance: &mut SmallRng, needs_all: bool) -> Self {
        let interval_ms = match needs_all {
            true => 500,
            false => chance.random_range(200..1_500),
        };
        let mut others = vec![TOPIC_OUT, FOLDER];
        others.retain(|_| chance.random_bool(0.4) || needs_all);
        let partition_count = chance.random_range(1..=4);
        let record_count = chance.random_range(20..80);
        let clicks = draw_clicks(chance, partition_count, record_count);
        let span_ms = match needs_all {
            true => 5_000,
            false => chance.random_range(4_000..12_000),
        };
        let span = Duration::from_millis(span_ms);
        Self::of(interval_ms, others, clicks, span)
    }

    /// A job whose input flows for `span`, into tables.
    pub(crate) fn lasting(chance: &mut SmallRng, span: Duration, interval: Duration) -> Self {
        const PARTITION_COUNT: usize = 2;
        let record_count = span.as_millis() / interval.as_millis();
        let clicks = draw_clicks(chance, PARTITION_COUNT, record_count as i64);
        Self::of(interval.as_millis() as u64, Vec::new(), clicks, span)
    }

    fn of(
        interval_ms: u64,
        others: Vec<&'static str>,
        clicks: Vec<Vec<Click>>,
        span: Duration,
    ) -> Self {
        let mut topic = Topic::new();
        for (partition, clicks) in clicks.iter().enumerate() {
            let count = clicks.len() as u32;
            let record = |(index, click): (usize, &Click)| Record {
                at: span * index as u32 / count,
                payload: payload(click),
            };
            let records = clicks.iter().enumerate().map(record).collect();
            topic.insert(expected::split(partition), records);
        }
        Self {
            sql: sql(interval_ms, &others, None),
            interval_ms,
            topic: Arc::new(topic),
            span,
            record_count: clicks.iter().map(|clicks| clicks.len() as u64).sum(),
            others,
            all: expected::expect_all(&clicks),
            clicks,
            by_epoch: BTreeMap::new(),
        }
    }

    /// Holds a sink to a quota.
    pub(crate) fn limit(&mut self, limit: &Limit) {
        self.sql = sql(self.interval_ms, &self.others, Some(limit));
    }

    /// The tables that the job writes.
    pub(crate) fn tables(&self) -> impl Iterator<Item = &'static str> + use<> {
        COLUMNS.iter().map(|(table, _)| *table)
    }

    /// How many sinks there are.
    pub(crate) fn sink_count(&self) -> usize {
        COLUMNS.len() + self.others.len()
    }

    /// Rows that have to be in the dead letters.
    pub(crate) fn rejected_count(&self) -> u64 {
        self.all.rejected_count()
    }

    /// What has to be there as of an epoch.
    pub(crate) fn at(&mut self, epoch: Epoch, progress: &Progress) -> &Expected {
        let known = self.by_epoch.get(&epoch);
        if known.is_none_or(|(known, _)| known != progress) {
            let expected = expected::expect(&self.clicks, progress);
            self.by_epoch.insert(epoch, (progress.clone(), expected));
        }
        &self.by_epoch[&epoch].1
    }

    /// What a table of that name lacks and has too much at the end, where it got what lies between some epochs again.
    pub(crate) fn difference(
        &mut self,
        table: &str,
        again: &[Again],
        rows: &[Row],
    ) -> Option<String> {
        let what = format!("table {table}");
        let mut expected = self.all.rows(table);
        self.add_again(table, again, &mut expected);
        difference(&what, &expected, &compared(table, rows))
    }

    /// The same as of an epoch.
    pub(crate) fn difference_at(
        &mut self,
        (epoch, progress): (Epoch, &Progress),
        table: &str,
        again: &[Again],
        rows: &[Row],
    ) -> Option<String> {
        let is_between = |again: &Again| epoch < again.held.0;
        // Until it has caught up, a table that is written by key holds newer values of some rows.
        if table == REFUSED || (is_keyed(table) && again.iter().any(is_between)) {
            return None;
        }
        let what = format!("table {table} at epoch {epoch}");
        let mut expected = self.at(epoch, progress).rows(table);
        self.add_again(table, again, &mut expected);
        difference(&what, &expected, &compared(table, rows))
    }

    /// Adds the rows that are there once more, unless they take the places of those before.
    fn add_again(&mut self, table: &str, again: &[Again], rows: &mut Vec<Row>) {
        if is_keyed(table) {
            return;
        }
        for Again { to, held } in again {
            let before = self.at(to.0, &to.1).rows(table);
            let until = self.at(held.0, &held.1).rows(table);
            rows.extend(expected::without(&until, &before));
        }
        rows.sort();
    }
}

/// A sink was sent back: it has got what lies behind an epoch, up to the one that it held, again.
#[derive(Clone, Debug)]
pub(crate) struct Again {
    /// Where it went on from.
    pub(crate) to: (Epoch, Progress),
    /// Where it was.
    pub(crate) held: (Epoch, Progress),
}

/// The sink that writes to a place, as the weather calls it: a table's has its name.
pub(crate) fn sink_at(target: &'static str) -> &'static str {
    match target {
        topics::NAME => TOPIC_OUT,
        disk::NAME => FOLDER,
        table => table,
    }
}

/// Whether the sink of that name writes rows by key.
pub(crate) fn is_keyed(sink: &str) -> bool {
    sink == KEYED
}

/// The columns of `rows` that are compared, sorted.
fn compared(table: &str, rows: &[Row]) -> Vec<Row> {
    let columns = COLUMNS.iter().find(|(name, _)| *name == table);
    let columns = columns.map_or(&["eventid", "url"] as &[&str], |(_, columns)| columns);
    let one = |row: &Row| -> Row {
        let cells = columns.iter().map(|column| {
            let cell = row.get(*column).cloned().unwrap_or(Cell::Null);
            ((*column).to_owned(), cell)
        });
        cells.collect()
    };
    let mut compared: Vec<Row> = rows.iter().map(one).collect();
    compared.sort();
    compared
}

fn draw_clicks(
    chance: &mut SmallRng,
    partition_count: usize,
    record_count: i64,
) -> Vec<Vec<Click>> {
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

fn payload(click: &Click) -> String {
    let json = |event: &Event, url: Option<&str>| {
        let (id, time_us) = (event.id, event.time_us);
        serde_json::json!({ "eventid": id, "url": url, "time": time_us }).to_string()
    };
    match click {
        Click::Good(event) => json(event, Some(event.url)),
        Click::Nameless(event) => json(event, None),
        Click::Broken => "{\"eventid\": ".to_owned(),
    }
}

fn sql(interval_ms: u64, others: &[&str], limit: Option<&Limit>) -> String {
    let quota = |sink: &str| {
        let own = limit.filter(|limit| limit.sink == sink);
        own.map_or("", |limit| limit.options.as_str())
    };
    let sink = |table: &str, relation: &str, more: &str| {
        format!(
            "CREATE SINK {table} FROM {relation} WITH (connector = 'postgres', url = 'postgres://simulated/db', \
             table = '{table}', create = 'if_missing'{more}{});\n",
            quota(table)
        )
    };
    let topic = format!(
        "CREATE SINK {TOPIC_OUT} FROM unique_clicks WITH (connector = 'kafka', brokers = 'simulated:9092', \
         topic = '{TOPIC_OUT}', transaction_timeout = '10 seconds'{});\n",
        quota(TOPIC_OUT)
    );
    let folder = format!(
        "CREATE SINK {FOLDER} FROM unique_clicks WITH (connector = 'files', path = '{FOLDER}', format = 'json', \
         roll_interval = '1 second'{});\n",
        quota(FOLDER)
    );
    let other = |name: &str, sql: String| match others.contains(&name) {
        true => sql,
        false => String::new(),
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
        sink(REFUSED, "distinct_clicks.dead_letters", ""),
        other(TOPIC_OUT, topic),
        other(FOLDER, folder),
    ]
    .concat()
}
