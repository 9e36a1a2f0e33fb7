//! Keyed state that has no room in memory: sorted entries on a disk of the worker's own.
//!
//! Used by the operators, which move what they need least when their share of the worker's memory for state (`budget.rs`) is used up, and
//! look there for the keys that they do not find in memory. Nothing here is durable: state parts in storage are, and a task that starts anew has
//! nothing on disk. So the job slows and does not die. `disk` has the folder and the trees in it, `lsm.rs` a tree of `lsm-tree`, `memory.rs` what stands
//! for a disk in a simulation. Everything that is called here may wait for the disk: see [`super::KeyedOperator::waits_for_disk`].
//! Failure: a disk that is full or broken ends the pipeline; it starts anew from its last epoch.

pub mod budget;
pub mod disk;
mod lsm;
pub mod memory;

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use self::budget::{MemoryShare, StateBudget};

/// When an entry may be forgotten: once the floor of its tree is above this.
pub type ForgottenAt = fn(key: &[u8], value: &[u8]) -> i64;

/// What an entry is shown to; it says whether it wants another.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Entries that were spilled, by key, in the order of their keys' bytes.
pub trait SpillTree: Send {
    /// Begins to add entries; they are there when that is finished.
    fn write(&mut self) -> Result<Box<dyn SpillWrite + '_>, SpillError>;
    /// Shows the value of a key to `read`; false if there is none.
    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool, SpillError>;
    /// Removes the entry of a key that is there.
    fn remove(&mut self, key: &[u8]) -> Result<(), SpillError>;
    /// Shows the entries from a key on, up to another one that is not shown, in their order.
    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: Visit<'_>) -> Result<(), SpillError>;
    /// Entries below the floor are wanted no more. They go some time, and are shown until then. It does not fall.
    fn forget_below(&mut self, floor: i64) -> Result<(), SpillError>;
    /// Entries before this key are wanted no more. They go some time, and are shown until then.
    fn drop_before(&mut self, key: &[u8]) -> Result<(), SpillError>;
    /// How many entries are held, about: forgotten ones count until they have gone.
    fn entry_count(&self) -> usize;
    /// Bytes of memory that it needs, without what trees share.
    fn memory_bytes(&self) -> usize;
    /// Bytes of its files.
    fn disk_bytes(&self) -> u64;
}

/// Entries on their way to a tree.
pub trait SpillWrite {
    /// The next entry, by key; one with the key of an older one takes its place.
    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), SpillError>;
    /// All were added.
    fn finish(self: Box<Self>) -> Result<(), SpillError>;
}

/// Where trees are kept.
pub trait SpillDisk: Send + Sync {
    /// An empty tree; what it holds is gone with it.
    fn open(&self, forgotten_at: ForgottenAt) -> Result<Box<dyn SpillTree>, SpillError>;
    /// What a user calls it.
    fn name(&self) -> String;
}

/// What the disk did not do.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "keep state that has no room in memory in {disk}: {cause}; make room there, name another folder with --spill-folder, or allow more with --state-memory"
)]
pub struct SpillError {
    /// Where it is.
    pub disk: String,
    /// What it said.
    pub cause: String,
}

/// A worker's memory for state, and where more than that goes.
#[derive(Clone)]
pub struct Spill {
    /// Shared by all tasks.
    pub budget: Arc<StateBudget>,
    /// For what has no room.
    pub disk: Arc<dyn SpillDisk>,
}

impl Spill {
    /// Everything stays in memory.
    pub fn without_limit() -> Self {
        Self {
            budget: StateBudget::new(usize::MAX),
            disk: Arc::new(memory::MemoryDisk),
        }
    }

    /// For one task; `name` is what a user calls it.
    pub fn task(&self, name: &str) -> TaskSpill {
        TaskSpill {
            name: name.to_owned(),
            share: self.budget.join(),
            disk: Arc::clone(&self.disk),
        }
    }
}

/// A task's share of memory, and its way to the disk.
pub struct TaskSpill {
    name: String,
    share: MemoryShare,
    disk: Arc<dyn SpillDisk>,
}

impl TaskSpill {
    /// Says how many bytes of memory the task holds; returns how many of them have to go.
    pub(super) fn note_held(&self, held_bytes: usize) -> usize {
        self.share.note_held(held_bytes)
    }

    /// Says that state takes more than it may and cannot move.
    pub(super) fn warn_of_stuck(&self, held_bytes: usize) {
        tracing::warn!(
            task = %self.name,
            held_bytes,
            "state that cannot move to disk takes more memory than it may; --state-memory allows more"
        );
    }

    /// Says how many bytes the task has on disk.
    pub(super) fn note_disk(&self, disk_bytes: u64) {
        self.share.note_disk(disk_bytes);
    }

    /// A tree for what goes.
    pub(super) fn open(&self, forgotten_at: ForgottenAt) -> Result<Box<dyn SpillTree>, SpillError> {
        tracing::info!(
            task = %self.name,
            folder = %self.disk.name(),
            "state has no room in memory any more: what is needed least moves to disk, and the task slows; --state-memory allows more"
        );
        self.disk.open(forgotten_at)
    }
}

impl fmt::Debug for TaskSpill {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} to {}", self.name, self.disk.name())
    }
}
