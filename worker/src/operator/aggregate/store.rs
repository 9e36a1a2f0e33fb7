//! The states of all live groups: immutable batches, and an index from a group's key to its newest row.
//!
//! Owned by the operator in `mod.rs`. A changed group is appended to a new part and its old row becomes garbage, so what
//! is appended in an epoch is exactly what storage has to learn. Parts without live rows are dropped. Where garbage outweighs what lives, or parts become
//! many, live rows are appended again: all of them where they are few; else some a barrier, those of the parts that lose most by it, so that an epoch costs
//! what changed in it and no barrier waits for all groups. Groups of a window are listed by the window's end, so closing a
//! window looks at no other. What has no room moves to disk, the oldest parts first (`spilling.rs`); a part that has moved stays here without its rows, for
//! storage still has it.
//! Keeps INV-7: the same parts, oldest first, make the same groups.
//! Failure: columns that do not fit each other, which is a bug or foreign state.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::error::ArrowError;
use hashbrown::HashTable;
use millstream_common::ids::Epoch;

use super::super::held_bytes::held_bytes;
use super::keys::GroupKeys;
use super::slots::{Fingerprint, Slot, SlotIndex, Slots};
use super::spilled::SpilledGroups;
use super::spilling::Sweep;

/// Garbage is not worth a rewrite below this many rows.
const GARBAGE_ROWS_MIN: usize = 4_096;
/// Reading one object a part at a restore stays a matter of seconds.
pub(super) const PART_COUNT_MAX: usize = 256;
/// Groups that are appended again at one barrier, if not more have changed: some tens of milliseconds.
const REWRITTEN_MAX: usize = 1 << 16;

/// Rows to append: state rows with their keys, and the end of each group's window (empty if the plan has no
/// window).
pub(super) struct NewRows {
    pub(super) batch: RecordBatch,
    pub(super) keys: GroupKeys,
    pub(super) ends: Vec<i64>,
}

/// What is to be appended again.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rewrite {
    Nothing,
    /// These groups; at least one.
    Some(Vec<SlotIndex>),
    /// Every group, in place of all parts.
    All,
}

/// State rows that were appended at once.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) epoch: Epoch,
    /// `None` if its live rows are on disk.
    pub(super) batch: Option<RecordBatch>,
    /// The slot of each row in memory; the row is garbage if it is not that slot's newest.
    pub(super) slots: Vec<SlotIndex>,
    /// As storage has it.
    pub(super) row_count: usize,
    pub(super) live_count: usize,
    /// Rows before it are garbage.
    live_from: usize,
    pub(super) bytes: usize,
}

/// The groups of one task.
pub(super) struct StateStore {
    pub(super) slots: Slots,
    pub(super) index: HashTable<SlotIndex>,
    pub(super) windows: BTreeMap<i64, Vec<SlotIndex>>,
    pub(super) parts: BTreeMap<u32, Part>,
    /// Groups that had no room.
    pub(super) spilled: Option<SpilledGroups>,
    pub(super) sweep: Option<Sweep>,
    next_part: u32,
    /// Rows of all parts.
    row_count: usize,
    /// Epochs of restored parts of which nothing was live.
    unused: BTreeSet<Epoch>,
    /// [`REWRITTEN_MAX`].
    rewritten_max: usize,
}

impl Default for StateStore {
    fn default() -> Self {
        Self {
            slots: Slots::default(),
            index: HashTable::default(),
            windows: BTreeMap::new(),
            parts: BTreeMap::new(),
            spilled: None,
            sweep: None,
            next_part: 0,
            row_count: 0,
            unused: BTreeSet::new(),
            rewritten_max: REWRITTEN_MAX,
        }
    }
}

impl StateStore {
    /// Groups in memory and on disk.
    pub(super) fn live_count(&self) -> usize {
        let spilled = self.spilled.as_ref();
        self.slots.live_count() + spilled.map_or(0, |spilled| spilled.live_count)
    }

    pub(super) fn is_live(&self, slot: SlotIndex) -> bool {
        self.slots.is_live(slot)
    }

    /// The group of each key that is in memory.
    pub(super) fn find(&self, keys: &GroupKeys) -> Vec<Option<SlotIndex>> {
        keys.iter().map(|key| self.find_one(key)).collect()
    }

    fn find_one(&self, key: Fingerprint) -> Option<SlotIndex> {
        let is_same = |slot: &SlotIndex| self.slots.get(*slot).fingerprint == key;
        self.index.find(key.hash(), is_same).copied()
    }

    /// Makes the rows the newest of their groups. Returns each row's slot; `known` has the slots of those rows
    /// whose group is there already.
    pub(super) fn append(
        &mut self,
        epoch: Epoch,
        rows: NewRows,
        known: &[Option<SlotIndex>],
    ) -> Vec<SlotIndex> {
        let part = self.next_part;
        // One before the last number, which stands for no part.
        self.next_part = (part + 1) % (u32::MAX - 1);
        let mut slots = Vec::with_capacity(known.len());
        for (row, (fingerprint, known)) in rows.keys.iter().zip(known).enumerate() {
            let newest = Slot {
                fingerprint,
                part,
                row: row as u32,
            };
            let slot = match *known {
                Some(slot) => {
                    self.release_row(slot);
                    self.slots.set(slot, newest);
                    slot
                }
                None => self.add_slot(newest, rows.ends.get(row).copied()),
            };
            slots.push(slot);
        }
        let bytes = held_bytes(&rows.batch) + slots.capacity() * size_of::<SlotIndex>();
        let part_rows = Part {
            epoch,
            row_count: slots.len(),
            live_count: slots.len(),
            live_from: 0,
            batch: Some(rows.batch),
            slots: slots.clone(),
            bytes,
        };
        self.row_count += part_rows.row_count;
        self.parts.insert(part, part_rows);
        slots
    }

    /// The newest rows of some groups, in this order; at least one.
    pub(super) fn gather(&self, slots: &[SlotIndex]) -> Result<RecordBatch, ArrowError> {
        let parts = self.parts.iter();
        let parts = parts.filter_map(|(id, part)| Some((*id, part.batch.as_ref()?)));
        let (ids, batches): (Vec<u32>, Vec<&RecordBatch>) = parts.unzip();
        let positions: BTreeMap<u32, usize> = ids.into_iter().zip(0..).collect();
        let rows = slots.iter().map(|slot| {
            let slot = self.slots.get(*slot);
            (positions[&slot.part], slot.row as usize)
        });
        interleave_record_batch(&batches, &rows.collect::<Vec<_>>())
    }

    /// The groups whose windows end at or before the watermark, by end. They stay until removed,
    /// but are not named again.
    pub(super) fn close(&mut self, watermark: i64) -> Vec<SlotIndex> {
        let mut closed = Vec::new();
        while let Some(window) = self.windows.first_entry() {
            if *window.key() > watermark {
                break;
            }
            closed.extend(window.remove());
        }
        closed
    }

    /// Removes groups that [`Self::close`] named.
    pub(super) fn remove(&mut self, slots: &[SlotIndex]) {
        for &slot in slots {
            self.release_row(slot);
            let hash = self.slots.get(slot).fingerprint.hash();
            if let Ok(entry) = self.index.find_entry(hash, |other| *other == slot) {
                entry.remove();
            }
            self.slots.remove(slot);
        }
    }

    /// Notes a restored part of which nothing is live.
    pub(super) fn note_unused(&mut self, epoch: Epoch) {
        self.unused.insert(epoch);
    }

    /// Drops the parts without live rows and names the epochs that have no other part.
    pub(super) fn drop_dead_parts(&mut self) -> BTreeSet<Epoch> {
        let mut dead = take(&mut self.unused);
        let row_count = &mut self.row_count;
        self.parts.retain(|_, part| {
            if part.live_count == 0 {
                dead.insert(part.epoch);
                *row_count -= part.row_count;
            }
            part.live_count > 0
        });
        for part in self.parts.values() {
            dead.remove(&part.epoch);
        }
        dead
    }

    /// Most of what storage has is garbage.
    pub(super) fn outweighs(&self) -> bool {
        let live_count = self.live_count();
        let garbage = self.row_count - live_count;
        garbage > live_count && garbage >= GARBAGE_ROWS_MIN
    }

    /// What is to be appended again in an epoch in which so many groups have changed.
    pub(super) fn rewrite(&mut self, epoch: Epoch, changed_count: usize) -> Rewrite {
        let outweighs = self.outweighs();
        if !outweighs && self.parts.len() <= PART_COUNT_MAX {
            return Rewrite::Nothing;
        }
        if self.spilled.is_none() && self.live_count() <= self.rewritten_max {
            return Rewrite::All;
        }
        // Twice of what has changed: so there is less garbage behind it than before.
        let count_max = self.rewritten_max(changed_count);
        let parts = self.parts.iter_mut();
        let is_older = |part: &Part| part.epoch < epoch && part.batch.is_some();
        let is_chosen = |part: &Part| is_older(part) && part.is_worth(outweighs);
        let mut parts: Vec<_> = parts.filter(|(_, part)| is_chosen(part)).collect();
        parts.sort_by_key(|(_, part)| part.worth(outweighs));
        let mut chosen = Vec::new();
        for (id, part) in parts {
            let enough = count_max - chosen.len();
            part.take_live(*id, &self.slots, enough, &mut chosen);
            if chosen.len() >= count_max {
                break;
            }
        }
        match chosen.is_empty() {
            true => Rewrite::Nothing,
            false => Rewrite::Some(chosen),
        }
    }

    /// Groups that may be appended again at a barrier behind which so many have changed.
    pub(super) fn rewritten_max(&self, changed_count: usize) -> usize {
        self.rewritten_max.max(2 * changed_count)
    }

    /// The live groups, in order of their slots.
    pub(super) fn live_slots(&self) -> Vec<SlotIndex> {
        self.slots.live().collect()
    }

    /// Puts the rows of all live groups, gathered from `slots`, in the place of all parts.
    pub(super) fn replace(&mut self, epoch: Epoch, rows: NewRows, slots: &[SlotIndex]) {
        let known: Vec<Option<SlotIndex>> = slots.iter().copied().map(Some).collect();
        self.append(epoch, rows, &known);
        self.drop_dead_parts();
    }

    /// Bytes of memory held, about.
    pub(super) fn bytes(&self) -> usize {
        let parts = self.parts.values().map(|part| part.bytes).sum::<usize>();
        let listed = self.windows.values().map(Vec::capacity).sum::<usize>();
        let listed = listed * size_of::<SlotIndex>();
        let spilled = self.spilled.as_ref().map_or(0, SpilledGroups::memory_bytes);
        parts + self.slots.bytes() + listed + self.index.allocation_size() + spilled
    }

    fn add_slot(&mut self, slot: Slot, end: Option<i64>) -> SlotIndex {
        let hash = slot.fingerprint.hash();
        let index = self.slots.add(slot);
        let slots = &self.slots;
        let hash_of = |other: &SlotIndex| slots.get(*other).fingerprint.hash();
        self.index.insert_unique(hash, index, hash_of);
        if let Some(end) = end {
            self.windows.entry(end).or_default().push(index);
        }
        index
    }

    /// The group's row in its part is garbage from now on.
    fn release_row(&mut self, slot: SlotIndex) {
        let part = self.slots.get(slot).part;
        if let Some(part) = self.parts.get_mut(&part) {
            part.live_count -= 1;
        }
    }
}

impl Part {
    /// Whether anything is won by appending its groups again: where garbage is to go, only by those that have some.
    pub(super) fn is_worth(&self, by_share: bool) -> bool {
        !by_share || self.live_count < self.row_count
    }

    /// The less it is, the more is won by appending its groups again: by their share of its rows, or else by their number.
    pub(super) fn worth(&self, by_share: bool) -> usize {
        match by_share {
            true => self.live_count * 1_000 / self.row_count.max(1),
            false => self.live_count,
        }
    }

    /// Adds the groups whose newest rows are here, from the first one on, until there are enough; they are to be appended again.
    fn take_live(&mut self, id: u32, slots: &Slots, enough: usize, chosen: &mut Vec<SlotIndex>) {
        let mut taken_count = 0;
        for row in self.live_from..self.slots.len() {
            if taken_count == enough {
                return;
            }
            if slots.is_at(self.slots[row], id, row) {
                chosen.push(self.slots[row]);
                taken_count += 1;
            }
            self.live_from = row + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::super::keys::KeyEncoder;
    use super::*;

    struct Groups {
        store: StateStore,
        encoder: KeyEncoder,
        /// What storage holds, by epoch.
        stored: BTreeMap<Epoch, Vec<i64>>,
    }

    impl Groups {
        fn new(rewritten_max: usize) -> Self {
            let schema = Arc::new(Schema::new(vec![Field::new("key", DataType::Int64, false)]));
            Self {
                store: StateStore {
                    rewritten_max,
                    ..StateStore::default()
                },
                encoder: KeyEncoder::new(schema).expect("encoder"),
                stored: BTreeMap::new(),
            }
        }

        fn rows(&mut self, keys: &[i64]) -> NewRows {
            let column: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
            let group_keys = self.encoder.encode(&[Arc::clone(&column)], keys.len());
            NewRows {
                batch: RecordBatch::try_from_iter([("key", column)]).expect("batch"),
                keys: group_keys.expect("keys"),
                ends: Vec::new(),
            }
        }

        fn append(&mut self, epoch: Epoch, keys: &[i64]) {
            let rows = self.rows(keys);
            let known = self.store.find(&rows.keys);
            self.store.append(epoch, rows, &known);
            self.stored.entry(epoch).or_default().extend(keys);
        }

        /// One epoch; how many groups were appended again.
        fn change(&mut self, epoch: Epoch, keys: &[i64]) -> usize {
            self.append(epoch, keys);
            let dead = self.store.drop_dead_parts();
            self.stored.retain(|epoch, _| !dead.contains(epoch));
            match self.store.rewrite(epoch, keys.len()) {
                Rewrite::Nothing => 0,
                Rewrite::Some(slots) => {
                    let again = self.keys(&slots);
                    self.append(epoch, &again);
                    again.len()
                }
                Rewrite::All => panic!("there are more than are appended at once"),
            }
        }

        fn keys(&self, slots: &[SlotIndex]) -> Vec<i64> {
            let rows = self.store.gather(slots).expect("rows");
            let keys = rows.column(0).as_any().downcast_ref::<Int64Array>();
            keys.expect("numbers").values().to_vec()
        }

        fn live_keys(&self) -> BTreeSet<i64> {
            self.keys(&self.store.live_slots()).into_iter().collect()
        }
    }

    #[test]
    fn many_groups_are_appended_again_some_a_barrier_and_none_is_lost() {
        let mut groups = Groups::new(100);
        let all: Vec<i64> = (0..20_000).collect();
        groups.append(Epoch(1), &all);
        let mut appended_again = 0;
        for number in 2..400 {
            // Every part keeps some groups that do not change again, and most of its rows become garbage.
            let first = number * 7 % 200;
            let changed: Vec<i64> = (0..200).map(|key| first + key * 97 % 20_000).collect();
            let changed: BTreeSet<i64> = changed.into_iter().collect();
            let changed: Vec<i64> = changed.into_iter().collect();
            let again = groups.change(Epoch(number as u64), &changed);
            assert!(again <= 400, "{again}");
            appended_again += again;
            assert_eq!(groups.store.live_count(), groups.live_keys().len());
            let held: usize = groups.stored.values().map(Vec::len).sum();
            assert!(held <= 3 * groups.store.live_count(), "{held} at {number}");
        }
        assert!(appended_again > 0);
        assert!(groups.live_keys().is_superset(&all.into_iter().collect()));
        let stored = groups.stored.values().flatten().copied();
        assert_eq!(stored.collect::<BTreeSet<_>>(), groups.live_keys());
    }

    #[test]
    fn parts_do_not_become_many_however_many_groups_there_are() {
        let mut groups = Groups::new(100);
        for number in 1..2_000 {
            let first = number * 10;
            groups.change(
                Epoch(number as u64),
                &(first..first + 10).collect::<Vec<_>>(),
            );
            let part_count = groups.stored.len();
            assert!(part_count <= PART_COUNT_MAX + 10, "{part_count}");
        }
        assert_eq!(groups.store.live_count(), 19_990);
    }
}
