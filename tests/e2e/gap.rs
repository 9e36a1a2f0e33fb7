//! Kafka deletes records that a stopped job has not read: the job fails with their number, and goes on behind them only where
//! its SQL allows that; the gap stays recorded, and every record that was there is in the table once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, ensure};
use millstream_common::control::{
    FromCheckpoint, GapView, JobState, JobView, StopMode, SubmitRequest,
};
use millstream_tests::cluster::Cluster;
use millstream_tests::generator::Record;
use millstream_tests::wait;

use crate::clicks::{Clicks, equal};

const NAME: &str = "events";
const DEADLINE: Duration = Duration::from_secs(60);
/// Read before the job is stopped.
const BEFORE: Range<i64> = 0..100;
/// Written while it is.
const BEHIND: Range<i64> = 100..200;
/// The first that Kafka has then.
const FIRST: i64 = 150;

fn job(on_gap: &str) -> String {
    format!(
        "SET checkpoint_interval = '200 ms';
         CREATE SOURCE events (id BIGINT NOT NULL) WITH (
           connector = 'kafka', brokers = '${{KAFKA_BROKERS}}', topic = '${{CLICKS_TOPIC}}', format = 'json'{on_gap}
         );
         CREATE SINK copies FROM events
           WITH (connector = 'postgres', url = '${{POSTGRES_URL}}', table = 'copies', create = 'if_missing');"
    )
}

/// Their ids are their offsets.
fn records(ids: Range<i64>) -> Vec<Record> {
    let records = ids.map(|id| Record {
        partition: 0,
        payload: Some(format!("{{\"id\": {id}}}")),
    });
    records.collect()
}

async fn wait_for_rows(clicks: &Clicks, ids: impl Iterator<Item = i64>) -> anyhow::Result<()> {
    let expected: BTreeMap<i64, i64> = ids.map(|id| (id, 1)).collect();
    wait::until("each record is there once", DEADLINE, || async {
        let counted = "SELECT id, count(*) FROM copies GROUP BY id";
        let counted = clicks.database.query(counted).await;
        let rows = counted.map_err(|error| format!("{error:#}"))?;
        let found = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        equal(&expected, &found).map_err(|error| format!("{error:#}"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_gone_stop_the_job_with_their_number_and_are_passed_over_only_where_allowed()
-> anyhow::Result<()> {
    let clicks = Clicks::shared("gap").await?;
    let mut cluster = Cluster::start(clicks.environment(), 1).await?;
    clicks.topic.send(&records(BEFORE)).await?;
    cluster.submit(NAME, &job("")).await?;
    let rows = wait_for_rows(&clicks, BEFORE).await;
    rows.with_context(|| cluster.logs())?;
    cluster.stop(NAME, StopMode::Stop).await?;
    clicks.topic.send(&records(BEHIND)).await?;
    clicks.topic.delete_before(0, FIRST).await?;

    cluster.submit(NAME, &job("")).await?;
    let has_failed = |job: &JobView| job.state == JobState::Failed;
    let failed = cluster.wait_for_view(NAME, "the job fails", has_failed);
    let cause = failed.await?.cause.context("a cause")?;
    let topic = &clicks.topic.name;
    for part in [
        format!("read partition {topic}-0"),
        "partition 0 is read up to offset 100 and begins at 150, so 50 records (offsets 100 to 149) are gone".to_owned(),
        "on_gap = 'skip'".to_owned(),
    ] {
        ensure!(cause.contains(&part), "{part:?} in {cause}");
    }
    println!("{cause}");

    let request = SubmitRequest {
        name: NAME.into(),
        sql: job(", on_gap = 'skip'"),
        file: "events.sql".to_owned(),
        fresh: false,
        from: Some(FromCheckpoint {
            checkpoint: "latest".to_owned(),
            may_drop: false,
        }),
        id: None,
    };
    let submitted = cluster.client().await?.submit(request).await;
    submitted.with_context(|| cluster.logs())?;
    let all = || BEFORE.chain(FIRST..BEHIND.end);
    let rows = wait_for_rows(&clicks, all()).await;
    rows.with_context(|| cluster.logs())?;
    let gap = GapView {
        split: format!("{topic}-0"),
        count: 1,
        positions: 50,
        from: 100,
        to: FIRST,
    };
    let tells = |job: &JobView| job.sources[0].gaps == [gap.clone()];
    cluster.wait_for_job(NAME, "the gap is told", tells).await?;
    cluster.kill_master().await?;
    let told = cluster.wait_for_job(NAME, "the next master tells it", tells);
    told.await?;
    cluster.stop(NAME, StopMode::Stop).await?;
    wait_for_rows(&clicks, all()).await
}
