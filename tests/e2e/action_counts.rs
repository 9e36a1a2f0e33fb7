//! `jobs/action_counts.sql`: one row for each minute and action, when the minute is over.

use anyhow::Context;
use millstream_common::control::StopMode;
use millstream_tests::cluster::Cluster;
use millstream_tests::generator;

use crate::clicks::{Clicks, PARTITION_COUNT, equal, job};

const CLICK_COUNT: usize = 30_000;

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
