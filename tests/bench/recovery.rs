//! Recovery: how long a job stands still when a worker is killed.
//!
//! Called by `main.rs`. A master and two workers run jobs/page_views.sql while clicks come in; one worker after the other
//! gets a SIGKILL. Timed from the signal to the first epoch that a later generation commits, which a client sees by
//! asking the master. The killed worker is started again and has its share of the tasks before the next one is killed.
//! Failure: a job that does not come back within its time.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use millstream_common::control::JobState;
use millstream_common::time::Clock;

use crate::cluster::{Cluster, Load, PATIENCE};
use crate::{Services, report, topic};

const JOB: &str = include_str!("../../jobs/page_views.sql");
const NAME: &str = "bench_recovery";
const TOPIC: &str = "bench_recovery";
const WORKER_NAMES: [&str; 2] = ["worker-a", "worker-b"];
/// Epochs of quiet between two kills, so that each finds the job at work.
const EPOCHS_BETWEEN: u64 = 3;

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many workers are killed, one after the other.
    #[arg(long, default_value_t = 20)]
    kills: u32,
    /// Clicks a second meanwhile.
    #[arg(long, default_value_t = 5_000)]
    rate: u64,
    /// Of the clicks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            kills: 20,
            rate: 5_000,
            seed: 1,
        }
    }
}

pub(crate) async fn run(services: &Services, arguments: &Arguments) -> anyhow::Result<()> {
    topic::make(&services.kafka, TOPIC).await?;
    let folder = tempfile::tempdir().context("make a folder for the cluster")?;
    let variables = vec![
        ("KAFKA_BROKERS", services.kafka.clone()),
        ("POSTGRES_URL", services.postgres.clone()),
        ("CLICKS_TOPIC", TOPIC.to_owned()),
    ];
    let mut cluster = Cluster::start(folder.path(), NAME, &WORKER_NAMES, variables).await?;
    cluster.submit(job()).await?;
    let mut load = Load::new(services, TOPIC, (arguments.rate, arguments.seed))?;
    let recoveries = tokio::select! {
        recoveries = kill_in_turn(&mut cluster, arguments.kills) => recoveries?,
        stopped = load.send() => return stopped,
    };
    print(arguments, &recoveries);
    Ok(())
}

/// One recovery.
struct Recovery {
    /// From the signal to the epoch, as a client sees it.
    seen: Duration,
    /// From the loss to the epoch, as the master counts it.
    counted: Duration,
}

async fn kill_in_turn(cluster: &mut Cluster, kills: u32) -> anyhow::Result<Vec<Recovery>> {
    let mut recoveries = Vec::new();
    for kill in 0..kills as usize {
        settle(cluster).await?;
        let index = kill % WORKER_NAMES.len();
        let before = cluster.job().await?;
        let killed_at = cluster.clock.monotonic();
        cluster.workers[index].kill().await?;
        let after = cluster
            .wait(|job| job.generation > before.generation && job.epoch > before.epoch)
            .await
            .with_context(|| format!("wait for the recovery after kill {}", kill + 1))?;
        recoveries.push(Recovery {
            seen: cluster.clock.monotonic().saturating_sub(killed_at),
            counted: Duration::from_millis(after.last_recovery_ms.unwrap_or(0)),
        });
        cluster.start_worker(index)?;
    }
    Ok(recoveries)
}

/// The job as it is in jobs/, with tables of the bench and as many restarts as there are kills.
fn job() -> String {
    format!("SET restart_budget = 1000;\n{JOB}")
        .replace("'fact_page_views'", "'bench_page_views'")
        .replace("'click_errors'", "'bench_click_errors'")
}

/// Waits until both workers have tasks and some epochs have passed since.
async fn settle(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.wait_for_workers().await?;
    let deadline = cluster.clock.monotonic() + PATIENCE;
    while cluster.working().await? < WORKER_NAMES.len() {
        cluster
            .look_again(deadline, "both workers have tasks")
            .await?;
    }
    let before = cluster.job().await?;
    let enough = before.epoch.0 + EPOCHS_BETWEEN;
    cluster
        .wait(|job| job.state == JobState::Running && job.epoch.0 >= enough)
        .await
        .context("wait for quiet between two kills")?;
    Ok(())
}

fn print(arguments: &Arguments, recoveries: &[Recovery]) {
    let sorted = |time: fn(&Recovery) -> Duration| {
        let mut times: Vec<Duration> = recoveries.iter().map(time).collect();
        times.sort_unstable();
        times
    };
    let seen = sorted(|recovery| recovery.seen);
    let counted = sorted(|recovery| recovery.counted);
    let share = |times: &[Duration], share| report::millis(report::percentile(times, share));
    let rows = [
        report::row("kills", report::count(recoveries.len() as u64)),
        report::row("median", share(&seen, 0.5)),
        report::row("p99", share(&seen, 0.99)),
        report::row("max", share(&seen, 1.0)),
        report::row("median, as the master counts", share(&counted, 0.5)),
        report::row("max, as the master counts", share(&counted, 1.0)),
    ];
    let title = format!(
        "SIGKILL of one of two workers to the next committed epoch, {} clicks/s",
        report::count(arguments.rate)
    );
    report::table(&title, &rows);
}
