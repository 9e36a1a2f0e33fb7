//! A job is stopped, its SQL is changed, and it goes on from a savepoint as if nothing had been.

use std::path::Path;

use anyhow::{Context, ensure};
use millstream_common::control::{JobView, StopMode};
use millstream_common::ids::Epoch;
use millstream_tests::cluster::Cluster;
use millstream_tests::generator;
use millstream_tests::oracle::Oracle;
use millstream_tests::process::run_to_end;

use crate::clicks::{Clicks, PARTITION_COUNT, job};

const NAME: &str = "clicks";
const BATCH: usize = 12_000;
/// A filter behind the state of `unique_clicks`, and a sink of its own.
const MORE: &str = "
CREATE VIEW purchases AS SELECT eventid, url FROM unique_clicks WHERE action = 'purchase';

CREATE SINK purchases_postgres FROM purchases WITH (
  connector = 'postgres', url = '${POSTGRES_URL}', table = 'purchases', create = 'if_missing', start = 'now'
);
";

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_with_other_sql_from_a_savepoint_and_every_count_is_right()
-> anyhow::Result<()> {
    let clicks = Clicks::shared("savepoint").await?;
    let cluster = Cluster::start(clicks.environment(), 2).await?;
    let sql = job("page_views.sql")?;
    cluster.submit(NAME, &sql).await?;
    let mut generator = generator::Clicks::new(101, PARTITION_COUNT, 30);
    let records = generator.take(BATCH);
    let (first, rest) = records.split_at(BATCH / 2);
    let (sent, half) = tokio::join!(clicks.topic.send_paced(first, 4_000), keep_half(&cluster));
    sent?;
    let half = half?;
    // Whatever the first half was read in, the savepoint is not of the last epoch.
    clicks.topic.send_paced(rest, 4_000).await?;
    let sent = records.len() as u64;
    let is_read = |job: &JobView| job.rows_read == sent;
    cluster.wait_for_job(NAME, "all is read", is_read).await?;
    let before = clicks.oracle()?;
    let files = tempfile::tempdir()?;
    let submit = Submit {
        cluster: &cluster,
        folder: files.path(),
    };
    let end = stop_with_savepoint(&cluster).await?;
    ensure!(half < end, "{half} {end}");
    submit.refuses_what_does_not_fit(&sql).await?;

    let begin = "CREATE SINK page_views_postgres";
    let changed = sql.replace(begin, &format!("{MORE}{begin}"));
    let said = submit.accepted(NAME, &changed, "end").await?;
    ensure!(
        said.contains(&format!("clicks goes on from epoch {end}")),
        "{said}"
    );
    clicks
        .topic
        .send_paced(&generator.take(BATCH), 4_000)
        .await?;
    let oracle = clicks.oracle()?;
    let right = clicks.wait_for_page_views(&oracle).await;
    right.with_context(|| cluster.logs())?;
    let stopped = cluster.stop(NAME, StopMode::Stop).await?;
    ensure!(stopped.rows_unaccounted == 0, "{stopped:?}");
    clicks.differences(&oracle).await?;
    let purchases = |oracle: &Oracle| oracle.unique_actions["purchase"];
    let new = clicks
        .database
        .query("SELECT count(*), count(DISTINCT eventid) FROM purchases");
    let new = &new.await?[0];
    let (rows, events): (i64, i64) = (new.get(0), new.get(1));
    let expected = purchases(&oracle) - purchases(&before);
    ensure!(
        rows == expected && events == expected,
        "{rows} rows of {events} purchases, {expected} expected"
    );
    submit.begins_another_job(&sql, &clicks, &oracle).await
}

/// Keeps an epoch while clicks flow.
async fn keep_half(cluster: &Cluster) -> anyhow::Result<Epoch> {
    let flows = |job: &JobView| job.rows_read > 2_000;
    cluster.wait_for_job(NAME, "clicks flow", flows).await?;
    let client = cluster.client().await?;
    let half = client.create_savepoint(&NAME.into(), Some("half")).await?;
    let listed = client.savepoints(&NAME.into()).await?;
    ensure!(
        listed == [half.clone()] && half.state_bytes > 0,
        "{listed:?}"
    );
    let again = client.create_savepoint(&NAME.into(), Some("half")).await;
    ensure!(again.is_err(), "{again:?}");
    Ok(half.epoch)
}

/// As `millstream stop clicks --savepoint end`.
async fn stop_with_savepoint(cluster: &Cluster) -> anyhow::Result<Epoch> {
    let arguments = [
        "stop",
        NAME,
        "--savepoint",
        "end",
        "--master",
        &cluster.address,
    ];
    let (code, stdout, stderr) = run_to_end(&arguments, &[]).await?;
    ensure!(code == 0, "{code} {stdout}{stderr}\n{}", cluster.logs());
    let savepoints = cluster.client().await?.savepoints(&NAME.into()).await?;
    let end = savepoints.iter().find(|savepoint| savepoint.name == "end");
    Ok(end.with_context(|| format!("{savepoints:?}"))?.epoch)
}

/// `millstream submit --from-checkpoint`.
struct Submit<'a> {
    cluster: &'a Cluster,
    folder: &'a Path,
}

impl Submit<'_> {
    async fn submit(&self, name: &str, sql: &str, more: &[&str]) -> anyhow::Result<(i32, String)> {
        let file = self.folder.join("changed.sql");
        std::fs::write(&file, sql)?;
        let file = file.display().to_string();
        let mut arguments = vec![
            "submit",
            &file,
            "--name",
            name,
            "--master",
            &self.cluster.address,
        ];
        arguments.extend(more);
        let (code, stdout, stderr) = run_to_end(&arguments, &[]).await?;
        Ok((code, format!("{stdout}{stderr}")))
    }

    async fn accepted(&self, name: &str, sql: &str, from: &str) -> anyhow::Result<String> {
        let (code, said) = self.submit(name, sql, &["--from-checkpoint", from]).await?;
        ensure!(code == 0, "{code} {said}\n{}", self.cluster.logs());
        Ok(said)
    }

    async fn refused(&self, sql: &str, more: &[&str], why: &[&str]) -> anyhow::Result<()> {
        let (code, said) = self.submit(NAME, sql, more).await?;
        let is_told = why.iter().all(|part| said.contains(part));
        ensure!(code == 1 && is_told, "{code} {said}");
        println!("{said}");
        Ok(())
    }

    async fn refuses_what_does_not_fit(&self, sql: &str) -> anyhow::Result<()> {
        let end = ["--from-checkpoint", "end"];
        let other = sql.replace("count(*) AS views", "count(userid) AS views");
        let why = [
            "operator page_views/aggregate/1",
            "its aggregates were (count(*))",
        ];
        self.refused(&other, &end, &why).await?;
        let other = sql.replace("DISTINCT ON (eventid)", "DISTINCT ON (url)");
        let why = [
            "operator unique_clicks/distinct/1",
            "its keys were (eventid",
        ];
        self.refused(&other, &end, &why).await?;
        self.refused(
            sql,
            &["--from-checkpoint", "half"],
            &["sinks may hold what came between", "--fresh"],
        )
        .await?;
        self.refused(sql, &["--from-checkpoint", "hafl"], &["did you mean half?"])
            .await?;
        let other = sql.replace("'1 second'", "'2 seconds'");
        self.refused(&other, &[], &["--from-checkpoint latest"])
            .await
    }

    /// From the first half of the clicks, in other tables: what it counts since is right, for its state is.
    async fn begins_another_job(
        &self,
        sql: &str,
        clicks: &Clicks,
        oracle: &Oracle,
    ) -> anyhow::Result<()> {
        let other = sql
            .replace("fact_page_views", "other_page_views")
            .replace("click_errors", "other_errors");
        self.accepted("other", &other, "clicks/half").await?;
        let is_read = |job: &JobView| job.rows_read > 0 && job.lag_records == Some(0);
        self.cluster
            .wait_for_job("other", "it has read on", is_read)
            .await?;
        self.cluster.stop("other", StopMode::Stop).await?;
        let rows = clicks.database.query(
            "SELECT (extract(epoch FROM window_start) * 1000000)::bigint, url, views FROM other_page_views",
        );
        let rows = rows.await?;
        ensure!(!rows.is_empty(), "it wrote nothing");
        for row in rows {
            let group = (row.get(0), row.get(1));
            let (views, expected): (i64, _) = (row.get(2), oracle.page_views.get(&group));
            ensure!(
                expected == Some(&views),
                "{group:?}: {views}, not {expected:?}"
            );
        }
        let client = self.cluster.client().await?;
        client.drop_savepoint(&NAME.into(), "half").await?;
        let gone = self.refused(
            sql,
            &["--from-checkpoint", "half"],
            &["has no savepoint half"],
        );
        gone.await
    }
}
