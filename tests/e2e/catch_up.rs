//! A job that catches up reads one partition far ahead of another; no row is late because of that.

use anyhow::Context;
use millstream_common::control::StopMode;
use millstream_tests::cluster::Cluster;
use millstream_tests::generator;

use crate::clicks::{Clicks, PARTITION_COUNT, job};

const LAST: i32 = PARTITION_COUNT - 1;
/// Records in all partitions but the last.
const AHEAD_COUNT: usize = 30_000;
/// Records in the last one, which is so read for longest.
const BEHIND_COUNT: usize = 90_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_whose_longest_partition_is_minutes_older_than_the_others_gives_the_same_counts()
-> anyhow::Result<()> {
    let clicks = Clicks::shared("catch_up").await?;
    // From minute 40 to minute 80, and from minute 0 to minute 30: whoever compared a row of the last partition with
    // one of another would call it late.
    let mut ahead = generator::Clicks::new(41, PARTITION_COUNT, 80).only(0..LAST);
    ahead.take(AHEAD_COUNT);
    clicks.topic.send(&ahead.take(AHEAD_COUNT)).await?;
    let mut behind = generator::Clicks::new(42, PARTITION_COUNT, 20).only(LAST..LAST + 1);
    clicks.topic.send(&behind.take(BEHIND_COUNT)).await?;
    let oracle = clicks.oracle()?;
    let cluster = Cluster::start(clicks.environment(), 2).await?;
    cluster.submit("clicks", &job("page_views.sql")?).await?;
    let right = clicks.wait_for_page_views(&oracle).await;
    right.with_context(|| cluster.logs())?;
    cluster.stop("clicks", StopMode::Stop).await?;
    clicks.differences(&oracle).await
}
