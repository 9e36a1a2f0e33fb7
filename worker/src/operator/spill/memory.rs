//! What stands for a disk where there is none: trees in memory, for simulations and tests. Cannot fail.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use super::{ForgottenAt, SpillDisk, SpillError, SpillTree, SpillWrite, Visit};

/// Trees in memory.
#[derive(Debug, Default)]
pub struct MemoryDisk;

struct MemoryTree {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    forgotten_at: ForgottenAt,
}

impl SpillDisk for MemoryDisk {
    fn open(&self, forgotten_at: ForgottenAt) -> Result<Box<dyn SpillTree>, SpillError> {
        Ok(Box::new(MemoryTree {
            entries: BTreeMap::new(),
            forgotten_at,
        }))
    }

    fn name(&self) -> String {
        "memory that stands for a disk".to_owned()
    }
}

impl SpillTree for MemoryTree {
    fn write(&mut self) -> Result<Box<dyn SpillWrite + '_>, SpillError> {
        Ok(Box::new(&mut self.entries))
    }

    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool, SpillError> {
        let value = self.entries.get(key);
        Ok(value.map(|value| read(value)).is_some())
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), SpillError> {
        self.entries.remove(key);
        Ok(())
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: Visit<'_>) -> Result<(), SpillError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = self.entries.range::<[u8], _>((Bound::Included(from), to));
        for (key, value) in entries {
            if let ControlFlow::Break(()) = visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn forget_below(&mut self, floor: i64) -> Result<(), SpillError> {
        let forgotten_at = self.forgotten_at;
        self.entries
            .retain(|key, value| forgotten_at(key, value) >= floor);
        Ok(())
    }

    fn drop_before(&mut self, key: &[u8]) -> Result<(), SpillError> {
        self.entries = self.entries.split_off(key);
        Ok(())
    }

    fn entry_count(&self) -> usize {
        self.entries.len()
    }

    fn memory_bytes(&self) -> usize {
        0
    }

    fn disk_bytes(&self) -> u64 {
        let entries = self.entries.iter();
        entries
            .map(|(key, value)| (key.len() + value.len()) as u64)
            .sum()
    }
}

impl SpillWrite for &mut BTreeMap<Vec<u8>, Vec<u8>> {
    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), SpillError> {
        self.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), SpillError> {
        Ok(())
    }
}
