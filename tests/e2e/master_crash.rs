//! The master is killed while clicks flow; the next one on its storage finds the job and goes on.

use std::time::Duration;

use anyhow::{Context, ensure};
use millstream_common::control::StopMode;
use millstream_tests::cluster::Cluster;
use millstream_tests::generator;

use crate::clicks::{Clicks, PARTITION_COUNT, job};

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_master_finds_its_job_in_the_log_and_goes_on() -> anyhow::Result<()> {
    let clicks = Clicks::shared("master_crash").await?;
    let mut cluster = Cluster::start(clicks.environment(), 2).await?;
    cluster.submit("clicks", &job("page_views.sql")?).await?;
    let records = generator::Clicks::new(21, PARTITION_COUNT, 30).take(60_000);
    let (sent, killed) = tokio::join!(clicks.topic.send_paced(&records, 4_000), async {
        for _ in 0..2 {
            let committed = |job: &millstream_common::control::JobView| job.epoch.0 > 2;
            cluster
                .wait_for_job("clicks", "epochs are committed", committed)
                .await?;
            tokio::time::sleep(Duration::from_millis(1_700)).await;
            cluster.kill_master().await?;
        }
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
