//! A folder of CSV files becomes Parquet, with so many rows an epoch that workers ship them as Parquet already, while a worker dies.
//!
//! Method: every row has a number of its own; what stands in the files is read by DataFusion and compared with what was given.

use std::fmt::Write;

use anyhow::{Context, ensure};
use arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use millstream_common::control::{JobState, JobView};
use millstream_tests::cluster::Cluster;
use tempfile::TempDir;

const NAME: &str = "parquet_folder";
const FILES: u64 = 10;
const ROWS: u64 = 60_000;
const SUMMARY: &str = "SELECT count(*) AS rows, count(DISTINCT id) AS ids, min(id) AS first, max(id) AS last, \
     count(note) AS notes, count(DISTINCT name) AS names FROM written";

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_shipped_as_parquet_are_in_the_files_once_whatever_dies() -> anyhow::Result<()>
{
    let (input, output) = (TempDir::new()?, TempDir::new()?);
    for file in 0..FILES {
        let mut text = "name,note,id\n".to_owned();
        for id in file * ROWS..(file + 1) * ROWS {
            let note = if id % 4 == 0 { "" } else { "\"some, text\"" };
            writeln!(text, "name {},{note},{id}", id % 50)?;
        }
        std::fs::write(input.path().join(format!("{file}.csv")), text)?;
    }
    let sql = format!(
        "SET checkpoint_interval = '2 seconds';\n\
         CREATE SOURCE rows (id BIGINT NOT NULL, name TEXT NOT NULL, note TEXT) \
         WITH (connector = 'files', path = '{}', format = 'csv', watch = false);\n\
         CREATE SINK lake FROM rows WITH (connector = 'files', path = '{}', format = 'parquet', roll_bytes = '1 MiB');",
        input.path().display(),
        output.path().display()
    );
    let mut cluster = Cluster::start(Vec::new(), 2).await?;
    cluster.submit(NAME, &sql).await?;
    let is_under_way = |job: &JobView| job.epoch.0 >= 2;
    cluster
        .wait_for_view(NAME, "epochs are committed", is_under_way)
        .await?;
    cluster.kill_worker(0).await?;
    let is_over = |job: &JobView| job.state == JobState::Finished;
    let job = cluster.wait_for_view(NAME, "all is read", is_over).await?;
    ensure!(job.rows_read == FILES * ROWS, "{} rows read", job.rows_read);

    let context = SessionContext::new();
    let folder = output.path().to_str().context("a path of text")?;
    let options = ParquetReadOptions::default();
    context.register_parquet("written", folder, options).await?;
    let found = context.sql(SUMMARY).await?.collect().await?;
    let found = pretty_format_batches(&found)?.to_string();
    let figures: Vec<u64> = found
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|figure| figure.parse().ok())
        .collect();
    let all = FILES * ROWS;
    ensure!(
        figures == [all, all, 0, all - 1, all / 4 * 3, 50],
        "{found}"
    );
    let segments = segments(&cluster.storage().join("segments"))?;
    let is_parquet = |name: &String| name.ends_with(".parquet");
    ensure!(segments.iter().any(is_parquet), "{segments:?}");
    Ok(())
}

/// The names of all files below a folder.
fn segments(folder: &std::path::Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => names.extend(segments(&entry.path())?),
            false => names.push(entry.file_name().to_string_lossy().into_owned()),
        }
    }
    Ok(names)
}
