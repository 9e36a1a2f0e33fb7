//! Tracing: what spans cost the main job, as ratios to the same job without them.
//!
//! Called by `main.rs`. The query with DISTINCT ON into blackholes runs with no collector named, with one that takes every span, and with
//! one that is away, in turns, several rounds of them, each checked as every run is. The collector is in this process: the rows a second
//! pay for it too on a machine whose cores are busy, the CPU time a row, which is that of master and worker alone, does not. Failure: that
//! of the runs, or a collector that nothing reaches.

use anyhow::{Context, ensure};
use clap::Args;
use millstream_common::net::{Net, TcpNet};
use millstream_tests::collector::Collector;

use super::oracle::Expected;
use super::queries::{self, QUERIES};
use super::timed::{self, Run, Timed};
use crate::Services;
use crate::report::{self, Spread};
use crate::topic::ClicksTopic;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Clicks in the topic.
    #[arg(long, default_value_t = 10_000_000)]
    clicks: u64,
    /// Of the clicks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often each way is measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The job's checkpoint_interval: an epoch is what spans are made of.
    #[arg(long, default_value = "1 second")]
    interval: String,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            clicks: 10_000_000,
            seed: 1,
            rounds: 3,
            interval: "1 second".to_owned(),
        }
    }
}

/// Variables of the processes.
type Variables = Vec<(&'static str, String)>;

pub(crate) async fn run(services: &Services, arguments: &Arguments) -> anyhow::Result<()> {
    let query = QUERIES
        .iter()
        .find(|query| query.dedups && !query.fills_table);
    let query = query.context("a query with DISTINCT ON into blackholes")?;
    let sql = queries::with_interval(&query.sql()?, &arguments.interval)?;
    let (count, seed) = (arguments.clicks, arguments.seed);
    let expected = Expected::of(count, seed);
    let topic = ClicksTopic::new(count, seed);
    let topic = topic.fill(&services.kafka).await?;
    let collector = Collector::start().await?;
    let ways: [(&str, Variables); 3] = [
        ("off", Vec::new()),
        ("to a collector", sent_to(collector.endpoint.clone())),
        (
            "to a collector that is away",
            sent_to(nobody_listens().await?),
        ),
    ];
    let mut timed: [Vec<Timed>; 3] = Default::default();
    for round in 1..=arguments.rounds.max(1) {
        for ((way, variables), runs) in ways.iter().zip(&mut timed) {
            let run = Run {
                sql: Some(&sql),
                variables,
                ..Run::of(query, &topic, &expected)
            };
            let once = timed::run(services, &run).await;
            runs.push(once.with_context(|| format!("tracing {way}, round {round}"))?);
        }
    }
    let spans: usize = collector.traces().values().map(Vec::len).sum();
    ensure!(spans > 0, "no span has reached the collector");
    let names = ways.each_ref().map(|(way, _)| *way);
    print(arguments, names, &timed, spans / arguments.rounds.max(1));
    Ok(())
}

/// As a user would set them: how often spans are sent is left as it is.
fn sent_to(endpoint: String) -> Variables {
    vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned()),
    ]
}

/// An address that was free a moment ago.
async fn nobody_listens() -> anyhow::Result<String> {
    let listener = TcpNet.listen("127.0.0.1:0").await?;
    Ok(format!("http://{}", listener.address))
}

fn print(arguments: &Arguments, names: [&str; 3], timed: &[Vec<Timed>; 3], spans: usize) {
    let spread = |of: fn(&Timed) -> f64| {
        timed
            .each_ref()
            .map(|runs| Spread::of(runs.iter().map(of).collect()))
    };
    let (rates, cpu) = (spread(Timed::rate), spread(Timed::cpu_us));
    let mut rows = Vec::new();
    for (index, name) in names.into_iter().enumerate() {
        rows.push(report::row(name, rates[index].rows_per_second()));
        rows.push(report::row("  CPU a row", cpu[index].micros()));
        if index > 0 {
            let throughput = rates[index].median / rates[0].median;
            let cost = cpu[index].median / cpu[0].median;
            let ratios = format!("{throughput:.3} of the rows/s, {cost:.3} of the CPU a row");
            rows.push(report::row("  ratio to off", ratios));
        }
    }
    let epochs = timed.iter().flatten().map(|run| run.epochs).min();
    rows.push(report::row("spans of a run", report::count(spans as u64)));
    rows.push(report::row(
        "least epochs of a run",
        report::count(epochs.unwrap_or_default()),
    ));
    let title = format!(
        "tracing, {} clicks of jobs/page_views.sql into blackholes, an epoch every {}",
        report::count(arguments.clicks),
        arguments.interval
    );
    report::table(&title, &rows);
}
