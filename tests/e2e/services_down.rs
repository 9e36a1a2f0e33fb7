//! Kafka and Postgres crash under a job, which waits for them and goes on by itself.

use anyhow::Context;
use millstream_common::control::{JobView, StopMode};
use millstream_tests::cluster::Cluster;
use millstream_tests::generator;
use millstream_tests::services::PrivateServices;

use crate::clicks::{Clicks, PARTITION_COUNT, job};

const NAME: &str = "clicks";

/// What `millstream job` says of a service that is away.
fn hindrance<'a>(job: &'a JobView, service: &str) -> Option<&'a str> {
    match service {
        "kafka" => job.cause.as_deref(),
        _ => job.sinks.iter().find_map(|sink| sink.cause.as_deref()),
    }
    .filter(|cause| cause.contains("trying on"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_outlives_crashes_of_kafka_and_of_postgres_and_says_what_it_waits_for()
-> anyhow::Result<()> {
    let private = PrivateServices::start(&["kafka", "postgres"])?;
    let clicks = Clicks::within(&private.services()?, "services_down").await?;
    let cluster = Cluster::start(clicks.environment(), 2).await?;
    cluster.submit(NAME, &job("page_views.sql")?).await?;
    let mut generator = generator::Clicks::new(31, PARTITION_COUNT, 40);
    let mut round = async |crash: Option<&str>| -> anyhow::Result<()> {
        clicks.topic.send(&generator.take(15_000)).await?;
        if let Some(name) = crash {
            private.kill(name)?;
            let says = |job: &JobView| hindrance(job, name).is_some();
            let what = format!("the crash of {name} is told");
            cluster.wait_for_view(NAME, &what, says).await?;
            private.restart(name)?;
        }
        clicks.topic.send(&generator.take(5_000)).await?;
        let oracle = clicks.oracle()?;
        let right = clicks.wait_for_page_views(&oracle).await;
        right.with_context(|| format!("after a crash of {crash:?}\n{}", cluster.logs()))
    };
    round(Some("kafka")).await?;
    round(Some("postgres")).await?;
    round(None).await?;
    let is_well =
        |job: &JobView| job.cause.is_none() && job.sinks.iter().all(|sink| sink.cause.is_none());
    cluster
        .wait_for_job(NAME, "nothing hinders the job", is_well)
        .await?;
    cluster.stop(NAME, StopMode::Stop).await?;
    clicks.differences(&clicks.oracle()?).await
}
