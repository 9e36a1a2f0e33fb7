//! Growth: what a row costs on more workers, and out of more partitions, as a ratio to one worker and to four partitions.
//!
//! Called by `main.rs`. The query is the one without DISTINCT ON; its input is the same in every run, spread over more partitions. The settings
//! take turns, several rounds of them. More workers are more processes on this machine's cores: what is compared is CPU time, not
//! speed. Beside them the client of Kafka alone, whose own cost grows with partitions. Failure: that of the runs.

use anyhow::Context;
use clap::Args;
use millstream_common::time::SystemClock;

use super::cpu_us_of_raw;
use super::oracle::Expected;
use super::queries::{self, Query};
use super::raw_consumer::{self, Consumed};
use super::timed::{self, Run, Timed, WORKER_NAMES};
use crate::report::Spread;
use crate::topic::ClicksTopic;
use crate::{Services, report};

/// Of the runs with more workers: enough for the slots of all.
const PARTITIONS_OF_MANY: i32 = 16;
/// Of the client alone; a worker has two slots here.
const RAW_THREADS: i32 = 2;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Clicks in each topic: enough for the start of many workers to be little.
    #[arg(long, default_value_t = 20_000_000)]
    clicks: u64,
    /// Of the clicks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often everything is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Numbers of workers; the first is what the others are compared with.
    #[arg(long, value_delimiter = ',', default_values_t = WORKERS)]
    workers: Vec<usize>,
    /// Numbers of partitions; the first is what the others are compared with.
    #[arg(long, value_delimiter = ',', default_values_t = PARTITIONS)]
    partitions: Vec<i32>,
}

const WORKERS: [usize; 3] = [1, 4, 8];
const PARTITIONS: [i32; 3] = [4, 64, 256];

impl Default for Arguments {
    fn default() -> Self {
        Self {
            clicks: 20_000_000,
            seed: 1,
            rounds: 3,
            workers: WORKERS.to_vec(),
            partitions: PARTITIONS.to_vec(),
        }
    }
}

/// Workers and partitions.
type Setting = (usize, i32);

/// Of one setting.
struct Measured {
    setting: Setting,
    runs: Vec<Timed>,
    /// Of the same topics.
    raw: Vec<Consumed>,
}

pub(crate) async fn run(services: &Services, arguments: &Arguments) -> anyhow::Result<()> {
    let query = queries::without_dedup()?;
    let by_workers: Vec<Setting> = arguments
        .workers
        .iter()
        .map(|count| ((*count).clamp(1, WORKER_NAMES.len()), PARTITIONS_OF_MANY))
        .collect();
    let by_partitions: Vec<Setting> = arguments
        .partitions
        .iter()
        .map(|count| (1, (*count).max(1)))
        .collect();
    let many = measure(services, arguments, query, &by_workers).await?;
    print(
        &format!("more workers, {PARTITIONS_OF_MANY} partitions"),
        "workers",
        &many,
        |setting| setting.0.to_string(),
    );
    let many = measure(services, arguments, query, &by_partitions).await?;
    print(
        "more partitions, one worker",
        "partitions",
        &many,
        |setting| setting.1.to_string(),
    );
    Ok(())
}

/// The runs of each setting.
async fn measure(
    services: &Services,
    arguments: &Arguments,
    query: &Query,
    settings: &[Setting],
) -> anyhow::Result<Vec<Measured>> {
    let (count, seed) = (arguments.clicks, arguments.seed);
    let expected = Expected::of(count, seed);
    let of = |setting: &Setting| Measured {
        setting: *setting,
        runs: Vec::new(),
        raw: Vec::new(),
    };
    let mut measured: Vec<Measured> = settings.iter().map(of).collect();
    let clock = SystemClock::new();
    for round in 1..=arguments.rounds.max(1) {
        for Measured { setting, runs, raw } in &mut measured {
            let (worker_count, partition_count) = *setting;
            let clicks = ClicksTopic {
                count,
                seed,
                partition_count,
            };
            let topic = clicks.fill(&services.kafka).await?;
            raw.push(raw_consumer::consume(
                &clock,
                &services.kafka,
                &topic,
                clicks,
                RAW_THREADS,
            )?);
            let run = Run {
                worker_count,
                ..Run::of(query, &topic, &expected)
            };
            let once = timed::run(services, &run).await;
            runs.push(once.with_context(|| {
                format!("{worker_count} workers, {partition_count} partitions, round {round}")
            })?);
        }
    }
    Ok(measured)
}

fn print(title: &str, what: &str, measured: &[Measured], name: impl Fn(&Setting) -> String) {
    let cpu = |of: &Measured| Spread::of(of.runs.iter().map(Timed::cpu_us).collect());
    let raw = |of: &Measured| Spread::of(of.raw.iter().map(cpu_us_of_raw).collect()).median;
    let first = |value: &dyn Fn(&Measured) -> f64| measured.first().map_or(f64::NAN, value);
    let first_cpu = first(&|of| cpu(of).median);
    let first_raw = first(&raw);
    let rows = measured.iter().map(|of| {
        let cpu = cpu(of);
        let raw = raw(of);
        let rate = Spread::of(of.runs.iter().map(Timed::rate).collect());
        report::row(
            &format!("{} {what}", name(&of.setting)),
            format!(
                "CPU a row {}, {:.2} x the first (raw {raw:.2} us, {:.2} x); {} rows/s",
                cpu.micros(),
                cpu.median / first_cpu,
                raw / first_raw,
                rate.rows_per_second()
            ),
        )
    });
    report::table(title, &rows.collect::<Vec<_>>());
}
