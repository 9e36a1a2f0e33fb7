//! The folder in which a worker keeps spilled state.
//!
//! Named by the user, shared by the workers of a machine. A process makes a folder of its own in it when it starts, with a file that it keeps locked as
//! long as it lives, and removes the folders that nobody has locked: those of processes that were killed. What is in them is of no use to
//! anybody else. Failure: a folder that cannot be made or written.

#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lsm_tree::Cache;
use millstream_common::blocking::BlockingRef;
use tempfile::{Builder, TempDir};

use super::lsm::{LsmTree, Shared};
use super::{ForgottenAt, SpillDisk, SpillError, SpillTree};

/// In a folder that somebody uses.
const LOCK_NAME: &str = "lock";
const PROCESS_PREFIX: &str = "worker-";

/// Trees in a folder.
pub struct SpillFolder {
    root: PathBuf,
    cache_bytes: usize,
    blocking: BlockingRef,
    made: Mutex<Made>,
}

/// What was needed so far.
#[derive(Default)]
struct Made {
    folder: Option<Arc<ProcessFolder>>,
    /// With the first tree.
    shared: Option<Shared>,
}

/// The folder of this process, removed when nothing needs it any more.
pub(super) struct ProcessFolder {
    folder: TempDir,
    _lock: File,
}

impl SpillFolder {
    /// Nothing is made in it yet. `cache_bytes`: memory for what is read from all trees.
    pub fn new(root: PathBuf, cache_bytes: usize, blocking: BlockingRef) -> Self {
        Self {
            root,
            cache_bytes,
            blocking,
            made: Mutex::default(),
        }
    }

    /// Makes the folder of this process and removes what others have left, so that a folder that cannot be written is known early.
    pub fn prepare(&self) -> Result<(), SpillError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let prepared = self.process_folder(&mut made).map(drop);
        prepared.map_err(|error| self.refused(&error))
    }

    fn process_folder(&self, made: &mut Made) -> io::Result<Arc<ProcessFolder>> {
        if let Some(folder) = &made.folder {
            return Ok(Arc::clone(folder));
        }
        let folder = Arc::new(ProcessFolder::make(&self.root)?);
        made.folder = Some(Arc::clone(&folder));
        Ok(folder)
    }

    /// A folder for a tree, and what it shares with others.
    fn tree_folder(&self) -> io::Result<(TempDir, Shared)> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let process = self.process_folder(&mut made)?;
        let folder = private().prefix("tree-").tempdir_in(&process.folder)?;
        let shared = made.shared.get_or_insert_with(|| Shared {
            _folder: process,
            cache: Arc::new(Cache::with_capacity_bytes(self.cache_bytes as u64)),
            blocking: Arc::clone(&self.blocking),
            name: self.name(),
        });
        Ok((folder, shared.clone()))
    }

    fn refused(&self, error: &io::Error) -> SpillError {
        SpillError {
            disk: self.name(),
            cause: error.to_string(),
        }
    }
}

/// Folders that nobody else may read.
fn private() -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    builder.permissions(Permissions::from_mode(0o700));
    builder
}

impl SpillDisk for SpillFolder {
    fn open(&self, forgotten_at: ForgottenAt) -> Result<Box<dyn SpillTree>, SpillError> {
        let made = self.tree_folder();
        let (folder, shared) = made.map_err(|error| self.refused(&error))?;
        Ok(Box::new(LsmTree::open(&shared, folder, forgotten_at)?))
    }

    fn name(&self) -> String {
        self.root.display().to_string()
    }
}

impl ProcessFolder {
    /// Makes one and removes what others have left. One process at a time, so that none removes what another is about to lock.
    fn make(root: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        let turn = lock_file(root)?;
        turn.lock()?;
        remove_left(root)?;
        let folder = private().prefix(PROCESS_PREFIX).tempdir_in(root)?;
        let lock = lock_file(folder.path())?;
        lock.lock()?;
        Ok(Self {
            folder,
            _lock: lock,
        })
    }
}

fn lock_file(folder: &Path) -> io::Result<File> {
    let mut options = File::options();
    let options = options.create(true).truncate(false).write(true);
    options.open(folder.join(LOCK_NAME))
}

/// Removes the folders of processes that are gone. One that goes meanwhile, or is not ours to remove, stays.
fn remove_left(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let is_ours = entry
            .file_name()
            .to_string_lossy()
            .starts_with(PROCESS_PREFIX);
        if !is_ours || !entry.path().is_dir() {
            continue;
        }
        let is_left = lock_file(&entry.path()).is_ok_and(|lock| lock.try_lock().is_ok());
        if is_left && let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::warn!(folder = %entry.path().display(), %error, "remove what a worker left");
        }
    }
    Ok(())
}
