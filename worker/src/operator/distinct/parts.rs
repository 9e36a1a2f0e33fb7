//! Which state parts of a DISTINCT are still needed, and when its keys are written anew.
//!
//! Used by the operator in `mod.rs`. A part holds the keys that were new in an epoch. Parts whose keys are all forgotten are dropped whole,
//! so where keys are forgotten in the order in which they come, nothing is ever written twice. Else live keys are written again: when most of
//! what is stored is forgotten, when that is next to nothing, and before a restore had to read more than [`PART_COUNT_MAX`] parts or little
//! more. Many keys are written again a few slices an epoch, beside the new ones: an epoch costs what came in it and a fixed share of what is
//! held, and no barrier waits for all keys. Once every slice was written, the parts from before the first are not needed any more.
//! Pure; cannot fail.

use std::collections::BTreeSet;

use millstream_common::ids::Epoch;

use super::key_part::KeyPart;
use super::slice::Slice;

/// Below this many parts, writing keys again saves nothing worth its cost.
const PART_COUNT_MIN: usize = 16;
/// Reading one object a part at a restore stays a matter of seconds.
const PART_COUNT_MAX: usize = 256;
/// Keys written again at one barrier: a matter of milliseconds. A table is written whole, however many it holds.
pub(super) const REWRITTEN_MAX: usize = 1 << 18;

/// A part that storage holds.
#[derive(Debug)]
struct PartNote {
    epoch: Epoch,
    key_count: usize,
    /// Of its keys, the greatest event time; `None` without keys.
    time_max: Option<i64>,
}

/// Slices are being written again.
#[derive(Clone, Copy, Debug)]
struct Rewrite {
    /// The first of them is in the part of this epoch.
    since: Epoch,
    /// The next one.
    slice: Slice,
}

/// The parts that storage holds, oldest first. After a change of the number of tasks several are of one epoch.
#[derive(Debug, Default)]
pub(super) struct Parts {
    notes: Vec<PartNote>,
    /// A restore forgets it: what was written is in parts like any other, and it begins anew when it is due.
    rewrite: Option<Rewrite>,
}

impl Parts {
    pub(super) fn add(&mut self, epoch: Epoch, keys: &KeyPart) {
        self.notes.push(PartNote {
            epoch,
            key_count: keys.len(),
            time_max: keys.time_max(),
        });
    }

    /// A part with all live keys takes the place of all.
    pub(super) fn replace(&mut self, epoch: Epoch, keys: &KeyPart) {
        self.notes.clear();
        self.rewrite = None;
        self.add(epoch, keys);
    }

    /// Drops the parts without live keys and names them.
    pub(super) fn forget(&mut self, watermark: i64) -> BTreeSet<Epoch> {
        let is_dead = |part: &PartNote| part.time_max.is_none_or(|time| time < watermark);
        self.drop_if(is_dead)
    }

    /// The slice that the part of this epoch is to hold beside `fresh_count` new keys, with as many behind it as it may; `None` if none.
    /// `held_count`: of all keys; `first`: the slice to begin with.
    pub(super) fn rewrite_from(
        &mut self,
        epoch: Epoch,
        fresh_count: usize,
        held_count: usize,
        first: Slice,
    ) -> Option<Slice> {
        if self.rewrite.is_none() && self.is_rewrite_due(fresh_count, held_count) {
            self.rewrite = Some(Rewrite {
                since: epoch,
                slice: first,
            });
        }
        self.rewrite.map(|rewrite| rewrite.slice)
    }

    /// The slices before this one are written. Behind the last one, the parts that they take the place of, by epoch.
    pub(super) fn rewritten(&mut self, next: Option<Slice>) -> BTreeSet<Epoch> {
        let Some(rewrite) = &mut self.rewrite else {
            return BTreeSet::new();
        };
        if let Some(next) = next {
            rewrite.slice = next;
            return BTreeSet::new();
        }
        let since = rewrite.since;
        self.rewrite = None;
        self.drop_if(|part| part.epoch < since)
    }

    /// Names the epochs of which no part is left.
    fn drop_if(&mut self, is_needless: impl Fn(&PartNote) -> bool) -> BTreeSet<Epoch> {
        let dropped = self.notes.extract_if(.., |part| is_needless(part));
        let mut epochs: BTreeSet<Epoch> = dropped.map(|part| part.epoch).collect();
        for part in &self.notes {
            epochs.remove(&part.epoch);
        }
        epochs
    }

    fn is_rewrite_due(&self, fresh_count: usize, held_count: usize) -> bool {
        let Some((first, later)) = self.notes.split_first() else {
            return false;
        };
        if self.notes.len() < PART_COUNT_MIN {
            return false;
        }
        let later_count = later.iter().map(|part| part.key_count).sum::<usize>() + fresh_count;
        let stored_count = first.key_count + later_count;
        let is_cheap = stored_count <= REWRITTEN_MAX && later_count >= first.key_count;
        let is_garbage = stored_count / 2 >= held_count;
        is_cheap || is_garbage || self.notes.len() >= PART_COUNT_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::super::slice::SHARD_BITS;
    use super::*;

    const FIRST: Slice = Slice {
        number: 0,
        bits: SHARD_BITS,
    };

    fn keys(times: &[i64]) -> KeyPart {
        let keys = times.iter().enumerate();
        keys.map(|(index, time)| ((index as u128) << 120, *time))
            .collect()
    }

    #[test]
    fn a_part_is_forgotten_when_all_its_keys_are() {
        let mut parts = Parts::default();
        parts.add(Epoch(1), &keys(&[1, 5]));
        parts.add(Epoch(2), &keys(&[2]));
        assert_eq!(parts.forget(5), BTreeSet::from([Epoch(2)]));
        assert_eq!(parts.forget(6), BTreeSet::from([Epoch(1)]));
        assert_eq!(parts.forget(7), BTreeSet::new());
    }

    #[test]
    fn an_epoch_is_forgotten_with_the_last_of_its_parts() {
        let mut parts = Parts::default();
        parts.add(Epoch(1), &keys(&[1]));
        parts.add(Epoch(1), &keys(&[5]));
        assert_eq!(parts.forget(3), BTreeSet::new());
        assert_eq!(parts.forget(6), BTreeSet::from([Epoch(1)]));
    }

    #[test]
    fn each_key_is_rewritten_a_bounded_number_of_times() {
        let mut parts = Parts::default();
        let mut written = 0;
        for epoch in 0..10_000 {
            let fresh = keys(&[0; 10]);
            let held_count = 10 * (epoch + 1);
            let epoch = Epoch(epoch as u64);
            if parts
                .rewrite_from(epoch, fresh.len(), held_count, FIRST)
                .is_some()
            {
                let live = keys(&vec![0; held_count]);
                written += live.len();
                parts.replace(epoch, &live);
            } else {
                written += fresh.len();
                parts.add(epoch, &fresh);
            }
            assert!(parts.notes.len() <= PART_COUNT_MAX);
        }
        assert!(written < 10_000 * 10 * 25, "{written}");
    }

    #[test]
    fn parts_that_are_forgotten_in_their_order_are_not_rewritten() {
        let mut parts = Parts::default();
        let many = keys(&vec![0; REWRITTEN_MAX / 16]);
        for epoch in 1..1_000 {
            let mut fresh = keys(&[epoch]);
            many.iter().for_each(|(key, _)| fresh.push(key, epoch));
            parts.forget(epoch - 100);
            let held_count = parts.notes.iter().map(|part| part.key_count).sum();
            let epoch = Epoch(epoch as u64);
            assert_eq!(
                parts.rewrite_from(epoch, fresh.len(), held_count, FIRST),
                None
            );
            parts.add(epoch, &fresh);
        }
    }

    #[test]
    fn parts_are_dropped_once_every_slice_was_written_since() {
        let mut parts = Parts::default();
        for epoch in 1..=PART_COUNT_MAX as u64 {
            assert_eq!(parts.rewrite_from(Epoch(epoch), 1, usize::MAX, FIRST), None);
            parts.add(Epoch(epoch), &keys(&vec![0; REWRITTEN_MAX / 16]));
        }
        let since = PART_COUNT_MAX as u64 + 1;
        let slices = std::iter::successors(Some(FIRST), |slice| slice.next());
        for (epoch, slice) in (since..).zip(slices) {
            let epoch = Epoch(epoch);
            let from = parts.rewrite_from(epoch, 1, usize::MAX, FIRST);
            assert_eq!(from, Some(slice));
            let dropped = parts.rewritten(slice.next());
            let expected = match slice.next() {
                None => (1..since).map(Epoch).collect(),
                Some(_) => BTreeSet::new(),
            };
            assert_eq!(dropped, expected);
            parts.add(epoch, &keys(&[0]));
        }
        assert_eq!(parts.notes.len(), 1 << SHARD_BITS);
        assert!(parts.rewrite.is_none());
    }
}
