//! Storage that is full or away: the job says so, loses nothing, and goes on by itself when there is storage again.

use anyhow::{Context, ensure};
use millstream_common::control::{JobView, StopMode};
use millstream_tests::cluster::Cluster;
use millstream_tests::generator;
use millstream_tests::process::run_to_end;
use millstream_tests::services::{Bucket, PrivateServices};
use millstream_tests::small_disk::SmallDisk;

use crate::clicks::{Clicks, PARTITION_COUNT, job};

const NAME: &str = "clicks";

/// What `millstream job` prints.
async fn shown(cluster: &Cluster) -> anyhow::Result<String> {
    let arguments = ["job", NAME, "--master", &cluster.address];
    let (code, stdout, stderr) = run_to_end(&arguments, &[]).await?;
    ensure!(code == 0, "{stderr}");
    Ok(stdout)
}

/// A cluster on `storage` whose job has delivered a first part of the clicks.
async fn start(
    clicks: &Clicks,
    generator: &mut generator::Clicks,
    storage: &str,
    environment: Vec<(&'static str, String)>,
) -> anyhow::Result<Cluster> {
    let cluster = Cluster::start_on(storage, environment, 2).await?;
    cluster.submit(NAME, &job("page_views.sql")?).await?;
    send_and_compare(clicks, generator, &cluster).await?;
    Ok(cluster)
}

async fn send_and_compare(
    clicks: &Clicks,
    generator: &mut generator::Clicks,
    cluster: &Cluster,
) -> anyhow::Result<()> {
    clicks.topic.send(&generator.take(10_000)).await?;
    let right = clicks.wait_for_page_views(&clicks.oracle()?).await;
    right.with_context(|| cluster.logs())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_costs_no_row() -> anyhow::Result<()> {
    let disk = SmallDisk::mount(64).await?;
    let storage = disk.path()?.join("storage");
    let clicks = Clicks::shared("full_disk").await?;
    let mut generator = generator::Clicks::new(71, PARTITION_COUNT, 40);
    let url = format!("file://{}", storage.display());
    let cluster = start(&clicks, &mut generator, &url, clicks.environment()).await?;

    disk.fill()?;
    clicks.topic.send(&generator.take(10_000)).await?;
    let says = |job: &JobView| {
        let cause = job.cause.as_deref().unwrap_or_default();
        cause.contains("No space left on device")
    };
    cluster
        .wait_for_view(NAME, "the full disk is told", says)
        .await?;
    let shown = shown(&cluster).await?;
    ensure!(shown.contains("No space left on device"), "{shown}");

    disk.free()?;
    send_and_compare(&clicks, &mut generator, &cluster).await?;
    let told = |job: &JobView| job.cause.is_none();
    cluster
        .wait_for_job(NAME, "nothing hinders the job", told)
        .await?;
    cluster.stop(NAME, StopMode::Stop).await?;
    clicks.differences(&clicks.oracle()?).await?;
    let left = std::fs::read_dir(storage.join(".tmp"))?.count();
    ensure!(left == 0, "{left} unfinished files take up the disk");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_on_s3_storage_are_exact_although_a_worker_is_killed() -> anyhow::Result<()> {
    let bucket = Bucket::shared()?;
    let clicks = Clicks::shared("on_s3").await?;
    let mut generator = generator::Clicks::new(72, PARTITION_COUNT, 40);
    let environment = [clicks.environment(), bucket.environment.clone()].concat();
    let url = bucket.new_url("on-s3");
    let mut cluster = start(&clicks, &mut generator, &url, environment).await?;
    let records = generator.take(15_000);
    let (sent, killed) = tokio::join!(clicks.topic.send_paced(&records, 5_000), async {
        let flows = |job: &JobView| job.rows_read > 12_000;
        cluster.wait_for_job(NAME, "clicks flow", flows).await?;
        cluster.kill_worker(0).await
    });
    sent?;
    killed?;
    send_and_compare(&clicks, &mut generator, &cluster).await?;
    let stopped = cluster.stop(NAME, StopMode::Stop).await?;
    ensure!(
        stopped.restarts > 0,
        "the kill was not noticed: {stopped:?}"
    );
    clicks.differences(&clicks.oracle()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_that_is_away_is_told_and_costs_no_row() -> anyhow::Result<()> {
    let private = PrivateServices::start(&["s3"])?;
    let bucket = private.bucket()?;
    let clicks = Clicks::shared("s3_away").await?;
    let mut generator = generator::Clicks::new(73, PARTITION_COUNT, 40);
    let environment = [clicks.environment(), bucket.environment.clone()].concat();
    let url = bucket.new_url("s3-away");
    let cluster = start(&clicks, &mut generator, &url, environment).await?;

    private.kill("s3")?;
    clicks.topic.send(&generator.take(10_000)).await?;
    let says = |job: &JobView| {
        let cause = job.cause.as_deref().unwrap_or_default();
        cause.contains("storage unavailable")
    };
    cluster
        .wait_for_view(NAME, "S3 that is away is told", says)
        .await?;
    let shown = shown(&cluster).await?;
    ensure!(shown.contains("storage unavailable"), "{shown}");

    private.restart("s3")?;
    send_and_compare(&clicks, &mut generator, &cluster).await?;
    let told = |job: &JobView| job.cause.is_none();
    cluster
        .wait_for_job(NAME, "nothing hinders the job", told)
        .await?;
    cluster.stop(NAME, StopMode::Stop).await?;
    clicks.differences(&clicks.oracle()?).await
}
