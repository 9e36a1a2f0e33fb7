//! The reader at the sink of a job that writes to Kafka: whole epochs only, each row once.
//!
//! Started by `readers.rs`. The rows say which record of the clicks they come from. At a moment in which no transaction is under way,
//! the rows of each partition of the clicks must be those of all sound records up to the last one, and new rows come with a newer
//! marker only. A moment in which Kafka does not answer, or a transaction is under way, is passed by. Failure: what no reader may see.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use millstream_common::blocking::{self, BlockingRef, ThreadPool};
use millstream_tests::oracle;
use millstream_tests::quiet::{From, read_quiet};
use millstream_tests::topic::{Stored, Topic};
use serde_json::Value;

const LOOK_INTERVAL: Duration = Duration::from_millis(700);
const PROGRESS_TOPIC: &str = "__millstream_progress";
const PROGRESS_PARTITION_COUNT: i32 = 16;
const SINK: &str = "copies";

/// What has been seen.
#[derive(Default)]
struct Seen {
    /// Offsets of the clicks whose rows are there, by partition.
    rows: BTreeMap<i64, BTreeSet<i64>>,
    marker: u64,
}

/// Looks until it sees what it must not; `looks` counts the moments that were quiet.
pub(crate) async fn follow(
    clicks: &Topic,
    copies: &Topic,
    looks: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let blocking: BlockingRef = Arc::new(ThreadPool);
    let mut sound = Sound::default();
    let mut clicks = clicks.follow()?;
    let mut seen = Seen::default();
    let mut from = copies.beginnings();
    let mut marker_at = None;
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    loop {
        ticks.tick().await;
        let brokers = copies.brokers().to_owned();
        let wanted = match marker_at {
            Some(partition) => {
                let mut wanted = from.clone();
                wanted.push(beginning_of(partition));
                wanted
            }
            // Where the marker is, only the marker says.
            None => (0..PROGRESS_PARTITION_COUNT).map(beginning_of).collect(),
        };
        let read = blocking::run(&blocking, move || read_quiet(&brokers, &wanted)).await?;
        let Some(mut read) = read else {
            continue;
        };
        if marker_at.is_none() {
            let found = read.iter().position(|records| marker(records).is_some());
            marker_at = found.and_then(|index| i32::try_from(index).ok());
            continue;
        }
        let marker = marker(&read.pop().unwrap_or_default()).unwrap_or_default();
        for (from, records) in from.iter_mut().zip(&read) {
            from.offset = records.last().map_or(from.offset, |last| last.offset + 1);
        }
        let is_news = seen.take(marker, &read.concat())?;
        for record in clicks.drain()? {
            sound.take(&record);
        }
        if is_news {
            seen.check(&sound)?;
        }
        looks.fetch_add(1, Ordering::Relaxed);
    }
}

fn beginning_of(partition: i32) -> From {
    From {
        topic: PROGRESS_TOPIC.to_owned(),
        partition,
        offset: 0,
    }
}

/// The newest marker of the sink among the records of a partition.
fn marker(records: &[Stored]) -> Option<u64> {
    let mut markers = records.iter().filter_map(|record| {
        let key: Value = serde_json::from_slice(record.key.as_deref()?).ok()?;
        let value: Value = serde_json::from_slice(record.payload.as_deref()?).ok()?;
        let is_ours = key["kind"] == "marker" && key["sink"] == SINK;
        is_ours.then(|| value["epoch"].as_u64()).flatten()
    });
    markers.next_back()
}

/// Offsets of the clicks that break no rule, by partition.
#[derive(Default)]
struct Sound {
    offsets: BTreeMap<i64, BTreeSet<i64>>,
}

impl Sound {
    fn take(&mut self, record: &Stored) {
        if oracle::is_sound(record) {
            let partition = i64::from(record.partition);
            let offsets = self.offsets.entry(partition).or_default();
            offsets.insert(record.offset);
        }
    }
}

impl Seen {
    /// Takes new rows; whether there are any.
    fn take(&mut self, marker: u64, records: &[Stored]) -> anyhow::Result<bool> {
        ensure!(
            marker >= self.marker,
            "the marker was {} and is {marker}",
            self.marker
        );
        ensure!(
            records.is_empty() || marker > self.marker,
            "{} rows came without a newer marker than {marker}",
            records.len()
        );
        self.marker = marker;
        for record in records {
            let row: Value = serde_json::from_slice(record.payload.as_deref().unwrap_or_default())
                .context("a row is JSON")?;
            let place = |name: &str| row[name].as_i64().with_context(|| format!("{name}: {row}"));
            let (partition, offset) = (place("clicks_partition")?, place("clicks_offset")?);
            if !self.rows.entry(partition).or_default().insert(offset) {
                bail!("{partition}:{offset} came twice");
            }
        }
        Ok(!records.is_empty())
    }

    /// Behind a gap in what is there lies half an epoch.
    fn check(&self, sound: &Sound) -> anyhow::Result<()> {
        for (partition, rows) in &self.rows {
            let Some(last) = rows.last() else {
                continue;
            };
            let none = BTreeSet::new();
            let sound = sound.offsets.get(partition).unwrap_or(&none);
            // The reader of the clicks may be behind the job.
            let known = sound.last().copied().unwrap_or(-1).min(*last);
            let wanted = sound.range(..=known);
            if !rows.range(..=known).eq(wanted.clone()) {
                let missing: Vec<&i64> = wanted.filter(|offset| !rows.contains(offset)).collect();
                bail!(
                    "at epoch {} rows up to {partition}:{last} are there, but not {missing:?}",
                    self.marker
                );
            }
        }
        Ok(())
    }
}
