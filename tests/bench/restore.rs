//! Restore: how long a job with much state stands still when its worker is killed, beside reading that state and no more.
//!
//! Called by `main.rs`; needs no services. A worker makes up rows with long keys and counts them, so that its state fills the storage; then it gets a
//! SIGKILL and is started again. Timed from the signal to the first epoch that a later generation commits. Beside it, this process reads every
//! state part, many at a time, and throws it away. Before either the parts are put out of the machine's memory, so that both come from disk. They take
//! turns, several rounds of them. Failure: a job that does not come back within its time.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use millstream_common::blocking::{self, BlockingRef, ThreadPool};
use millstream_common::control::JobState;
use millstream_common::time::Clock;

use crate::cluster::Cluster;
use crate::report::{self, Spread};

const NAME: &str = "bench_restore";
/// Of a key: so often 20 digits.
const KEY_PIECES: u64 = 50;
const KEY_LENGTH: u64 = KEY_PIECES * 20;
/// To fill the storage, and to come back.
const RUN_MAX: Duration = Duration::from_secs(900);
/// Parts that are read at once.
const READS_AT_ONCE: usize = 32;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Of state, in gigabytes; twice as much memory is wanted, and as much room on the disk.
    #[arg(long, default_value_t = 10.0)]
    gigabytes: f64,
    /// How often both are measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            gigabytes: 10.0,
            rounds: 3,
        }
    }
}

/// What a round took.
struct Round {
    /// From the signal to the epoch, as a client sees it.
    recovery: Duration,
    /// Every part, from disk.
    reading: Duration,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("make a folder for the cluster")?;
    let mut cluster = Cluster::start(folder.path(), NAME, &["worker-a"], Vec::new()).await?;
    let key_count = (arguments.gigabytes * 1e9) as u64 / KEY_LENGTH;
    cluster.submit(job(key_count)).await?;
    let filled = cluster
        .wait_at_most(RUN_MAX, |job| job.rows_read > key_count)
        .await
        .context("wait until the state is there")?;
    let stored = filled.epoch.0 + 2;
    cluster.wait(|job| job.epoch.0 >= stored).await?;
    let mut rounds = Vec::new();
    for _ in 0..arguments.rounds.max(1) {
        rounds.push(round(&mut cluster, folder.path()).await?);
    }
    let parts = parts(&folder.path().join("storage"))?;
    let peak_rss_bytes = cluster.workers[0].usage().peak_rss_bytes;
    print(&parts, &rounds, peak_rss_bytes);
    Ok(())
}

/// Many long keys, once each, and a few that come again and again, so that there are epochs when all are there.
fn job(key_count: u64) -> String {
    let later = "\"fields.id.template\" = '{uniform:0:999}', rows_per_second = 1000";
    let key = "{hex:20}".repeat(KEY_PIECES as usize);
    let known = format!("\"fields.id.template\" = '{key}', rows = {key_count}");
    let source = |name: &str, options: &str| {
        format!(
            "CREATE SOURCE {name} (id TEXT NOT NULL) \
             WITH (connector = 'datagen', \"fields.id.kind\" = 'template', {options});\n"
        )
    };
    format!(
        "SET checkpoint_interval = '200 ms';\n{}{}\
         CREATE VIEW counts AS SELECT id, count(*) AS times \
         FROM (SELECT id FROM known UNION ALL SELECT id FROM later) AS ids GROUP BY id;\n\
         CREATE SINK nowhere FROM counts WITH (connector = 'blackhole', emit = 'changes');\n",
        source("known", &known),
        source("later", later)
    )
}

async fn round(cluster: &mut Cluster, folder: &Path) -> anyhow::Result<Round> {
    let parts = parts(&folder.join("storage"))?;
    put_out_of_memory(&parts)?;
    let begun = cluster.clock.monotonic();
    read_all(&parts).await?;
    let reading = cluster.clock.monotonic().saturating_sub(begun);
    put_out_of_memory(&parts)?;
    let before = cluster.job().await?;
    let killed_at = cluster.clock.monotonic();
    cluster.workers[0].kill().await?;
    cluster.start_worker(0)?;
    cluster
        .wait_at_most(RUN_MAX, |job| {
            job.state == JobState::Running
                && job.generation > before.generation
                && job.epoch > before.epoch
        })
        .await
        .context("wait for the recovery")?;
    Ok(Round {
        recovery: cluster.clock.monotonic().saturating_sub(killed_at),
        reading,
    })
}

/// A state part in the storage.
struct Part {
    file: PathBuf,
    bytes: u64,
}

/// All state parts below `folder`.
fn parts(folder: &Path) -> anyhow::Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).context("look into the storage")?;
        for entry in entries {
            let entry = entry.context("look into the storage")?;
            let (file, kind) = (entry.path(), entry.file_type()?);
            let is_state = file.components().any(|part| part.as_os_str() == "state");
            if kind.is_dir() {
                folders.push(file);
            } else if is_state {
                // A part may go while it is looked at.
                if let Ok(found) = entry.metadata() {
                    let bytes = found.len();
                    parts.push(Part { file, bytes });
                }
            }
        }
    }
    ensure!(!parts.is_empty(), "the job has stored no state");
    Ok(parts)
}

/// The kernel forgets what it keeps of the files. The job goes on meanwhile, and may have put newer parts in the place of some.
fn put_out_of_memory(parts: &[Part]) -> anyhow::Result<()> {
    for part in parts {
        let input = format!("if={}", part.file.display());
        let mut forget = Command::new("dd");
        forget.args([&input, "iflag=nocache", "count=0", "status=none"]);
        forget.stderr(Stdio::null());
        let status = forget.status().context("run dd")?;
        let is_there = part.file.try_exists().context("look for a part")?;
        ensure!(
            status.success() || !is_there,
            "put {} out of memory",
            part.file.display()
        );
    }
    Ok(())
}

async fn read_all(parts: &[Part]) -> anyhow::Result<()> {
    let threads: BlockingRef = Arc::new(ThreadPool);
    let reads = parts.iter().map(|part| {
        let (file, threads) = (part.file.clone(), Arc::clone(&threads));
        async move {
            let read = blocking::run(&threads, move || match fs::read(file) {
                Err(gone) if gone.kind() == ErrorKind::NotFound => Ok(0),
                read => read.map(|bytes| bytes.len()),
            });
            anyhow::Ok(read.await??)
        }
    });
    let mut reads = stream::iter(reads).buffer_unordered(READS_AT_ONCE);
    while reads.try_next().await.context("read a part")?.is_some() {}
    Ok(())
}

fn print(parts: &[Part], rounds: &[Round], peak_rss_bytes: u64) {
    let seconds = |value: fn(&Round) -> f64| {
        let spread = Spread::of(rounds.iter().map(value).collect());
        format!(
            "{:.1} s ({:.1} to {:.1})",
            spread.median, spread.least, spread.greatest
        )
    };
    let ratios = rounds
        .iter()
        .map(|round| round.recovery.as_secs_f64() / round.reading.as_secs_f64());
    let bytes: u64 = parts.iter().map(|part| part.bytes).sum();
    let rows = [
        report::row("state parts", report::count(parts.len() as u64)),
        report::row("reading them", seconds(|round| round.reading.as_secs_f64())),
        report::row(
            "SIGKILL to the next epoch",
            seconds(|round| round.recovery.as_secs_f64()),
        ),
        report::row("ratio", Spread::of(ratios.collect()).ratio()),
        report::row(
            "peak memory of the worker",
            report::mebibytes(peak_rss_bytes),
        ),
    ];
    let title = format!(
        "SIGKILL of the worker of a job with {} of state",
        report::mebibytes(bytes)
    );
    report::table(&title, &rows);
}
