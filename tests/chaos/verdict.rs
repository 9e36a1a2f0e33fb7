//! Ends the jobs, and compares every sink with what it must hold, counted without any of Millstream's code.
//!
//! Called by `main.rs` when all faults are over. Failure: one row too few or too many in any sink.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use millstream_common::control::{JobView, StopMode};
use millstream_tests::figures::count;
use millstream_tests::oracle::{self, Group, Oracle};
use millstream_tests::topic::Stored;
use millstream_tests::wait;

use crate::jobs;
use crate::numbers;
use crate::readers;
use crate::scene::Scene;

/// From the end of the last fault until everything is read and delivered.
const PATIENCE: Duration = Duration::from_mins(10);

/// What one sink has.
struct Row {
    sink: &'static str,
    expected: u64,
    lost: u64,
    doubled: u64,
}

/// Prints the table; an error if a row is lost or doubled.
pub(crate) async fn compare(scene: &mut Scene) -> anyhow::Result<()> {
    let records = scene.clicks.read_back().context("read the clicks back")?;
    let caught_up = wait::until("all clicks are delivered", PATIENCE, || async {
        let read = is_read(scene, records.len() as u64).await;
        read.map_err(|error| format!("{error:#}"))
    });
    caught_up.await?;
    let mut jobs = Vec::new();
    for (name, mode) in [
        (jobs::NUMBERS, StopMode::Stop),
        (jobs::CLICKS, StopMode::Drain),
        (jobs::ACTIONS, StopMode::Drain),
    ] {
        jobs.push(scene.cluster.stop(name, mode).await?);
    }
    let made = jobs.first().map_or(0, |numbers| numbers.rows_read);
    ensure!(made > 0, "no number was made");
    let rows = rows(scene, &records, made).await?;
    println!(
        "\n{:24} {:>12} {:>6} {:>8}",
        "sink", "rows", "lost", "doubled"
    );
    for row in &rows {
        let (expected, lost, doubled) = (count(row.expected), count(row.lost), count(row.doubled));
        println!("{:24} {expected:>12} {lost:>6} {doubled:>8}", row.sink);
    }
    for job in &jobs {
        println!(
            "{}: {} restarts, epoch {}",
            job.name, job.restarts, job.epoch
        );
        ensure!(
            job.rows_unaccounted == 0,
            "the counters of {} do not close: {job:#?}",
            job.name
        );
    }
    let is_equal = rows.iter().all(|row| row.lost == 0 && row.doubled == 0);
    ensure!(is_equal, "rows were lost or doubled");
    println!("verdict: equal, nothing lost, nothing doubled");
    Ok(())
}

/// Fails until both jobs over the clicks have read all of them and their sinks lack nothing.
async fn is_read(scene: &Scene, record_count: u64) -> anyhow::Result<()> {
    let client = scene.cluster.client().await?;
    for name in [jobs::CLICKS, jobs::ACTIONS] {
        let job: JobView = client.job(&name.into()).await?;
        ensure!(
            job.rows_read == record_count && job.sinks.iter().all(|sink| sink.lag_rows == 0),
            "{record_count} records were sent: {job:?}"
        );
    }
    Ok(())
}

/// `made` is how many numbers the generator made.
async fn rows(scene: &Scene, records: &[Stored], made: u64) -> anyhow::Result<Vec<Row>> {
    let oracle = Oracle::of(&scene.clicks.name, records);
    let database = &scene.database;
    let copies = oracle::events(&scene.copies.committed()?);
    let numbers = numbers(&scene.numbers.committed()?)?;
    Ok(vec![
        row(
            "page_views_postgres",
            &counts(&oracle.page_views)?,
            &counts(&database.page_views().await?)?,
        ),
        row(
            "clicks_rejected",
            &oracle.rejected,
            &database.rejected("click_errors").await?,
        ),
        row("copies (Kafka)", &oracle::events(records), &copies),
        row(
            "lake (files)",
            &oracle.unique_events(),
            &readers::all_events(&scene.lake()?)?,
        ),
        row(
            "action_counts_postgres",
            &counts(&oracle.action_counts)?,
            &counts(&database.action_counts().await?)?,
        ),
        row(
            "numbers (Kafka)",
            &(1..=made).map(|number| (number, 1)).collect(),
            &numbers,
        ),
    ])
}

fn counts(groups: &BTreeMap<Group, i64>) -> anyhow::Result<BTreeMap<Group, u64>> {
    let groups = groups.iter();
    groups
        .map(|(group, count)| Ok((group.clone(), u64::try_from(*count)?)))
        .collect()
}

/// How often each number stands.
fn numbers(records: &[Stored]) -> anyhow::Result<BTreeMap<u64, u64>> {
    let mut numbers = BTreeMap::new();
    for record in records {
        *numbers.entry(numbers::number(record)?).or_default() += 1;
    }
    Ok(numbers)
}

fn row<K: Ord>(sink: &'static str, expected: &BTreeMap<K, u64>, found: &BTreeMap<K, u64>) -> Row {
    let without = |left: &BTreeMap<K, u64>, right: &BTreeMap<K, u64>| {
        let missing = |(key, count): (&K, &u64)| {
            count.saturating_sub(right.get(key).copied().unwrap_or_default())
        };
        left.iter().map(missing).sum()
    };
    Row {
        sink,
        expected: expected.values().sum(),
        lost: without(expected, found),
        doubled: without(found, expected),
    }
}
