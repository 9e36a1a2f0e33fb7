//! Growth: what a row costs on more workers, and out of more partitions, as a ratio to one worker and to four partitions.
//!
//! Called by `main.rs`. The query is the one without DISTINCT ON; its input is the same in every run, spread over more partitions. The settings
//! take turns, several rounds of them. More workers are more processes on this machine's cores: what is compared is CPU time, not
//! speed. Failure: that of the runs.

use anyhow::Context;
use clap::Args;

use super::oracle::Expected;
use super::queries::{self, Query};
use super::timed::{self, Run, Timed, WORKER_NAMES};
use crate::report::Spread;
use crate::topic::ClicksTopic;
use crate::{Services, report};

/// Of the runs with more workers: enough for the slots of all.
const PARTITIONS_OF_MANY: i32 = 16;

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
) -> anyhow::Result<Vec<(Setting, Vec<Timed>)>> {
    let (count, seed) = (arguments.clicks, arguments.seed);
    let expected = Expected::of(count, seed);
    let mut measured: Vec<(Setting, Vec<Timed>)> = Vec::new();
    measured.extend(settings.iter().map(|setting| (*setting, Vec::new())));
    for round in 1..=arguments.rounds.max(1) {
        for ((worker_count, partition_count), runs) in &mut measured {
            let topic = ClicksTopic {
                count,
                seed,
                partition_count: *partition_count,
            };
            let topic = topic.fill(&services.kafka).await?;
            let run = Run {
                worker_count: *worker_count,
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

fn print(
    title: &str,
    what: &str,
    measured: &[(Setting, Vec<Timed>)],
    name: impl Fn(&Setting) -> String,
) {
    let cpu = |runs: &[Timed]| Spread::of(runs.iter().map(Timed::cpu_us).collect());
    let first = measured
        .first()
        .map_or(f64::NAN, |(_, runs)| cpu(runs).median);
    let rows = measured.iter().map(|(setting, runs)| {
        let cpu = cpu(runs);
        let rate = Spread::of(runs.iter().map(Timed::rate).collect());
        report::row(
            &format!("{} {what}", name(setting)),
            format!(
                "CPU a row {}, {:.2} x the first; {} rows/s",
                cpu.micros(),
                cpu.median / first,
                rate.rows_per_second()
            ),
        )
    });
    report::table(title, &rows.collect::<Vec<_>>());
}
