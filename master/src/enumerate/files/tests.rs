//! Files of a folder as splits: which are closed, in which order they are claimed, and which have changed.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millstream_common::blocking::ThreadPool;
use millstream_common::plan::connector::Compression;
use millstream_common::time::Clock;
use tempfile::TempDir;

use super::*;

const NOW_SECONDS: u64 = 1_800_000_000;

/// Seconds since the test began.
#[derive(Debug, Default)]
struct HandClock(AtomicU64);

impl Clock for HandClock {
    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }

    fn unix_micros(&self) -> i64 {
        let seconds = NOW_SECONDS + self.0.load(Ordering::SeqCst);
        i64::try_from(seconds).expect("a time") * 1_000_000
    }
}

struct Folder {
    folder: TempDir,
    clock: Arc<HandClock>,
    known: BTreeMap<SplitId, SplitProgress>,
}

impl Folder {
    fn new() -> Self {
        Self {
            folder: TempDir::new().expect("a folder"),
            clock: Arc::default(),
            known: BTreeMap::new(),
        }
    }

    /// Writes a file that was changed so many seconds before the test began.
    fn write(&self, name: impl AsRef<Path>, text: &str, seconds_ago: u64) {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("write");
        let changed = UNIX_EPOCH + Duration::from_secs(NOW_SECONDS - seconds_ago);
        File::options()
            .write(true)
            .open(&path)
            .and_then(|file| file.set_modified(changed))
            .expect("set time");
    }

    fn enumerator(&self, name: &str, watch: bool, files_max: Option<u32>) -> FilesEnumerator {
        let path = self.folder.path().join(name);
        let spec = FilesSourceSpec {
            path: format!("file://{}", path.display()),
            watch,
            settle_ms: 2_000,
            discovery_interval_ms: 1_000,
            files_per_epoch_max: files_max,
            compression: Compression::Auto,
        };
        FilesEnumerator::new(&spec, Arc::new(ThreadPool), self.clock.clone())
            .expect("an enumerator")
    }

    /// Names of the files to be read now; whatever was found is known from then on.
    async fn discover(&mut self, enumerator: &mut FilesEnumerator) -> Vec<String> {
        let found = enumerator.discover(&self.known).await.expect("files");
        let known = found
            .iter()
            .map(|found| (found.split.clone(), found.progress.clone()));
        self.known.extend(known);
        found
            .into_iter()
            .filter(|found| found.progress.status == SplitStatus::Active)
            .map(|found| {
                let url = Url::parse(found.split.as_str()).expect("a url");
                let path = url.to_file_path().expect("a path");
                let name = path.file_name().expect("a name");
                name.to_string_lossy().into_owned()
            })
            .collect()
    }
}

#[tokio::test]
async fn files_come_oldest_first_and_at_most_so_many_at_once_and_never_again() {
    let mut folder = Folder::new();
    folder.write("b.csv", "1", 10);
    folder.write("c.csv", "1", 30);
    folder.write("a.csv", "1", 10);
    let mut enumerator = folder.enumerator("", true, Some(2));
    assert_eq!(
        folder.discover(&mut enumerator).await,
        vec!["c.csv", "a.csv"]
    );
    assert_eq!(folder.discover(&mut enumerator).await, vec!["b.csv"]);
    assert!(folder.discover(&mut enumerator).await.is_empty());
    assert!(!enumerator.is_exhausted());
}

#[tokio::test]
async fn an_unfinished_file_is_left_alone_by_its_name() {
    let mut folder = Folder::new();
    for name in [".a.csv", "_b.csv", "c.csv.tmp", "d e%.csv"] {
        folder.write(name, "1", 10);
    }
    let mut enumerator = folder.enumerator("", true, None);
    assert_eq!(folder.discover(&mut enumerator).await, vec!["d e%.csv"]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_whose_name_is_not_utf_8_is_found_as_any_other() {
    use std::os::unix::ffi::OsStrExt;

    for pattern in ["in", "in/*.csv", "i?/*.csv", "**/*.csv"] {
        let mut folder = Folder::new();
        let inner = Path::new("in");
        std::fs::create_dir(folder.folder.path().join(inner)).expect("create");
        folder.write(inner.join(OsStr::from_bytes(b"caf\xe9.csv")), "1", 10);
        let mut enumerator = folder.enumerator(pattern, true, None);
        let found = folder.discover(&mut enumerator).await;
        assert_eq!(found, vec!["caf\u{fffd}.csv"], "{pattern}");
        let split = folder.known.keys().next().expect("a split");
        assert!(split.as_str().ends_with("caf%E9.csv"), "{split}");
    }
}

#[tokio::test]
async fn a_glob_finds_files_in_the_folders_that_it_names() {
    let mut folder = Folder::new();
    for name in ["a", "b", "b/c"] {
        std::fs::create_dir(folder.folder.path().join(name)).expect("create");
    }
    let files = ["1.csv", "a/2.csv", "a/2.json", "b/3.csv", "b/c/4.csv"];
    for (name, seconds_ago) in files.into_iter().zip((10..100).rev()) {
        folder.write(name, "1", seconds_ago);
    }
    for (pattern, expected) in [
        ("*.csv", vec!["1.csv"]),
        ("?/*.csv", vec!["2.csv", "3.csv"]),
        ("**/*.csv", vec!["1.csv", "2.csv", "3.csv", "4.csv"]),
        ("b/**/[0-9].csv", vec!["3.csv", "4.csv"]),
        ("*/2.csv", vec!["2.csv"]),
    ] {
        folder.known.clear();
        let mut enumerator = folder.enumerator(pattern, true, None);
        assert_eq!(
            folder.discover(&mut enumerator).await,
            expected,
            "{pattern}"
        );
    }
}

#[tokio::test]
async fn a_file_is_taken_when_it_stood_still_even_if_its_time_lies_ahead() {
    let mut folder = Folder::new();
    folder.write("a.csv", "1", 1);
    let path = folder.folder.path().join("ahead.csv");
    std::fs::write(&path, "1").expect("write");
    let ahead = UNIX_EPOCH + Duration::from_secs(NOW_SECONDS + 1_000);
    File::options()
        .write(true)
        .open(&path)
        .and_then(|file| file.set_modified(ahead))
        .expect("set time");
    let mut enumerator = folder.enumerator("", true, None);
    assert!(folder.discover(&mut enumerator).await.is_empty());
    folder.clock.0.store(1, Ordering::SeqCst);
    assert_eq!(folder.discover(&mut enumerator).await, vec!["a.csv"]);
    folder.clock.0.store(2, Ordering::SeqCst);
    assert_eq!(folder.discover(&mut enumerator).await, vec!["ahead.csv"]);
}

#[tokio::test]
async fn a_file_that_still_grows_begins_to_settle_again() {
    let mut folder = Folder::new();
    folder.write("a.csv", "1", 0);
    let mut enumerator = folder.enumerator("", true, None);
    assert!(folder.discover(&mut enumerator).await.is_empty());
    folder.clock.0.store(1, Ordering::SeqCst);
    folder.write("a.csv", "12", 0);
    assert!(folder.discover(&mut enumerator).await.is_empty());
    folder.clock.0.store(3, Ordering::SeqCst);
    assert_eq!(folder.discover(&mut enumerator).await, vec!["a.csv"]);
}

#[tokio::test]
async fn without_watch_only_the_files_there_at_first_are_read_whoever_looks_again() {
    let mut folder = Folder::new();
    for (name, seconds_ago) in [("a.csv", 10), ("b.csv", 9), ("c.csv", 0), ("d.csv", 0)] {
        folder.write(name, "1", seconds_ago);
    }
    let mut enumerator = folder.enumerator("*.csv", false, Some(1));
    assert_eq!(folder.discover(&mut enumerator).await, vec!["a.csv"]);
    assert!(!enumerator.is_exhausted());
    folder.write("later.csv", "1", 10);
    let mut enumerator = folder.enumerator("*.csv", false, Some(1));
    assert_eq!(folder.discover(&mut enumerator).await, vec!["b.csv"]);
    folder.clock.0.store(2, Ordering::SeqCst);
    let mut enumerator = folder.enumerator("*.csv", false, Some(1));
    assert_eq!(folder.discover(&mut enumerator).await, vec!["c.csv"]);
    assert!(!enumerator.is_exhausted());
    std::fs::remove_file(folder.folder.path().join("d.csv")).expect("remove");
    assert_eq!(
        folder.discover(&mut enumerator).await,
        vec!["d.csv"],
        "its reader will miss it"
    );
    assert!(enumerator.is_exhausted());
    let mut enumerator = folder.enumerator("*.csv", false, Some(1));
    assert!(folder.discover(&mut enumerator).await.is_empty());
    assert!(enumerator.is_exhausted());
}

#[tokio::test]
async fn a_missing_folder_is_an_error_that_says_how_to_make_it() {
    let folder = Folder::new();
    for name in ["nowhere", "nowhere/*.csv"] {
        let mut enumerator = folder.enumerator(name, true, None);
        let error = enumerator.discover(&BTreeMap::new()).await;
        let error = error.expect_err("no folder");
        assert_eq!(error.kind, Kind::User);
        assert!(error.cause.contains("mkdir -p"), "{error}");
    }
}
