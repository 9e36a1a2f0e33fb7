//! Throughput: the main job and its parts over a full topic, as ratios to a raw consumer of the same topic, and beside peers that are installed.
//!
//! Called by `main.rs`. The raw consumer, the queries and the peers take turns, several rounds of them, so that a slow minute of the machine is
//! everybody's. Each query runs on a master and a worker of their own, with storage on this disk, and is timed from the first record read to the last
//! epoch delivered. Failure: a job that fails, or whose rows are not those that the generator made.

mod compared;
pub(crate) mod growth;
mod oracle;
mod peers;
pub(crate) mod profile;
pub(crate) mod queries;
mod raw_consumer;
mod steps;
mod table;
mod timed;
pub(crate) mod tracing;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use millstream_common::time::SystemClock;

use self::compared::Compared;
use self::oracle::Expected;
use self::peers::{Beside, Series};
use self::queries::{QUERIES, Query};
use self::raw_consumer::Consumed;
use self::timed::{Run, Timed};
use crate::plot::{self, Bar};
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
    /// Where the plot goes.
    #[arg(long, default_value = PLOT)]
    plot: PathBuf,
    /// Where the table goes, as Markdown.
    #[arg(long, default_value = TABLE)]
    table: PathBuf,
    #[command(flatten)]
    peers: peers::Options,
}

const PLOT: &str = "target/throughput.svg";
const TABLE: &str = "target/throughput.md";

impl Default for Arguments {
    fn default() -> Self {
        Self {
            clicks: 20_000_000,
            seed: 1,
            rounds: 3,
            only: String::new(),
            plot: PLOT.into(),
            table: TABLE.into(),
            peers: peers::Options::default(),
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
    let chosen: Vec<&'static Query> = chosen
        .filter(|query| query.name.contains(&arguments.only))
        .collect();
    let peers = &arguments.peers;
    let mut beside = Beside::prepare(services, peers, arguments.seed, &chosen).await?;
    let mut raw: [Vec<Consumed>; 2] = Default::default();
    let mut timed: Vec<Vec<Timed>> = chosen.iter().map(|_| Vec::new()).collect();
    for round in 1..=arguments.rounds.max(1) {
        for (threads, runs) in (1..).zip(&mut raw) {
            let consumed = raw_consumer::consume(&clock, &services.kafka, &topic, clicks, threads)?;
            runs.push(consumed);
        }
        for (query, runs) in chosen.iter().zip(&mut timed) {
            let run = Run::of(query, &topic, &expected);
            let once = timed::run(services, &run).await;
            runs.push(once.with_context(|| format!("{}, round {round}", query.name))?);
            beside.round(services, query).await;
        }
    }
    let results = Results { raw, timed, beside };
    results.print(&chosen);
    write(&arguments.table, &table::markdown(&results, &chosen))?;
    write(&arguments.plot, &results.plot(&chosen))?;
    println!("\ntable: {}", arguments.table.display());
    println!("plot: {}", arguments.plot.display());
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = report::drawing(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.flush());
    written.with_context(|| format!("write {}", path.display()))
}

/// What was measured, round by round.
struct Results {
    /// On one thread, and on two.
    raw: [Vec<Consumed>; 2],
    /// By query.
    timed: Vec<Vec<Timed>>,
    beside: Beside,
}

impl Results {
    /// The raw consumer whose median is the faster one: what the queries are compared with.
    fn fastest(&self) -> &[Consumed] {
        let [one, two] = &self.raw;
        let median = |runs: &[Consumed]| rates_of_raw(runs).median;
        if median(two) > median(one) { two } else { one }
    }

    /// Beside the raw consumer of the same round, so that a slow minute of the machine is in both.
    fn ratios(&self, runs: &[Timed], of: impl Fn(&Timed, &Consumed) -> f64) -> Spread {
        let rounds = runs.iter().zip(self.fastest());
        Spread::of(rounds.map(|(run, raw)| of(run, raw)).collect())
    }

    fn rate_ratios(&self, runs: &[Timed]) -> Spread {
        self.ratios(runs, |run, raw| run.rate() / rate_of_raw(raw))
    }

    fn print(&self, queries: &[&Query]) {
        for (threads, runs) in (1..).zip(&self.raw) {
            let cpu = Spread::of(runs.iter().map(cpu_us_of_raw).collect());
            let rows = [
                report::row("rows/s", rates_of_raw(runs).rows_per_second()),
                report::row("CPU a row", cpu.micros()),
            ];
            report::table(&format!("raw librdkafka, {threads} of 2 threads"), &rows);
        }
        for (query, runs) in queries.iter().zip(&self.timed) {
            self.print_query(query, runs);
            let series = self.beside.series.iter();
            for series in series.filter(|series| series.query.name == query.name) {
                compared::print(series, self.compared(series, runs).as_ref());
            }
        }
    }

    /// A peer, with our runs of the same query.
    fn compared(&self, series: &Series, ours: &[Timed]) -> Option<Compared> {
        Compared::of(series, ours, self.fastest())
    }

    fn print_query(&self, query: &Query, runs: &[Timed]) {
        let rate = Spread::of(runs.iter().map(Timed::rate).collect());
        let cpu = Spread::of(runs.iter().map(Timed::cpu_us).collect());
        let cpu_ratios = self.ratios(runs, |run, raw| run.cpu_us() / cpu_us_of_raw(raw));
        let memory = runs.iter().map(|run| run.peak_rss_bytes).max();
        let epochs = runs.iter().map(|run| run.epochs).min();
        let rows = [
            report::row("rows/s", rate.rows_per_second()),
            report::row("ratio to raw", self.rate_ratios(runs).ratio()),
            report::row("CPU a row", cpu.micros()),
            report::row("ratio to raw", cpu_ratios.ratio()),
            report::row("peak memory", report::mebibytes(memory.unwrap_or_default())),
            report::row("least time", report::millis(least_time(runs))),
            report::row("least epochs", report::count(epochs.unwrap_or_default())),
        ];
        report::table(query.title, &rows);
        if let Some(last) = runs.last() {
            steps::print(&last.steps, last.rows);
        }
    }

    fn plot(&self, queries: &[&Query]) -> String {
        let mut bars = vec![Bar {
            name: "raw librdkafka, the faster of 1 and 2 threads".to_owned(),
            ratio: Spread::of(vec![1.0]),
        }];
        for (query, runs) in queries.iter().zip(&self.timed) {
            bars.push(Bar {
                name: query.title.to_owned(),
                ratio: self.rate_ratios(runs),
            });
            let series = self.beside.series.iter();
            let series = series.filter(|series| series.query.name == query.name);
            bars.extend(series.filter_map(|series| {
                Some(Bar {
                    name: format!("the same by {}", series.title),
                    ratio: self.compared(series, runs)?.to_raw,
                })
            }));
        }
        plot::bars("Rows/s, as a ratio to a raw consumer", &bars)
    }
}

fn least_time(runs: &[Timed]) -> Duration {
    let times = runs.iter().map(|run| run.elapsed);
    times.min().unwrap_or_default()
}

fn rates_of_raw(runs: &[Consumed]) -> Spread {
    Spread::of(runs.iter().map(rate_of_raw).collect())
}

fn rate_of_raw(run: &Consumed) -> f64 {
    report::rate(run.records, run.elapsed)
}

/// Microseconds a row.
fn cpu_us_of_raw(run: &Consumed) -> f64 {
    run.cpu.as_secs_f64() * 1e6 / run.records.max(1) as f64
}
