//! Folder: CSV files to Parquet files, beside DataFusion alone on the same files.
//!
//! Called by `main.rs`; needs no services. Ours is a job on a master and a worker of its own, with every row checked and delivered once, timed
//! from the first record read to the last file in its place; DataFusion reads the folder and writes another one in this process, with as many
//! partitions as there are cores and the same compression. They take turns, and what both wrote is compared. Failure: a job that fails, or rows
//! that differ.

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
    /// Files in the folder.
    #[arg(long, default_value_t = 16)]
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
            files: 16,
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
    let rate = |elapsed| report::rate(count, elapsed);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut peak_rss_bytes = 0;
    for round in 1..=arguments.rounds.max(1) {
        let outputs =
            ["ours", "datafusion"].map(|who| folder.path().join(format!("{who}-{round}")));
        theirs.push(rate(datafusion_alone(&input, &outputs[1]).await?));
        let timed = our_job(&input, &outputs[0], count).await?;
        ours.push(rate(timed.elapsed));
        peak_rss_bytes = peak_rss_bytes.max(timed.peak_rss_bytes);
        ensure!(
            summary(&outputs[0]).await? == summary(&outputs[1]).await?,
            "the rows differ"
        );
    }
    let (ours, theirs) = (Spread::of(ours), Spread::of(theirs));
    let rows = [
        report::row("rows/s", ours.rows_per_second()),
        report::row("DataFusion alone", theirs.rows_per_second()),
        report::row("ratio", format!("{:.2}", ours.median / theirs.median)),
        report::row(
            "peak memory of the worker",
            report::mebibytes(peak_rss_bytes),
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
    let (begun, _) = cluster.first_record(RUN_MAX).await?;
    let job = cluster.finished(RUN_MAX).await?;
    let elapsed = cluster.clock.monotonic().saturating_sub(begun);
    ensure!(
        job.rows_read == count && job.rows_rejected == 0,
        "{} rows read, {} rejected, of {count}",
        job.rows_read,
        job.rows_rejected
    );
    Ok(Timed {
        elapsed,
        peak_rss_bytes: cluster.workers[0].usage().peak_rss_bytes,
    })
}

async fn datafusion_alone(input: &Path, output: &Path) -> anyhow::Result<Duration> {
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
    let begun = clock.monotonic();
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
    Ok(clock.monotonic().saturating_sub(begun))
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
