//! The master is killed while clicks flow; the next one on its storage finds the job, whose workers have kept what they
//! had, and goes on: nothing is read twice, and no row is lost or counted twice.

use anyhow::{Context, ensure};
use millstream_common::control::{JobView, StopMode};
use millstream_tests::cluster::Cluster;
use millstream_tests::generator;

use crate::clicks::{Clicks, PARTITION_COUNT, job};

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_master_finds_its_job_in_the_log_and_goes_on_without_a_rewind()
-> anyhow::Result<()> {
    let clicks = Clicks::shared("master_crash").await?;
    let mut cluster = Cluster::start(clicks.environment(), 2).await?;
    cluster.submit("clicks", &job("page_views.sql")?).await?;
    let records = generator::Clicks::new(21, PARTITION_COUNT, 30).take(60_000);
    let (sent, killed) = tokio::join!(clicks.topic.send_paced(&records, 4_000), async {
        let is_running = |job: &JobView| job.epoch.0 > 2;
        let mut before = cluster
            .wait_for_job("clicks", "epochs are committed", is_running)
            .await?;
        let mut went_on = false;
        for _ in 0..3 {
            cluster.kill_master().await?;
            let goes_on = |job: &JobView| job.epoch.0 > before.epoch.0 + 1;
            let after = cluster
                .wait_for_job("clicks", "epochs are committed again", goes_on)
                .await?;
            let is_same = after.generation == before.generation;
            // A busy machine may lose a worker besides.
            ensure!(
                is_same || after.restarts > 0,
                "a rewind from {before:?} to {after:?}\n{}",
                cluster.logs()
            );
            went_on |= is_same;
            before = after;
        }
        ensure!(went_on, "workers were lost each time\n{}", cluster.logs());
        anyhow::Ok(())
    });
    sent?;
    killed?;
    let oracle = clicks.oracle()?;
    let right = clicks.wait_for_page_views(&oracle).await;
    right.with_context(|| cluster.logs())?;
    let stopped = cluster.stop("clicks", StopMode::Stop).await?;
    ensure!(stopped.cause.is_none(), "{stopped:?}");
    clicks.differences(&oracle).await
}
