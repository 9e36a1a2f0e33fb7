//! Sinks that a job is given later: with what is kept of what was shipped, or with what its operators hold.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use millstream_common::control::{FromCheckpoint, LATEST, StopMode, SubmitRequest};
use millstream_tests::cluster::Cluster;
use millstream_tests::database::Database;
use millstream_tests::generator;
use millstream_tests::oracle::Oracle;
use millstream_tests::wait;

use crate::clicks::{Clicks, PARTITION_COUNT, equal, job};

const NAME: &str = "clicks";
const DEADLINE: Duration = Duration::from_secs(90);
const TOTALS: &str = "
CREATE VIEW totals AS SELECT url, count(*) AS views FROM unique_clicks WHERE action = 'view' GROUP BY url;

CREATE SINK totals_postgres FROM totals WITH (
  connector = 'postgres', url = '${POSTGRES_URL}', table = 'totals', create = 'if_missing', primary_key = 'url'
);
";
const ADDED: &str = "
CREATE SINK totals_snapshot FROM totals WITH (
  connector = 'postgres', url = '${POSTGRES_URL}', table = 'totals_snapshot', create = 'if_missing',
  primary_key = 'url'
);
CREATE SINK totals_now FROM totals WITH (
  connector = 'postgres', url = '${POSTGRES_URL}', table = 'totals_now', create = 'if_missing',
  primary_key = 'url', start = 'now'
);
CREATE SINK errors_retained FROM clicks.dead_letters WITH (
  connector = 'postgres', url = '${POSTGRES_URL}', table = 'errors_retained', create = 'if_missing',
  start = 'retained'
);
CREATE SINK errors_now FROM clicks.dead_letters WITH (
  connector = 'postgres', url = '${POSTGRES_URL}', table = 'errors_now', create = 'if_missing'
);
";
const NOT_SHIPPED: &str = "
CREATE SINK raw FROM clicks WITH (
  connector = 'postgres', url = '${POSTGRES_URL}', table = 'raw', create = 'if_missing', start = 'retained'
);
";

#[tokio::test(flavor = "multi_thread")]
async fn sinks_that_are_added_begin_with_what_is_kept_or_held_and_go_on_with_the_rest()
-> anyhow::Result<()> {
    let clicks = Clicks::shared("sink_added").await?;
    let mut cluster = Cluster::start(clicks.environment(), 2).await?;
    let sql = format!("{}{TOTALS}", job("page_views.sql")?);
    cluster.submit(NAME, &sql).await?;
    let mut generator = generator::Clicks::new(91, PARTITION_COUNT, 40);
    clicks.topic.send(&generator.take(8_000)).await?;
    let before = clicks.oracle()?;
    let right = clicks.wait_for_page_views(&before).await;
    right.with_context(|| cluster.logs())?;
    cluster.stop(NAME, StopMode::Stop).await?;

    let refused = go_on(&cluster, &format!("{sql}{NOT_SHIPPED}")).await;
    let refused = refused.err().context("nobody has read it")?.to_string();
    ensure!(refused.contains("no sink has read clicks"), "{refused}");
    go_on(&cluster, &format!("{sql}{ADDED}")).await?;
    // Before anything else flows: all that it can come from is what is held.
    wait_for_totals(&clicks.database, "totals_snapshot", &before)
        .await
        .with_context(|| cluster.logs())?;
    wait_for_letters(&clicks.database, "errors_retained", &before)
        .await
        .with_context(|| cluster.logs())?;
    for table in ["totals_now", "errors_now"] {
        let rows = clicks
            .database
            .query(&format!("SELECT count(*) FROM {table}"))
            .await?;
        let count: i64 = rows[0].get(0);
        let is_told = table == "totals_now" && count > 0;
        ensure!(count == 0 || is_told, "{table} has {count} rows of before");
    }

    cluster.kill_worker(0).await?;
    clicks.topic.send(&generator.take(6_000)).await?;
    let after = clicks.oracle()?;
    let right = clicks.wait_for_page_views(&after).await;
    right.with_context(|| cluster.logs())?;
    wait_for_totals(&clicks.database, "totals", &after).await?;
    wait_for_totals(&clicks.database, "totals_snapshot", &after).await?;
    wait_for_letters(&clicks.database, "errors_retained", &after).await?;
    let stopped = cluster.stop(NAME, StopMode::Stop).await?;
    ensure!(stopped.rows_unaccounted == 0, "{stopped:?}");
    let mut later = after.rejected.clone();
    later.retain(|letter, _| !before.rejected.contains_key(letter));
    equal(&later, &clicks.database.rejected("errors_now").await?).context("errors_now")
}

async fn go_on(cluster: &Cluster, sql: &str) -> anyhow::Result<()> {
    let request = SubmitRequest {
        name: NAME.into(),
        sql: sql.to_owned(),
        file: "clicks.sql".to_owned(),
        fresh: false,
        from: Some(FromCheckpoint {
            checkpoint: LATEST.to_owned(),
            may_drop: false,
        }),
        id: None,
    };
    Ok(cluster.client().await?.submit(request).await.map(drop)?)
}

/// Waits until the table holds the views of each url, of all windows.
async fn wait_for_totals(database: &Database, table: &str, oracle: &Oracle) -> anyhow::Result<()> {
    let mut expected: BTreeMap<String, i64> = BTreeMap::new();
    for ((_, url), views) in &oracle.page_views {
        *expected.entry(url.clone()).or_default() += views;
    }
    wait::until("totals are right", DEADLINE, || async {
        let rows = database
            .query(&format!("SELECT url, views FROM {table}"))
            .await;
        let rows = rows.map_err(|error| format!("{error:#}"))?;
        let found = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        equal(&expected, &found).map_err(|error| format!("{table}: {error:#}"))
    })
    .await
}

async fn wait_for_letters(database: &Database, table: &str, oracle: &Oracle) -> anyhow::Result<()> {
    wait::until("dead letters are there", DEADLINE, || async {
        let found = database.rejected(table).await;
        let found = found.map_err(|error| format!("{error:#}"))?;
        equal(&oracle.rejected, &found).map_err(|error| format!("{table}: {error:#}"))
    })
    .await
}
