//! Small things: how long a job of ten rows takes from the first instruction of its process to the last, and what a cluster costs that has
//! nothing to do.
//!
//! Called by `main.rs`; needs no services. Failure: a process that ends otherwise than it should.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use millstream_common::time::{Clock, SystemClock};

use crate::cluster::Cluster;
use crate::process::{Process, Usage};
use crate::report::{self, Spread};

const ROWS: u64 = 10;
const JOB: &str = "\
    CREATE SOURCE made (number BIGINT NOT NULL) WITH (connector = 'datagen', rows = 10);\n\
    CREATE SINK numbers FROM made WITH (connector = 'files', path = 'out', format = 'json');\n";
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// What a process does when it starts is no idleness.
const SETTLED_AFTER: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(crate) struct Arguments {
    /// How often the job is run.
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// For how long a cluster has nothing to do.
    #[arg(long, default_value_t = 30)]
    idle_seconds: u64,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            runs: 20,
            idle_seconds: 30,
        }
    }
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut times = Vec::new();
    for _ in 0..arguments.runs.max(1) {
        times.push(run_once().await?.as_secs_f64() * 1e3);
    }
    let times = Spread::of(times);
    let (least, median, greatest) = (times.least, times.median, times.greatest);
    let rows = [report::row(
        "whole process",
        format!("{median:.0} ms ({least:.0} to {greatest:.0})"),
    )];
    report::table(
        &format!("millstream run of a job of {ROWS} rows, to a file"),
        &rows,
    );
    idle(Duration::from_secs(arguments.idle_seconds.max(1))).await
}

async fn run_once() -> anyhow::Result<Duration> {
    let folder = tempfile::tempdir().context("make a folder for the job")?;
    std::fs::write(folder.path().join("ten.sql"), JOB).context("write the job")?;
    let clock = SystemClock::new();
    let arguments = ["run", "ten.sql", "--storage", "storage"];
    let mut process = Process::start(folder.path(), "run", &arguments, &[])?;
    let status = loop {
        if let Some(status) = process.ended()? {
            break status;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    };
    let took = clock.monotonic();
    ensure!(status.success(), "{status}: {}", process.last_lines());
    let written = lines_in(&folder.path().join("out"))?;
    ensure!(written == ROWS, "{written} rows were written");
    Ok(took)
}

/// Lines of the files with rows in a folder and those below it.
fn lines_in(folder: &Path) -> anyhow::Result<u64> {
    let mut lines = 0;
    for entry in std::fs::read_dir(folder).context("list the files of the job")? {
        let path = entry.context("list the files of the job")?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with('_')) {
            continue;
        }
        lines += match path.is_dir() {
            true => lines_in(&path)?,
            false => {
                let text = std::fs::read_to_string(&path).context("read a file of the job")?;
                text.lines().count() as u64
            }
        };
    }
    Ok(lines)
}

async fn idle(span: Duration) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("make a folder for the cluster")?;
    let mut cluster = Cluster::start(folder.path(), "none", &["worker-a"], Vec::new()).await?;
    tokio::time::sleep(SETTLED_AFTER).await;
    let before = (cluster.master.usage(), cluster.workers[0].usage());
    tokio::time::sleep(span).await;
    let after = (cluster.master.usage(), cluster.workers[0].usage());
    let share = |before: Usage, after: Usage| {
        let cpu = after.cpu.saturating_sub(before.cpu);
        format!(
            "{:.2} % of a core",
            cpu.as_secs_f64() / span.as_secs_f64() * 100.0
        )
    };
    let rows = [
        report::row(
            "worker, memory",
            report::mebibytes(cluster.workers[0].rss_bytes()),
        ),
        report::row("worker, CPU", share(before.1, after.1)),
        report::row(
            "master, memory",
            report::mebibytes(cluster.master.rss_bytes()),
        ),
        report::row("master, CPU", share(before.0, after.0)),
    ];
    report::table("a cluster without a job", &rows);
    Ok(())
}
