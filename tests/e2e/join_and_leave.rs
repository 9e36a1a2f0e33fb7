//! A worker joins and another leaves while clicks flow.

use anyhow::{Context, ensure};
use millstream_common::control::{JobView, StopMode};
use millstream_tests::cluster::Cluster;
use millstream_tests::generator;

use crate::clicks::{Clicks, PARTITION_COUNT, job};

const NAME: &str = "clicks";

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_joins_gets_its_share_without_a_replay_and_one_that_leaves_takes_nothing_with_it()
-> anyhow::Result<()> {
    let clicks = Clicks::shared("join_and_leave").await?;
    let mut cluster = Cluster::start(clicks.environment(), 1).await?;
    cluster.submit(NAME, &job("page_views.sql")?).await?;
    let records = generator::Clicks::new(81, PARTITION_COUNT, 30).take(40_000);
    let (sent, changed) = tokio::join!(
        clicks.topic.send_paced(&records, 4_000),
        join_and_leave(&mut cluster)
    );
    sent?;
    changed?;
    let oracle = clicks.oracle()?;
    let right = clicks.wait_for_page_views(&oracle).await;
    right.with_context(|| cluster.logs())?;
    cluster.stop(NAME, StopMode::Stop).await?;
    clicks.differences(&oracle).await
}

async fn join_and_leave(cluster: &mut Cluster) -> anyhow::Result<()> {
    let flows = |job: &JobView| job.rows_read > 2_000;
    let alone = cluster.wait_for_job(NAME, "clicks flow", flows).await?;
    cluster.add_worker()?;
    cluster.wait_for_workers(2).await?;
    let is_shared = |job: &JobView| {
        job.generation > alone.generation && job.rows_read > alone.rows_read + 4_000
    };
    let shared = cluster.wait_for_job(NAME, "both work", is_shared).await?;
    // Only a machine that starves a worker of every heartbeat for a second makes a failure here.
    ensure!(
        shared.restarts == 0 || cluster.master_said().contains("is lost"),
        "a worker that joins is no failure: {shared:?}\n{}",
        cluster.logs()
    );
    for worker in cluster.client().await?.workers().await? {
        ensure!(worker.splits > 0 && worker.tasks > 0, "{worker:?}");
    }

    let status = cluster.terminate_worker(0).await?;
    ensure!(status.success(), "{status}");
    let is_alone_again = |job: &JobView| {
        job.generation > shared.generation && job.rows_read > shared.rows_read + 4_000
    };
    cluster
        .wait_for_job(NAME, "the other has taken over", is_alone_again)
        .await?;
    Ok(())
}
