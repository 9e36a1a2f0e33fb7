//! The folder in which a worker keeps spilled state.
//!
//! Named by the user, shared by the workers of a machine. A process makes a folder of its own in it when it first spills, with a file that it keeps
//! locked as long as it lives; whoever comes next removes the folders that nobody has locked: those of processes that were killed. What is in
//! them is of no use to anybody else. Failure: a folder that cannot be made or written.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use lsm_tree::{Cache, DescriptorTable};
use millstream_common::blocking::BlockingRef;
use tempfile::{Builder, TempDir};

use super::lsm::{LsmTree, Shared};
use super::{ForgottenAt, SpillDisk, SpillError, SpillTree};

/// In a folder that somebody uses.
const LOCK_NAME: &str = "lock";
const PROCESS_PREFIX: &str = "worker-";
/// Open files of all trees.
const FILE_COUNT_MAX: usize = 256;

/// Trees in a folder.
pub struct SpillFolder {
    root: PathBuf,
    cache_bytes: usize,
    blocking: BlockingRef,
    /// Made with the first tree.
    shared: Mutex<Option<Shared>>,
}

/// The folder of this process, removed with the last of its trees.
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
            shared: Mutex::new(None),
        }
    }

    /// Makes the folder, so that a user who named one that cannot be written learns it early.
    pub fn prepare(&self) -> Result<(), SpillError> {
        self.tree_folder().map(drop)
    }

    /// A folder for a tree, and what it shares with others.
    fn tree_folder(&self) -> Result<(TempDir, Shared), SpillError> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let made = match &mut *shared {
            Some(shared) => Ok(shared),
            none => self.make().map(|made| none.insert(made)),
        };
        let made = made.and_then(|shared| {
            let process = &shared.folder.folder;
            let folder = Builder::new().prefix("tree-").tempdir_in(process)?;
            Ok((folder, shared.clone()))
        });
        made.map_err(|error| SpillError {
            disk: self.name(),
            cause: error.to_string(),
        })
    }

    fn make(&self) -> io::Result<Shared> {
        Ok(Shared {
            folder: Arc::new(ProcessFolder::make(&self.root)?),
            cache: Arc::new(Cache::with_capacity_bytes(self.cache_bytes as u64)),
            files: Arc::new(DescriptorTable::new(FILE_COUNT_MAX)),
            blocking: Arc::clone(&self.blocking),
            name: self.name(),
        })
    }
}

impl SpillDisk for SpillFolder {
    fn open(&self, forgotten_at: ForgottenAt) -> Result<Box<dyn SpillTree>, SpillError> {
        let (folder, shared) = self.tree_folder()?;
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
        let folder = Builder::new().prefix(PROCESS_PREFIX).tempdir_in(root)?;
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

/// Removes the folders of processes that are gone.
fn remove_left(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let is_ours = entry
            .file_name()
            .to_string_lossy()
            .starts_with(PROCESS_PREFIX);
        if !is_ours || !entry.file_type()?.is_dir() {
            continue;
        }
        if lock_file(&entry.path())?.try_lock().is_ok() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use millstream_common::blocking::ThreadPool;

    use super::super::memory::MemoryDisk;
    use super::*;

    fn disk(root: &Path) -> SpillFolder {
        SpillFolder::new(root.to_owned(), 1 << 20, Arc::new(ThreadPool))
    }

    fn folders(root: &Path) -> usize {
        let entries = fs::read_dir(root).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let ours = names.filter(|name| name.to_string_lossy().starts_with(PROCESS_PREFIX));
        ours.count()
    }

    /// Forgotten at what the value says.
    fn at_value(_: &[u8], value: &[u8]) -> i64 {
        i64::from_be_bytes(value.try_into().expect("eight bytes"))
    }

    fn key(number: u64) -> [u8; 16] {
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (u128::from(spread) << 64 | u128::from(number)).to_be_bytes()
    }

    fn add(tree: &mut dyn SpillTree, numbers: std::ops::Range<u64>, value: i64) {
        let mut keys: Vec<_> = numbers.map(key).collect();
        keys.sort_unstable();
        let mut run = tree.write().expect("a run");
        for key in keys {
            run.add(&key, &value.to_be_bytes()).expect("added");
        }
        run.finish().expect("written");
    }

    fn all(tree: &dyn SpillTree) -> Vec<(Vec<u8>, i64)> {
        let mut entries = Vec::new();
        let mut visit = |key: &[u8], value: &[u8]| {
            entries.push((key.to_vec(), at_value(key, value)));
            ControlFlow::Continue(())
        };
        tree.scan(&[], None, &mut visit).expect("read");
        entries
    }

    fn get(tree: &dyn SpillTree, number: u64) -> Option<i64> {
        let mut found = None;
        let is_there = tree.get(&key(number), &mut |value| {
            found = Some(at_value(&[], value))
        });
        assert_eq!(is_there.expect("read"), found.is_some());
        found
    }

    #[test]
    fn a_tree_on_disk_holds_what_one_in_memory_does() {
        let root = tempfile::tempdir().expect("a folder");
        let real = disk(root.path());
        let mut trees =
            [&real as &dyn SpillDisk, &MemoryDisk].map(|disk| disk.open(at_value).expect("a tree"));
        for tree in &mut trees {
            let tree = tree.as_mut();
            for run in 0..24 {
                let first = run * 700;
                add(tree, first..first + 1_000, run as i64);
                for number in (first..first + 100).step_by(3) {
                    tree.remove(&key(number)).expect("removed");
                }
            }
            assert_eq!(get(tree, 0), None);
            assert_eq!(get(tree, 1), Some(0));
            // It came again with the run behind.
            assert_eq!(get(tree, 750), Some(1));
            assert_eq!(get(tree, 100_000), None);
        }
        let (real, memory) = (all(trees[0].as_ref()), all(trees[1].as_ref()));
        assert!(real.is_sorted());
        assert_eq!(real, memory);
        let (from, to) = (&real[5_000].0, &real[5_100].0);
        for tree in &trees {
            let mut shown = 0;
            let mut visit = |_: &[u8], _: &[u8]| {
                shown += 1;
                ControlFlow::Continue(())
            };
            tree.scan(from, Some(to), &mut visit).expect("read");
            assert_eq!(shown, 100);
            let mut first = Vec::new();
            let mut visit = |key: &[u8], _: &[u8]| {
                first.push(key.to_vec());
                ControlFlow::Break(())
            };
            tree.scan(from, None, &mut visit).expect("read");
            tree.scan(to, Some(from), &mut visit).expect("read");
            assert_eq!(first, std::slice::from_ref(from));
        }
    }

    #[test]
    fn forgotten_entries_go_when_runs_are_merged_and_others_stay() {
        let root = tempfile::tempdir().expect("a folder");
        let mut tree = disk(root.path()).open(at_value).expect("a tree");
        for run in 0..60 {
            let first = run * 1_000;
            add(tree.as_mut(), first..first + 1_000, run as i64);
            tree.forget_below(run as i64 - 3).expect("told");
        }
        let held = tree.entry_count();
        assert!(held < 40_000, "{held}");
        for number in 57_000..60_000 {
            assert_eq!(get(tree.as_ref(), number), Some(number as i64 / 1_000));
        }
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_another_uses_is_not() {
        let root = tempfile::tempdir().expect("a folder");
        let killed = root.path().join("worker-killed");
        fs::create_dir_all(killed.join("tree-1")).expect("made");
        fs::write(killed.join("tree-1/rows"), "left").expect("written");
        let foreign = root.path().join("photos");
        fs::create_dir(&foreign).expect("made");
        let first = disk(root.path());
        let tree = first.open(at_value).expect("a tree");
        assert!(!killed.is_dir() && foreign.is_dir());
        let second = disk(root.path());
        second.prepare().expect("another");
        assert_eq!(folders(root.path()), 2);
        drop(second);
        assert_eq!(folders(root.path()), 1);
        drop((tree, first));
        assert_eq!(folders(root.path()), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named_with_what_to_do() {
        let root = tempfile::tempdir().expect("a folder");
        let file = root.path().join("file");
        fs::write(&file, "").expect("written");
        let error = disk(&file).prepare().expect_err("a file");
        let text = error.to_string();
        assert!(text.contains(&file.display().to_string()), "{text}");
        assert!(text.contains("--spill-folder"), "{text}");
    }
}
