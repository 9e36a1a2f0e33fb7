//! A job without an end, in a cluster that keeps little: storage stays bounded, and a master that starts from what is left
//! goes on with right rows.

use std::path::Path;

use anyhow::{Context, ensure};
use millstream_common::control::{JobView, StopMode};
use millstream_tests::cluster::Cluster;
use tempfile::TempDir;

const NAME: &str = "numbers";

/// Keeps state (DISTINCT ON) and makes an epoch every 100 ms.
const ENDLESS: &str = "
SET checkpoint_interval = '100 milliseconds';

CREATE SOURCE numbers (
  n BIGINT NOT NULL,
  made_at TIMESTAMP NOT NULL,
  WATERMARK FOR made_at AS made_at - INTERVAL '1 second'
) WITH (
  connector = 'datagen', rows_per_second = '500',
  \"fields.n.kind\" = 'sequence',
  \"fields.made_at.start\" = '2026-01-17T10:00:00Z', \"fields.made_at.step\" = '50 ms'
);

CREATE VIEW different AS SELECT DISTINCT ON (n) n, made_at FROM numbers;

CREATE SINK kept FROM different
  WITH (connector = 'files', path = '${NUMBERS_FOLDER}', format = 'csv', roll_interval = '1 second');
";

/// Far more than a boundary (64), the retention (2 s) and a look (200 ms) leave, far less than the job writes.
const OBJECTS_MAX: usize = 220;
const EPOCHS: u64 = 240;

fn environment(output: &Path) -> Vec<(&'static str, String)> {
    vec![
        ("MILLSTREAM_LOG_RETENTION", "2s".to_owned()),
        ("MILLSTREAM_SEGMENT_RETENTION", "1s".to_owned()),
        ("MILLSTREAM_RETENTION_INTERVAL", "200ms".to_owned()),
        ("NUMBERS_FOLDER", output.display().to_string()),
    ]
}

/// Files below `folder` that are not folders.
fn count(folder: &Path) -> anyhow::Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        count += match entry.file_type()?.is_dir() {
            true => self::count(&entry.path())?,
            false => 1,
        };
    }
    Ok(count)
}

/// The numbers that the sink holds, in order.
fn numbers(output: &Path) -> anyhow::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(output)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "csv") {
            let text = std::fs::read_to_string(&path)?;
            for line in text.lines().skip(1) {
                let number = line.split(',').next().unwrap_or_default();
                numbers.push(number.parse().with_context(|| format!("read {line:?}"))?);
            }
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn ensure_bounded(cluster: &Cluster) -> anyhow::Result<()> {
    for folder in ["log", "boundary", "state", "segments"] {
        let count = count(&cluster.storage().join(folder))?;
        ensure!(
            count < OBJECTS_MAX,
            "{count} objects in {folder}: {}",
            cluster.logs()
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_job_keeps_storage_bounded_and_goes_on_from_what_is_left() -> anyhow::Result<()>
{
    let output = TempDir::new()?;
    let mut cluster = Cluster::start(environment(output.path()), 1).await?;
    cluster.submit(NAME, ENDLESS).await?;
    let mut wanted = 0;
    for _ in 0..2 {
        wanted += EPOCHS / 2;
        let beginning = cluster.storage().join("log/000000000001");
        let is_collected = || beginning.try_exists().is_ok_and(|is_there| !is_there);
        let has_run =
            |job: &JobView| job.epoch.0 >= wanted && job.storage.is_some() && is_collected();
        let job = cluster
            .wait_for_job(NAME, "epochs are committed and forgotten", has_run)
            .await?;
        ensure_bounded(&cluster)?;
        let used = job.storage.context("the use of storage is told")?;
        ensure!(used.log_bytes > 0 && used.state_bytes > 0, "{used:?}");
        cluster.kill_master().await?;
    }
    let goes_on = |job: &JobView| job.epoch.0 > wanted + 20;
    cluster
        .wait_for_job(NAME, "the last master goes on", goes_on)
        .await?;
    cluster.stop(NAME, StopMode::Stop).await?;
    let numbers = numbers(output.path())?;
    let (first, last) = (numbers.first().copied(), numbers.last().copied());
    let (first, last) = first.zip(last).context("rows")?;
    ensure!(
        numbers.len() as u64 == last - first + 1,
        "rows are missing or doubled"
    );
    ensure!(
        numbers.is_sorted_by(|left, right| left < right),
        "a row is doubled"
    );
    ensure!(first <= 1, "the first rows are missing: {first}");
    Ok(())
}
