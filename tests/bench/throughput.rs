//! Throughput: the main job over a full topic, as a ratio to a raw consumer of the same topic.
//!
//! Called by `main.rs`. Runs jobs/page_views.sql as `millstream run`, with its storage on this disk, once into Postgres
//! and once into blackholes. The topic's `end` is added to the source, so that the job ends by itself when
//! every sink holds the last epoch. Timed from "begins" to "finished", as the process says them: starting the tasks is
//! part of it. Failure: a job that fails, or reads another number of rows.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use millstream_common::time::{Clock, SystemClock};
use tokio_postgres::NoTls;

use crate::process::{Process, Usage};
use crate::raw_consumer::Consumed;
use crate::{Services, raw_consumer, report, topic};

const JOB: &str = include_str!("../../jobs/page_views.sql");
/// Peak memory and CPU time are looked at this often, until the process ends.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Args)]
pub(crate) struct Arguments {
    /// Clicks in the topic.
    #[arg(long, default_value_t = 3_000_000)]
    clicks: u64,
    /// Of the clicks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds that one run may take.
    #[arg(long, default_value_t = 600)]
    seconds_max: u64,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            clicks: 3_000_000,
            seed: 1,
            seconds_max: 600,
        }
    }
}

pub(crate) async fn run(services: &Services, arguments: &Arguments) -> anyhow::Result<()> {
    let count = arguments.clicks;
    let topic = topic::of_clicks(&services.kafka, count, arguments.seed).await?;
    let clock = SystemClock::new();
    let raw = raw_consumer::consume(&clock, &services.kafka, &topic, count)?;
    print_raw(&topic, &raw);
    empty_tables(&services.postgres).await?;
    let variants = [
        ("into Postgres", postgres_variant()?),
        ("into blackholes", blackhole_variant()?),
    ];
    for (title, sql) in variants {
        let measured = measure(services, arguments, &clock, &topic, &sql).await?;
        print_measured(title, &measured, &raw);
    }
    Ok(())
}

/// One run of the job.
struct Measured {
    rows: u64,
    epochs: u64,
    elapsed: Duration,
    usage: Usage,
}

async fn measure(
    services: &Services,
    arguments: &Arguments,
    clock: &SystemClock,
    topic: &str,
    sql: &str,
) -> anyhow::Result<Measured> {
    let folder = tempfile::tempdir().context("make a folder for the job")?;
    let job = folder.path().join("page_views.sql");
    std::fs::write(&job, sql).context("write the job")?;
    let variables = [
        ("KAFKA_BROKERS", services.kafka.as_str()),
        ("POSTGRES_URL", services.postgres.as_str()),
        ("CLICKS_TOPIC", topic),
    ];
    let mut process = Process::start(
        folder.path(),
        "run",
        &["run", "page_views.sql", "--storage", "storage"],
        &variables,
    )?;
    let deadline = clock.monotonic() + Duration::from_secs(arguments.seconds_max);
    let mut began = None;
    let mut usage = Usage::default();
    loop {
        usage = match process.usage() {
            // A process that has ended but was not looked at has no memory any more.
            seen if seen.peak_rss_bytes > 0 => seen,
            _ => usage,
        };
        let log = process.log();
        let now = clock.monotonic();
        if began.is_none() && log.contains("page_views begins") {
            began = Some(now);
        }
        let finished = log
            .lines()
            .find(|line| line.starts_with("page_views finished after epoch "));
        if let (Some(began), Some(line)) = (began, finished) {
            let (epochs, rows) = numbers_of(line).context("read how the job ended")?;
            if rows != arguments.clicks {
                bail!("the job read {rows} of {} rows", arguments.clicks);
            }
            return Ok(Measured {
                rows,
                epochs,
                elapsed: now.saturating_sub(began),
                usage,
            });
        }
        if let Some(status) = process.ended()? {
            bail!("the job ended ({status}):\n{}", process.last_lines());
        }
        if now > deadline {
            bail!(
                "the job is not done in {} s:\n{}",
                arguments.seconds_max,
                process.last_lines()
            );
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Epoch and rows of `page_views finished after epoch 9: 3,000,000 rows read, ...`.
fn numbers_of(line: &str) -> Option<(u64, u64)> {
    let (_, rest) = line.split_once("after epoch ")?;
    let (epoch, rest) = rest.split_once(": ")?;
    let (rows, _) = rest.split_once(' ')?;
    let rows = rows.replace(',', "").parse().ok()?;
    Some((epoch.parse().ok()?, rows))
}

/// The job as it is in jobs/, but bounded, and into tables of the bench.
fn postgres_variant() -> anyhow::Result<String> {
    let bounded = replaced(
        JOB,
        "start = 'earliest'",
        "start = 'earliest', end = 'latest'",
    )?;
    let own_table = replaced(&bounded, "'fact_page_views'", "'bench_page_views'")?;
    replaced(&own_table, "'click_errors'", "'bench_click_errors'")
}

/// The same up to its sinks, which keep nothing.
fn blackhole_variant() -> anyhow::Result<String> {
    let bounded = postgres_variant()?;
    let (views, _) = bounded
        .split_once("CREATE SINK")
        .context("find the sinks of jobs/page_views.sql")?;
    Ok(format!(
        "{views}\
         CREATE SINK page_views_nowhere FROM page_views WITH (connector = 'blackhole', emit = 'changes');\n\
         CREATE SINK clicks_nowhere FROM clicks.dead_letters WITH (connector = 'blackhole');\n"
    ))
}

fn replaced(sql: &str, old: &str, new: &str) -> anyhow::Result<String> {
    if !sql.contains(old) {
        bail!("jobs/page_views.sql has no {old} any more");
    }
    Ok(sql.replace(old, new))
}

async fn empty_tables(url: &str) -> anyhow::Result<()> {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .context("connect to Postgres")?;
    let dropped = client.batch_execute("DROP TABLE IF EXISTS bench_page_views, bench_click_errors");
    tokio::select! {
        dropped = dropped => dropped.context("drop tables of the bench"),
        ended = connection => ended.context("connection to Postgres"),
    }
}

fn print_raw(topic: &str, raw: &Consumed) {
    let rows = [
        report::row("records", report::count(raw.records)),
        report::row(
            "bytes a record",
            format!(
                "{:.0}",
                raw.payload_bytes as f64 / raw.records.max(1) as f64
            ),
        ),
        report::row("time", report::millis(raw.elapsed)),
        report::row("rows/s", rows_per_second(raw.records, raw.elapsed)),
    ];
    report::table(&format!("raw librdkafka, one thread, {topic}"), &rows);
}

fn print_measured(title: &str, measured: &Measured, raw: &Consumed) {
    let ratio = report::rate(measured.rows, measured.elapsed)
        / report::rate(raw.records, raw.elapsed).max(f64::MIN_POSITIVE);
    let cpu_us = measured.usage.cpu.as_secs_f64() * 1e6 / measured.rows.max(1) as f64;
    let rows = [
        report::row("time", report::millis(measured.elapsed)),
        report::row("rows/s", rows_per_second(measured.rows, measured.elapsed)),
        report::row("ratio to raw", format!("{ratio:.3}")),
        report::row("CPU a row", format!("{cpu_us:.2} us")),
        report::row(
            "peak memory",
            report::mebibytes(measured.usage.peak_rss_bytes),
        ),
        report::row("epochs", report::count(measured.epochs)),
    ];
    report::table(&format!("jobs/page_views.sql {title}"), &rows);
}

fn rows_per_second(rows: u64, elapsed: Duration) -> String {
    report::count(report::rate(rows, elapsed).round() as u64)
}
