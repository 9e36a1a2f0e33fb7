//! The keys a DISTINCT has seen, each with the event time of its first row.
//!
//! Owned by the operator in `mod.rs`. A key counts as seen until the watermark has passed its time. It stays in its table a little longer, where
//! it counts as unseen, until as many keys have come since as make a sweep of the table worth while: so neither
//! forgetting nor keeping costs a key more than a few steps through memory in order, and no list of keys by time. Keys are spread over
//! [`SHARD_COUNT`] tables, of which one grows or is swept at a time. A key's place is far from the last one's: so the places of some keys are
//! looked at together, which the processor does at the same time, before these are taken in one by one. Pure; cannot fail.

use std::hint::black_box;

use super::key_part::KeyPart;
use super::table::{Key, KeyTable};

/// The time of a key that is never forgotten.
pub(super) const FOREVER: i64 = i64::MAX;

/// Tables of one task.
pub(super) const SHARD_COUNT: usize = 64;
/// Bits of a fingerprint's upper half below those that make its vnode, which are all alike in a small task.
const SHARD_SHIFT: u32 = 48;
/// Keys whose places are looked at together: more than the processor can wait for at once are of no use.
const BLOCK: usize = 32;
/// Keys of a table that are not worth a sweep.
const SWEPT_MIN: usize = 1_024;

/// Groups from which on the first table is large; the others follow one by one.
const LARGE_GROUPS: usize = 4 * SHARD_COUNT;

/// Fingerprints with the event time of their first row.
#[derive(Debug)]
pub(super) struct SeenKeys {
    shards: Vec<Shard>,
    /// Keys whose time is before it are forgotten.
    watermark: i64,
}

#[derive(Debug)]
struct Shard {
    table: KeyTable,
    /// Keys that the last sweep left.
    live_count: usize,
    /// The most keys that it held lately.
    peak_count: usize,
}

impl Default for SeenKeys {
    fn default() -> Self {
        Self {
            shards: (0..SHARD_COUNT).map(Shard::new).collect(),
            watermark: i64::MIN,
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
    ) {
        let mut place = 0;
        for block in fingerprints.chunks(BLOCK) {
            self.look_at(block);
            for fingerprint in block {
                let time = time_of(place);
                if self.insert(*fingerprint, time) {
                    keep(place, time);
                }
                place += 1;
            }
        }
    }

    /// Has the places of these keys brought near.
    #[inline]
    fn look_at(&self, fingerprints: &[u128]) {
        let mut seen = 0;
        for fingerprint in fingerprints {
            let [high, low] = halves(*fingerprint);
            seen ^= self.shards[shard_of(high)].table.look_at(high, low);
        }
        black_box(seen);
    }

    /// Takes a row's key; true if it is the first of its key.
    #[inline]
    pub(super) fn insert(&mut self, fingerprint: u128, time: i64) -> bool {
        let [high, low] = halves(fingerprint);
        let table = &mut self.shards[shard_of(high)].table;
        let watermark = self.watermark;
        table.insert(Key { high, low, time }, |earlier| earlier < watermark)
    }

    /// Forgets keys older than the watermark.
    pub(super) fn forget(&mut self, watermark: i64) {
        self.watermark = watermark;
        for shard in &mut self.shards {
            shard.sweep_if_due(watermark);
        }
    }

    /// Fingerprint and time of every key that is not forgotten.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u128, i64)> {
        let keys = self.shards.iter().flat_map(|shard| shard.table.iter());
        let live = keys.filter(|key| key.time >= self.watermark);
        live.map(|key| (fingerprint(key), key.time))
    }

    /// Keys in the tables: those that count as seen, and some that are forgotten and not swept yet.
    pub(super) fn held_count(&self) -> usize {
        self.shards.iter().map(|shard| shard.table.len()).sum()
    }

    /// Copies the keys of a table that are not forgotten, and of those behind it until there are `count_max`; names the first table
    /// that was not copied.
    pub(super) fn copy(&self, first: usize, count_max: usize, keys: &mut KeyPart) -> usize {
        let mut copied_count = 0;
        for (index, shard) in self.shards.iter().enumerate().skip(first) {
            let count = shard.table.len();
            if index > first && copied_count + count > count_max {
                return index;
            }
            copied_count += count;
            keys.reserve(count);
            for key in shard.table.iter().filter(|key| key.time >= self.watermark) {
                keys.push(fingerprint(key), key.time);
            }
        }
        SHARD_COUNT
    }

    /// Bytes of memory held, about.
    pub(super) fn bytes(&self) -> usize {
        let tables = self.shards.iter();
        tables.map(|shard| shard.table.bytes()).sum()
    }
}

fn halves(fingerprint: u128) -> [u64; 2] {
    [(fingerprint >> 64) as u64, fingerprint as u64]
}

fn fingerprint(key: Key) -> u128 {
    u128::from(key.high) << 64 | u128::from(key.low)
}

fn shard_of(high: u64) -> usize {
    (high >> SHARD_SHIFT) as usize % SHARD_COUNT
}

impl Shard {
    fn new(index: usize) -> Self {
        Self {
            table: KeyTable::new(LARGE_GROUPS + index),
            live_count: 0,
            peak_count: 0,
        }
    }

    /// Sweeps once a quarter of what the last sweep left has come since. What was needed a few sweeps ago is kept: a table that
    /// shrinks and grows with every epoch would be filled anew each time.
    fn sweep_if_due(&mut self, watermark: i64) {
        let come_count = self.table.len() - self.live_count;
        if come_count <= self.live_count / 4 + SWEPT_MIN {
            return;
        }
        self.peak_count = self.table.len().max(self.peak_count - self.peak_count / 4);
        self.table.retain(|key| key.time >= watermark);
        self.live_count = self.table.len();
        if self.table.room() > 4 * self.peak_count {
            self.table.shrink_to(2 * self.peak_count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So that every table has some; both halves differ.
    fn keys(range: std::ops::Range<u128>) -> impl Iterator<Item = u128> {
        range.map(|key| key.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    #[test]
    fn a_key_is_seen_until_the_watermark_is_past_its_first_row() {
        let mut seen = SeenKeys::default();
        assert!(seen.insert(7, 100));
        assert!(!seen.insert(7, 900));
        seen.forget(100);
        assert!(!seen.insert(7, 900));
        seen.forget(101);
        assert!(seen.insert(7, 900));
        assert!(!seen.insert(7, 950));
    }

    #[test]
    fn a_key_that_came_back_is_seen_until_its_new_time() {
        let mut seen = SeenKeys::default();
        seen.insert(7, 0);
        seen.forget(1);
        assert!(seen.insert(7, 500));
        seen.forget(100);
        assert!(!seen.insert(7, 600));
        seen.forget(501);
        assert!(seen.insert(7, 600));
    }

    #[test]
    fn keys_taken_together_are_as_those_taken_one_by_one() {
        let mut seen = SeenKeys::default();
        let fingerprints: Vec<u128> = keys(0..100).chain(keys(50..200)).collect();
        let mut kept = Vec::new();
        let time_of = |place: usize| place as i64;
        seen.insert_all(&fingerprints, time_of, |place, time| {
            kept.push((place, time));
        });
        let expected = (0..100).chain(150..250);
        assert!(kept.into_iter().eq(expected.map(|n| (n, n as i64))));
        assert_eq!(seen.held_count(), 200);
    }

    #[test]
    fn every_live_key_is_in_one_of_the_copies() {
        let mut seen = SeenKeys::default();
        for (key, time) in keys(0..10_000).zip(0..) {
            seen.insert(key, time);
        }
        seen.forget(1_000);
        let (mut copies, mut shard) = (KeyPart::default(), 0);
        let mut copy_count = 0;
        while shard < SHARD_COUNT {
            let next = seen.copy(shard, 500, &mut copies);
            assert!(next > shard);
            shard = next;
            copy_count += 1;
        }
        assert!((10..=SHARD_COUNT).contains(&copy_count), "{copy_count}");
        let mut copied: Vec<_> = copies.iter().collect();
        let mut live: Vec<_> = seen.iter().collect();
        copied.sort_unstable();
        live.sort_unstable();
        assert_eq!(copied, live);
    }

    #[test]
    fn forgotten_keys_are_held_no_longer_than_the_next_ones_take_to_come() {
        let mut seen = SeenKeys::default();
        let per_epoch = 200_000;
        for epoch in 0..40 {
            let first = epoch * per_epoch;
            for key in keys(first..first + per_epoch) {
                assert!(seen.insert(key, epoch as i64));
            }
            seen.forget(epoch as i64);
            let live = per_epoch as usize;
            let spared = SHARD_COUNT * SWEPT_MIN;
            let held: usize = seen.shards.iter().map(|shard| shard.table.len()).sum();
            assert!(held <= live + live / 4 + spared, "{held}");
            assert_eq!(seen.iter().count(), live);
        }
    }

    #[test]
    fn memory_is_given_back_some_sweeps_after_it_was_needed() {
        let mut seen = SeenKeys::default();
        for key in keys(0..1_000_000) {
            seen.insert(key, 0);
        }
        let full = seen.bytes();
        for epoch in 1..40 {
            let first = epoch * 1_000_000;
            for key in keys(first..first + 100_000) {
                seen.insert(key, epoch as i64);
            }
            seen.forget(epoch as i64);
        }
        assert!(seen.bytes() < full / 2, "{} of {full}", seen.bytes());
    }

    #[test]
    fn a_key_without_time_is_never_forgotten() {
        let mut seen = SeenKeys::default();
        seen.insert(7, FOREVER);
        seen.forget(i64::MAX);
        assert!(!seen.insert(7, FOREVER));
        assert_eq!(seen.iter().collect::<Vec<_>>(), [(7, FOREVER)]);
    }
}
