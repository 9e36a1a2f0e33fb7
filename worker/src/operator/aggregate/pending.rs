//! The groups that changed since changes were last emitted, in order of their first change.
//!
//! Owned by the operator in `mod.rs`. Bounded by the number of groups that lived at once. Pure; cannot fail.

use std::mem::take;

use super::slots::{NO_SLOT, SlotIndex};

#[derive(Debug, Default)]
pub(super) struct PendingGroups {
    /// By slot.
    flags: Vec<bool>,
    /// Every slot with its flag up; others, and one twice, where a flag went down and up in between.
    order: Vec<SlotIndex>,
}

impl PendingGroups {
    pub(super) fn add(&mut self, slot: SlotIndex) {
        let index = slot as usize;
        if self.flags.len() <= index {
            self.flags.resize(index + 1, false);
        }
        if self.flags[index] {
            return;
        }
        self.flags[index] = true;
        self.order.push(slot);
        if self.order.len() > 2 * self.flags.len() {
            self.order = self.take();
            for &slot in &self.order {
                self.flags[slot as usize] = true;
            }
        }
    }

    /// True if the group was pending.
    pub(super) fn remove(&mut self, slot: SlotIndex) -> bool {
        self.flags.get_mut(slot as usize).is_some_and(take)
    }

    /// All pending groups; none is after it.
    pub(super) fn take(&mut self) -> Vec<SlotIndex> {
        let mut order = take(&mut self.order);
        order.retain(|slot| self.remove(*slot));
        order
    }

    pub(super) fn contains(&self, slot: SlotIndex) -> bool {
        self.flags.get(slot as usize).copied().unwrap_or(false)
    }

    /// Slots have other numbers now; those of groups that have gone are not pending.
    pub(super) fn renumber(&mut self, renumbered: &[SlotIndex]) {
        let order = self.take();
        self.flags = Vec::new();
        for slot in order {
            let slot = renumbered[slot as usize];
            if slot != NO_SLOT {
                self.add(slot);
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.flags.capacity() + self.order.capacity() * size_of::<SlotIndex>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_pending_once_in_order_of_its_first_change() {
        let mut pending = PendingGroups::default();
        for slot in [3, 1, 3, 2] {
            pending.add(slot);
        }
        assert!(pending.remove(1));
        assert!(!pending.remove(1));
        assert_eq!(pending.take(), [3, 2]);
        assert!(pending.take().is_empty());
    }

    #[test]
    fn groups_that_come_and_go_take_no_more_room() {
        let mut pending = PendingGroups::default();
        for round in 0..1_000 {
            pending.add(round % 4);
            pending.remove(round % 4);
        }
        assert!(pending.order.len() <= 8);
        pending.add(2);
        assert_eq!(pending.take(), [2]);
    }
}
