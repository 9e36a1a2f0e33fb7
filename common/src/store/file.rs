//! Storage in a folder: every object is written beside its place, synced, and linked in.
//!
//! object_store's own local kind does not sync, so a power loss could take back a committed epoch;
//! this one syncs the file before the link and the folder after it (INV-8). A hard link gives
//! create-only, a rename gives replace. All calls block and run on [`Blocking`](crate::blocking).
//! Failure: an error of the file system is `Unavailable`, with the path in its text.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Error, Pieces, Store};
use crate::blocking::{self, BlockingRef};

/// Objects as files under one folder.
pub struct FileStore {
    root: PathBuf,
    blocking: BlockingRef,
    /// Makes temporary names of all that write into the folder distinct: a process may open it twice, and processes of
    /// different containers share their ids.
    writer: String,
    temporary_count: AtomicU64,
}

/// Temporary files live here, so that a listing of objects never shows one.
const TEMPORARY_FOLDER: &str = ".tmp";

impl FileStore {
    /// Opens (and creates, if absent) the folder at `path`.
    pub async fn open(path: &str, blocking: BlockingRef) -> Result<Self, Error> {
        let root = PathBuf::from(path);
        let temporary = root.join(TEMPORARY_FOLDER);
        let created = blocking::run(&blocking, move || fs::create_dir_all(&temporary)).await;
        flatten(created, path)?;
        Ok(Self {
            root,
            blocking,
            writer: crate::ids::nonce(),
            temporary_count: AtomicU64::new(0),
        })
    }

    fn temporary_path(&self) -> PathBuf {
        let count = self.temporary_count.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{count}", self.writer);
        self.root.join(TEMPORARY_FOLDER).join(name)
    }

    async fn run<T: Send + 'static>(
        &self,
        key: &str,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let path = self.root.join(key);
        flatten(
            blocking::run(&self.blocking, move || work(&path)).await,
            key,
        )
    }
}

fn flatten<T>(result: Result<io::Result<T>, blocking::Panicked>, key: &str) -> Result<T, Error> {
    let cause = match result {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Error::Exists {
                key: key.to_owned(),
            });
        }
        Ok(Err(error)) => error.to_string(),
        Err(panicked) => panicked.to_string(),
    };
    Err(Error::Unavailable {
        key: key.to_owned(),
        cause,
    })
}

#[async_trait]
impl Store for FileStore {
    async fn create(&self, key: &str, value: Bytes) -> Result<(), Error> {
        let temporary = self.temporary_path();
        self.run(key, move |path| {
            let link = || with_parent(path, || fs::hard_link(&temporary, path));
            place(&temporary, &[value], link)?;
            sync_parent(path)
        })
        .await
    }

    async fn create_pieces(&self, key: &str, value: &Pieces) -> Result<(), Error> {
        let temporary = self.temporary_path();
        let pieces: Vec<Bytes> = value.iter().cloned().collect();
        self.run(key, move |path| {
            let link = || with_parent(path, || fs::hard_link(&temporary, path));
            place(&temporary, &pieces, link)?;
            sync_parent(path)
        })
        .await
    }

    async fn put(&self, key: &str, value: Bytes) -> Result<(), Error> {
        let temporary = self.temporary_path();
        self.run(key, move |path| {
            let rename = || with_parent(path, || fs::rename(&temporary, path));
            place(&temporary, &[value], rename)?;
            sync_parent(path)
        })
        .await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, Error> {
        self.run(key, |path| match fs::read(path) {
            Ok(bytes) => Ok(Some(Bytes::from(bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let root = self.root.clone();
        self.run(prefix, move |folder| {
            let mut keys = Vec::new();
            collect(&root, folder, &mut keys)?;
            keys.sort();
            Ok(keys)
        })
        .await
    }

    async fn list_sized(&self, prefix: &str) -> Result<Vec<(String, u64)>, Error> {
        let root = self.root.clone();
        self.run(prefix, move |folder| {
            let mut keys = Vec::new();
            collect(&root, folder, &mut keys)?;
            keys.sort();
            let mut sized = Vec::new();
            for key in keys {
                match fs::metadata(root.join(&key)) {
                    Ok(metadata) => sized.push((key, metadata.len())),
                    // Deleted meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(sized)
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.run(key, |path| match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }
}

/// Writes bytes to a temporary file and lets `act` take it to its place. Leaves no temporary file behind, least of all
/// where the disk is full.
fn place(
    temporary: &Path,
    pieces: &[Bytes],
    act: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let placed = write_synced(temporary, pieces).and_then(|()| act());
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => placed.and(Err(error)),
        _ => placed,
    }
}

fn write_synced(path: &Path, pieces: &[Bytes]) -> io::Result<()> {
    let mut file = File::create(path)?;
    for piece in pieces {
        file.write_all(piece)?;
    }
    file.sync_all()
}

/// Runs `act`, making the folder of `path` first if that is what it lacks.
fn with_parent(path: &Path, act: impl Fn() -> io::Result<()>) -> io::Result<()> {
    match act() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                create_folders_synced(parent)?;
            }
            act()
        }
        result => result,
    }
}

/// Creates `folder` and syncs each folder that got a new entry, so that the path itself survives.
fn create_folders_synced(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder
        .ancestors()
        .take_while(|path| !path.is_dir())
        .collect();
    fs::create_dir_all(folder)?;
    for path in missing {
        sync_parent(path)?;
    }
    Ok(())
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn collect(root: &Path, folder: &Path, keys: &mut Vec<String>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, keys)?;
        } else if let Ok(relative) = path.strip_prefix(root) {
            keys.push(relative.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::PieceGatherer;
    use super::*;
    use crate::blocking::ThreadPool;

    async fn open(folder: &tempfile::TempDir) -> FileStore {
        FileStore::open(&folder.path().to_string_lossy(), Arc::new(ThreadPool))
            .await
            .expect("open")
    }

    #[tokio::test]
    async fn of_two_creators_of_one_key_the_second_is_refused_and_the_first_is_kept() {
        let folder = tempfile::tempdir().expect("folder");
        let store = open(&folder).await;
        store
            .create("log/1", Bytes::from_static(b"one"))
            .await
            .expect("first");
        let second = store.create("log/1", Bytes::from_static(b"two")).await;
        assert!(matches!(second, Err(Error::Exists { .. })), "{second:?}");
        let kept = store.get("log/1").await.expect("get");
        assert_eq!(kept, Some(Bytes::from_static(b"one")));
    }

    #[tokio::test]
    async fn an_object_in_pieces_reads_back_as_one_and_is_created_once() {
        let folder = tempfile::tempdir().expect("folder");
        let store = open(&folder).await;
        let mut gatherer = PieceGatherer::default();
        gatherer.add(vec![1_u8]);
        gatherer.add(vec![7_u8; 100_000]);
        let pieces = gatherer.finish();
        let create = store.create_pieces("state/a/1", &pieces);
        create.await.expect("create");
        let found = store.get("state/a/1").await.expect("get");
        assert_eq!(found, Some(pieces.whole()));
        let second = store.create_pieces("state/a/1", &pieces).await;
        assert!(matches!(second, Err(Error::Exists { .. })), "{second:?}");
    }

    #[tokio::test]
    async fn a_listing_shows_objects_in_order_and_no_temporary_file() {
        let folder = tempfile::tempdir().expect("folder");
        let store = open(&folder).await;
        for key in ["log/10", "log/02", "state/a/b", "log/01"] {
            store.create(key, Bytes::new()).await.expect("create");
        }
        assert_eq!(
            store.list("log/").await.expect("list"),
            ["log/01", "log/02", "log/10"]
        );
        assert_eq!(store.list("state/").await.expect("list"), ["state/a/b"]);
        let sized = store.list_sized("state/").await.expect("list");
        assert_eq!(sized, [("state/a/b".to_owned(), 0)]);
        assert!(store.list("none/").await.expect("list").is_empty());
        let left = std::fs::read_dir(folder.path().join(TEMPORARY_FOLDER))
            .expect("read")
            .count();
        assert_eq!(left, 0);
    }

    #[tokio::test]
    async fn a_write_that_fails_leaves_no_temporary_file() {
        let folder = tempfile::tempdir().expect("folder");
        let store = open(&folder).await;
        store.put("log", Bytes::new()).await.expect("put");
        for _ in 0..3 {
            let below_a_file = store.put("log/1", Bytes::new()).await;
            assert!(matches!(below_a_file, Err(Error::Unavailable { .. })));
        }
        let left = std::fs::read_dir(folder.path().join(TEMPORARY_FOLDER))
            .expect("read")
            .count();
        assert_eq!(left, 0);
    }

    #[tokio::test]
    async fn two_stores_on_one_folder_never_write_the_same_temporary_file() {
        let folder = tempfile::tempdir().expect("folder");
        let (one, other) = (open(&folder).await, open(&folder).await);
        assert_ne!(one.temporary_path(), other.temporary_path());
    }

    #[tokio::test]
    async fn what_is_absent_reads_as_none_and_deletes_quietly() {
        let folder = tempfile::tempdir().expect("folder");
        let store = open(&folder).await;
        assert_eq!(store.get("log/9").await.expect("get"), None);
        store.delete("log/9").await.expect("delete");
        store
            .put("hint", Bytes::from_static(b"a"))
            .await
            .expect("put");
        store
            .put("hint", Bytes::from_static(b"b"))
            .await
            .expect("put again");
        assert_eq!(
            store.get("hint").await.expect("get"),
            Some(Bytes::from_static(b"b"))
        );
    }
}
