//! Rows that were refused go through the job again, once, whatever is killed meanwhile: late ones with a new time, bad ones
//! as they are (they are refused again) and corrected.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::TryStreamExt;
use millstream_common::control::{
    DeadLetterView, JobView, LetterFilter, LetterQuery, ReplayRequest, Replayed, StopMode,
};
use millstream_tests::cluster::Cluster;
use millstream_tests::generator::Record;
use millstream_tests::wait;

use crate::clicks::{Clicks, PARTITION_COUNT, equal};

const DEADLINE: Duration = Duration::from_secs(90);
const NAME: &str = "events";

/// Counts each id by its minute: one that came twice shows, and one that came late is refused.
const JOB: &str = "
SET checkpoint_interval = '100 ms';
CREATE SOURCE events (id BIGINT NOT NULL, at TIMESTAMP NOT NULL, WATERMARK FOR at AS at - INTERVAL '1 minute')
  WITH (connector = 'kafka', brokers = '${KAFKA_BROKERS}', topic = '${CLICKS_TOPIC}', format = 'json');
CREATE VIEW seen AS SELECT window_start, window_end, id, count(*) AS n
  FROM TUMBLE(events, at, INTERVAL '1 minute') GROUP BY window_start, window_end, id;
CREATE SINK seen_kept FROM seen
  WITH (connector = 'postgres', url = '${POSTGRES_URL}', table = 'seen', create = 'if_missing',
        primary_key = 'window_start,id', emit = 'changes');
";

const EVENT_COUNT: i64 = 6_000;
/// Of fifty events one is no event, and one is an hour late.
const EVERY: i64 = 50;
const LETTERS_OF_A_KIND: u64 = (EVENT_COUNT / EVERY) as u64;
/// Rows that only a person sends.
const CORRECTED: std::ops::Range<i64> = 10_000..50_000;

fn is_bad(id: i64) -> bool {
    id % EVERY == 7
}

fn is_late(id: i64) -> bool {
    id % EVERY == 11
}

/// At a hundredth of a second of its own in the minute that all events are in.
fn event(id: i64, hour: u32) -> String {
    let centiseconds = id % 6_000;
    let (second, part) = (centiseconds / 100, centiseconds % 100);
    format!("{{\"id\": {id}, \"at\": \"2026-01-17T{hour:02}:30:{second:02}.{part:02}\"}}")
}

fn records() -> Vec<Record> {
    let events = (0..EVENT_COUNT).map(|id| Record {
        partition: (id % i64::from(PARTITION_COUNT)) as i32,
        payload: Some(match (is_bad(id), is_late(id)) {
            (true, _) => event(id, 10).replace(&format!(": {id},"), ": \"none\","),
            (_, true) => event(id, 9),
            _ => event(id, 10),
        }),
    });
    events.collect()
}

fn of(code: &str) -> LetterFilter {
    LetterFilter {
        owner: Some(NAME.to_owned()),
        code: Some(code.to_owned()),
        ..LetterFilter::default()
    }
}

async fn replay(cluster: &Cluster, request: &ReplayRequest) -> anyhow::Result<Replayed> {
    let client = cluster.client().await?;
    let replayed = client.replay(&NAME.into(), request.clone()).await;
    replayed.with_context(|| cluster.logs())
}

/// The letters that `filter` takes, newest first.
async fn letters(cluster: &Cluster, filter: LetterFilter) -> anyhow::Result<Vec<DeadLetterView>> {
    let query = LetterQuery {
        filter,
        limit: 10_000,
    };
    let client = cluster.client().await?;
    let mut parts = client.dead_letters(&NAME.into(), query).await?;
    let mut letters = Vec::new();
    while let Some(part) = parts.try_next().await? {
        letters.extend(part.letters);
    }
    Ok(letters)
}

async fn wait_for_letters(
    cluster: &Cluster,
    filter: LetterFilter,
    count: u64,
) -> anyhow::Result<Vec<DeadLetterView>> {
    let found = wait::until("the letters are listed", DEADLINE, || async {
        match letters(cluster, filter.clone()).await {
            Ok(letters) if letters.len() as u64 == count => Ok(letters),
            Ok(letters) => Err(format!("{} of {count}", letters.len())),
            Err(error) => Err(format!("{error:#}")),
        }
    });
    found.await.with_context(|| cluster.logs())
}

/// How often each id was counted.
async fn differences(clicks: &Clicks) -> anyhow::Result<()> {
    let counted = "SELECT id, sum(n)::bigint FROM seen GROUP BY id";
    let counted = clicks.database.query(counted).await?;
    let counted: BTreeMap<i64, i64> = counted.iter().map(|row| (row.get(0), row.get(1))).collect();
    let once = (0..EVENT_COUNT).chain(CORRECTED).map(|id| (id, 1));
    equal(&once.collect(), &counted)
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rows_that_are_sent_again_count_once_although_workers_and_the_master_are_killed()
-> anyhow::Result<()> {
    let clicks = Clicks::shared("replay").await?;
    let mut cluster = Cluster::start(clicks.environment(), 2).await?;
    cluster.submit(NAME, JOB).await?;
    clicks.topic.send(&records()).await?;
    let late = wait_for_letters(&cluster, of("late"), LETTERS_OF_A_KIND).await?;
    let bad = wait_for_letters(&cluster, of("type_mismatch"), LETTERS_OF_A_KIND).await?;
    ensure!(
        late.iter().all(|letter| letter.event_time_us.is_some()),
        "{late:?}"
    );
    ensure!(
        bad[0]
            .payload
            .as_deref()
            .is_some_and(|payload| payload.contains("none")),
        "{bad:?}"
    );

    late_rows_are_sent_once_and_only_with_a_new_time(&cluster).await?;

    bad_rows_are_refused_again(&mut cluster).await?;

    // Corrected rows, in two calls, while everything is killed in turn.
    let corrected = CORRECTED.chain((0..EVENT_COUNT).filter(|id| is_bad(*id)));
    let corrected: Vec<Vec<u8>> = corrected.map(|id| event(id, 10).into_bytes()).collect();
    let middle = corrected.len() / 2;
    let request = |rows: &[Vec<u8>]| ReplayRequest {
        filter: LetterFilter {
            owner: Some(NAME.to_owned()),
            ..LetterFilter::default()
        },
        corrected: Some(rows.to_vec()),
        ..ReplayRequest::default()
    };
    let (first, second) = (request(&corrected[..middle]), request(&corrected[middle..]));
    let before = cluster
        .wait_for_job(NAME, "the job goes on", |_| true)
        .await?
        .rows_read;
    replay(&cluster, &first).await?;
    cluster
        .wait_for_job(NAME, "some are read", |job| job.rows_read > before)
        .await?;
    cluster.kill_worker(1).await?;
    replay(&cluster, &second).await?;
    cluster.kill_master().await?;
    ensure!(replay(&cluster, &first).await?.known, "sent before");
    ensure!(replay(&cluster, &second).await?.known, "sent before");
    cluster.kill_worker(0).await?;
    let all = EVENT_COUNT as u64 + 2 * LETTERS_OF_A_KIND + corrected.len() as u64;
    cluster
        .wait_for_job(NAME, "all are read", |job| job.rows_read == all)
        .await?;
    let stopped = cluster.stop(NAME, StopMode::Drain).await?;
    every_row_is_somewhere(&stopped, all)?;
    differences(&clicks).await.with_context(|| cluster.logs())?;
    let refused = cluster.client().await?.replay(&NAME.into(), first).await;
    let refused = refused.expect_err("nothing reads any more").to_string();
    ensure!(refused.contains("does not run"), "{refused}");
    Ok(())
}

/// Under the name of the replay, although a worker is killed.
async fn bad_rows_are_refused_again(cluster: &mut Cluster) -> anyhow::Result<()> {
    let as_they_are = ReplayRequest {
        filter: of("type_mismatch"),
        ..ReplayRequest::default()
    };
    let sent = replay(cluster, &as_they_are).await?;
    ensure!(
        (sent.rows, sent.known) == (LETTERS_OF_A_KIND, false),
        "{sent:?}"
    );
    cluster.kill_worker(0).await?;
    let again = LetterFilter {
        origin: sent.split.clone(),
        ..of("type_mismatch")
    };
    let again = wait_for_letters(cluster, again, LETTERS_OF_A_KIND).await?;
    let positions: BTreeMap<i64, usize> = again.iter().map(|letter| (letter.position, 1)).collect();
    ensure!(positions.len() as u64 == LETTERS_OF_A_KIND, "{positions:?}");
    Ok(())
}

async fn late_rows_are_sent_once_and_only_with_a_new_time(cluster: &Cluster) -> anyhow::Result<()> {
    let mut request = ReplayRequest {
        filter: of("late"),
        ..ReplayRequest::default()
    };
    let none = replay(cluster, &request).await?;
    ensure!(
        none.split.is_none() && none.skipped[0].rows == LETTERS_OF_A_KIND,
        "{none:?}"
    );
    ensure!(
        none.skipped[0].reason.contains("--event-time now"),
        "{none:?}"
    );
    request.event_time_now = true;
    let sent = replay(cluster, &request).await?;
    ensure!(
        (sent.rows, sent.known) == (LETTERS_OF_A_KIND, false),
        "{sent:?}"
    );
    let none = replay(cluster, &request).await?;
    ensure!(
        none.split.is_none() && none.skipped[0].reason.contains("--again"),
        "{none:?}"
    );
    Ok(())
}

/// The counters close the sum, with the rows that came twice.
fn every_row_is_somewhere(job: &JobView, all: u64) -> anyhow::Result<()> {
    ensure!(job.rows_unaccounted == 0, "{job:?}");
    let source = &job.sources[0];
    ensure!(source.rows_read == all, "{source:?}");
    ensure!(source.rows_rejected == 3 * LETTERS_OF_A_KIND, "{source:?}");
    let counted = &job.stages[1];
    let once = EVENT_COUNT as u64 + (CORRECTED.end - CORRECTED.start) as u64;
    ensure!(counted.folded == once, "{counted:?}");
    Ok(())
}
