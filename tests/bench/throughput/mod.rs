//! Throughput: the main job and its parts over a full topic, as ratios to a raw consumer of the same topic.
//!
//! Called by `main.rs`. The raw consumer and the queries take turns, several rounds of them, so that a slow minute of the machine is
//! everybody's. Each query runs on a master and a worker of their own, with storage on this disk, and is timed from the first record read to the last
//! epoch delivered. Failure: a job that fails, or whose rows are not those that the generator made.

pub(crate) mod growth;
mod oracle;
pub(crate) mod profile;
mod queries;
mod raw_consumer;
mod steps;
mod timed;
pub(crate) mod tracing;

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use millstream_common::time::SystemClock;

use self::oracle::Expected;
use self::queries::{QUERIES, Query};
use self::raw_consumer::Consumed;
use self::timed::{Run, Timed};
use crate::report::Spread;
use crate::topic::ClicksTopic;
use crate::{Services, report};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Clicks in the topic.
    #[arg(long, default_value_t = 20_000_000)]
    clicks: u64,
    /// Of the clicks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often everything is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only queries whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            clicks: 20_000_000,
            seed: 1,
            rounds: 3,
            only: String::new(),
        }
    }
}

pub(crate) async fn run(services: &Services, arguments: &Arguments) -> anyhow::Result<()> {
    let count = arguments.clicks;
    let clicks = ClicksTopic::new(count, arguments.seed);
    let topic = clicks.fill(&services.kafka).await?;
    let expected = Expected::of(count, arguments.seed);
    let clock = SystemClock::new();
    let chosen = QUERIES.iter();
    let chosen: Vec<&Query> = chosen
        .filter(|query| query.name.contains(&arguments.only))
        .collect();
    let mut raw: [Vec<Consumed>; 2] = Default::default();
    let mut timed: Vec<Vec<Timed>> = chosen.iter().map(|_| Vec::new()).collect();
    for round in 1..=arguments.rounds.max(1) {
        for (threads, runs) in (1..).zip(&mut raw) {
            let consumed = raw_consumer::consume(&clock, &services.kafka, &topic, count, threads)?;
            runs.push(consumed);
        }
        for (query, runs) in chosen.iter().zip(&mut timed) {
            let run = Run::of(query, &topic, &expected);
            let once = timed::run(services, &run).await;
            runs.push(once.with_context(|| format!("{}, round {round}", query.name))?);
        }
    }
    print(&raw, &chosen, &timed);
    Ok(())
}

fn print(raw: &[Vec<Consumed>; 2], queries: &[&Query], timed: &[Vec<Timed>]) {
    let rates = raw.each_ref().map(|runs| {
        let rates = runs.iter();
        let rates = rates.map(|run| report::rate(run.records, run.elapsed));
        Spread::of(rates.collect())
    });
    for (threads, (runs, rate)) in (1..).zip(raw.iter().zip(&rates)) {
        let rows = [
            report::row("rows/s", rate.rows_per_second()),
            report::row("CPU a row", cpu_of_raw(runs).micros()),
        ];
        report::table(&format!("raw librdkafka, {threads} of 2 threads"), &rows);
    }
    let fastest = match rates[1].median > rates[0].median {
        true => 1,
        false => 0,
    };
    let raw_cpu = cpu_of_raw(&raw[fastest]);
    for (query, runs) in queries.iter().zip(timed) {
        let rate = Spread::of(runs.iter().map(Timed::rate).collect());
        let cpu = Spread::of(runs.iter().map(Timed::cpu_us).collect());
        let memory = runs.iter().map(|run| run.peak_rss_bytes).max();
        let epochs = runs.iter().map(|run| run.epochs).min();
        let rows = [
            report::row("rows/s", rate.rows_per_second()),
            report::row(
                "ratio to raw",
                format!("{:.3}", rate.median / rates[fastest].median),
            ),
            report::row("CPU a row", cpu.micros()),
            report::row(
                "ratio to raw",
                format!("{:.2}", cpu.median / raw_cpu.median),
            ),
            report::row("peak memory", report::mebibytes(memory.unwrap_or_default())),
            report::row("least time", report::millis(least_time(runs))),
            report::row("least epochs", report::count(epochs.unwrap_or_default())),
        ];
        report::table(query.title, &rows);
        if let Some(last) = runs.last() {
            steps::print(&last.steps, last.rows);
        }
    }
}

fn least_time(runs: &[Timed]) -> Duration {
    let times = runs.iter().map(|run| run.elapsed);
    times.min().unwrap_or_default()
}

fn cpu_of_raw(runs: &[Consumed]) -> Spread {
    let micros = runs.iter();
    let micros = micros.map(|run| run.cpu.as_secs_f64() * 1e6 / run.records.max(1) as f64);
    Spread::of(micros.collect())
}
