//! Quotas on a real Postgres that is down: with `suspend` the job goes on without its sink, with `backpressure` it reads nothing until the
//! sink is back; either way everything is there in the end, once.

use anyhow::{Context, ensure};
use millstream_common::control::{JobView, SinkView, StopMode};
use millstream_tests::generator;
use millstream_tests::services::PrivateServices;

use crate::clicks::{PARTITION_COUNT, job};
use crate::sinks_apart::Apart;

const SINK: &str = "page_views_postgres";
/// The sink beside it, which has no quota.
const OTHER: &str = "clicks_rejected";
const CLICKS_PER_SECOND: usize = 4_000;
/// For so long nothing may be read while a sink is waited for.
const HELD_MS: u64 = 3_000;

struct Limited {
    services: PrivateServices,
    apart: Apart,
    generator: generator::Clicks,
    sent_count: u64,
}

impl Limited {
    /// The job of `page_views.sql` with `quota` for its first sink, which holds some clicks.
    async fn start(test: &str, seed: u64, quota: &str) -> anyhow::Result<Self> {
        let services = PrivateServices::start(&["kafka", "postgres"])?;
        let plain = job("page_views.sql")?;
        let sql = plain.replacen("emit = 'changes'", &format!("emit = 'changes', {quota}"), 1);
        ensure!(sql != plain, "the job has another first sink");
        let apart = Apart::start_with(&services.services()?, test, &sql).await?;
        let mut limited = Self {
            services,
            apart,
            generator: generator::Clicks::new(seed, PARTITION_COUNT, 40),
            sent_count: 0,
        };
        limited.send(5_000).await?;
        limited.apart.wait_for_page_views().await?;
        Ok(limited)
    }

    async fn send(&mut self, count: usize) -> anyhow::Result<()> {
        let clicks = self.generator.take(count);
        self.sent_count += clicks.len() as u64;
        let topic = &self.apart.clicks.topic;
        topic.send_paced(&clicks, CLICKS_PER_SECOND).await
    }

    async fn wait_for_job(
        &self,
        what: &str,
        holds: impl Fn(&JobView) -> bool,
    ) -> anyhow::Result<JobView> {
        self.apart.cluster.wait_for_job("clicks", what, holds).await
    }

    /// Everything is there, and the job was never started anew.
    async fn end(&self) -> anyhow::Result<()> {
        self.apart.wait_for_page_views().await?;
        self.apart.wait_for_copies().await?;
        for sink in [SINK, OTHER] {
            self.apart.wait_until_current(sink).await?;
        }
        let stopped = self.apart.cluster.stop("clicks", StopMode::Stop).await?;
        ensure!(stopped.restarts == 0, "the job noticed: {stopped:?}");
        ensure!(stopped.rows_unaccounted == 0, "{stopped:?}");
        let oracle = self.apart.clicks.oracle()?;
        self.apart.clicks.differences(&oracle).await?;
        self.apart.is_copied()
    }
}

fn sink<'a>(job: &'a JobView, name: &str) -> Option<&'a SinkView> {
    job.sinks.iter().find(|sink| sink.name == name)
}

/// How long the sink has lacked something.
fn age_ms(job: &JobView) -> u64 {
    let age = sink(job, SINK).and_then(|sink| sink.lag_age_ms);
    age.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_is_suspended_at_its_quota_stops_nobody_and_gets_everything_once_resumed()
-> anyhow::Result<()> {
    let quota = "quota_age = '2 seconds', on_quota = 'suspend'";
    let mut limited = Limited::start("quota_suspend", 75, quota).await?;
    limited.services.kill("postgres")?;
    limited.send(12_000).await?;
    let is_suspended = |job: &JobView| sink(job, SINK).is_some_and(|sink| sink.suspended);
    limited
        .wait_for_job("the sink is suspended", is_suspended)
        .await?;
    limited.send(8_000).await?;
    limited.apart.wait_for_copies().await?;
    limited.services.restart("postgres")?;
    limited.apart.wait_until_current(OTHER).await?;
    let waiting = limited.apart.sink(SINK).await?;
    let cause = waiting.cause.clone().context("why it waits")?;
    ensure!(
        waiting.suspended && waiting.lag_rows > 0 && cause.contains("sink resume clicks"),
        "{waiting:?}"
    );
    limited.apart.command("resume", SINK).await?;
    limited.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_waits_for_a_sink_with_backpressure_and_goes_on_when_it_is_back()
-> anyhow::Result<()> {
    let quota = "quota_bytes = '16 KiB', on_quota = 'backpressure'";
    let mut limited = Limited::start("quota_backpressure", 76, quota).await?;
    limited.services.kill("postgres")?;
    limited.send(40_000).await?;
    let waits = |job: &JobView| {
        let cause = job.cause.as_deref().unwrap_or_default();
        cause.contains("reading waits") && cause.contains(SINK)
    };
    let held = limited
        .wait_for_job("reading waits for the sink", waits)
        .await?;
    // The epoch that was under way comes first.
    let since = age_ms(&held) + 1_000;
    let settled = |job: &JobView| waits(job) && age_ms(job) >= since;
    let settled = limited
        .wait_for_job("nothing is under way", settled)
        .await?;
    let later = |job: &JobView| age_ms(job) >= age_ms(&settled) + HELD_MS;
    let later = limited.wait_for_job("time passes", later).await?;
    ensure!(
        later.rows_read == settled.rows_read && later.rows_read < limited.sent_count,
        "{} of {} rows were read, then {}",
        settled.rows_read,
        limited.sent_count,
        later.rows_read
    );
    limited.services.restart("postgres")?;
    limited.end().await
}
