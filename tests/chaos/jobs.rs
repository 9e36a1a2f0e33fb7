//! The jobs that run while everything dies, and the clicks they are fed with.
//!
//! Used by `scene.rs` and `main.rs`. Between them the jobs have every kind of sink that keeps rows, state in two operators,
//! both emit modes, and a source that nothing outside can hold up.

use anyhow::Context;
use millstream_tests::cluster::Cluster;
use millstream_tests::generator::Clicks;
use millstream_tests::services::project_folder;
use millstream_tests::topic::Topic;
use tokio::sync::watch;

/// `jobs/page_views.sql` with two more sinks, and rows that say where they come from.
pub(crate) const CLICKS: &str = "clicks";
/// `jobs/action_counts.sql`.
pub(crate) const ACTIONS: &str = "actions";
/// Numbers from a generator, into Kafka.
pub(crate) const NUMBERS: &str = "numbers";
pub(crate) const NAMES: [&str; 3] = [CLICKS, ACTIONS, NUMBERS];

/// There are as many failures as there are faults.
const UNLIMITED: &str = "SET restart_budget = 1000000;\n";
/// Of event time between two clicks; some dozen windows a minute.
const STEP_MS: i64 = 40;
const PARTITION_COUNT: i32 = 4;

/// Where the options of the source begin; and before them, columns that tell the copies from each other.
const OPTIONS: &str = "\n) WITH (\n";
const WITH_PLACES: &str =
    "\n) INCLUDE partition AS clicks_partition INCLUDE offset AS clicks_offset WITH (\n";

const MORE_SINKS: &str = "
CREATE SINK copies FROM clicks WITH (
  connector = 'kafka', brokers = '${KAFKA_BROKERS}', topic = '${COPIES_TOPIC}', key = 'eventid',
  transaction_timeout = '10 s'
);
CREATE SINK lake FROM unique_clicks WITH (
  connector = 'files', path = '${LAKE_FOLDER}', format = 'json', roll_interval = '2 s'
);";

const GENERATED: &str = "
SET checkpoint_interval = '500 ms';
CREATE SOURCE made (number BIGINT NOT NULL) WITH (
  connector = 'datagen', rows_per_second = 300, \"fields.number.kind\" = 'sequence'
);
CREATE SINK numbers FROM made WITH (
  connector = 'kafka', brokers = '${KAFKA_BROKERS}', topic = '${NUMBERS_TOPIC}', key = 'number',
  transaction_timeout = '10 s'
);";

/// Submits all of them.
pub(crate) async fn submit(cluster: &Cluster) -> anyhow::Result<()> {
    let clicks = file("page_views.sql")?.replacen(OPTIONS, WITH_PLACES, 1);
    let clicks = format!("{UNLIMITED}{clicks}{MORE_SINKS}");
    cluster.submit(CLICKS, &clicks).await?;
    let actions = format!("{UNLIMITED}{}", file("action_counts.sql")?);
    cluster.submit(ACTIONS, &actions).await?;
    let numbers = format!("{UNLIMITED}{GENERATED}");
    cluster.submit(NUMBERS, &numbers).await
}

fn file(name: &str) -> anyhow::Result<String> {
    let file = project_folder().join("jobs").join(name);
    std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
}

/// Sends `rate` records a second until `is_over`; how many they were.
pub(crate) async fn send_clicks(
    topic: &Topic,
    seed: u64,
    rate: u64,
    is_over: watch::Receiver<bool>,
) -> anyhow::Result<u64> {
    let mut clicks = Clicks::new(seed, PARTITION_COUNT, STEP_MS);
    let mut sent = 0;
    while !*is_over.borrow() {
        let second = clicks.take(rate as usize);
        topic.send_paced(&second, rate as usize).await?;
        sent += rate;
    }
    Ok(sent)
}
