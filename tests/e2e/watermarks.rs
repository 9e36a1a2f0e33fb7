//! `watermarks`: who holds time back, before and after a silent partition counts as idle.

use std::time::Duration;

use anyhow::{Context, ensure};
use millstream_common::control::{JobView, StopMode, WatermarksView};
use millstream_tests::cluster::Cluster;
use millstream_tests::generator::Record;
use millstream_tests::wait;

use crate::clicks::Clicks;

const DEADLINE: Duration = Duration::from_secs(60);
const ROWS: u64 = 30;
/// Of four partitions, the one that nobody writes to.
const SILENT: i32 = 3;

const JOB: &str = "
SET checkpoint_interval = '200 ms';
CREATE SOURCE events (id BIGINT NOT NULL, at TIMESTAMP NOT NULL, WATERMARK FOR at AS at - INTERVAL '1 second')
  WITH (connector = 'kafka', brokers = '${KAFKA_BROKERS}', topic = '${CLICKS_TOPIC}', format = 'json',
        idle_timeout = '8 seconds');
CREATE VIEW minutes AS SELECT window_start, window_end, count(*) AS events
  FROM TUMBLE(events, at, INTERVAL '1 minute') GROUP BY window_start, window_end;
CREATE SINK nowhere FROM minutes WITH (connector = 'blackhole', emit = 'final');
";

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_without_rows_holds_time_back_until_it_counts_as_idle() -> anyhow::Result<()> {
    let clicks = Clicks::shared("watermarks").await?;
    let cluster = Cluster::start(clicks.environment(), 1).await?;
    cluster.submit("minutes", JOB).await?;
    clicks.topic.send(&records(0)).await?;
    let is_read = |job: &JobView| job.rows_read == ROWS;
    cluster
        .wait_for_job("minutes", "all is read", is_read)
        .await?;
    let silent = format!("{}-{SILENT}", clicks.topic.name);
    seen(&cluster, "it holds time back", |view| {
        let source = &view.sources[0];
        let holder = source.held_by.as_ref().map(|split| split.as_str());
        ensure!(holder == Some(&silent), "{holder:?}");
        ensure!(source.watermark.is_none(), "{:?}", source.watermark);
        ensure!(
            view.why.iter().any(|why| why.contains(&silent)),
            "{:?}",
            view.why
        );
        let workers = source.splits.iter().map(|split| &split.worker);
        ensure!(workers.clone().all(Option::is_some), "somebody reads each");
        Ok(())
    })
    .await?;
    seen(&cluster, "it is idle", |view| {
        let source = &view.sources[0];
        let mut splits = source.splits.iter();
        let split = splits.find(|split| split.split.as_str() == silent);
        let split = split.context("the partition is listed")?;
        ensure!(split.is_idle && split.idle_ms.is_some(), "{split:?}");
        Ok(())
    })
    .await?;
    clicks.topic.send(&records(1)).await?;
    seen(&cluster, "time goes on without it", |view| {
        let source = &view.sources[0];
        ensure!(source.watermark.is_some(), "{source:?}");
        let holder = source.held_by.as_ref().map(|split| split.as_str());
        ensure!(holder != Some(&silent), "{holder:?}");
        Ok(())
    })
    .await?;
    cluster.stop("minutes", StopMode::Stop).await.map(drop)
}

/// Rows of a minute, in all partitions but one.
fn records(minute: u64) -> Vec<Record> {
    let ids = 0..ROWS;
    ids.map(|id| Record {
        partition: (id % SILENT as u64) as i32,
        payload: Some(format!(
            "{{\"id\": {id}, \"at\": \"2026-01-01T00:{minute:02}:{id:02}\"}}"
        )),
    })
    .collect()
}

async fn seen(
    cluster: &Cluster,
    what: &str,
    holds: impl Fn(&WatermarksView) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    wait::until(what, DEADLINE, || async {
        let client = cluster.client().await.map_err(|error| error.to_string())?;
        let view = client.watermarks(&"minutes".into()).await;
        let view = view.map_err(|error| error.to_string())?;
        holds(&view).map_err(|error| format!("{error:#}: {view:?}"))
    })
    .await
    .with_context(|| cluster.logs())
}
