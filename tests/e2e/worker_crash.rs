//! Workers are killed while clicks flow; nothing is lost and nothing counts twice.

use std::sync::atomic::{AtomicBool, Ordering};
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
const KILL_COUNT: usize = 7;
/// Some may find a worker that has just come back and has no task yet: nobody has to recover from that.
const NOTICED_MIN: u32 = 5;
/// From one kill to the next, in milliseconds: sometimes within the recovery from the one before.
const PAUSE: std::ops::Range<u64> = 1_500..4_500;
/// A worker is killed twice in a row only if it had this long to come back and be given tasks.
const RETURN: u64 = 3_000;

#[tokio::test(flavor = "multi_thread")]
async fn every_count_is_right_although_workers_are_killed_at_random_moments() -> anyhow::Result<()>
{
    let clicks = Clicks::shared("worker_crash").await?;
    let mut cluster = Cluster::start(clicks.environment(), 2).await?;
    cluster.submit("clicks", &job("page_views.sql")?).await?;
    let records = generator::Clicks::new(SEED, PARTITION_COUNT, 10).take(CLICK_COUNT);
    let begin = Instant::now();
    let is_sent = AtomicBool::new(false);
    let send = async {
        let sent = clicks.topic.send_paced(&records, CLICKS_PER_SECOND).await;
        is_sent.store(true, Ordering::SeqCst);
        sent
    };
    let (sent, killed) = tokio::join!(send, kill_at_random_moments(&mut cluster, &is_sent));
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
    ensure!(stopped.restarts >= NOTICED_MIN, "{stopped:?}");
    clicks.differences(&oracle).await
}

/// All while clicks are being sent.
async fn kill_at_random_moments(cluster: &mut Cluster, is_sent: &AtomicBool) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut moment = Instant::now();
    let mut last = 0;
    for _ in 0..KILL_COUNT {
        let pause = random.random_range(PAUSE);
        let other = 1 - last;
        let worker = if pause < RETURN {
            other
        } else {
            random.random_range(0..2)
        };
        moment += Duration::from_millis(pause);
        tokio::time::sleep_until(moment).await;
        ensure!(
            !is_sent.load(Ordering::SeqCst),
            "clicks had ended before the last kill"
        );
        cluster.kill_worker(worker).await?;
        last = worker;
    }
    Ok(())
}
