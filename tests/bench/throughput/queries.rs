//! The queries of the throughput part: jobs/page_views.sql, cut to what is to be measured.
//!
//! Used by `mod.rs`, `timed.rs` and the counting of instructions. Pure. Failure: a job that has changed so that it cannot be cut.

use anyhow::{Context, bail};

const JOB: &str = include_str!("../../../jobs/page_views.sql");
/// Where the last query puts its counts.
pub(super) const TABLE: &str = "bench_page_views";

/// One of them.
pub(crate) struct Query {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// Whether a click that comes twice counts once.
    pub(super) dedups: bool,
    /// Whether its counts are in [`TABLE`] afterwards.
    pub(super) fills_table: bool,
}

pub(super) const QUERIES: [Query; 3] = [
    Query {
        name: "windows",
        title: "jobs/page_views.sql without DISTINCT ON, into blackholes",
        dedups: false,
        fills_table: false,
    },
    Query {
        name: "dedup",
        title: "jobs/page_views.sql into blackholes",
        dedups: true,
        fills_table: false,
    },
    Query {
        name: "postgres",
        title: "jobs/page_views.sql into Postgres",
        dedups: true,
        fills_table: true,
    },
];

/// The one without DISTINCT ON.
pub(crate) fn without_dedup() -> anyhow::Result<&'static Query> {
    let query = QUERIES.iter().find(|query| !query.dedups);
    query.context("a query without DISTINCT ON")
}

impl Query {
    /// Its text. With the topic's `end` the job ends by itself, when every sink holds the last epoch.
    pub(crate) fn sql(&self) -> anyhow::Result<String> {
        let bounded = "start = 'earliest', end = 'latest'";
        let mut sql = replaced(JOB, "start = 'earliest'", bounded)?;
        if !self.dedups {
            sql = replaced(&sql, "SELECT DISTINCT ON (eventid) *", "SELECT *")?;
        }
        if self.fills_table {
            sql = replaced(&sql, "'fact_page_views'", &format!("'{TABLE}'"))?;
            return replaced(&sql, "'click_errors'", "'bench_click_errors'");
        }
        let Some((views, _)) = sql.split_once("CREATE SINK") else {
            bail!("jobs/page_views.sql has no sinks any more");
        };
        Ok(format!(
            "{views}\
             CREATE SINK page_views_nowhere FROM page_views WITH (connector = 'blackhole', emit = 'changes');\n\
             CREATE SINK clicks_nowhere FROM clicks.dead_letters WITH (connector = 'blackhole');\n"
        ))
    }
}

/// The same text with epochs that are further apart, or nearer.
pub(super) fn with_interval(sql: &str, interval: &str) -> anyhow::Result<String> {
    let set = |interval: &str| format!("SET checkpoint_interval = '{interval}'");
    replaced(sql, &set("1 second"), &set(interval))
}

fn replaced(sql: &str, old: &str, new: &str) -> anyhow::Result<String> {
    if !sql.contains(old) {
        bail!("jobs/page_views.sql has no {old} any more");
    }
    Ok(sql.replace(old, new))
}
