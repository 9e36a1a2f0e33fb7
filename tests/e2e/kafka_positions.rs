//! Where a job begins and ends in the partitions of a real topic: at times, and in partitions that are added while it runs.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use chrono::DateTime;
use millstream_common::control::{JobState, JobView, StopMode};
use millstream_common::time::{Clock, SystemClock};
use millstream_tests::cluster::Cluster;
use millstream_tests::generator::Record;
use millstream_tests::wait;

use crate::clicks::{Clicks, PARTITION_COUNT, equal};

const DEADLINE: Duration = Duration::from_secs(60);
const MINUTE_MS: i64 = 60_000;
/// Older records may be deleted by the broker at any time.
const AGE_MINUTES: i64 = 120;

fn sql(options: &str) -> String {
    format!(
        "SET checkpoint_interval = '300 ms';
         CREATE SOURCE numbers (number BIGINT NOT NULL)
         INCLUDE partition AS part INCLUDE offset AS place
         WITH (connector = 'kafka', brokers = '${{KAFKA_BROKERS}}', topic = '${{CLICKS_TOPIC}}', {options});
         CREATE SINK numbers_postgres FROM numbers
         WITH (connector = 'postgres', url = '${{POSTGRES_URL}}', table = 'numbers', create = 'if_missing');"
    )
}

fn numbered(partition: i32, numbers: impl IntoIterator<Item = i64>) -> Vec<Record> {
    let record = |number| Record {
        partition,
        payload: Some(format!(r#"{{"number":{number}}}"#)),
    };
    numbers.into_iter().map(record).collect()
}

fn text(unix_ms: i64) -> anyhow::Result<String> {
    let time = DateTime::from_timestamp_millis(unix_ms).context("a time of this century")?;
    Ok(time.format("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// How often each row of the table is there: partition, offset, number.
async fn rows(clicks: &Clicks) -> anyhow::Result<BTreeMap<(i64, i64, i64), u64>> {
    let sql = "SELECT part::bigint, place::bigint, number FROM numbers";
    let mut rows = BTreeMap::new();
    for row in clicks.database.query(sql).await? {
        let key = (row.get(0), row.get(1), row.get(2));
        *rows.entry(key).or_default() += 1;
    }
    Ok(rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_between_two_times_reads_of_each_partition_what_was_written_between_them()
-> anyhow::Result<()> {
    let clicks = Clicks::shared("between_times").await?;
    let now_ms = SystemClock::new().unix_micros() / 1_000_000 * 1_000;
    let at = |minute: i64| now_ms + (minute - AGE_MINUTES) * MINUTE_MS;
    for minute in 0..30 {
        let records = numbered(0, [2 * minute, 2 * minute + 1]);
        clicks.topic.send_at(at(minute), &records).await?;
    }
    // All before, all behind, and nothing at all.
    clicks.topic.send_at(at(0), &numbered(1, 0..5)).await?;
    clicks.topic.send_at(at(25), &numbered(2, 0..5)).await?;
    let cluster = Cluster::start(clicks.environment(), 2).await?;
    let options = format!("start = '{}', end = '{}'", text(at(15))?, text(at(20))?);
    cluster.submit("numbers", &sql(&options)).await?;
    let is_over = |job: &JobView| job.state.is_over();
    let job = cluster.wait_for_view("numbers", "the job ends", is_over);
    let job = job.await?;
    anyhow::ensure!(job.state == JobState::Finished, "{job:?}");
    let splits = (job.sources[0].splits, job.sources[0].splits_ended);
    let all = u32::try_from(PARTITION_COUNT)?;
    anyhow::ensure!(splits == (all, all), "{job:?}");
    let expected = (30..40).map(|number| ((0, number, number), 1)).collect();
    equal(&expected, &rows(&clicks).await?).with_context(|| cluster.logs())
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_while_a_job_runs_are_read_from_their_first_record()
-> anyhow::Result<()> {
    let mut clicks = Clicks::shared("added_partitions").await?;
    clicks.topic.send(&numbered(0, 0..3)).await?;
    let cluster = Cluster::start(clicks.environment(), 2).await?;
    let options = "start = 'latest', discovery_interval = '500 ms'";
    cluster.submit("numbers", &sql(options)).await?;
    let all = u32::try_from(PARTITION_COUNT)?;
    let begins = |job: &JobView| job.sources[0].splits == all;
    let job = cluster.wait_for_job("numbers", "the partitions are recorded", begins);
    let before = job.await?;
    clicks.topic.grow(PARTITION_COUNT + 2).await?;
    let mut expected = BTreeMap::new();
    for partition in [0, PARTITION_COUNT, PARTITION_COUNT + 1] {
        let first = if partition == 0 { 3 } else { 0 };
        clicks.topic.send(&numbered(partition, 100..200)).await?;
        let row = |number| ((i64::from(partition), first + number - 100, number), 1);
        expected.extend((100..200).map(row));
    }
    wait::until("every new row is there once", DEADLINE, || async {
        let found = rows(&clicks).await.map_err(|error| format!("{error:#}"))?;
        equal(&expected, &found).map_err(|error| error.to_string())
    })
    .await
    .with_context(|| cluster.logs())?;
    let after = cluster.stop("numbers", StopMode::Stop).await?;
    anyhow::ensure!(after.sources[0].splits == all + 2, "{after:?}");
    anyhow::ensure!(after.restarts == before.restarts, "{after:?}");
    equal(&expected, &rows(&clicks).await?)
}
