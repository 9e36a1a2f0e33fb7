//! Memory for keyed state, where a bench is told how much: what has no room goes to a folder of its own, as in a worker.
//!
//! Used by `dedup` and `groups`. Failure: a folder that cannot be made.

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use millstream_common::blocking::{BlockingRef, ThreadPool};
use millstream_worker::operator::KeyedOperator;
use millstream_worker::operator::spill::Spill;
use millstream_worker::operator::spill::budget::StateBudget;
use millstream_worker::operator::spill::disk::SpillFolder;
use millstream_worker::operator::task_state::TaskState;
use tempfile::TempDir;

/// Not where folders are kept in memory.
const FOLDER: &str = "/var/tmp";
/// As in a worker, a share of it is for what is read from disk.
const CACHE_SHARE: usize = 8;

#[derive(Args, Clone, Copy, Default)]
pub(crate) struct MemoryArguments {
    /// Memory for state, in MiB; what has no room in it goes to disk. By default all has.
    #[arg(long)]
    state_memory_mib: Option<usize>,
}

/// Memory for state, and a folder for the rest.
pub(crate) struct Memory {
    spill: Spill,
    folder: Option<TempDir>,
}

impl Memory {
    pub(crate) fn new(arguments: MemoryArguments) -> anyhow::Result<Self> {
        let Some(mib) = arguments.state_memory_mib else {
            return Ok(Self {
                spill: Spill::without_limit(),
                folder: None,
            });
        };
        let blocking: BlockingRef = Arc::new(ThreadPool);
        let folder = TempDir::with_prefix_in("millstream-bench-", FOLDER)?;
        let (bytes, path) = (mib << 20, folder.path().to_owned());
        let cache_bytes = bytes / CACHE_SHARE;
        let disk = SpillFolder::new(path, cache_bytes, blocking);
        Ok(Self {
            spill: Spill {
                budget: StateBudget::new(bytes - cache_bytes),
                disk: Arc::new(disk),
            },
            folder: Some(folder),
        })
    }

    /// The state of one task in it.
    pub(crate) fn task(&self, operator: Box<dyn KeyedOperator>) -> TaskState {
        TaskState::new(operator, self.spill.task("bench"))
    }

    /// Bytes of the files on disk; `None` if all has room.
    pub(crate) fn disk_bytes(&self) -> anyhow::Result<Option<u64>> {
        let folder = self.folder.as_ref();
        Ok(folder.map(|folder| bytes_in(folder.path())).transpose()?)
    }
}

fn bytes_in(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => bytes_in(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(bytes)
}
