//! The other jobs that come with the project, each run as a user would.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, ensure};
use millstream_common::control::StopMode;
use millstream_tests::cluster::Cluster;
use millstream_tests::generator;
use millstream_tests::process::run_to_end;
use millstream_tests::services::project_folder;
use tempfile::TempDir;

use crate::clicks::{Clicks, PARTITION_COUNT, equal, job};

const CLICK_COUNT: usize = 30_000;
const PRODUCT_COUNT: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_action_counts_holds_each_minute_and_action_once_and_exactly()
-> anyhow::Result<()> {
    let clicks = Clicks::shared("action_counts").await?;
    let cluster = Cluster::start(clicks.environment(), 2).await?;
    cluster
        .submit("actions", &job("action_counts.sql")?)
        .await?;
    let records = generator::Clicks::new(51, PARTITION_COUNT, 50).take(CLICK_COUNT);
    clicks.topic.send(&records).await?;
    let is_read = |job: &millstream_common::control::JobView| job.rows_read >= CLICK_COUNT as u64;
    cluster
        .wait_for_job("actions", "all clicks are read", is_read)
        .await?;
    cluster.stop("actions", StopMode::Drain).await?;
    let found = clicks.database.action_counts().await?;
    equal(&clicks.oracle()?.action_counts, &found).with_context(|| cluster.logs())
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_products_are_as_many_as_asked_for_and_repeat_by_seed() -> anyhow::Result<()> {
    let first = generate_products("1").await?;
    ensure!(first.len() == PRODUCT_COUNT, "{} products", first.len());
    ensure!(first == generate_products("1").await?, "the seed repeats");
    ensure!(
        first != generate_products("2").await?,
        "another seed differs"
    );
    Ok(())
}

/// The lines of the files, without their headers.
async fn generate_products(seed: &str) -> anyhow::Result<BTreeSet<String>> {
    let folder = TempDir::new()?;
    let output = folder.path().join("products");
    let file = project_folder().join("jobs/generate/products.sql");
    let text = |path: &Path| path.display().to_string();
    let storage = text(&folder.path().join("storage"));
    let (file, output_text, rows) = (text(&file), text(&output), PRODUCT_COUNT.to_string());
    let (code, _, said) = run_to_end(
        &["run", &file, "--storage", &storage],
        &[
            ("ROWS", &rows),
            ("SEED", seed),
            ("PRODUCTS_FOLDER", &output_text),
        ],
    )
    .await?;
    ensure!(code == 0, "{said}");
    let mut lines = BTreeSet::new();
    for entry in std::fs::read_dir(&output)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "csv") {
            let text = std::fs::read_to_string(&path)?;
            lines.extend(text.lines().skip(1).map(str::to_owned));
        }
    }
    Ok(lines)
}
