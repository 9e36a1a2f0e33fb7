//! The keys a DISTINCT has seen, each with the event time of its first row.
//!
//! Owned by the operator in `mod.rs`. A key counts as seen until the watermark has passed its time. It stays in its table a little longer, where
//! it counts as unseen, until as many keys have come since as make a sweep of the table worth while: so neither
//! forgetting nor keeping costs a key more than a few steps through memory in order, and no list of keys by time. Keys are spread over
//! [`SHARD_COUNT`] tables, of which one grows or is swept at a time. A key's place is far from the last one's: so the places of some keys are
//! looked at together, which the processor does at the same time, before these are taken in one by one. Tables that have no room in memory are
//! spilled whole (`spilled.rs`), and begin anew: what a table does not have is looked for there. Failure: the disk's, of what is spilled.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hint::black_box;
use std::mem::take;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::super::spill::{SpillError, TaskSpill};
use super::key::{FOREVER, Key, Origin};
use super::key_part::KeyPart;
use super::slice::{SHARD_BITS, Slice, shard_of};
use super::spilled::SpilledKeys;

/// Tables of one task.
pub(super) const SHARD_COUNT: usize = 1 << SHARD_BITS;
/// Spilled keys of a slice, about.
const SLICE_KEYS: usize = 1 << 16;
/// More slices than any disk has keys for.
const SLICE_BITS_MAX: u32 = 32;
/// Keys whose places are looked at together: more than the processor can wait for at once are of no use.
const BLOCK: usize = 32;
/// Keys of a table that are not worth a sweep.
const SWEPT_MIN: usize = 1_024;

/// Fingerprints with the event time of their first row.
pub(super) struct SeenKeys {
    shards: Vec<Shard>,
    /// Of the times in the tables; there is none before the first key with a time.
    origin: Option<Origin>,
    /// Keys whose times are too far from it, by fingerprint.
    far: HashMap<u128, i64>,
    /// How many of them the last sweep left.
    far_live_count: usize,
    /// Keys whose time is before it are forgotten.
    watermark: i64,
    /// Keys that had no room. One of them that is not forgotten is in no table.
    spilled: Option<SpilledKeys>,
}

#[derive(Debug, Default)]
struct Shard {
    table: HashTable<Key>,
    /// Keys that the last sweep left.
    live_count: usize,
    /// The most keys that it held lately.
    peak_count: usize,
}

impl Default for SeenKeys {
    fn default() -> Self {
        Self {
            shards: (0..SHARD_COUNT).map(|_| Shard::default()).collect(),
            origin: None,
            far: HashMap::new(),
            far_live_count: 0,
            watermark: i64::MIN,
            spilled: None,
        }
    }
}

impl SeenKeys {
    /// Takes the keys of rows in order; names those that are the first of their key to `keep`, by place among them, with their time.
    pub(super) fn insert_all(
        &mut self,
        fingerprints: &[u128],
        time_of: impl Fn(usize) -> i64,
        mut keep: impl FnMut(usize, i64),
    ) -> Result<(), SpillError> {
        let mut place = 0;
        for block in fingerprints.chunks(BLOCK) {
            self.look_at(block);
            for fingerprint in block {
                let time = time_of(place);
                if self.insert(*fingerprint, time)? {
                    keep(place, time);
                }
                place += 1;
            }
        }
        Ok(())
    }

    /// Has the places of these keys brought near. What is found is not used: a loop that compares whole keys and their times, and so spares known
    /// ones the second look, has fewer keys in flight at once, and known keys took a third longer with it.
    #[inline]
    fn look_at(&self, fingerprints: &[u128]) {
        let known = fingerprints.iter().filter(|fingerprint| {
            let table = &self.shards[shard_of(**fingerprint)].table;
            let hash = **fingerprint as u64;
            table.find(hash, |key| key.hash() == hash).is_some()
        });
        black_box(known.count());
    }

    /// Takes a row's key; true if it is the first of its key.
    #[inline]
    pub(super) fn insert(&mut self, fingerprint: u128, time: i64) -> Result<bool, SpillError> {
        if !self.far.is_empty() && self.is_seen_far(fingerprint) {
            return Ok(false);
        }
        let origin = self.origin_for(time);
        let Some(key) = Key::new(fingerprint, time, origin) else {
            return self.insert_far(fingerprint, time);
        };
        let table = &mut self.shards[shard_of(fingerprint)].table;
        let is_same = |key: &Key| key.fingerprint() == fingerprint;
        match table.entry(key.hash(), is_same, Key::hash) {
            Entry::Occupied(mut earlier) => {
                if earlier.get().time(origin) >= self.watermark {
                    return Ok(false);
                }
                *earlier.get_mut() = key;
            }
            Entry::Vacant(place) => {
                if let Some(spilled) = &self.spilled
                    && spilled.is_seen(fingerprint, self.watermark)?
                {
                    return Ok(false);
                }
                place.insert(key);
            }
        }
        Ok(true)
    }

    /// The times in the tables are counted from it.
    #[inline]
    fn origin_for(&mut self, time: i64) -> Origin {
        match self.origin {
            Some(origin) => origin,
            // It stands for itself, from wherever the others are counted.
            None if time == FOREVER => Origin::around(0),
            None => *self.origin.insert(Origin::around(time)),
        }
    }

    /// Whether it is seen by a time that does not fit a table. A forgotten one is removed.
    #[cold]
    fn is_seen_far(&mut self, fingerprint: u128) -> bool {
        match self.far.get(&fingerprint) {
            Some(time) if *time >= self.watermark => true,
            Some(_) => {
                self.far.remove(&fingerprint);
                false
            }
            None => false,
        }
    }

    /// As [`Self::insert`], for a time that does not fit a table.
    #[cold]
    fn insert_far(&mut self, fingerprint: u128, time: i64) -> Result<bool, SpillError> {
        let table = &self.shards[shard_of(fingerprint)].table;
        let is_same = |key: &Key| key.fingerprint() == fingerprint;
        let earlier = table.find(fingerprint as u64, is_same);
        if earlier.is_some_and(|key| self.is_live(key)) {
            return Ok(false);
        }
        if let Some(spilled) = &self.spilled
            && spilled.is_seen(fingerprint, self.watermark)?
        {
            return Ok(false);
        }
        self.far.insert(fingerprint, time);
        Ok(true)
    }

    fn time_of(&self, key: &Key) -> i64 {
        key.time(self.origin.unwrap_or(Origin::around(0)))
    }

    fn is_live(&self, key: &Key) -> bool {
        self.time_of(key) >= self.watermark
    }

    /// Forgets keys older than the watermark.
    pub(super) fn forget(&mut self, watermark: i64) -> Result<(), SpillError> {
        self.watermark = watermark;
        let origin = self.origin.unwrap_or(Origin::around(0));
        for shard in &mut self.shards {
            shard.sweep_if_due(|key| key.time(origin) >= watermark);
        }
        if self.far.len() > 2 * self.far_live_count + SWEPT_MIN {
            self.far.retain(|_, time| *time >= watermark);
            self.far_live_count = self.far.len();
        }
        if let Some(spilled) = &mut self.spilled
            && spilled.forget(watermark)?
        {
            self.spilled = None;
        }
        Ok(())
    }

    /// Keys that are not forgotten; of those that are spilled, about.
    pub(super) fn live_count(&self) -> usize {
        let keys = self.shards.iter().flat_map(|shard| &shard.table);
        let far = self.far.values().filter(|time| **time >= self.watermark);
        keys.filter(|key| self.is_live(key)).count() + far.count() + self.spilled_count()
    }

    fn spilled_count(&self) -> usize {
        self.spilled.as_ref().map_or(0, SpilledKeys::held_count)
    }

    /// Some keys are not in memory.
    pub(super) fn has_spilled(&self) -> bool {
        self.spilled.is_some()
    }

    /// Of files.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.spilled.as_ref().map_or(0, SpilledKeys::disk_bytes)
    }

    /// Spills the largest tables, until so many bytes of memory are free.
    pub(super) fn spill(&mut self, bytes: usize, spill: &TaskSpill) -> Result<(), SpillError> {
        let mut shards: Vec<usize> = (0..SHARD_COUNT).collect();
        shards.retain(|shard| !self.shards[*shard].table.is_empty());
        let bytes_of = |shard: &usize| self.shards[*shard].table.allocation_size();
        shards.sort_by_key(|shard| Reverse(bytes_of(shard)));
        let mut freed = 0;
        let chosen = shards.iter().take_while(|shard| {
            let is_wanted = freed < bytes;
            freed += bytes_of(shard);
            is_wanted
        });
        let mut chosen: Vec<usize> = chosen.copied().collect();
        if chosen.is_empty() {
            return Ok(());
        }
        chosen.sort_unstable();
        let (origin, watermark) = (self.origin.unwrap_or(Origin::around(0)), self.watermark);
        let tables = chosen.into_iter().map(|shard| {
            let table = take(&mut self.shards[shard]).table;
            let keys = table.iter();
            let keys = keys.map(|key| (key.fingerprint(), key.time(origin)));
            keys.filter(|(_, time)| *time >= watermark).collect()
        });
        match &mut self.spilled {
            Some(spilled) => spilled.add(tables),
            none => none.insert(SpilledKeys::open(spill)?).add(tables),
        }
    }

    /// Keys in the tables: those that count as seen, and some that are forgotten and not swept yet.
    pub(super) fn held_count(&self) -> usize {
        let tables = self.shards.iter();
        let in_tables = tables.map(|shard| shard.table.len()).sum::<usize>();
        in_tables + self.far.len() + self.spilled_count()
    }

    /// The first of the slices that all keys are copied in. A slice is a table, or less if many keys are spilled.
    pub(super) fn first_slice(&self) -> Slice {
        let wanted = self.spilled_count() / SLICE_KEYS;
        let bits = wanted.next_power_of_two().trailing_zeros();
        Slice {
            number: 0,
            bits: bits.clamp(SHARD_BITS, SLICE_BITS_MAX),
        }
    }

    /// Copies the keys of a slice that are not forgotten, and of those behind it until there are `count_max`; names the first slice
    /// that was not copied.
    pub(super) fn copy(
        &self,
        first: Slice,
        count_max: usize,
        keys: &mut KeyPart,
    ) -> Result<Option<Slice>, SpillError> {
        let mut copied_count = 0;
        let mut next = Some(first);
        while let Some(slice) = next {
            let table = &self.shards[slice.shard()].table;
            let is_whole = slice.bits == SHARD_BITS;
            let count =
                (table.len() >> (slice.bits - SHARD_BITS)) + (self.spilled_count() >> slice.bits);
            if slice != first && copied_count + count > count_max {
                break;
            }
            copied_count += count;
            keys.reserve(count);
            for key in table.iter().filter(|key| self.is_live(key)) {
                if is_whole || slice.has(key.fingerprint()) {
                    keys.push(key.fingerprint(), self.time_of(key));
                }
            }
            for (fingerprint, time) in &self.far {
                if slice.has(*fingerprint) && *time >= self.watermark {
                    keys.push(*fingerprint, *time);
                }
            }
            if let Some(spilled) = &self.spilled {
                spilled.copy(slice, self.watermark, keys)?;
            }
            next = slice.next();
        }
        Ok(next)
    }

    /// Bytes of memory held, about.
    pub(super) fn bytes(&self) -> usize {
        let tables = self.shards.iter();
        let tables = tables.map(|shard| shard.table.allocation_size());
        let spilled = self.spilled.as_ref().map_or(0, SpilledKeys::bytes);
        tables.sum::<usize>() + self.far.capacity() * size_of::<(u128, i64)>() + spilled
    }
}

impl Shard {
    /// Sweeps once a quarter of what the last sweep left has come since. What was needed a few sweeps ago is kept: a table that
    /// shrinks and grows with every epoch would be filled anew each time.
    fn sweep_if_due(&mut self, is_live: impl Fn(&Key) -> bool) {
        let come_count = self.table.len() - self.live_count;
        if come_count <= self.live_count / 4 + SWEPT_MIN {
            return;
        }
        self.peak_count = self.table.len().max(self.peak_count - self.peak_count / 4);
        self.table.retain(|key| is_live(key));
        self.live_count = self.table.len();
        if self.table.capacity() > 4 * self.peak_count {
            let wanted = 2 * self.peak_count;
            self.table.shrink_to(wanted, Key::hash);
        }
    }
}
