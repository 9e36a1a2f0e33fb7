//! Readers that look at tables, files and topics all along, and must only ever see whole epochs, each row once.
//!
//! Started by `main.rs`; each is a task of one set. A sink that does not answer is looked at again later, since it is one of those
//! that die. Failure: what no reader may see ends the run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use millstream_common::blocking::{BlockingRef, ThreadPool};
use millstream_tests::database::Database;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::moments::Moments;
use crate::scene::Scene;
use crate::{copies, numbers};

const LOOK_INTERVAL: Duration = Duration::from_millis(300);

/// A digest of the table and the epoch it stands for, as one statement sees them.
const PAGE_VIEWS: &str = "SELECT \
    (SELECT epoch FROM millstream_markers WHERE sink = 'page_views_postgres'), \
    count(*), coalesce(sum(views), 0)::bigint, \
    coalesce(sum(hashtext(url || window_start || views)), 0)::bigint FROM fact_page_views";
const ACTION_COUNTS: &str = "SELECT \
    (SELECT epoch FROM millstream_markers WHERE sink = 'action_counts_postgres'), \
    count(*), coalesce(sum(actions), 0)::bigint, \
    coalesce(sum(hashtext(action || window_start || actions)), 0)::bigint FROM action_counts";
const REJECTED: &str = "SELECT \
    (SELECT epoch FROM millstream_markers WHERE sink = 'clicks_rejected'), \
    count(*), count(DISTINCT (origin, position)), \
    coalesce(sum(hashtext(origin || position || code)), 0)::bigint FROM click_errors";

/// How often each topic was looked at in a quiet moment.
#[derive(Clone, Default)]
pub(crate) struct Looks {
    pub(crate) copies: Arc<AtomicU64>,
    pub(crate) numbers: Arc<AtomicU64>,
}

/// Starts all of them.
pub(crate) fn start(scene: &Scene, looks: Looks) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let mut readers = JoinSet::new();
    for (table, sql) in [
        ("fact_page_views", PAGE_VIEWS),
        ("action_counts", ACTION_COUNTS),
        ("click_errors", REJECTED),
    ] {
        let database = Arc::clone(&scene.database);
        readers.spawn(async move { look_at_table(&database, sql).await.context(table) });
    }
    let blocking: BlockingRef = Arc::new(ThreadPool);
    let moments = Moments::of("numbers", &scene.numbers, Arc::clone(&blocking));
    let seen = Arc::clone(&looks.numbers);
    readers.spawn(async move { numbers::follow(moments, &seen).await.context("numbers") });
    let moments = Moments::of("copies", &scene.copies, blocking);
    let (clicks, seen) = (Arc::clone(&scene.clicks), looks.copies);
    readers.spawn(async move {
        copies::follow(&clicks, moments, &seen)
            .await
            .context("copies")
    });
    let lake = scene.lake()?;
    readers.spawn(async move { look_at_files(&lake).await.context("lake") });
    Ok(readers)
}

/// Waits until a reader sees what it must not.
pub(crate) async fn first_violation(readers: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Error {
    match readers.join_next().await {
        Some(Ok(Err(violation))) => violation.context("a reader of the sink"),
        Some(Ok(Ok(()))) => anyhow::anyhow!("a reader ended"),
        Some(Err(panic)) => anyhow::anyhow!("a reader panicked: {panic}"),
        None => std::future::pending().await,
    }
}

/// One epoch always looks the same, no epoch follows a later one, and nothing that was counted is taken back.
async fn look_at_table(database: &Database, sql: &str) -> anyhow::Result<()> {
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    let mut last: Option<(i64, i64, i64, i64)> = None;
    loop {
        looks.tick().await;
        // The table or the server may not be there.
        let Ok(rows) = database.query(sql).await else {
            continue;
        };
        let row = rows.first().context("an aggregate has one row")?;
        let Some(epoch) = row.get::<_, Option<i64>>(0) else {
            continue;
        };
        let found = (epoch, row.get(1), row.get(2), row.get(3));
        if let Some(last) = last {
            let (is_same, goes_on) = (found == last, found.0 > last.0);
            let grows = found.1 >= last.1 && found.2 >= last.2;
            ensure!(
                is_same || (goes_on && grows),
                "(epoch, rows, sum, hash) was {last:?} and is {found:?}"
            );
        }
        last = Some(found);
    }
}

/// Files of committed runs are whole, stay as they are, and hold no event twice.
async fn look_at_files(lake: &Path) -> anyhow::Result<()> {
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    let mut read: BTreeMap<String, u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    loop {
        looks.tick().await;
        let Some(newest) = newest_commit(lake)? else {
            continue;
        };
        let files = data_files(lake, newest)?;
        if let Some(gone) = read.keys().find(|name| !files.contains_key(*name)) {
            bail!("{gone} is gone");
        }
        for (name, bytes) in files {
            match read.insert(name.clone(), bytes) {
                Some(before) => ensure!(before == bytes, "{name} has changed"),
                None => {
                    for event in events(&lake.join(&name))? {
                        ensure!(seen.insert(event.clone()), "{name}: {event} is there twice");
                    }
                }
            }
        }
    }
}

/// Number of the newest run that is whole; `None` before the first.
fn newest_commit(lake: &Path) -> anyhow::Result<Option<u64>> {
    let mut newest = None;
    for incarnation in folder(&lake.join("_millstream"))? {
        for sink in folder(&incarnation)? {
            for commit in folder(&sink.join("commits"))? {
                let name = commit.file_stem().and_then(|stem| stem.to_str());
                newest = newest.max(name.and_then(|name| name.parse::<u64>().ok()));
            }
        }
    }
    Ok(newest)
}

/// What is in a folder; nothing where there is none.
fn folder(path: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry?.path());
    }
    Ok(paths)
}

/// Names and sizes of the files of runs up to `newest`: `part-{last epoch of the run}-…`.
fn data_files(lake: &Path, newest: u64) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut files = BTreeMap::new();
    for path in folder(lake)? {
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let run = name.split('-').nth(1).and_then(|run| run.parse().ok());
        if name.starts_with("part-") && run.is_some_and(|run: u64| run <= newest) {
            let bytes = std::fs::metadata(&path)?.len();
            files.insert(name.to_owned(), bytes);
        }
    }
    Ok(files)
}

/// The events in one file.
pub(crate) fn events(file: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let mut events = Vec::new();
    for line in text.lines() {
        let click: Value =
            serde_json::from_str(line).with_context(|| format!("{}: {line}", file.display()))?;
        let event = click["eventid"].as_str().context("an event has an id")?;
        events.push(event.to_owned());
    }
    Ok(events)
}

/// How often each event is in the files of whole runs.
pub(crate) fn all_events(lake: &Path) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut counts = BTreeMap::new();
    let newest = newest_commit(lake)?.unwrap_or_default();
    for name in data_files(lake, newest)?.into_keys() {
        for event in events(&lake.join(name))? {
            *counts.entry(event).or_default() += 1;
        }
    }
    Ok(counts)
}
