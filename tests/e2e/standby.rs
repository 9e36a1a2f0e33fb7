//! Two masters on one storage: the active one is killed or stands still while rows flow, the other goes on, and what comes out is
//! every row once. Needs no service: rows are made, and go to files.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use millstream_common::blocking::ThreadPool;
use millstream_common::client::ControlClient;
use millstream_common::control::{JobState, JobView};
use millstream_common::ids::{Epoch, JobName};
use millstream_common::log::{self, Entry};
use millstream_common::net::TcpNet;
use millstream_common::store;
use millstream_master::replay::replay;
use millstream_tests::cluster::Cluster;
use millstream_tests::process::run_to_end;
use millstream_tests::wait;
use tempfile::TempDir;
use tokio::time::Instant;

const NAME: &str = "numbers";
const ROWS_PER_SECOND: u64 = 2_000;
const DEADLINE: Duration = Duration::from_secs(90);

/// A job that numbers rows into files for `seconds`.
fn numbers(output: &Path, seconds: u64) -> String {
    format!(
        "SET checkpoint_interval = '500 ms';\
         CREATE SOURCE made (n BIGINT NOT NULL) WITH (connector = 'datagen', rows = '{rows}', \
           rows_per_second = '{ROWS_PER_SECOND}', \"fields.n.kind\" = 'sequence');\
         CREATE SINK numbers_json FROM made WITH (connector = 'files', path = '{path}', format = 'json', \
           roll_interval = '1 second');",
        rows = seconds * ROWS_PER_SECOND,
        path = output.display(),
    )
}

/// Fails unless the files hold each of `count` numbers once.
fn check(output: &Path, count: u64) -> anyhow::Result<()> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(output)? {
        let path = file?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            for line in std::fs::read_to_string(&path)?.lines() {
                let row: serde_json::Value = serde_json::from_str(line)?;
                found.push(row["n"].as_u64().with_context(|| line.to_owned())?);
            }
        }
    }
    found.sort_unstable();
    let first = found.first().copied().unwrap_or_default();
    let expected: Vec<u64> = (first..first + count).collect();
    let distinct = found.windows(2).filter(|pair| pair[0] != pair[1]).count() + 1;
    ensure!(
        found == expected,
        "{} rows, {distinct} of them distinct, instead of {count}",
        found.len()
    );
    Ok(())
}

/// The epoch of the job, once it is beyond `epoch`.
async fn beyond(cluster: &Cluster, epoch: Epoch) -> anyhow::Result<Epoch> {
    let committed = |job: &JobView| job.epoch > epoch;
    let job = cluster.wait_for_view(NAME, "an epoch is committed", committed);
    Ok(job.await?.epoch)
}

/// Waits for the job's end, and checks what came out of it and what stands in the log.
async fn ends_exact(cluster: &Cluster, output: &Path, seconds: u64) -> anyhow::Result<()> {
    let ended = |job: &JobView| job.state.is_over();
    let job = cluster.wait_for_view(NAME, "the job ends", ended).await?;
    ensure!(job.state == JobState::Finished, "{job:?}");
    let files = wait::until("all files are there", DEADLINE, || async {
        check(output, seconds * ROWS_PER_SECOND).map_err(|error| error.to_string())
    });
    files.await.with_context(|| cluster.logs())?;
    let url = format!("file://{}", cluster.storage().display());
    let store = store::open(&url, Arc::new(ThreadPool)).await?;
    let objects = log::read_all(&store).await?;
    let jobs = replay(log::canonical(&objects)).context("one chain (INV-1)")?;
    ensure!(jobs.contains_key(&JobName::from(NAME)), "{jobs:?}");
    let terms: Vec<u64> = objects.iter().map(|(_, object)| object.term.0).collect();
    ensure!(terms.is_sorted(), "an older master has written: {terms:?}");
    let fences = objects.iter().flat_map(|(_, object)| &object.entries);
    let fence_count = fences
        .filter(|entry| matches!(entry, Entry::Fence { .. }))
        .count();
    ensure!(
        Some(&(fence_count as u64)) == terms.last(),
        "{fence_count} of {terms:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_standby_goes_on_each_time_the_active_master_is_killed() -> anyhow::Result<()> {
    const SECONDS: u64 = 20;
    let output = TempDir::new()?;
    let mut cluster = Cluster::start_with_standby(2).await?;
    cluster
        .submit(NAME, &numbers(output.path(), SECONDS))
        .await?;
    beyond(&cluster, Epoch(2)).await?;
    for _ in 0..2 {
        let active = cluster.active_master().await?;
        let killed = Instant::now();
        cluster.end_master(active).await?;
        let next = cluster_reigned_by_another(&cluster, active).await?;
        println!("master {next} reigns {:?} after the kill", killed.elapsed());
        let inherited = beyond(&cluster, Epoch(2)).await?;
        beyond(&cluster, inherited).await?;
        println!("next epoch {:?} after the kill", killed.elapsed());
        cluster.start_master_again(active).await?;
        // It stands by: the reign does not change.
        ensure!(cluster.active_master().await? == next, "{}", cluster.logs());
    }
    ends_exact(&cluster, output.path(), SECONDS).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_stood_still_has_no_effect_when_it_goes_on() -> anyhow::Result<()> {
    const SECONDS: u64 = 20;
    let output = TempDir::new()?;
    let cluster = Cluster::start_with_standby(2).await?;
    cluster
        .submit(NAME, &numbers(output.path(), SECONDS))
        .await?;
    beyond(&cluster, Epoch(2)).await?;
    for _ in 0..2 {
        let active = cluster.active_master().await?;
        let paused = Instant::now();
        cluster.pause_master(active).await?;
        let next = cluster_reigned_by_another(&cluster, active).await?;
        println!(
            "master {next} reigns {:?} after the other stood still",
            paused.elapsed()
        );
        let inherited = beyond(&cluster, Epoch(2)).await?;
        beyond(&cluster, inherited).await?;
        println!(
            "next epoch {:?} after the other stood still",
            paused.elapsed()
        );
        cluster.resume_master(active).await?;
        wait::until(
            "the woken master sends its callers on",
            DEADLINE,
            || async {
                let woken = cluster.master_address(active);
                match ControlClient::connect(Arc::new(TcpNet), woken).await {
                    Ok(client) if client.address() == cluster.master_address(next) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            },
        )
        .await
        .with_context(|| cluster.logs())?;
    }
    ends_exact(&cluster, output.path(), SECONDS).await
}

/// Waits until another master than `before` reigns.
async fn cluster_reigned_by_another(cluster: &Cluster, before: usize) -> anyhow::Result<usize> {
    wait::until("the standby reigns", DEADLINE, || async {
        match cluster.active_master().await {
            Ok(active) if active != before => Ok(active),
            Ok(active) => Err(format!("{active} does")),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
    .with_context(|| cluster.logs())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_master_for_another_cluster_is_refused() -> anyhow::Result<()> {
    let cluster = Cluster::start(Vec::new(), 0).await?;
    let storage = cluster.storage().display().to_string();
    let arguments = [
        "master",
        "--storage",
        &storage,
        "--cluster",
        "bank",
        "--http",
        "127.0.0.1:0",
        "--listen",
        "127.0.0.1:0",
    ];
    let (code, _, said) = run_to_end(&arguments, &[]).await?;
    ensure!(
        code == 1 && said.contains("belongs to cluster \"default\""),
        "{code}: {said}"
    );
    cluster.client().await.map(drop)
}
