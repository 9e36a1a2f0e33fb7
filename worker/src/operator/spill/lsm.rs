//! Spilled entries in a log-structured merge tree.
//!
//! Opened by `disk.rs`, one a task that has spilled. What a task spills at once becomes a sorted run; a thread of the tree's own merges runs, and drops what
//! is forgotten. When it is some runs behind, whoever adds one waits. Each run has a filter of ten bits a key, which is in memory or in the cache that trees
//! share, so that a key that is not there hardly ever costs an access to the disk. Owns the tree's folder. Failure: any of the disk's; one of the
//! thread's, and that it has ended, is told to the next writer.

use std::ops::{Bound, ControlFlow};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use lsm_tree::compaction::filter::Context;
use lsm_tree::compaction::{CompactionFilter, Factory, ItemAccessor, Leveled, Verdict};
use lsm_tree::config::{BlockSizePolicy, PartitioningPolicy, PinningPolicy};
use lsm_tree::{
    AbstractTree, AnyIngestion, AnyTree, Cache, Config, DescriptorTable, Guard, SeqNo,
    SequenceNumberCounter,
};
use millstream_common::blocking::BlockingRef;
use tempfile::TempDir;

use super::disk::ProcessFolder;
use super::{ForgottenAt, SpillError, SpillTree, SpillWrite, Visit};

/// Runs that wait to be merged before a writer waits too.
const BEHIND_MAX: usize = 4;
/// Removed keys are held in memory up to this, and then written down.
const REMOVED_BYTES_MAX: u64 = 8 << 20;
const BLOCK_BYTES: u32 = 4 << 10;
/// Open files of a tree.
const FILE_COUNT_MAX: usize = 64;
/// Whatever was written last, as the tree's one writer reads. Of an older moment nothing may be asked: merging drops what only that would need.
const NEWEST: SeqNo = SeqNo::MAX;

/// What the trees of a process share.
#[derive(Clone)]
pub(super) struct Shared {
    /// The folder that theirs are in stays as long as one of them.
    pub(super) _folder: Arc<ProcessFolder>,
    pub(super) cache: Arc<Cache>,
    pub(super) blocking: BlockingRef,
    /// What a user calls the disk.
    pub(super) name: String,
}

/// A tree, and who merges its runs.
pub(super) struct LsmTree {
    body: Arc<Body>,
    /// A run was added, or some may be dropped.
    wake: SyncSender<()>,
}

struct Body {
    tree: AnyTree,
    /// Of entries: newer ones have greater ones.
    versions: SequenceNumberCounter,
    forget: Arc<Forget>,
    /// Tables that lie before it may be dropped as they are.
    wanted_from: Mutex<Vec<u8>>,
    /// Why the last merge failed.
    failure: Mutex<Option<SpillError>>,
    /// Removed behind the tree.
    _folder: TempDir,
    shared: Shared,
}

impl LsmTree {
    /// An empty tree in an empty folder.
    pub(super) fn open(
        shared: &Shared,
        folder: TempDir,
        forgotten_at: ForgottenAt,
    ) -> Result<Self, SpillError> {
        let versions = SequenceNumberCounter::default();
        let forget = Arc::new(Forget {
            floor: AtomicI64::new(i64::MIN),
            is_over: AtomicBool::new(false),
            forgotten_at,
        });
        let config = Config::new(
            folder.path(),
            versions.clone(),
            SequenceNumberCounter::default(),
        )
        .use_cache(Arc::clone(&shared.cache))
        .use_descriptor_table(Some(Arc::new(DescriptorTable::new(FILE_COUNT_MAX))))
        .data_block_size_policy(BlockSizePolicy::all(BLOCK_BYTES))
        .index_block_pinning_policy(PinningPolicy::all(true))
        .filter_block_pinning_policy(PinningPolicy::all(true))
        .index_block_partitioning_policy(PartitioningPolicy::all(false))
        .filter_block_partitioning_policy(PartitioningPolicy::all(false))
        .with_compaction_filter_factory(Some(Arc::new(Drops(Arc::clone(&forget)))));
        let tree = config.open();
        let body = Arc::new(Body {
            tree: tree.map_err(|error| refused(&shared.name, &error))?,
            versions,
            forget,
            wanted_from: Mutex::new(Vec::new()),
            failure: Mutex::new(None),
            _folder: folder,
            shared: shared.clone(),
        });
        let (wake, woken) = sync_channel(BEHIND_MAX);
        let merged = Arc::clone(&body);
        let work = Box::new(move || merged.merge_whenever(&woken));
        shared.blocking.start_thread("spill-merge".to_owned(), work);
        Ok(Self { body, wake })
    }

    /// Has runs merged; waits while the thread is behind.
    fn wake(&self) -> Result<(), SpillError> {
        let ended = |_| SpillError {
            disk: self.body.shared.name.clone(),
            cause: "the thread that merges what is there has ended".to_owned(),
        };
        self.wake.send(()).map_err(ended)?;
        self.body.check()
    }
}

/// What the thread is at, it leaves.
impl Drop for LsmTree {
    fn drop(&mut self) {
        self.body.forget.is_over.store(true, Ordering::Relaxed);
    }
}

impl Body {
    fn refused(&self, error: &lsm_tree::Error) -> SpillError {
        refused(&self.shared.name, error)
    }

    /// The life of the thread that merges: until the tree's owner is gone.
    fn merge_whenever(&self, woken: &Receiver<()>) {
        while woken.recv().is_ok() && !self.is_over() {
            if let Err(error) = self.merge() {
                let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                *failure = Some(self.refused(&error));
            }
        }
    }

    fn is_over(&self) -> bool {
        self.forget.is_over.load(Ordering::Relaxed)
    }

    /// Until nothing is worth merging.
    fn merge(&self) -> lsm_tree::Result<()> {
        let wanted_from = self.wanted_from.lock();
        let wanted_from = wanted_from.unwrap_or_else(PoisonError::into_inner).clone();
        if !wanted_from.is_empty() {
            self.tree.drop_range::<&[u8], _>(..wanted_from.as_slice())?;
        }
        let strategy = Arc::new(Leveled::default());
        loop {
            let before = self.shape();
            self.tree.compact(strategy.clone(), self.versions.get())?;
            if self.shape() == before || self.is_over() {
                return Ok(());
            }
        }
    }

    /// Tables by level.
    fn shape(&self) -> Vec<usize> {
        let levels = 0..self.tree.tree_config().level_count;
        levels
            .filter_map(|level| self.tree.level_table_count(level.into()))
            .collect()
    }

    fn check(&self) -> Result<(), SpillError> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.clone().map_or(Ok(()), Err)
    }
}

impl SpillTree for LsmTree {
    fn write(&mut self) -> Result<Box<dyn SpillWrite + '_>, SpillError> {
        self.body.check()?;
        let run = self.body.tree.ingestion();
        Ok(Box::new(Run {
            run: run.map_err(|error| self.body.refused(&error))?,
            owner: self,
        }))
    }

    fn get(&self, key: &[u8], read: &mut dyn FnMut(&[u8])) -> Result<bool, SpillError> {
        let value = self.body.tree.get(key, NEWEST);
        let value = value.map_err(|error| self.body.refused(&error))?;
        Ok(value.map(|value| read(&value)).is_some())
    }

    fn remove(&mut self, key: &[u8]) -> Result<(), SpillError> {
        let body = &self.body;
        let (_, held_bytes) = body.tree.remove(key, body.versions.next());
        if held_bytes < REMOVED_BYTES_MAX {
            return Ok(());
        }
        let written = body.tree.flush_active_memtable(body.versions.get());
        written.map_err(|error| body.refused(&error))?;
        self.wake()
    }

    fn scan(&self, from: &[u8], to: Option<&[u8]>, visit: Visit<'_>) -> Result<(), SpillError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        let body = &self.body;
        let range = (Bound::Included(from), to);
        for entry in body.tree.range::<&[u8], _>(range, NEWEST, None) {
            let entry = entry.into_inner();
            let (key, value) = entry.map_err(|error| body.refused(&error))?;
            if let ControlFlow::Break(()) = visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn forget_below(&mut self, floor: i64) -> Result<(), SpillError> {
        self.body.forget.floor.store(floor, Ordering::Relaxed);
        Ok(())
    }

    fn drop_before(&mut self, key: &[u8]) -> Result<(), SpillError> {
        let wanted_from = self.body.wanted_from.lock();
        *wanted_from.unwrap_or_else(PoisonError::into_inner) = key.to_vec();
        self.wake()
    }

    fn entry_count(&self) -> usize {
        self.body.tree.approximate_len()
    }

    fn memory_bytes(&self) -> usize {
        let tree = &self.body.tree;
        let removed_bytes = tree.version_memtable_size_sum() as usize;
        removed_bytes + tree.pinned_filter_size() + tree.pinned_block_index_size()
    }

    fn disk_bytes(&self) -> u64 {
        self.body.tree.disk_space()
    }
}

/// A run that is being written.
struct Run<'a> {
    run: AnyIngestion<'a>,
    owner: &'a LsmTree,
}

impl SpillWrite for Run<'_> {
    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), SpillError> {
        let added = self.run.write(key, value);
        added.map_err(|error| self.owner.body.refused(&error))
    }

    fn finish(self: Box<Self>) -> Result<(), SpillError> {
        let Self { run, owner } = *self;
        run.finish().map_err(|error| owner.body.refused(&error))?;
        owner.wake()
    }
}

/// What of a tree is wanted no more.
struct Forget {
    /// Entries that may be forgotten below it.
    floor: AtomicI64,
    /// All of it.
    is_over: AtomicBool,
    forgotten_at: ForgottenAt,
}

/// Drops entries below the floor when they are merged. Older entries of their keys are below it, too.
struct Drops(Arc<Forget>);

impl Factory for Drops {
    fn name(&self) -> &str {
        "forget"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Below {
            floor: self.0.floor.load(Ordering::Relaxed),
            forget: Arc::clone(&self.0),
        })
    }
}

/// What one merge drops.
struct Below {
    floor: i64,
    forget: Arc<Forget>,
}

impl CompactionFilter for Below {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> lsm_tree::Result<Verdict> {
        if self.forget.is_over.load(Ordering::Relaxed) {
            return Err(std::io::Error::from(std::io::ErrorKind::Interrupted).into());
        }
        let value = item.value()?;
        match (self.forget.forgotten_at)(item.key(), &value) < self.floor {
            true => Ok(Verdict::Destroy),
            false => Ok(Verdict::Keep),
        }
    }
}

fn refused(name: &str, error: &lsm_tree::Error) -> SpillError {
    SpillError {
        disk: name.to_owned(),
        cause: error.to_string(),
    }
}
