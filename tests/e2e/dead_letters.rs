//! Rows that a table refuses are in a second table instead, once, also when workers are killed and the constraint changes;
//! and every row that was read is somewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::TryStreamExt;
use millstream_common::control::{JobView, LetterFilter, LetterQuery, StopMode};
use millstream_tests::cluster::Cluster;
use millstream_tests::generator::{self, Record};
use millstream_tests::wait;

use crate::clicks::{Clicks, PARTITION_COUNT, job};

const EVENT_COUNT: i64 = 24_000;
const EVENTS_PER_SECOND: usize = 3_000;
/// Every so many-th amount is below zero, which the table refuses.
const REFUSED_EVERY: i64 = 97;
const KILL_COUNT: usize = 3;
const DEADLINE: Duration = Duration::from_secs(90);

const JOB: &str = "
SET checkpoint_interval = '500 ms';
CREATE SOURCE events (id BIGINT NOT NULL, amount BIGINT NOT NULL)
  WITH (connector = 'kafka', brokers = '${KAFKA_BROKERS}', topic = '${CLICKS_TOPIC}', format = 'json');
CREATE SINK accepted FROM events
  WITH (connector = 'postgres', url = '${POSTGRES_URL}', table = 'accepted');
CREATE SINK refused FROM accepted.dead_letters
  WITH (connector = 'postgres', url = '${POSTGRES_URL}', table = 'refused', create = 'if_missing');
CREATE VIEW reasons AS SELECT reason, position FROM accepted.dead_letters WHERE reason LIKE '%amount_not_negative%';
CREATE SINK reasons_kept FROM reasons
  WITH (connector = 'postgres', url = '${POSTGRES_URL}', table = 'reasons', create = 'if_missing');
";

const TABLE: &str = "CREATE TABLE accepted (id BIGINT NOT NULL, amount BIGINT NOT NULL, \
                     CONSTRAINT amount_not_negative CHECK (amount >= 0))";

/// Events, and among them some that are no events.
fn records() -> Vec<Record> {
    let ids = 0..EVENT_COUNT;
    let events = ids.map(|id| {
        let amount = match id % REFUSED_EVERY {
            0 => -id - 1,
            _ => id,
        };
        Record {
            partition: (id % i64::from(PARTITION_COUNT)) as i32,
            payload: Some(match id % 1_000 {
                999 => format!("{{\"id\": {id}"),
                _ => format!("{{\"id\": {id}, \"amount\": {amount}}}"),
            }),
        }
    });
    events.collect()
}

fn is_malformed(id: i64) -> bool {
    id % 1_000 == 999
}

/// How many rows the table refuses.
fn refused_count() -> i64 {
    let below_zero = (0..EVENT_COUNT).filter(|id| id % REFUSED_EVERY == 0);
    below_zero.filter(|id| !is_malformed(*id)).count() as i64
}

/// How often each id is in the table.
async fn counted(clicks: &Clicks, sql: &str) -> anyhow::Result<BTreeMap<i64, i64>> {
    let rows = clicks.database.query(sql).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

async fn differences(clicks: &Clicks) -> anyhow::Result<()> {
    let accepted = counted(clicks, "SELECT id, count(*) FROM accepted GROUP BY id").await?;
    let refused = "SELECT (payload::json ->> 'id')::bigint, count(*) FROM refused \
                   WHERE code = 'sink_rejected' GROUP BY 1";
    let refused = counted(clicks, refused).await?;
    let events = (0..EVENT_COUNT).filter(|id| !is_malformed(*id));
    let (below_zero, others): (Vec<i64>, Vec<i64>) = events.partition(|id| id % REFUSED_EVERY == 0);
    let once = |ids: Vec<i64>| {
        ids.into_iter()
            .map(|id| (id, 1))
            .collect::<BTreeMap<_, _>>()
    };
    crate::clicks::equal(&once(others), &accepted).context("accepted")?;
    crate::clicks::equal(&once(below_zero), &refused).context("refused")?;
    let all = refused_count();
    let reasons = clicks
        .database
        .query("SELECT count(*) FROM reasons")
        .await?;
    let reasons: i64 = reasons[0].get(0);
    ensure!(reasons == all, "{reasons} reasons of {all}");
    let places = "SELECT count(DISTINCT (origin, position)) FROM refused";
    let places: i64 = clicks.database.query(places).await?[0].get(0);
    ensure!(places == all, "{places} places of {all}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_table_refuses_are_in_another_once_although_workers_are_killed()
-> anyhow::Result<()> {
    let clicks = Clicks::shared("refused_rows").await?;
    clicks.database.execute(TABLE).await?;
    let mut cluster = Cluster::start(clicks.environment(), 2).await?;
    cluster.submit("events", JOB).await?;
    let records = records();
    let (sent, killed) = tokio::join!(
        clicks.topic.send_paced(&records, EVENTS_PER_SECOND),
        kill_while_rows_are_refused(&mut cluster, &clicks)
    );
    sent?;
    killed?;
    let right = wait::until("each event is in one table", DEADLINE, || async {
        let differences = differences(&clicks).await;
        differences.map_err(|error| format!("{error:#}"))
    });
    right.await.with_context(|| cluster.logs())?;
    let stopped = cluster.stop("events", StopMode::Stop).await?;
    ensure!(stopped.restarts > 0, "no kill was noticed: {stopped:?}");
    every_row_is_somewhere(&stopped)?;
    differences(&clicks).await?;
    let counted = refused_as_listed(&cluster).await?;
    ensure!(counted == refused_count() as u64, "{counted} are listed");
    Ok(())
}

/// How many rows the verb counts for the sink, whose letters no Epoch's own tasks have shipped.
async fn refused_as_listed(cluster: &Cluster) -> anyhow::Result<u64> {
    let query = LetterQuery {
        filter: LetterFilter {
            owner: Some("accepted".to_owned()),
            ..LetterFilter::default()
        },
        limit: 0,
    };
    let client = cluster.client().await?;
    let mut parts = client.dead_letters(&"events".into(), query).await?;
    let part = parts.try_next().await?.context("a part")?;
    let totals = part.totals.context("totals")?;
    Ok(totals.counts.iter().map(|count| count.rows).sum())
}

/// The counters close the sum: what was read is in the sink, among what it refused, or among what could not be read.
fn every_row_is_somewhere(job: &JobView) -> anyhow::Result<()> {
    ensure!(job.rows_unaccounted == 0, "{job:?}");
    let malformed = (0..EVENT_COUNT).filter(|id| is_malformed(*id)).count() as u64;
    let source = &job.sources[0];
    let read = (source.rows_read, source.rows_accepted, source.rows_rejected);
    let all = EVENT_COUNT as u64;
    ensure!(read == (all, all - malformed, malformed), "{source:?}");
    let to_sink = job.stages[0]
        .branches
        .iter()
        .find(|branch| branch.to == "events");
    let sent = to_sink.context("a branch to the sink's output")?.sent;
    ensure!(sent == source.rows_accepted, "{job:?}");
    let refused = job.sinks[0].rows_refused;
    ensure!(refused == refused_count() as u64, "{:?}", job.sinks[0]);
    Ok(())
}

/// A job with a dedup and windows, over clicks of which some are broken, late, or there twice.
#[tokio::test(flavor = "multi_thread")]
async fn every_click_that_was_read_is_accounted_for_although_a_worker_is_killed()
-> anyhow::Result<()> {
    let clicks = Clicks::shared("row_sum").await?;
    let mut cluster = Cluster::start(clicks.environment(), 2).await?;
    cluster.submit("clicks", &job("page_views.sql")?).await?;
    let records = generator::Clicks::new(61, PARTITION_COUNT, 20).take(30_000);
    let (sent, killed) = tokio::join!(clicks.topic.send_paced(&records, 5_000), async {
        let some = |job: &JobView| job.rows_read > 10_000;
        cluster
            .wait_for_job("clicks", "clicks are read", some)
            .await?;
        cluster.kill_worker(1).await
    });
    sent?;
    killed?;
    let all = |job: &JobView| job.rows_read == 30_000;
    cluster.wait_for_job("clicks", "all are read", all).await?;
    let job = cluster.stop("clicks", StopMode::Drain).await?;
    let oracle = clicks.oracle()?;
    ensure!(job.rows_unaccounted == 0, "{job:?}");
    let rejected: u64 = oracle.rejected.values().sum();
    ensure!(job.rows_rejected == rejected, "{rejected} of {job:?}");
    let [source, distinct, counts] = job.stages.as_slice() else {
        anyhow::bail!("{:?}", job.stages);
    };
    ensure!(source.received == 30_000 - rejected, "{source:?}");
    ensure!(
        distinct.duplicates == oracle.duplicate_count,
        "{distinct:?}"
    );
    let views: i64 = oracle.page_views.values().sum();
    ensure!(counts.folded == views as u64, "{counts:?}");
    clicks.differences(&oracle).await
}

/// Kills the workers in turn, each time when more rows were refused than before, or all of them.
async fn kill_while_rows_are_refused(cluster: &mut Cluster, clicks: &Clicks) -> anyhow::Result<()> {
    let mut seen = 0;
    for index in 0..KILL_COUNT {
        seen = wait::until("more rows are refused", DEADLINE, || async {
            let counted = clicks.database.query("SELECT count(*) FROM refused").await;
            match counted {
                Ok(rows) => match rows[0].get::<_, i64>(0) {
                    count if count > seen || count == refused_count() => Ok(count),
                    count => Err(format!("{count} of {}", refused_count())),
                },
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await
        .with_context(|| cluster.logs())?;
        cluster.kill_worker(index % 2).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_refused_after_the_last_barrier_are_delivered_before_the_job_ends()
-> anyhow::Result<()> {
    let clicks = Clicks::shared("refused_at_the_end").await?;
    clicks.database.execute(TABLE).await?;
    let cluster = Cluster::start(clicks.environment(), 1).await?;
    clicks.topic.send(&records()).await?;
    let bounded = JOB.replace("format = 'json'", "format = 'json', end = 'latest'");
    cluster.submit("events", &bounded).await?;
    let client = cluster.client().await?;
    let ended = wait::until("the job is finished", DEADLINE, || async {
        match client.job(&"events".into()).await {
            Ok(job) if job.state.is_over() => Ok(job),
            other => Err(format!("{other:?}")),
        }
    });
    let job: JobView = ended.await.with_context(|| cluster.logs())?;
    ensure!(job.cause.is_none(), "{job:?}");
    every_row_is_somewhere(&job)?;
    differences(&clicks).await
}
