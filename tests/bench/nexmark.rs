//! Nexmark: its queries 0, 1 and 2 over bids that the worker makes up itself, beside what others have published.
//!
//! Called by `main.rs`; needs no services. One generator is one split, so it is the work of a row that is compared, by CPU time, and not how many rows
//! the machine does. Every query takes its turn, several rounds of them, on a master and a worker of its own. Failure: a job that fails or loses
//! a row.

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use millstream_common::control::{JobView, SinkView};
use millstream_common::time::Clock;

use crate::cluster::Cluster;
use crate::report::{self, Spread};

const NAME: &str = "nexmark";
const RUN_MAX: Duration = Duration::from_secs(600);
const BID: &str = "auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel TEXT, \
    url TEXT, date_time TIMESTAMP NOT NULL, extra TEXT";

/// One of the benchmark's queries, with thousands of events a second and core that others have published for it.
struct Query {
    name: &'static str,
    select: &'static str,
    /// Every row that goes in comes out.
    keeps_all: bool,
    /// Flink, with a generator inside as here.
    flink: u32,
    /// RisingWave, out of Kafka.
    risingwave: Option<u32>,
}

const QUERIES: [Query; 3] = [
    Query {
        name: "q0",
        select: "SELECT auction, bidder, price, date_time, extra FROM bid",
        keeps_all: true,
        flink: 155,
        risingwave: Some(118),
    },
    Query {
        name: "q1",
        select: "SELECT auction, bidder, 0.908 * price AS price, date_time, extra FROM bid",
        keeps_all: true,
        flink: 158,
        risingwave: Some(119),
    },
    Query {
        name: "q2",
        select: "SELECT auction, price FROM bid WHERE auction % 123 = 0",
        keeps_all: false,
        flink: 175,
        risingwave: None,
    },
];

#[derive(Args)]
pub(crate) struct Arguments {
    /// Bids that are made up.
    #[arg(long, default_value_t = 10_000_000)]
    bids: u64,
    /// How often everything is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            bids: 10_000_000,
            rounds: 3,
        }
    }
}

/// What a query took.
struct Run {
    elapsed: Duration,
    /// Of master and worker.
    cpu: Duration,
    peak_rss_bytes: u64,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut runs: [Vec<Run>; 3] = Default::default();
    for _ in 0..arguments.rounds.max(1) {
        for (query, runs) in QUERIES.iter().zip(&mut runs) {
            let once = run_once(query, arguments.bids).await;
            runs.push(once.context(query.name)?);
        }
    }
    for (query, runs) in QUERIES.iter().zip(&runs) {
        print(query, arguments.bids, runs);
    }
    Ok(())
}

async fn run_once(query: &Query, bids: u64) -> anyhow::Result<Run> {
    let folder = tempfile::tempdir().context("make a folder for the cluster")?;
    let mut cluster = Cluster::start(folder.path(), NAME, &["worker-a"], Vec::new()).await?;
    let sql = format!(
        "CREATE SOURCE bid ({BID}) WITH (connector = 'datagen', rows = {bids}, \"nexmark.table.type\" = 'bid');\n\
         CREATE VIEW query AS {};\n\
         CREATE SINK out FROM query WITH (connector = 'blackhole');\n",
        query.select
    );
    let cpu_before = cluster.cpu();
    let begun = cluster.clock.monotonic();
    cluster.submit(sql).await?;
    let job = cluster.finished(RUN_MAX).await?;
    let elapsed = cluster.clock.monotonic().saturating_sub(begun);
    let cpu = cluster.cpu().saturating_sub(cpu_before);
    check(query, bids, &job)?;
    Ok(Run {
        elapsed,
        cpu,
        peak_rss_bytes: cluster.workers[0].usage().peak_rss_bytes,
    })
}

fn check(query: &Query, bids: u64, job: &JobView) -> anyhow::Result<()> {
    ensure!(
        job.rows_read == bids && job.rows_rejected == 0 && job.rows_unaccounted == 0,
        "{} rows read, {} rejected, {} unaccounted for",
        job.rows_read,
        job.rows_rejected,
        job.rows_unaccounted
    );
    let delivered: u64 = job
        .sinks
        .iter()
        .map(|sink: &SinkView| sink.rows_delivered)
        .sum();
    match query.keeps_all {
        true => ensure!(delivered == bids, "{delivered} rows came out"),
        false => ensure!(
            (1..bids / 20).contains(&delivered),
            "{delivered} rows came out, where one of 123 auctions was asked for"
        ),
    }
    Ok(())
}

fn print(query: &Query, bids: u64, runs: &[Run]) {
    let thousands = |amount: f64| format!("{} k", report::count((amount / 1e3).round() as u64));
    let of =
        |value: fn(u64, &Run) -> f64| Spread::of(runs.iter().map(|run| value(bids, run)).collect());
    let per_core = of(|bids, run| report::rate(bids, run.cpu));
    let rate = of(|bids, run| report::rate(bids, run.elapsed));
    let memory = runs.iter().map(|run| run.peak_rss_bytes).max();
    let flink = f64::from(query.flink) * 1e3;
    let mut rows = vec![
        report::row(
            "bids/s and core",
            format!(
                "{} ({} to {})",
                thousands(per_core.median),
                thousands(per_core.least),
                thousands(per_core.greatest)
            ),
        ),
        report::row("bids/s", rate.rows_per_second()),
        report::row("peak memory", report::mebibytes(memory.unwrap_or_default())),
        report::row(
            "Flink, as published, on other machines",
            format!(
                "{} events/s and core: {:.1} x",
                thousands(flink),
                per_core.median / flink
            ),
        ),
    ];
    if let Some(published) = query.risingwave {
        let published = f64::from(published) * 1e3;
        rows.push(report::row(
            "RisingWave, as published, out of Kafka",
            format!(
                "{} events/s and core: {:.1} x",
                thousands(published),
                per_core.median / published
            ),
        ));
    }
    report::table(&format!("Nexmark {}: {}", query.name, query.select), &rows);
}
