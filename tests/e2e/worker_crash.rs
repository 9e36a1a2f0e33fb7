//! Workers are killed while clicks flow; nothing is lost and nothing counts twice.

use std::time::Duration;

use anyhow::{Context, ensure};
use millstream_common::control::StopMode;
use millstream_tests::cluster::Cluster;
use millstream_tests::generator;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use crate::clicks::{Clicks, PARTITION_COUNT, job};

const SEED: u64 = 4;
const CLICK_COUNT: usize = 210_000;
const CLICKS_PER_SECOND: usize = 8_000;
const KILL_COUNT: usize = 6;
/// From one kill to the next: sometimes within the recovery from the one before.
const PAUSE: std::ops::Range<u64> = 1_500..4_500;

#[tokio::test(flavor = "multi_thread")]
async fn every_count_is_right_although_workers_are_killed_at_random_moments() -> anyhow::Result<()>
{
    let clicks = Clicks::shared("worker_crash").await?;
    let mut cluster = Cluster::start(clicks.environment(), 2).await?;
    cluster.submit("clicks", &job("page_views.sql")?).await?;
    let records = generator::Clicks::new(SEED, PARTITION_COUNT, 10).take(CLICK_COUNT);
    let begin = Instant::now();
    let (sent, killed) = tokio::join!(
        clicks.topic.send_paced(&records, CLICKS_PER_SECOND),
        kill_at_random_moments(&mut cluster)
    );
    sent?;
    killed?;
    let oracle = clicks.oracle()?;
    let codes = oracle.rejected_by_code();
    ensure!(
        codes.len() == 6 && oracle.duplicate_count > 5_000,
        "{codes:?}"
    );
    let right = clicks.wait_for_page_views(&oracle).await;
    right.with_context(|| format!("seed {SEED}\n{}", cluster.logs()))?;
    println!("right {:?} after the first click", begin.elapsed());
    let stopped = cluster.stop("clicks", StopMode::Stop).await?;
    ensure!(stopped.restarts > 0, "no kill was noticed: {stopped:?}");
    clicks.differences(&oracle).await
}

async fn kill_at_random_moments(cluster: &mut Cluster) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut moment = Instant::now();
    for _ in 0..KILL_COUNT {
        moment += Duration::from_millis(random.random_range(PAUSE));
        tokio::time::sleep_until(moment).await;
        cluster.kill_worker(random.random_range(0..2)).await?;
    }
    Ok(())
}
