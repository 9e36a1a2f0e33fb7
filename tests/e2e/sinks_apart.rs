//! Sinks of one job go at their own pace: one that is down or paused holds up no other, and catches up.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use millstream_common::control::{JobView, SinkView, StopMode};
use millstream_tests::cluster::Cluster;
use millstream_tests::generator;
use millstream_tests::oracle;
use millstream_tests::process::run_to_end;
use millstream_tests::services::{PrivateServices, Services};
use millstream_tests::topic::Topic;
use millstream_tests::wait;

use crate::clicks::{Clicks, PARTITION_COUNT, equal, job};

const DEADLINE: Duration = Duration::from_secs(90);
/// Clicks that come while a sink does not deliver.
const WAITING_COUNT: usize = 40_000;
const CLICKS_PER_SECOND: usize = 4_000;

const COPIES: &str = "
CREATE SINK copies FROM clicks WITH (
  connector = 'kafka', brokers = '${KAFKA_BROKERS}', topic = '${COPIES_TOPIC}', key = 'eventid',
  transaction_timeout = '10 s'
);";

/// The job over clicks with a second kind of sink.
pub(crate) struct Apart {
    pub(crate) clicks: Clicks,
    copies: Topic,
    pub(crate) cluster: Cluster,
}

impl Apart {
    async fn start(services: &Services, test: &str) -> anyhow::Result<Self> {
        Self::start_with(services, test, &job("page_views.sql")?).await
    }

    /// With the job of `page_views.sql`, perhaps with more options.
    pub(crate) async fn start_with(
        services: &Services,
        test: &str,
        page_views: &str,
    ) -> anyhow::Result<Self> {
        let clicks = Clicks::within(services, test).await?;
        let copies = Topic::create(&services.kafka, test, PARTITION_COUNT).await?;
        let mut environment = clicks.environment();
        environment.push(("COPIES_TOPIC", copies.name.clone()));
        let cluster = Cluster::start(environment, 1).await?;
        cluster
            .submit("clicks", &format!("{page_views}{COPIES}"))
            .await?;
        Ok(Self {
            clicks,
            copies,
            cluster,
        })
    }

    pub(crate) fn is_copied(&self) -> anyhow::Result<()> {
        let expected = oracle::events(&self.clicks.topic.read_back()?);
        equal(&expected, &oracle::events(&self.copies.committed()?)).context("copies")
    }

    pub(crate) async fn wait_for_copies(&self) -> anyhow::Result<()> {
        let copied = wait::until("every click is copied once", DEADLINE, || async {
            self.is_copied().map_err(|error| format!("{error:#}"))
        });
        copied.await.with_context(|| self.cluster.logs())
    }

    pub(crate) async fn wait_for_page_views(&self) -> anyhow::Result<()> {
        let expected = self.clicks.oracle()?;
        let right = self.clicks.wait_for_page_views(&expected).await;
        right.with_context(|| self.cluster.logs())
    }

    pub(crate) async fn sink(&self, name: &str) -> anyhow::Result<SinkView> {
        let job = self.cluster.client().await?.job(&"clicks".into()).await?;
        sink_of(&job, name).context("no such sink")
    }

    pub(crate) async fn wait_until_current(&self, name: &str) -> anyhow::Result<()> {
        let is_current = |job: &JobView| sink_of(job, name).is_some_and(|sink| sink.lag_rows == 0);
        let what = "the sink lacks nothing";
        self.cluster
            .wait_for_job("clicks", what, is_current)
            .await?;
        Ok(())
    }

    pub(crate) async fn command(&self, command: &str, sink: &str) -> anyhow::Result<()> {
        let master = &self.cluster.address;
        let arguments = ["sink", command, "clicks", sink, "--master", master];
        let (code, shown, said) = run_to_end(&arguments, &[]).await?;
        ensure!(code == 0 && shown.contains(sink), "{shown}{said}");
        Ok(())
    }
}

fn sink_of(job: &JobView, name: &str) -> Option<SinkView> {
    job.sinks.iter().find(|sink| sink.name == name).cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_is_down_delays_its_own_sinks_only_and_is_caught_up() -> anyhow::Result<()>
{
    let private = PrivateServices::start(&["kafka", "postgres"])?;
    let apart = Apart::start(&private.services()?, "sink_down").await?;
    let mut generator = generator::Clicks::new(71, PARTITION_COUNT, 40);
    apart.clicks.topic.send(&generator.take(5_000)).await?;
    apart.wait_for_page_views().await?;
    private.kill("postgres")?;
    let waiting = generator.take(WAITING_COUNT);
    let topic = &apart.clicks.topic;
    topic.send_paced(&waiting, CLICKS_PER_SECOND).await?;
    apart.wait_for_copies().await?;
    let down = apart.sink("page_views_postgres").await?;
    ensure!(down.lag_rows > 0 && down.lag_bytes > 0, "{down:?}");
    ensure!(
        down.lag_age_ms > Some(1_000) && down.cause.is_some(),
        "{down:?}"
    );
    private.restart("postgres")?;
    apart.wait_for_page_views().await?;
    apart.wait_until_current("page_views_postgres").await?;
    let stopped = apart.cluster.stop("clicks", StopMode::Stop).await?;
    ensure!(stopped.restarts == 0, "the job noticed: {stopped:?}");
    apart.is_copied()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_sink_stays_paused_over_a_crash_and_gets_everything_when_resumed()
-> anyhow::Result<()> {
    let mut apart = Apart::start(&Services::shared()?, "sink_paused").await?;
    let mut generator = generator::Clicks::new(72, PARTITION_COUNT, 40);
    apart.clicks.topic.send(&generator.take(5_000)).await?;
    apart.wait_for_copies().await?;
    apart.command("pause", "copies").await?;
    let before = oracle::events(&apart.copies.committed()?);
    apart.clicks.topic.send(&generator.take(10_000)).await?;
    apart.wait_for_page_views().await?;
    apart.cluster.kill_worker(0).await?;
    apart.clicks.topic.send(&generator.take(5_000)).await?;
    apart.wait_for_page_views().await?;
    let paused = apart.sink("copies").await?;
    ensure!(paused.paused && paused.lag_rows >= 14_000, "{paused:?}");
    let found: BTreeMap<String, u64> = oracle::events(&apart.copies.committed()?);
    equal(&before, &found).context("copies while paused")?;
    apart.command("resume", "copies").await?;
    apart.wait_for_copies().await?;
    apart.wait_until_current("copies").await?;
    apart.cluster.stop("clicks", StopMode::Stop).await?;
    apart.is_copied()
}
