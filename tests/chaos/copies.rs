//! The reader of the topic that one job copies its clicks to: whole epochs only, each row once.
//!
//! Started by `readers.rs`. The rows say which record of the clicks they come from: in a quiet moment (`moments.rs`) the rows of each
//! partition of the clicks must be those of all sound records up to the last one. Failure: what no reader may see.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail};
use millstream_tests::oracle;
use millstream_tests::topic::{Stored, Topic};
use serde_json::Value;

use crate::moments::{Moment, Moments};

/// Looks until it sees what it must not; `looks` counts the moments that were quiet.
pub(crate) async fn follow(
    clicks: &Topic,
    mut moments: Moments,
    looks: &AtomicU64,
) -> anyhow::Result<()> {
    let mut sound = Sound::default();
    let mut clicks = clicks.follow()?;
    let mut seen = Seen::default();
    loop {
        let moment = moments.next().await?;
        seen.take(&moment)?;
        for record in clicks.drain()? {
            sound.take(&record);
        }
        if !moment.rows.is_empty() {
            seen.check(&sound, moment.epoch)?;
        }
        looks.fetch_add(1, Ordering::Relaxed);
    }
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

/// Offsets of the clicks whose rows are there, by partition.
#[derive(Default)]
struct Seen(BTreeMap<i64, BTreeSet<i64>>);

impl Seen {
    fn take(&mut self, moment: &Moment) -> anyhow::Result<()> {
        for record in &moment.rows {
            let row: Value = serde_json::from_slice(record.payload.as_deref().unwrap_or_default())
                .context("a row is JSON")?;
            let place = |name: &str| row[name].as_i64().with_context(|| format!("{name}: {row}"));
            let (partition, offset) = (place("clicks_partition")?, place("clicks_offset")?);
            if !self.0.entry(partition).or_default().insert(offset) {
                bail!("{partition}:{offset} came twice");
            }
        }
        Ok(())
    }

    /// Behind a gap in what is there lies half an epoch.
    fn check(&self, sound: &Sound, epoch: u64) -> anyhow::Result<()> {
        for (partition, rows) in &self.0 {
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
                    "at epoch {epoch} rows up to {partition}:{last} are there, but not {missing:?}"
                );
            }
        }
        Ok(())
    }
}
