//! One run of one query: on a master and workers of its own, timed, and compared with what is right.
//!
//! Called by `mod.rs`. Begins to count when a worker has read its first record and ends when the master says that the job is finished, which is
//! when every sink holds the last epoch. Failure: a job that fails or counts wrong.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use millstream_common::control::JobView;
use millstream_common::time::Clock;
use tokio_postgres::NoTls;

use super::oracle::{Expected, Group};
use super::profile::Profiler;
use super::queries::{Query, TABLE};
use super::steps::{self, Steps};
use crate::cluster::Cluster;
use crate::{Services, report};

const NAME: &str = "bench_throughput";
pub(super) const WORKER_NAMES: [&str; 8] = [
    "worker-a", "worker-b", "worker-c", "worker-d", "worker-e", "worker-f", "worker-g", "worker-h",
];
const RUN_MAX: Duration = Duration::from_secs(600);

/// What is run.
pub(super) struct Run<'a> {
    pub(super) query: &'a Query,
    pub(super) topic: &'a str,
    pub(super) expected: &'a Expected,
    /// At most as many as there are [`WORKER_NAMES`].
    pub(super) worker_count: usize,
    /// Where they are wanted, a profiler looks at the first worker meanwhile.
    pub(super) samples: Option<&'a Path>,
    /// Instead of what the query says.
    pub(super) sql: Option<&'a str>,
    /// More of what the processes see in their environment.
    pub(super) variables: &'a [(&'static str, String)],
}

impl<'a> Run<'a> {
    /// On one worker.
    pub(super) fn of(query: &'a Query, topic: &'a str, expected: &'a Expected) -> Self {
        Self {
            query,
            topic,
            expected,
            worker_count: 1,
            samples: None,
            sql: None,
            variables: &[],
        }
    }
}

/// What one run took.
pub(super) struct Timed {
    pub(super) rows: u64,
    pub(super) elapsed: Duration,
    /// Of master and workers.
    pub(super) cpu: Duration,
    /// Of the worker that needed most.
    pub(super) peak_rss_bytes: u64,
    /// Of master and workers together.
    pub(super) all_peak_rss_bytes: u64,
    pub(super) epochs: u64,
    /// Of the first worker.
    pub(super) steps: Steps,
}

impl Timed {
    /// Rows a second.
    pub(super) fn rate(&self) -> f64 {
        report::rate(self.rows, self.elapsed)
    }

    /// Microseconds of CPU a row.
    pub(super) fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.rows.max(1) as f64
    }
}

/// Runs it once.
pub(super) async fn run(services: &Services, run: &Run<'_>) -> anyhow::Result<Timed> {
    empty_tables(&services.postgres).await?;
    let folder = tempfile::tempdir().context("make a folder for the cluster")?;
    let mut variables = vec![
        ("KAFKA_BROKERS", services.kafka.clone()),
        ("POSTGRES_URL", services.postgres.clone()),
        ("CLICKS_TOPIC", run.topic.to_owned()),
    ];
    variables.extend_from_slice(run.variables);
    let names = &WORKER_NAMES[..run.worker_count.clamp(1, WORKER_NAMES.len())];
    let mut cluster = Cluster::start(folder.path(), NAME, names, variables).await?;
    let sql = run.sql.map(|sql| Ok(sql.to_owned()));
    cluster
        .submit(sql.unwrap_or_else(|| run.query.sql())?)
        .await?;
    let (begun, cpu_before) = cluster.first_record(RUN_MAX).await?;
    let worker = cluster.workers[0].id();
    let profiler = run.samples.map(|samples| Profiler::start(worker, samples));
    let profiler = profiler.transpose()?;
    let job = cluster.finished(RUN_MAX).await?;
    let elapsed = cluster.clock.monotonic().saturating_sub(begun);
    if let Some(profiler) = profiler {
        profiler.stop().await?;
    }
    let cpu = cluster.cpu().saturating_sub(cpu_before);
    let steps = steps::read(&cluster.metrics(0).await?)?;
    check(services, run.query, &job, run.expected).await?;
    let workers = cluster.workers.iter_mut();
    let peaks: Vec<u64> = workers
        .map(|worker| worker.usage().peak_rss_bytes)
        .collect();
    let master = cluster.master.usage().peak_rss_bytes;
    Ok(Timed {
        rows: job.rows_read,
        elapsed,
        cpu,
        peak_rss_bytes: peaks.iter().copied().max().unwrap_or_default(),
        all_peak_rss_bytes: master + peaks.iter().sum::<u64>(),
        epochs: job.epoch.0,
        steps,
    })
}

/// The counters of the job, and the table where there is one.
async fn check(
    services: &Services,
    query: &Query,
    job: &JobView,
    expected: &Expected,
) -> anyhow::Result<()> {
    ensure!(
        job.rows_read == expected.read && job.rows_rejected == 0 && job.rows_unaccounted == 0,
        "{} rows read, {} rejected, {} unaccounted for; {} were sent",
        job.rows_read,
        job.rows_rejected,
        job.rows_unaccounted,
        expected.read
    );
    let duplicates = match query.dedups {
        true => expected.duplicates,
        false => 0,
    };
    let views = expected.views_of(query).values().sum();
    let sum = |count: fn(&millstream_common::control::StageView) -> u64| -> u64 {
        job.stages.iter().map(count).sum()
    };
    let found = (sum(|stage| stage.duplicates), sum(|stage| stage.folded));
    ensure!(
        found == (duplicates, views),
        "duplicates and views are {found:?}, not {:?}",
        (duplicates, views)
    );
    if query.fills_table {
        let found = table(&services.postgres).await?;
        ensure!(found == expected.unique_views, "the table is wrong");
    }
    Ok(())
}

async fn table(url: &str) -> anyhow::Result<BTreeMap<Group, u64>> {
    let select =
        format!("SELECT to_char(window_start, 'YYYY-MM-DD\"T\"HH24:MI'), url, views FROM {TABLE}");
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .context("connect to Postgres")?;
    let rows = tokio::select! {
        rows = client.query(&select, &[]) => rows.context("read the table")?,
        ended = connection => {
            ended.context("connection to Postgres")?;
            anyhow::bail!("the connection to Postgres ended");
        }
    };
    let group = |row: &tokio_postgres::Row| -> anyhow::Result<(Group, u64)> {
        let views: i64 = row.try_get(2)?;
        Ok(((row.try_get(0)?, row.try_get(1)?), views.unsigned_abs()))
    };
    rows.iter().map(group).collect()
}

async fn empty_tables(url: &str) -> anyhow::Result<()> {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .context("connect to Postgres")?;
    let drop = format!("DROP TABLE IF EXISTS {TABLE}, bench_click_errors");
    tokio::select! {
        dropped = client.batch_execute(&drop) => dropped.context("drop tables of the bench"),
        ended = connection => ended.context("connection to Postgres"),
    }
}
