//! The states of all live groups: immutable batches, and an index from a group's key to its newest row.
//!
//! Owned by the operator in `mod.rs`. A changed group is appended to a new part and its old row becomes garbage, so what
//! is appended in an epoch is exactly what storage has to learn. Parts without live rows are dropped; when garbage
//! outweighs what lives, all live rows are gathered into one part. Each group has a slot, a small number
//! that stays its own until it is removed. Groups of a window are listed by the window's end, so closing a
//! window looks at no other.
//! Keeps INV-7: the same parts, oldest first, make the same groups.
//! Failure: columns that do not fit each other, which is a bug or foreign state.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::{size_of, take};

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::error::ArrowError;
use hashbrown::HashTable;
use millstream_common::ids::Epoch;

use super::keys::GroupKeys;

/// Garbage is not worth a rewrite below this many rows.
const GARBAGE_ROWS_MIN: usize = 4_096;
/// Reading one object a part at a restore stays a matter of seconds.
const PART_COUNT_MAX: usize = 256;

/// A group, as an index into the store's slots.
pub(super) type SlotIndex = u32;

/// Rows to append: state rows with their keys, and the end of each group's window (empty if the plan has no
/// window).
pub(super) struct NewRows {
    pub(super) batch: RecordBatch,
    pub(super) keys: GroupKeys,
    pub(super) ends: Vec<i64>,
}

/// State rows that were appended at once.
#[derive(Debug)]
struct Part {
    epoch: Epoch,
    batch: RecordBatch,
    keys: GroupKeys,
    live_count: usize,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u64,
    part: u32,
    row: u32,
    is_live: bool,
}

/// The groups of one task.
#[derive(Debug, Default)]
pub(super) struct StateStore {
    /// By slot; those not live are listed in `free`.
    slots: Vec<Slot>,
    free: Vec<SlotIndex>,
    index: HashTable<SlotIndex>,
    windows: BTreeMap<i64, Vec<SlotIndex>>,
    parts: BTreeMap<u32, Part>,
    next_part: u32,
    /// Epochs of restored parts of which nothing was live.
    unused: BTreeSet<Epoch>,
}

impl StateStore {
    pub(super) fn live_count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn is_live(&self, slot: SlotIndex) -> bool {
        self.slots[slot as usize].is_live
    }

    /// The group with the key at `row`.
    pub(super) fn find(&self, keys: &GroupKeys, row: usize) -> Option<SlotIndex> {
        let is_same = |slot: &SlotIndex| {
            let found = self.slots[*slot as usize];
            found.hash == keys.hashes[row]
                && self.parts[&found.part]
                    .keys
                    .equal(found.row as usize, keys, row)
        };
        self.index.find(keys.hashes[row], is_same).copied()
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
        self.next_part = part.wrapping_add(1);
        let mut slots = Vec::with_capacity(known.len());
        for (row, known) in known.iter().enumerate() {
            let hash = rows.keys.hashes[row];
            let newest = Slot {
                hash,
                part,
                row: row as u32,
                is_live: true,
            };
            let slot = match *known {
                Some(slot) => {
                    self.release_row(slot);
                    self.slots[slot as usize] = newest;
                    slot
                }
                None => self.add_slot(newest, rows.ends.get(row).copied()),
            };
            slots.push(slot);
        }
        let bytes = rows.batch.get_array_memory_size() + rows.keys.bytes();
        let part_rows = Part {
            epoch,
            live_count: slots.len(),
            batch: rows.batch,
            keys: rows.keys,
            bytes,
        };
        self.parts.insert(part, part_rows);
        slots
    }

    /// The newest rows of some groups, in this order; at least one.
    pub(super) fn gather(&self, slots: &[SlotIndex]) -> Result<RecordBatch, ArrowError> {
        let batches: Vec<&RecordBatch> = self.parts.values().map(|part| &part.batch).collect();
        let positions = self.parts.keys().enumerate();
        let positions: BTreeMap<u32, usize> = positions.map(|(at, id)| (*id, at)).collect();
        let rows = slots.iter().map(|slot| {
            let slot = self.slots[*slot as usize];
            (positions[&slot.part], slot.row as usize)
        });
        interleave_record_batch(&batches, &rows.collect::<Vec<_>>())
    }

    /// The groups whose windows end at or before the watermark, ordered by end and key. They stay until removed,
    /// but are not named again.
    pub(super) fn close(&mut self, watermark: i64) -> Vec<SlotIndex> {
        let mut closed = Vec::new();
        while let Some(window) = self.windows.first_entry() {
            if *window.key() > watermark {
                break;
            }
            let mut groups = window.remove();
            groups.sort_unstable_by(|left, right| self.compare(*left, *right));
            closed.extend(groups);
        }
        closed
    }

    /// Removes groups that [`Self::close`] named.
    pub(super) fn remove(&mut self, slots: &[SlotIndex]) {
        for &slot in slots {
            self.release_row(slot);
            let hash = self.slots[slot as usize].hash;
            if let Ok(entry) = self.index.find_entry(hash, |other| *other == slot) {
                entry.remove();
            }
            self.slots[slot as usize].is_live = false;
            self.free.push(slot);
        }
    }

    /// Notes a restored part of which nothing is live.
    pub(super) fn note_unused(&mut self, epoch: Epoch) {
        self.unused.insert(epoch);
    }

    /// Drops the parts without live rows and names the epochs that have no other part.
    pub(super) fn drop_dead_parts(&mut self) -> BTreeSet<Epoch> {
        let mut dead = take(&mut self.unused);
        self.parts.retain(|_, part| {
            if part.live_count == 0 {
                dead.insert(part.epoch);
            }
            part.live_count > 0
        });
        for part in self.parts.values() {
            dead.remove(&part.epoch);
        }
        dead
    }

    /// Whether garbage, or the number of parts, calls for [`Self::compact`].
    pub(super) fn is_compaction_due(&self) -> bool {
        let held = self.parts.values().map(|part| part.batch.num_rows());
        let garbage = held.sum::<usize>() - self.live_count();
        let outweighs = garbage > self.live_count() && garbage >= GARBAGE_ROWS_MIN;
        outweighs || self.parts.len() > PART_COUNT_MAX
    }

    /// The live groups, in order of their slots.
    pub(super) fn live_slots(&self) -> Vec<SlotIndex> {
        let slots = (0..).zip(&self.slots);
        slots
            .filter_map(|(index, slot)| slot.is_live.then_some(index))
            .collect()
    }

    /// Puts the rows of all live groups, gathered from `slots`, in the place of all parts.
    pub(super) fn replace(&mut self, epoch: Epoch, rows: NewRows, slots: &[SlotIndex]) {
        let known: Vec<Option<SlotIndex>> = slots.iter().copied().map(Some).collect();
        self.append(epoch, rows, &known);
        self.parts.retain(|_, part| part.live_count > 0);
        self.unused.clear();
    }

    /// Bytes of memory held, about.
    pub(super) fn bytes(&self) -> usize {
        let parts = self.parts.values().map(|part| part.bytes).sum::<usize>();
        let slots = self.slots.capacity() * size_of::<Slot>();
        let listed = if self.windows.is_empty() {
            0
        } else {
            self.live_count() * size_of::<SlotIndex>()
        };
        parts + slots + listed + self.index.allocation_size()
    }

    fn add_slot(&mut self, slot: Slot, end: Option<i64>) -> SlotIndex {
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as SlotIndex
            }
        };
        let slots = &self.slots;
        let hash_of = |other: &SlotIndex| slots[*other as usize].hash;
        self.index.insert_unique(slot.hash, index, hash_of);
        if let Some(end) = end {
            self.windows.entry(end).or_default().push(index);
        }
        index
    }

    /// The group's row in its part is garbage from now on.
    fn release_row(&mut self, slot: SlotIndex) {
        let part = self.slots[slot as usize].part;
        if let Some(part) = self.parts.get_mut(&part) {
            part.live_count -= 1;
        }
    }

    fn compare(&self, left: SlotIndex, right: SlotIndex) -> Ordering {
        let left = self.slots[left as usize];
        let right = self.slots[right as usize];
        let left_keys = &self.parts[&left.part].keys;
        let right_keys = &self.parts[&right.part].keys;
        left_keys.compare(left.row as usize, right_keys, right.row as usize)
    }
}
