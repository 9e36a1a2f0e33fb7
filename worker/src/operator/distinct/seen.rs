//! The keys a DISTINCT has seen, each with the event time of its first row.
//!
//! Owned by the operator in `mod.rs`. A key counts as seen until the watermark has passed its time. Its memory is
//! given back a little later, together with all keys of its minute, so that forgetting never searches the table.
//! Pure; cannot fail.

use std::collections::BTreeMap;
use std::mem::size_of;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// The time of a key that is never forgotten.
pub(super) const FOREVER: i64 = i64::MAX;

/// How much event time is given back at once: a minute, in microseconds. Small against usual delays, large against
/// the cost of a bucket.
const BUCKET_SPAN: i64 = 60_000_000;

/// Halves of the fingerprint rather than one u128: 24 bytes a key instead of 32.
#[derive(Clone, Copy, Debug)]
struct Key {
    high: u64,
    low: u64,
    time: i64,
}

impl Key {
    fn fingerprint(self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low)
    }
}

/// Fingerprints with the event time of their first row.
#[derive(Debug, Default)]
pub(super) struct SeenKeys {
    table: HashTable<Key>,
    /// Fingerprints by minute of event time; holds one more than the table for a key that came back after it was
    /// forgotten.
    buckets: BTreeMap<i64, Vec<[u64; 2]>>,
    /// Keys whose time is before it are forgotten.
    watermark: Option<i64>,
}

impl SeenKeys {
    /// Takes a row's key; true if it is the first of its key.
    pub(super) fn insert(&mut self, fingerprint: u128, time: i64) -> bool {
        let [high, low] = [(fingerprint >> 64) as u64, fingerprint as u64];
        let found = self
            .table
            .entry(low, |key| key.low == low && key.high == high, |key| key.low);
        match found {
            Entry::Occupied(mut key) => {
                let is_forgotten = self.watermark.is_some_and(|passed| key.get().time < passed);
                if !is_forgotten {
                    return false;
                }
                key.get_mut().time = time;
            }
            Entry::Vacant(place) => {
                place.insert(Key { high, low, time });
            }
        }
        if time != FOREVER {
            let bucket = self.buckets.entry(time.div_euclid(BUCKET_SPAN));
            bucket.or_default().push([high, low]);
        }
        true
    }

    /// Forgets keys older than the watermark.
    pub(super) fn forget(&mut self, watermark: i64) {
        self.watermark = Some(watermark);
        while let Some(bucket) = self.buckets.first_entry() {
            let end = (bucket.key() + 1).saturating_mul(BUCKET_SPAN);
            if end > watermark {
                break;
            }
            for [high, low] in bucket.remove() {
                let found = self
                    .table
                    .find_entry(low, |key| key.low == low && key.high == high);
                if let Ok(key) = found
                    && key.get().time < watermark
                {
                    key.remove();
                }
            }
        }
        if self.table.capacity() > 4 * self.table.len() + 1_024 {
            self.table.shrink_to(2 * self.table.len(), |key| key.low);
        }
    }

    /// Fingerprint and time of every key that is not forgotten.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u128, i64)> {
        let live = move |key: &&Key| self.watermark.is_none_or(|passed| key.time >= passed);
        let keys = self.table.iter().filter(live);
        keys.map(|key| (key.fingerprint(), key.time))
    }

    /// Keys held, those just forgotten included.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Bytes of memory held, about.
    pub(super) fn bytes(&self) -> usize {
        let buckets = self.buckets.values().map(Vec::capacity).sum::<usize>();
        self.table.allocation_size() + buckets * size_of::<[u64; 2]>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = BUCKET_SPAN;

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
    fn a_key_that_came_back_outlives_its_first_minute() {
        let mut seen = SeenKeys::default();
        seen.insert(7, 0);
        seen.forget(1);
        assert!(seen.insert(7, 5 * MINUTE));
        seen.forget(MINUTE);
        assert_eq!(seen.len(), 1);
        assert!(!seen.insert(7, 6 * MINUTE));
        seen.forget(6 * MINUTE);
        assert_eq!(seen.len(), 0);
    }

    #[test]
    fn memory_of_forgotten_minutes_is_given_back() {
        let mut seen = SeenKeys::default();
        for key in 0..100_000_u128 {
            seen.insert(key << 70 | key, -MINUTE);
        }
        let full = seen.bytes();
        seen.forget(0);
        assert_eq!(seen.len(), 0);
        assert!(seen.bytes() < full / 10);
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
