//! What the tests of the jobs over clicks share: a topic, a database, the job's text, and the comparison
//! of what the job wrote with what it must write.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, ensure};
use millstream_tests::database::Database;
use millstream_tests::oracle::Oracle;
use millstream_tests::services::{Services, project_folder};
use millstream_tests::topic::Topic;
use millstream_tests::wait;

pub(crate) const PARTITION_COUNT: i32 = 4;
/// From the last record sent to the last row written, also after a crash in a debug build.
const DEADLINE: Duration = Duration::from_secs(90);
const DIFFERENCES_SHOWN: usize = 5;

/// Where clicks come from and go to.
pub(crate) struct Clicks {
    pub(crate) topic: Topic,
    pub(crate) database: Database,
    kafka: String,
}

impl Clicks {
    /// A new topic and database for `test` in the services that all tests share.
    pub(crate) async fn shared(test: &str) -> anyhow::Result<Self> {
        Self::within(&Services::shared()?, test).await
    }

    /// A new topic and database in these services.
    pub(crate) async fn within(services: &Services, test: &str) -> anyhow::Result<Self> {
        Ok(Self {
            topic: Topic::create(&services.kafka, test, PARTITION_COUNT).await?,
            database: Database::create(&services.postgres, test).await?,
            kafka: services.kafka.clone(),
        })
    }

    /// What the jobs read from the environment.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("KAFKA_BROKERS", self.kafka.clone()),
            ("POSTGRES_URL", self.database.url.clone()),
            ("CLICKS_TOPIC", self.topic.name.clone()),
        ]
    }

    /// What the jobs must come to with what the topic holds now.
    pub(crate) fn oracle(&self) -> anyhow::Result<Oracle> {
        Ok(Oracle::of(&self.topic.name, &self.topic.read_back()?))
    }

    /// Waits until the tables of `page_views.sql` hold what they must.
    pub(crate) async fn wait_for_page_views(&self, oracle: &Oracle) -> anyhow::Result<()> {
        wait::until("tables hold what they must", DEADLINE, || async {
            let differences = self.differences(oracle).await;
            differences.map_err(|error| format!("{error:#}"))
        })
        .await
    }

    /// Fails with the first differences between the tables of `page_views.sql` and the oracle.
    pub(crate) async fn differences(&self, oracle: &Oracle) -> anyhow::Result<()> {
        let page_views = self.database.page_views().await?;
        equal(&oracle.page_views, &page_views).context("fact_page_views")?;
        let rejected = self.database.rejected("click_errors").await?;
        equal(&oracle.rejected, &rejected).context("click_errors")
    }
}

/// Fails with the first keys whose values differ.
pub(crate) fn equal<K, V>(expected: &BTreeMap<K, V>, found: &BTreeMap<K, V>) -> anyhow::Result<()>
where
    K: Ord + Debug,
    V: PartialEq + Debug,
{
    let keys = expected.keys().chain(found.keys());
    let mut different: Vec<String> = keys
        .filter(|key| expected.get(key) != found.get(key))
        .map(|key| {
            let (expected, found) = (expected.get(key), found.get(key));
            format!("{key:?}: expected {expected:?}, found {found:?}")
        })
        .collect();
    different.dedup();
    let count = different.len();
    different.truncate(DIFFERENCES_SHOWN);
    ensure!(count == 0, "{count} differences: {}", different.join("; "));
    Ok(())
}

/// The text of a job that comes with the project.
pub(crate) fn job(name: &str) -> anyhow::Result<String> {
    let file = project_folder().join("jobs").join(name);
    std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))
}
