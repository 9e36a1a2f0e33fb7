//! Rows that a table refuses: the rest of each epoch arrives, and the job goes on.

use anyhow::{Context, ensure};
use millstream_common::control::StopMode;
use millstream_tests::cluster::Cluster;
use millstream_tests::generator;

use crate::clicks::{Clicks, PARTITION_COUNT, job};

/// Pages of five products break a rule of the table, and counts over 30 overflow a column of it.
const TABLE: &str = "CREATE TABLE fact_page_views (\
     window_start TIMESTAMP NOT NULL, window_end TIMESTAMP NOT NULL, \
     url TEXT NOT NULL CHECK (url <> '/product/3'), \
     views BIGINT NOT NULL, \
     eighth NUMERIC(3, 2) GENERATED ALWAYS AS (views * 0.125) STORED, \
     PRIMARY KEY (window_start, url))";

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_table_refuses_hold_up_neither_the_others_nor_the_job() -> anyhow::Result<()> {
    let clicks = Clicks::shared("refused_rows").await?;
    clicks.database.execute(TABLE).await?;
    let cluster = Cluster::start(clicks.environment(), 2).await?;
    // Each count is delivered once: what the table refuses then was never in it.
    let changes = job("page_views.sql")?;
    let sql = changes.replace("emit = 'changes'", "emit = 'final'");
    ensure!(sql != changes, "the job has no emit option");
    cluster.submit("clicks", &sql).await?;
    let mut generator = generator::Clicks::new(91, PARTITION_COUNT, 60);
    for _ in 0..2 {
        clicks.topic.send(&generator.take(10_000)).await?;
        let count = clicks.topic.read_back()?.len() as u64;
        let is_read = |job: &millstream_common::control::JobView| job.rows_read >= count;
        cluster
            .wait_for_job("clicks", "all clicks are read", is_read)
            .await?;
    }
    let stopped = cluster.stop("clicks", StopMode::Drain).await?;
    ensure!(
        stopped.cause.is_none() && stopped.restarts == 0,
        "{stopped:?}"
    );
    let mut oracle = clicks.oracle()?;
    let whole = oracle.page_views.len();
    let is_taken = |url: &str, views: i64| url != "/product/3" && views < 80;
    oracle
        .page_views
        .retain(|(_, url), views| is_taken(url, *views));
    let refused = whole - oracle.page_views.len();
    ensure!(
        refused > 10 && oracle.page_views.len() > 100,
        "{refused} of {whole}"
    );
    clicks
        .differences(&oracle)
        .await
        .with_context(|| cluster.logs())
}
