//! Jobs that write to Kafka while workers are killed: a reader of committed records sees every row exactly once.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use millstream_common::control::StopMode;
use millstream_tests::cluster::Cluster;
use millstream_tests::generator;
use millstream_tests::oracle::{self, Group};
use millstream_tests::services::Services;
use millstream_tests::topic::{Stored, Topic};
use millstream_tests::wait;
use serde_json::Value;

use crate::clicks::{Clicks, PARTITION_COUNT, equal, job};

const DEADLINE: Duration = Duration::from_secs(90);
const ROW_COUNT: u64 = 30_000;
const CLICK_COUNT: usize = 60_000;
const CLICKS_PER_SECOND: usize = 6_000;
const KILL_COUNT: usize = 3;

const DATAGEN: &str = "
SET checkpoint_interval = '300 ms';
CREATE SOURCE made (number BIGINT NOT NULL, name TEXT NOT NULL) WITH (
  connector = 'datagen', rows = 30000, rows_per_second = 5000,
  \"fields.number.kind\" = 'sequence', \"fields.name.kind\" = 'template', \"fields.name.template\" = 'name {n}'
);
CREATE SINK out FROM made WITH (
  connector = 'kafka', brokers = '${KAFKA_BROKERS}', topic = '${OUT_TOPIC}', key = 'number', transaction_timeout = '10 s'
);";

#[tokio::test(flavor = "multi_thread")]
async fn rows_made_up_are_in_the_topic_once_each_although_the_worker_is_killed()
-> anyhow::Result<()> {
    let kafka = Services::shared()?.kafka;
    let out = Topic::create(&kafka, "datagen_out", PARTITION_COUNT).await?;
    let environment = vec![
        ("KAFKA_BROKERS", kafka.clone()),
        ("OUT_TOPIC", out.name.clone()),
    ];
    let mut cluster = Cluster::start(environment, 1).await?;
    cluster.submit("made", DATAGEN).await?;
    for share in [1, 2] {
        let wanted = ROW_COUNT * share / 4;
        wait_for_records(&out, wanted as usize)
            .await
            .with_context(|| cluster.logs())?;
        cluster.kill_worker(0).await?;
    }
    wait::until("all rows are there", DEADLINE, || async {
        let numbers = numbers(&committed(&out)?);
        let once: BTreeMap<u64, u64> = (1..=ROW_COUNT).map(|number| (number, 1)).collect();
        equal(&once, &numbers).map_err(|error| error.to_string())
    })
    .await
    .with_context(|| cluster.logs())
}

async fn wait_for_records(topic: &Topic, wanted: usize) -> anyhow::Result<()> {
    wait::until("a part is there", DEADLINE, || async {
        let found = committed(topic)?.len();
        (found >= wanted)
            .then_some(())
            .ok_or(format!("{found} of {wanted}"))
    })
    .await
}

fn committed(topic: &Topic) -> Result<Vec<Stored>, String> {
    topic.committed().map_err(|error| format!("{error:#}"))
}

/// How often each number stands; a record whose key is not its number counts nowhere.
fn numbers(records: &[Stored]) -> BTreeMap<u64, u64> {
    let mut numbers = BTreeMap::new();
    for record in records {
        let number = value(record).and_then(|value| value["number"].as_u64());
        let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default());
        if let Some(number) = number.filter(|number| number.to_string() == key) {
            *numbers.entry(number).or_default() += 1;
        }
    }
    numbers
}

fn value(record: &Stored) -> Option<Value> {
    serde_json::from_slice(record.payload.as_deref()?).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn clicks_are_copied_once_each_and_counts_end_right_although_workers_are_killed()
-> anyhow::Result<()> {
    let clicks = Clicks::shared("kafka_sink").await?;
    let kafka = Services::shared()?.kafka;
    let copies = Topic::create(&kafka, "copies", PARTITION_COUNT).await?;
    let counts = Topic::create(&kafka, "counts", PARTITION_COUNT).await?;
    let mut environment = clicks.environment();
    environment.push(("COPIES_TOPIC", copies.name.clone()));
    environment.push(("COUNTS_TOPIC", counts.name.clone()));
    let mut cluster = Cluster::start(environment, 2).await?;
    let sql = format!("{}{SINKS}", job("page_views.sql")?);
    cluster.submit("clicks", &sql).await?;
    let records = generator::Clicks::new(61, PARTITION_COUNT, 30).take(CLICK_COUNT);
    let (sent, killed) = tokio::join!(
        clicks.topic.send_paced(&records, CLICKS_PER_SECOND),
        kill_in_turn(&mut cluster, &copies)
    );
    sent?;
    killed?;
    let expected = clicks.oracle()?;
    let events = oracle::events(&clicks.topic.read_back()?);
    let differences = || -> anyhow::Result<()> {
        equal(&events, &copied(&copies.committed()?)).context("copies")?;
        equal(&expected.page_views, &last_counts(&counts.committed()?)).context("counts")
    };
    wait::until("topics hold what they must", DEADLINE, || async {
        differences().map_err(|error| format!("{error:#}"))
    })
    .await
    .with_context(|| cluster.logs())?;
    clicks.wait_for_page_views(&expected).await?;
    let stopped = cluster.stop("clicks", StopMode::Stop).await?;
    ensure!(stopped.restarts > 0, "no kill was noticed: {stopped:?}");
    differences()
}

const SINKS: &str = "
CREATE SINK copies FROM clicks WITH (
  connector = 'kafka', brokers = '${KAFKA_BROKERS}', topic = '${COPIES_TOPIC}', key = 'eventid',
  transaction_timeout = '10 s'
);
CREATE SINK counts FROM page_views WITH (
  connector = 'kafka', brokers = '${KAFKA_BROKERS}', topic = '${COUNTS_TOPIC}', primary_key = 'window_start,url',
  transaction_timeout = '10 s'
);";

/// Kills a worker whenever another share of the copies is there: in the middle of a delivery, most likely.
async fn kill_in_turn(cluster: &mut Cluster, copies: &Topic) -> anyhow::Result<()> {
    for round in 0..KILL_COUNT {
        let wanted = CLICK_COUNT * (round + 1) / (2 * KILL_COUNT);
        wait_for_records(copies, wanted)
            .await
            .with_context(|| cluster.logs())?;
        cluster.kill_worker(round % 2).await?;
    }
    Ok(())
}

fn copied(records: &[Stored]) -> BTreeMap<String, u64> {
    let mut events = BTreeMap::new();
    for record in records {
        let value = value(record);
        let event = value.and_then(|value| Some(value["eventid"].as_str()?.to_owned()));
        *events.entry(event.unwrap_or_default()).or_default() += 1;
    }
    events
}

/// The last value of each key, as a table of them would hold it.
fn last_counts(records: &[Stored]) -> BTreeMap<Group, i64> {
    let mut counts = BTreeMap::new();
    for record in records {
        let Some(value) = value(record) else { continue };
        let start = value["window_start"].as_str().unwrap_or_default();
        let start = chrono::NaiveDateTime::parse_from_str(start, "%Y-%m-%dT%H:%M:%S%.f");
        let start = start.map_or(0, |start| start.and_utc().timestamp_micros());
        let url = value["url"].as_str().unwrap_or_default().to_owned();
        counts.insert((start, url), value["views"].as_i64().unwrap_or(-1));
    }
    counts
}
