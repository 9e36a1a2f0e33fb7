//! Many jobs: what a master costs that looks after a thousand of them, with ten splits each.
//!
//! Called by `main.rs`. The master is the real one, with its log on a disk; the workers are stand-ins ([`stand_in`]) in this process, which
//! say at each barrier that every split has moved, so that every job has an epoch for each of its intervals. The page of all
//! jobs is asked for meanwhile. Failure: a job that is refused, a stand-in that loses its master, epochs that do not come.

mod stand_in;

use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use millstream_common::time::{Clock, SystemClock};
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::{Services, report, topic};
use stand_in::StandIn;

const TOPIC: &str = "bench_splits";
const WORKERS: usize = 8;
/// Submissions at once.
const SUBMITTERS: usize = 4;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Jobs.
    #[arg(long, default_value_t = 1_000)]
    jobs: usize,
    /// Splits of each of them.
    #[arg(long, default_value_t = 10)]
    splits: i32,
    /// Between two epochs of a job, in milliseconds.
    #[arg(long, default_value_t = 1_000)]
    checkpoint_ms: u64,
    /// For how long all of them are watched.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            jobs: 1_000,
            splits: 10,
            checkpoint_ms: 1_000,
            seconds: 30,
        }
    }
}

pub(crate) async fn run(services: &Services, arguments: &Arguments) -> anyhow::Result<()> {
    topic::make_of(&services.kafka, TOPIC, arguments.splits).await?;
    let folder = tempfile::tempdir().context("make a folder for the cluster")?;
    let variables = vec![("KAFKA_BROKERS", services.kafka.clone())];
    let mut cluster = Cluster::start(folder.path(), "none", &[], variables).await?;
    let mut stand_ins = JoinSet::new();
    for number in 0..WORKERS {
        let joined = StandIn::join(cluster.address(), &format!("stand-in-{number}")).await?;
        stand_ins.spawn(joined.serve());
    }
    let measured = async {
        let submitted = submit_all(&cluster, arguments).await?;
        watch(&mut cluster, arguments, submitted).await
    };
    tokio::select! {
        measured = measured => measured,
        Some(ended) = stand_ins.join_next() => {
            ended.context("a stand-in")?.context("a stand-in ended")
        }
    }
}

/// How long all submissions took.
async fn submit_all(cluster: &Cluster, arguments: &Arguments) -> anyhow::Result<Duration> {
    let clock = SystemClock::new();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let submitters = (0..SUBMITTERS).map(|_| async {
        loop {
            let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if number >= arguments.jobs {
                return anyhow::Ok(());
            }
            let sql = job(arguments);
            cluster.submit_as(&format!("job_{number:04}"), sql).await?;
        }
    });
    futures::future::try_join_all(submitters).await?;
    Ok(clock.monotonic())
}

fn job(arguments: &Arguments) -> String {
    format!(
        "SET checkpoint_interval = '{} ms';\n\
         CREATE SOURCE clicks (eventid TEXT NOT NULL) WITH (connector = 'kafka', brokers = '${{KAFKA_BROKERS}}', \
         topic = '{TOPIC}', format = 'json', start = 'earliest');\n\
         CREATE SINK nowhere FROM clicks WITH (connector = 'blackhole');\n",
        arguments.checkpoint_ms
    )
}

async fn watch(
    cluster: &mut Cluster,
    arguments: &Arguments,
    submitted: Duration,
) -> anyhow::Result<()> {
    let span = Duration::from_secs(arguments.seconds.max(1));
    let epochs_before = epochs(cluster).await?;
    let cpu_before = cluster.master.usage().cpu;
    let clock = SystemClock::new();
    let mut looks = Vec::new();
    while clock.monotonic() < span {
        let began = clock.monotonic();
        cluster.page("/").await?;
        looks.push((clock.monotonic() - began).as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let committed = epochs(cluster).await? - epochs_before;
    let elapsed = clock.monotonic().as_secs_f64();
    let cpu = cluster.master.usage().cpu.saturating_sub(cpu_before);
    ensure!(committed > 0, "no epoch was committed");
    let looks = report::Spread::of(looks);
    let per_second = committed as f64 / elapsed;
    let wanted = arguments.jobs as f64 * 1e3 / arguments.checkpoint_ms as f64;
    let rows = [
        report::row(
            "submissions",
            format!(
                "{:.0} a second",
                arguments.jobs as f64 / submitted.as_secs_f64()
            ),
        ),
        report::row(
            "epochs committed",
            format!("{per_second:.0} a second, {wanted:.0} wanted"),
        ),
        report::row(
            "master, CPU",
            format!("{:.2} of a core", cpu.as_secs_f64() / elapsed),
        ),
        report::row(
            "master, memory",
            report::mebibytes(cluster.master.rss_bytes()),
        ),
        report::row(
            "page of all jobs",
            format!(
                "{:.0} ms ({:.0} to {:.0})",
                looks.median, looks.least, looks.greatest
            ),
        ),
    ];
    let title = format!(
        "a master with {} jobs of {} splits, an epoch of each every {} ms",
        arguments.jobs, arguments.splits, arguments.checkpoint_ms
    );
    report::table(&title, &rows);
    Ok(())
}

/// Epochs of all jobs so far.
async fn epochs(cluster: &Cluster) -> anyhow::Result<u64> {
    let jobs = cluster.jobs().await?;
    Ok(jobs.iter().map(|job| job.epoch.0).sum())
}
