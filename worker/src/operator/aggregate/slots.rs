//! The slots of groups: which row of which part is a group's newest.
//!
//! Owned by the store in `store.rs`, which finds a group's slot by its key. A slot keeps its number until its group is removed; then another group has it.
//! Slots lie in blocks, so that more of them move no other. Pure; cannot fail.

/// A group, as a number of its own.
pub(super) type SlotIndex = u32;

/// Slots of a block.
const BLOCK_SLOTS: usize = 1 << 14;

/// Where the newest row of a group is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) fingerprint: Fingerprint,
    /// [`NOWHERE`] if it has no group.
    pub(super) part: u32,
    pub(super) row: u32,
}

/// The part of a slot without group.
const NOWHERE: u32 = u32::MAX;
/// No slot at all.
pub(super) const NO_SLOT: SlotIndex = SlotIndex::MAX;

/// A key in 128 bits, in halves to be aligned like the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint([u64; 2]);

const _: () = assert!(size_of::<Slot>() == 24);

impl Fingerprint {
    pub(super) fn new(fingerprint: u128) -> Self {
        Self([(fingerprint >> 64) as u64, fingerprint as u64])
    }

    pub(super) fn value(self) -> u128 {
        u128::from(self.0[0]) << 64 | u128::from(self.0[1])
    }

    /// Bits that vnodes are not chosen by.
    pub(super) fn hash(self) -> u64 {
        self.0[1]
    }
}

/// All slots of a store.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// All but the last one are full.
    blocks: Vec<Vec<Slot>>,
    free: Vec<SlotIndex>,
}

impl Slots {
    /// Slots that have a group.
    pub(super) fn live_count(&self) -> usize {
        let last = self.blocks.last().map_or(0, Vec::len);
        let full = self.blocks.len().saturating_sub(1) * BLOCK_SLOTS;
        full + last - self.free.len()
    }

    pub(super) fn get(&self, index: SlotIndex) -> Slot {
        self.blocks[index as usize / BLOCK_SLOTS][index as usize % BLOCK_SLOTS]
    }

    pub(super) fn set(&mut self, index: SlotIndex, slot: Slot) {
        self.blocks[index as usize / BLOCK_SLOTS][index as usize % BLOCK_SLOTS] = slot;
    }

    pub(super) fn is_live(&self, index: SlotIndex) -> bool {
        self.get(index).part != NOWHERE
    }

    /// Whether this row is the newest of the slot's group.
    pub(super) fn is_at(&self, index: SlotIndex, part: u32, row: usize) -> bool {
        if index == NO_SLOT {
            return false;
        }
        let slot = self.get(index);
        slot.part == part && slot.row as usize == row
    }

    /// Gives the groups the numbers from 0 on, in their order, and frees what others took. Returns each slot's new number, [`NO_SLOT`] for
    /// those without a group.
    pub(super) fn renumber(&mut self) -> Vec<SlotIndex> {
        let old = std::mem::take(self);
        let slots = old.blocks.into_iter().flatten();
        let renumbered = slots.map(|slot| match slot.part {
            NOWHERE => NO_SLOT,
            _ => self.add(slot),
        });
        renumbered.collect()
    }

    pub(super) fn add(&mut self, slot: Slot) -> SlotIndex {
        if let Some(index) = self.free.pop() {
            self.set(index, slot);
            return index;
        }
        if self
            .blocks
            .last()
            .is_none_or(|block| block.len() == BLOCK_SLOTS)
        {
            // The first block grows as groups come: most tasks have few.
            let capacity = if self.blocks.is_empty() {
                0
            } else {
                BLOCK_SLOTS
            };
            self.blocks.push(Vec::with_capacity(capacity));
        }
        let full = (self.blocks.len() - 1) * BLOCK_SLOTS;
        match self.blocks.last_mut() {
            Some(block) => {
                block.push(slot);
                (full + block.len() - 1) as SlotIndex
            }
            None => 0,
        }
    }

    pub(super) fn remove(&mut self, index: SlotIndex) {
        let mut slot = self.get(index);
        slot.part = NOWHERE;
        self.set(index, slot);
        self.free.push(index);
    }

    /// Those that have a group, in their order.
    pub(super) fn live(&self) -> impl Iterator<Item = SlotIndex> {
        let slots = (0..).zip(self.blocks.iter().flatten());
        slots.filter_map(|(index, slot)| (slot.part != NOWHERE).then_some(index))
    }

    pub(super) fn bytes(&self) -> usize {
        let slots: usize = self.blocks.iter().map(Vec::capacity).sum();
        slots * size_of::<Slot>() + self.free.capacity() * size_of::<SlotIndex>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(number: u32) -> Slot {
        Slot {
            fingerprint: Fingerprint::new(number.into()),
            part: 0,
            row: number,
        }
    }

    #[test]
    fn a_slot_keeps_its_number_until_its_group_is_removed() {
        let mut slots = Slots::default();
        let count = 3 * BLOCK_SLOTS as u32 + 5;
        for number in 0..count {
            assert_eq!(slots.add(slot(number)), number);
        }
        for number in (0..count).step_by(2) {
            slots.remove(number);
        }
        assert_eq!(slots.live_count(), count as usize / 2);
        assert!(slots.live().eq((1..count).step_by(2)));
        let again = slots.add(slot(7));
        assert!(again % 2 == 0 && slots.is_live(again));
        assert!(slots.is_at(again, 0, 7) && !slots.is_at(again, 1, 7));
        for number in (1..count).step_by(2) {
            assert_eq!(slots.get(number).row, number);
        }
    }
}
