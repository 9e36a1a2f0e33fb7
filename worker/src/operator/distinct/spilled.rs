//! The keys of a DISTINCT that had no room in memory.
//!
//! Owned by `seen.rs`, which looks here for what its tables do not have. A key is 16 bytes, the place of its fingerprint; its value is the event time of its
//! first row, 8 bytes. Both have their most significant byte first, so keys lie in the order of places, and a slice of all keys is one stretch.
//! A key that was forgotten, came again and was spilled again has its newer time. Failure: the disk's.

use std::ops::ControlFlow;

use super::super::spill::{SpillError, SpillTree, TaskSpill};
use super::key_part::KeyPart;
use super::slice::{Slice, fingerprint_at, place_of};

/// Fingerprints on disk, each with the event time of its first row.
pub(super) struct SpilledKeys {
    tree: Box<dyn SpillTree>,
    /// The greatest that was ever added.
    time_max: i64,
}

impl SpilledKeys {
    pub(super) fn open(spill: &TaskSpill) -> Result<Self, SpillError> {
        Ok(Self {
            tree: spill.open(|_, value| time_in(value))?,
            time_max: i64::MIN,
        })
    }

    /// Whether it is there, and not from before the watermark.
    pub(super) fn is_seen(&self, fingerprint: u128, watermark: i64) -> Result<bool, SpillError> {
        let mut time = None;
        let place = place_of(fingerprint).to_be_bytes();
        self.tree
            .get(&place, &mut |value| time = Some(time_in(value)))?;
        Ok(time.is_some_and(|time| time >= watermark))
    }

    /// Adds the keys of tables, a table after the other as they lie.
    pub(super) fn add(
        &mut self,
        tables: impl Iterator<Item = Vec<(u128, i64)>>,
    ) -> Result<(), SpillError> {
        let mut run = self.tree.write()?;
        for mut keys in tables {
            keys.sort_unstable_by_key(|(fingerprint, _)| place_of(*fingerprint));
            for (fingerprint, time) in keys {
                self.time_max = self.time_max.max(time);
                let place = place_of(fingerprint).to_be_bytes();
                run.add(&place, &time.to_be_bytes())?;
            }
        }
        run.finish()
    }

    /// Adds the keys of a slice that are not from before the watermark.
    pub(super) fn copy(
        &self,
        slice: Slice,
        watermark: i64,
        keys: &mut KeyPart,
    ) -> Result<(), SpillError> {
        let (from, to) = slice.bounds();
        let to = to.map(u128::to_be_bytes);
        let mut visit = |place: &[u8], value: &[u8]| {
            let time = time_in(value);
            if time >= watermark
                && let Ok(place) = place.try_into()
            {
                keys.push(fingerprint_at(u128::from_be_bytes(place)), time);
            }
            ControlFlow::Continue(())
        };
        let to = to.as_ref().map(<[u8; 16]>::as_slice);
        self.tree.scan(&from.to_be_bytes(), to, &mut visit)
    }

    /// Forgets keys older than the watermark; true if there are no others.
    pub(super) fn forget(&mut self, watermark: i64) -> Result<bool, SpillError> {
        self.tree.forget_below(watermark)?;
        Ok(self.time_max < watermark)
    }

    /// About, with those that are forgotten and not gone.
    pub(super) fn held_count(&self) -> usize {
        self.tree.entry_count()
    }

    /// Of files.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.tree.disk_bytes()
    }

    /// Of memory.
    pub(super) fn bytes(&self) -> usize {
        self.tree.memory_bytes()
    }
}

fn time_in(value: &[u8]) -> i64 {
    value.try_into().map_or(i64::MAX, i64::from_be_bytes)
}
