//! Folder: CSV files to Parquet files, beside DataFusion alone on the same files.
//!
//! Called by `main.rs`; needs no services. Ours is a job on a master and a worker of its own, timed from the first record read to the last file
//! in its place; DataFusion reads the folder and writes another one in this process, with as many partitions as there are cores. They take
//! turns, and what both wrote is compared. Alike are the files that are read, the types of their columns, and how Parquet is written: zstd of
//! the same level, dictionaries, statistics of chunks and pages, and otherwise what the writer that both use does by itself. Only ours checks
//! every row, has it in storage, synced, before an epoch a second is committed, writes it to its file from there, and waits for the disk before a
//! file gets its name. Failure: a job that fails, or rows that differ.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::util::pretty::pretty_format_batches;
use clap::Args;
use datafusion::config::TableParquetOptions;
use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::{CsvReadOptions, ParquetReadOptions, SessionConfig, SessionContext};
use millstream_common::time::{Clock, SystemClock};

use crate::clicks::Clicks;
use crate::cluster::Cluster;
use crate::process;
use crate::report::{self, Spread};

const NAME: &str = "bench_folder";
const WORKER_NAMES: [&str; 1] = ["worker-a"];
const HEADER: &str = "eventid,userid,url,timestamp,action";
const RUN_MAX: Duration = Duration::from_secs(600);
/// What our files sink writes with.
const COMPRESSION: &str = "zstd(1)";
/// What both wrote, in little.
const SUMMARY: &str = "SELECT url, action, count(*), min(\"timestamp\"), max(\"timestamp\"), \
     sum(character_length(eventid)), count(DISTINCT userid) FROM written GROUP BY url, action ORDER BY url, action";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Files in the folder: enough for a second to be little.
    #[arg(long, default_value_t = 40)]
    files: usize,
    /// Rows of each.
    #[arg(long, default_value_t = 1_000_000)]
    rows: usize,
    /// Of the rows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often both are measured.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            files: 40,
            rows: 1_000_000,
            seed: 1,
            rounds: 3,
        }
    }
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("make a folder for the files")?;
    let input = folder.path().join("input");
    fill(&input, arguments)?;
    let count = (arguments.files * arguments.rows) as u64;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=arguments.rounds.max(1) {
        let outputs =
            ["ours", "datafusion"].map(|who| folder.path().join(format!("{who}-{round}")));
        theirs.push(datafusion_alone(&input, &outputs[1]).await?);
        ours.push(our_job(&input, &outputs[0], count).await?);
        ensure!(
            summary(&outputs[0]).await? == summary(&outputs[1]).await?,
            "the rows differ"
        );
        for output in outputs {
            std::fs::remove_dir_all(output).context("make room for the next round")?;
        }
    }
    let rates = |runs: &[Timed]| {
        let rates = runs.iter().map(|run| report::rate(count, run.elapsed));
        Spread::of(rates.collect())
    };
    let cpu = |runs: &[Timed]| {
        let cpu = runs
            .iter()
            .map(|run| run.cpu.as_secs_f64() * 1e6 / count as f64);
        Spread::of(cpu.collect()).micros()
    };
    let peak = ours.iter().map(|run| run.peak_rss_bytes).max();
    let ratio = rates(&ours).median / rates(&theirs).median;
    let rows = [
        report::row("rows/s", rates(&ours).rows_per_second()),
        report::row("DataFusion alone", rates(&theirs).rows_per_second()),
        report::row("ratio", format!("{ratio:.2}")),
        report::row("CPU a row", cpu(&ours)),
        report::row("of DataFusion alone", cpu(&theirs)),
        report::row(
            "peak memory of the worker",
            report::mebibytes(peak.unwrap_or_default()),
        ),
    ];
    let title = format!(
        "{} CSV files with {} rows together, to Parquet",
        arguments.files,
        report::count(count)
    );
    report::table(&title, &rows);
    Ok(())
}

/// Clicks as rows of CSV.
fn fill(folder: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    std::fs::create_dir(folder).context("make the folder")?;
    let mut clicks = Clicks::new(arguments.seed);
    for number in 0..arguments.files {
        let file = folder.join(format!("clicks-{number:03}.csv"));
        let mut file = BufWriter::new(File::create(&file).context("make a file")?);
        writeln!(file, "{HEADER}")?;
        for _ in 0..arguments.rows {
            let click: serde_json::Value = serde_json::from_str(clicks.next())?;
            let values = HEADER.split(',').map(|column| click[column].as_str());
            let values: Option<Vec<&str>> = values.collect();
            writeln!(
                file,
                "{}",
                values.context("a click has all columns")?.join(",")
            )?;
        }
        file.flush().context("write a file")?;
    }
    Ok(())
}

/// What one run took.
struct Timed {
    elapsed: Duration,
    /// Of all processes.
    cpu: Duration,
    peak_rss_bytes: u64,
}

async fn our_job(input: &Path, output: &Path, count: u64) -> anyhow::Result<Timed> {
    let folder = tempfile::tempdir().context("make a folder for the cluster")?;
    let mut cluster = Cluster::start(folder.path(), NAME, &WORKER_NAMES, Vec::new()).await?;
    let sql = format!(
        "CREATE SOURCE clicks (eventid TEXT NOT NULL, userid TEXT, url TEXT NOT NULL, \"timestamp\" TIMESTAMP NOT NULL, action TEXT NOT NULL) \
         WITH (connector = 'files', path = '{}', format = 'csv', watch = false);\n\
         CREATE SINK lake FROM clicks WITH (connector = 'files', path = '{}', format = 'parquet');",
        input.display(),
        output.display()
    );
    cluster.submit(sql).await?;
    let (begun, cpu_before) = cluster.first_record(RUN_MAX).await?;
    let job = cluster.finished(RUN_MAX).await?;
    let elapsed = cluster.clock.monotonic().saturating_sub(begun);
    let cpu = cluster.cpu().saturating_sub(cpu_before);
    ensure!(
        job.rows_read == count && job.rows_rejected == 0,
        "{} rows read, {} rejected, of {count}",
        job.rows_read,
        job.rows_rejected
    );
    Ok(Timed {
        elapsed,
        cpu,
        peak_rss_bytes: cluster.workers[0].usage().peak_rss_bytes,
    })
}

async fn datafusion_alone(input: &Path, output: &Path) -> anyhow::Result<Timed> {
    let text = |name: &str| Field::new(name, DataType::Utf8, name == "userid");
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    let schema = Arc::new(Schema::new(vec![
        text("eventid"),
        text("userid"),
        text("url"),
        Field::new("timestamp", time, false),
        text("action"),
    ]));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let config = SessionConfig::new().with_target_partitions(cores);
    let context = SessionContext::new_with_config(config);
    let clock = SystemClock::new();
    let (begun, cpu_before) = (clock.monotonic(), process::own_cpu());
    let options = CsvReadOptions::new().schema(&schema).has_header(true);
    let rows = context.read_csv(path(input)?, options).await?;
    let mut written_as = TableParquetOptions::default();
    written_as.global.compression = Some(COMPRESSION.to_owned());
    let written = rows.write_parquet(
        path(output)?,
        DataFrameWriteOptions::new(),
        Some(written_as),
    );
    written.await.context("write with DataFusion")?;
    Ok(Timed {
        elapsed: clock.monotonic().saturating_sub(begun),
        cpu: process::own_cpu().saturating_sub(cpu_before),
        peak_rss_bytes: 0,
    })
}

async fn summary(folder: &Path) -> anyhow::Result<String> {
    let context = SessionContext::new();
    let options = ParquetReadOptions::default();
    context
        .register_parquet("written", path(folder)?, options)
        .await?;
    let rows = context.sql(SUMMARY).await?.collect().await?;
    Ok(pretty_format_batches(&rows)?.to_string())
}

fn path(folder: &Path) -> anyhow::Result<&str> {
    folder.to_str().context("the folder's path is text")
}
