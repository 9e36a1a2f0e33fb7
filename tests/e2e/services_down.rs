//! Kafka and Postgres crash under a job, which waits for them and goes on by itself.

use anyhow::Context;
use millstream_common::control::StopMode;
use millstream_tests::cluster::Cluster;
use millstream_tests::generator;
use millstream_tests::services::PrivateServices;

use crate::clicks::{Clicks, PARTITION_COUNT, job};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_outlives_crashes_of_kafka_and_of_postgres() -> anyhow::Result<()> {
    let private = PrivateServices::start(&["kafka", "postgres"])?;
    let clicks = Clicks::within(&private.services()?, "services_down").await?;
    let cluster = Cluster::start(clicks.environment(), 2).await?;
    cluster.submit("clicks", &job("page_views.sql")?).await?;
    let mut generator = generator::Clicks::new(31, PARTITION_COUNT, 40);
    let mut round = async |crash: Option<&str>| -> anyhow::Result<()> {
        clicks.topic.send(&generator.take(15_000)).await?;
        if let Some(name) = crash {
            private.kill(name)?;
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
    cluster.stop("clicks", StopMode::Stop).await?;
    clicks.differences(&clicks.oracle()?).await
}
