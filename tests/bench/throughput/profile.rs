//! Where the CPU goes, function by function: a flame graph of the worker while it runs a query.
//!
//! Called by `main.rs` for `make profile`. The kernel's sampling profiler, `perf`, looks at the worker from the first record to the last; what
//! it has seen becomes an SVG that a browser opens, and the functions that most samples ended in become a table. Failure: no
//! `perf`, or a kernel that does not let it look.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail, ensure};
use clap::Args;
use inferno::collapse::Collapse;
use inferno::collapse::perf::{Folder, Options};
use inferno::flamegraph;
use tokio::process::{Child, Command};

use super::oracle::Expected;
use super::queries::QUERIES;
use super::steps;
use super::timed::{self, Run};
use crate::topic::ClicksTopic;
use crate::{Services, report};

/// Samples a second and thread; no divisor of what else happens at round intervals.
const FREQUENCY: &str = "197";
/// Stack kept of a sample, in bytes.
const CALL_GRAPH: &str = "dwarf,16384";
const FUNCTIONS_SHOWN: usize = 40;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Which query: windows, dedup or postgres.
    #[arg(long, default_value = "dedup")]
    query: String,
    /// Clicks in the topic.
    #[arg(long, default_value_t = 20_000_000)]
    clicks: u64,
    /// Of the clicks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the flame graph goes.
    #[arg(long, default_value = "target/profile.svg")]
    out: PathBuf,
}

pub(crate) async fn run(services: &Services, arguments: &Arguments) -> anyhow::Result<()> {
    let mut queries = QUERIES.iter();
    let query = queries.find(|query| query.name == arguments.query);
    let query = query.with_context(|| format!("there is no query {}", arguments.query))?;
    let (count, seed) = (arguments.clicks, arguments.seed);
    let clicks = ClicksTopic::new(count, seed);
    let topic = clicks.fill(&services.kafka).await?;
    let expected = Expected::of(count, seed);
    let folder = tempfile::tempdir().context("make a folder for samples")?;
    let samples = folder.path().join("perf.data");
    let run = Run {
        samples: Some(&samples),
        ..Run::of(query, &topic, &expected)
    };
    let timed = timed::run(services, &run).await?;
    steps::print(&timed.steps, timed.rows);
    let stacks = collapse(&samples, folder.path()).await?;
    print_functions(&stacks)?;
    draw(&stacks, query.title, &arguments.out)?;
    println!("\nflame graph: {}", arguments.out.display());
    Ok(())
}

/// A profiler at work.
pub(super) struct Profiler(Child);

impl Profiler {
    /// Looks at a process until stopped.
    pub(super) fn start(process: u32, samples: &Path) -> anyhow::Result<Self> {
        let child = Command::new("perf")
            .args(["record", "-q", "-e", "cpu-clock", "-F", FREQUENCY])
            .args(["--call-graph", CALL_GRAPH, "-p", &process.to_string()])
            .arg("-o")
            .arg(samples)
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("start perf; on Debian it is in the package linux-perf")?;
        Ok(Self(child))
    }

    /// Lets it write down what it has seen.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let id = self.0.id().context("perf ended by itself")?;
        let mut kill = Command::new("kill");
        let told = kill.args(["-INT", &id.to_string()]).status().await;
        let told = told.context("stop perf")?;
        ensure!(told.success(), "perf could not be stopped");
        // It ends by the signal, and says so.
        self.0.wait().await.context("wait for perf").map(drop)
    }
}

/// The samples as one line a stack, with a count.
async fn collapse(samples: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let script = folder.join("script");
    let written = Command::new("perf")
        .args(["script", "--no-inline", "-i"])
        .arg(samples)
        .stdout(File::create(&script)?)
        .stderr(Stdio::null())
        .status()
        .await
        .context("start perf script")?;
    if !written.success() {
        bail!(
            "perf script: {written}; may this user profile? See /proc/sys/kernel/perf_event_paranoid"
        );
    }
    let stacks = folder.join("stacks");
    let mut folder = Folder::from(Options::default());
    let to = BufWriter::new(File::create(&stacks)?);
    folder
        .collapse(BufReader::new(File::open(&script)?), to)
        .context("collapse stacks")?;
    Ok(stacks)
}

/// The functions that most samples ended in.
fn print_functions(stacks: &Path) -> anyhow::Result<()> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for line in BufReader::new(File::open(stacks)?).lines() {
        let line = line?;
        let Some((stack, count)) = line.rsplit_once(' ') else {
            continue;
        };
        let function = stack.rsplit(';').next().unwrap_or(stack);
        *counts.entry(function.to_owned()).or_default() += count.parse::<u64>().unwrap_or(0);
    }
    let all = counts.values().sum::<u64>().max(1) as f64;
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let shown = counts.into_iter().take(FUNCTIONS_SHOWN);
    let rows = shown.map(|(function, count)| {
        let share = count as f64 * 100.0 / all;
        report::row(&format!("{share:5.1} %"), function)
    });
    report::table("functions that samples ended in", &rows.collect::<Vec<_>>());
    Ok(())
}

fn draw(stacks: &Path, title: &str, out: &Path) -> anyhow::Result<()> {
    let mut options = flamegraph::Options::default();
    options.title = title.to_owned();
    let reader = BufReader::new(File::open(stacks)?);
    let svg = report::drawing(out)?;
    flamegraph::from_reader(&mut options, reader, svg).context("draw the flame graph")
}
