//! Workers come and go while clicks flow: everything moves, and no row is read twice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use millstream_common::control::{JobView, StopMode, WorkerState, WorkerView};
use millstream_common::ids::WorkerId;
use millstream_tests::cluster::Cluster;
use millstream_tests::{generator, wait};
use tokio::time::Instant;

use crate::clicks::{Clicks, PARTITION_COUNT, job};

const NAME: &str = "clicks";
const CLICKS_PER_SECOND: usize = 4_000;
const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_come_and_go_move_the_job_and_no_row_is_read_twice() -> anyhow::Result<()> {
    let clicks = Clicks::shared("rescale").await?;
    let mut cluster = Cluster::start(clicks.environment(), 1).await?;
    cluster.submit(NAME, &job("page_views.sql")?).await?;
    flow_while(&clicks, 91, come_and_go(&mut cluster)).await?;
    let oracle = clicks.oracle()?;
    let right = clicks.wait_for_page_views(&oracle).await;
    right.with_context(|| cluster.logs())?;
    let stopped = cluster.stop(NAME, StopMode::Stop).await?;
    clicks.differences(&oracle).await?;
    // Only a machine that starves a worker of every heartbeat for a second makes a loss here.
    let is_starved = cluster.master_said().contains("are silent");
    let produced = clicks.topic.read_back()?.len() as u64;
    ensure!(stopped.rows_read == produced, "{produced}: {stopped:?}");
    ensure!(
        is_starved || (stopped.rows_reread == 0 && stopped.restarts == 0),
        "something was read twice: {stopped:?}\n{}",
        cluster.logs()
    );
    println!(
        "{produced} rows produced, {} read, {} read again",
        stopped.rows_read, stopped.rows_reread
    );
    Ok(())
}

/// Sends clicks until `change` is done, however long it takes.
async fn flow_while(
    clicks: &Clicks,
    seed: u64,
    change: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let mut generator = generator::Clicks::new(seed, PARTITION_COUNT, 30);
    let is_over = AtomicBool::new(false);
    let sending = async {
        while !is_over.load(Ordering::Relaxed) {
            let records = generator.take(CLICKS_PER_SECOND);
            clicks.topic.send_paced(&records, CLICKS_PER_SECOND).await?;
        }
        anyhow::Ok(())
    };
    let changing = async {
        let changed = change.await;
        is_over.store(true, Ordering::Relaxed);
        changed
    };
    let (sent, changed) = tokio::join!(sending, changing);
    changed?;
    sent
}

async fn come_and_go(cluster: &mut Cluster) -> anyhow::Result<()> {
    let flows = |job: &JobView| job.rows_read > 2_000;
    cluster.wait_for_job(NAME, "clicks flow", flows).await?;
    for worker in [1, 2] {
        let begun = Instant::now();
        cluster.add_worker()?;
        wait_for_share(cluster, worker).await?;
        println!(
            "worker-{worker} has a share {:?} after its start",
            begun.elapsed()
        );
        settle(cluster).await?;
    }
    let begun = Instant::now();
    let status = cluster.terminate_worker(0).await?;
    println!("worker-0 ended {:?} after SIGTERM", begun.elapsed());
    ensure!(status.success(), "{status}\n{}", cluster.logs());
    settle(cluster).await?;
    let begun = Instant::now();
    let drained = drain(cluster, "worker-1").await?;
    println!("worker-1 was drained after {:?}", begun.elapsed());
    ensure!(drained.tasks == 0 && drained.splits == 0, "{drained:?}");
    settle(cluster).await?;
    // One joins while two leave, of which one has nothing left.
    cluster.add_worker()?;
    cluster.ask_worker_to_leave(2).await?;
    cluster.ask_worker_to_leave(1).await?;
    for worker in [1, 2] {
        let status = cluster.worker_ended(worker).await?;
        ensure!(status.success(), "{status}\n{}", cluster.logs());
    }
    wait_for_share(cluster, 3).await?;
    settle(cluster).await
}

/// Waits until rows have come through the assignment that is there now.
async fn settle(cluster: &Cluster) -> anyhow::Result<()> {
    let now = cluster.wait_for_job(NAME, "it runs", |_| true).await?;
    let goes_on = |job: &JobView| job.rows_read > now.rows_read + 1_000;
    cluster.wait_for_job(NAME, "rows flow", goes_on).await?;
    Ok(())
}

/// Waits until a worker holds tasks and splits.
async fn wait_for_share(cluster: &Cluster, index: usize) -> anyhow::Result<()> {
    let id = WorkerId(format!("worker-{index}"));
    let what = format!("{id} has a share");
    let has_share = |worker: &WorkerView| worker.id == id && worker.splits > 0 && worker.tasks > 0;
    wait::until(&what, DEADLINE, || async {
        let client = cluster.client().await.map_err(|error| error.to_string())?;
        let workers = client.workers().await.map_err(|error| error.to_string())?;
        match workers.iter().any(has_share) {
            true => Ok(()),
            false => Err(format!("{workers:?}")),
        }
    })
    .await
    .with_context(|| cluster.logs())
}

async fn drain(cluster: &Cluster, id: &str) -> anyhow::Result<WorkerView> {
    let id = WorkerId::from(id);
    let client = cluster.client().await?;
    client.drain_worker(&id).await?;
    wait::until("a worker is drained", DEADLINE, || async {
        let workers = client.workers().await.map_err(|error| error.to_string())?;
        let worker = workers.into_iter().find(|worker| worker.id == id);
        match worker {
            Some(worker) if worker.state == WorkerState::Drained => Ok(worker),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .with_context(|| cluster.logs())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_count_is_right_although_workers_and_masters_die_while_one_is_leaving()
-> anyhow::Result<()> {
    let clicks = Clicks::shared("rescale_crash").await?;
    let mut cluster = Cluster::start(clicks.environment(), 3).await?;
    cluster.submit(NAME, &job("page_views.sql")?).await?;
    flow_while(&clicks, 92, die_while_leaving(&mut cluster)).await?;
    let oracle = clicks.oracle()?;
    let right = clicks.wait_for_page_views(&oracle).await;
    right.with_context(|| cluster.logs())?;
    cluster.stop(NAME, StopMode::Stop).await?;
    clicks.differences(&oracle).await
}

async fn die_while_leaving(cluster: &mut Cluster) -> anyhow::Result<()> {
    let flows = |job: &JobView| job.rows_read > 2_000;
    cluster.wait_for_job(NAME, "clicks flow", flows).await?;
    // The master dies while a worker is leaving: its successor lets it go.
    cluster.ask_worker_to_leave(0).await?;
    cluster.kill_master().await?;
    let status = cluster.worker_ended(0).await?;
    ensure!(status.success(), "{status}\n{}", cluster.logs());
    settle(cluster).await?;
    // A worker dies while it is leaving, and comes again under its name.
    cluster.ask_worker_to_leave(1).await?;
    cluster.kill_worker(1).await?;
    settle(cluster).await?;
    wait_for_share(cluster, 1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_worker_leaves_the_job_at_an_epoch_and_the_next_goes_on() -> anyhow::Result<()> {
    let clicks = Clicks::shared("rescale_last").await?;
    let mut cluster = Cluster::start(clicks.environment(), 1).await?;
    cluster.submit(NAME, &job("page_views.sql")?).await?;
    flow_while(&clicks, 93, leave_and_come(&mut cluster)).await?;
    let oracle = clicks.oracle()?;
    let right = clicks.wait_for_page_views(&oracle).await;
    right.with_context(|| cluster.logs())?;
    let stopped = cluster.stop(NAME, StopMode::Stop).await?;
    ensure!(
        stopped.rows_reread == 0 || cluster.master_said().contains("are silent"),
        "{stopped:?}"
    );
    clicks.differences(&oracle).await
}

async fn leave_and_come(cluster: &mut Cluster) -> anyhow::Result<()> {
    let flows = |job: &JobView| job.rows_read > 2_000;
    cluster.wait_for_job(NAME, "clicks flow", flows).await?;
    let status = cluster.terminate_worker(0).await?;
    ensure!(status.success(), "{status}\n{}", cluster.logs());
    let said = cluster.logs();
    ensure!(said.contains("the last worker; jobs wait"), "{said}");
    cluster.add_worker()
}
