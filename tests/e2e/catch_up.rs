//! A job that catches up reads one partition far ahead of another; no row is late because of that.

use anyhow::{Context, ensure};
use millstream_common::control::StopMode;
use millstream_tests::cluster::Cluster;
use millstream_tests::generator;

use crate::clicks::{Clicks, PARTITION_COUNT, job};

const LAST: i32 = PARTITION_COUNT - 1;

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_read_minutes_of_event_time_behind_the_others_gives_the_same_counts()
-> anyhow::Result<()> {
    let clicks = Clicks::shared("catch_up").await?;
    let sql = job("page_views.sql")?;
    let waiting = "start = 'earliest',\n  idle_timeout = 'never'";
    let patient = sql.replace("start = 'earliest'", waiting);
    ensure!(patient != sql, "the job has no start option");
    let cluster = Cluster::start(clicks.environment(), 2).await?;
    cluster.submit("clicks", &patient).await?;
    // 40 minutes of event time in three partitions before the last has its first record.
    let ahead = generator::Clicks::new(41, PARTITION_COUNT, 60)
        .only(0..LAST)
        .take(40_000);
    clicks.topic.send(&ahead).await?;
    let read_ahead = |job: &millstream_common::control::JobView| job.rows_read >= 40_000;
    cluster
        .wait_for_job("clicks", "three partitions are read", read_ahead)
        .await?;
    let behind = generator::Clicks::new(42, PARTITION_COUNT, 180).only(LAST..LAST + 1);
    let mut behind = behind;
    clicks.topic.send_paced(&behind.take(13_000), 4_000).await?;
    let oracle = clicks.oracle()?;
    let right = clicks.wait_for_page_views(&oracle).await;
    right.with_context(|| cluster.logs())?;
    cluster.stop("clicks", StopMode::Stop).await?;
    clicks.differences(&oracle).await
}
