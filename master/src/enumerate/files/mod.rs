//! Closed files of a folder or glob, oldest first.
//!
//! Called through [`Enumerator`]; lists in blocking work. A file is closed when its name starts with neither `.` nor `_`
//! and does not end in `.tmp`, and its size and time of change stood still for `settle`: seen so by two looks, or
//! by the time of change itself. Its size and time go with it as its identity, so that a later change is noticed.
//! Without `watch` the first look fixes which files are read, closed or not: those whose turn has not come go to the log as
//! [`SplitStatus::Expected`], so that a later look, of whatever master, finds no more.
//! Owns what the last look saw, which a restart may lose: files then settle again.
//! Failure: no such folder, or one that cannot be read, for the user.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use millstream_common::blocking::{self, BlockingRef};
use millstream_common::error::Kind;
use millstream_common::file_pattern::{WILDCARDS, fixed_part, without_scheme};
use millstream_common::ids::SplitId;
use millstream_common::plan::connector::FilesSourceSpec;
use millstream_common::report::{SplitProgress, SplitStatus};
use millstream_common::secret;
use millstream_common::time::ClockRef;
use url::Url;

use super::{EnumerateError, Enumerator, FoundSplit, found, panicked};

/// A file as the file system shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    /// Its URL.
    split: SplitId,
    path: PathBuf,
    size: u64,
    /// Microseconds since 1970 UTC.
    changed: i64,
}

impl Listed {
    fn identity(&self) -> String {
        format!("{}-{}", self.size, self.changed)
    }
}

pub(super) struct FilesEnumerator {
    pattern: String,
    watch: bool,
    settle: Duration,
    files_max: usize,
    blocking: BlockingRef,
    clock: ClockRef,
    settling: Settling,
    /// All that can ever be found have been handed out.
    exhausted: bool,
}

impl FilesEnumerator {
    pub(super) fn new(
        spec: &FilesSourceSpec,
        blocking: BlockingRef,
        clock: ClockRef,
    ) -> Result<Self, EnumerateError> {
        let pattern = secret::resolve(&spec.path).map_err(|error| EnumerateError {
            kind: Kind::User,
            what: format!("find files at {}", spec.path),
            cause: error.to_string(),
        })?;
        Ok(Self {
            pattern: without_scheme(pattern.expose()).to_owned(),
            watch: spec.watch,
            settle: Duration::from_millis(spec.settle_ms),
            files_max: spec
                .files_per_epoch_max
                .map_or(usize::MAX, |count| count as usize),
            blocking,
            clock,
            settling: Settling::default(),
            exhausted: false,
        })
    }

    /// Of the files there, those to hand out now.
    fn choose(
        &mut self,
        mut listed: Vec<Listed>,
        known: &BTreeMap<SplitId, SplitProgress>,
    ) -> Vec<FoundSplit> {
        let is_expected = |split: &SplitId| {
            let progress = known.get(split);
            progress.is_some_and(|progress| progress.status == SplitStatus::Expected)
        };
        let is_fixed = !self.watch && !known.is_empty();
        listed.retain(|file| {
            is_expected(&file.split) || !is_fixed && !known.contains_key(&file.split)
        });
        let there: BTreeSet<SplitId> = listed.iter().map(|file| file.split.clone()).collect();
        let settled = self.settling.settled(
            listed,
            self.settle,
            self.clock.monotonic(),
            self.clock.unix_micros(),
        );
        let mut chosen: Vec<FoundSplit> = settled
            .into_iter()
            .take(self.files_max)
            .map(|file| {
                let identity = file.identity();
                let mut found = found(file.split, 0, None);
                found.progress.identity = Some(identity);
                found
            })
            .collect();
        if self.watch {
            return chosen;
        }
        // One that has gone meanwhile is handed out too: its reader says so.
        let gone = known
            .keys()
            .filter(|split| is_expected(split) && !there.contains(*split));
        chosen.extend(gone.map(|split| found(split.clone(), 0, None)));
        let handed_out: BTreeSet<&SplitId> = chosen.iter().map(|found| &found.split).collect();
        let later = there.iter().filter(|split| !handed_out.contains(split));
        let mut later: Vec<FoundSplit> = later.map(|split| found(split.clone(), 0, None)).collect();
        self.exhausted = later.is_empty();
        if !is_fixed {
            for expected in &mut later {
                expected.progress.status = SplitStatus::Expected;
            }
            chosen.append(&mut later);
        }
        chosen
    }
}

#[async_trait]
impl Enumerator for FilesEnumerator {
    async fn discover(
        &mut self,
        known: &BTreeMap<SplitId, SplitProgress>,
    ) -> Result<Vec<FoundSplit>, EnumerateError> {
        let what = format!("find files at {}", self.pattern);
        let pattern = self.pattern.clone();
        let listed = blocking::run(&self.blocking, move || list(&pattern))
            .await
            .map_err(|error| panicked(&what, &error))?
            .map_err(|cause| EnumerateError {
                kind: Kind::User,
                what,
                cause,
            })?;
        Ok(self.choose(listed, known))
    }

    fn is_exhausted(&self) -> bool {
        self.exhausted
    }
}

/// What stood still, and since when.
#[derive(Debug, Default)]
struct Settling {
    /// By split: the identity, and when it was first seen so.
    seen: BTreeMap<SplitId, (String, Duration)>,
}

impl Settling {
    /// The closed files of `listed`, oldest first; those of the same time by path. Forgets what is not listed any more.
    fn settled(
        &mut self,
        mut listed: Vec<Listed>,
        settle: Duration,
        now: Duration,
        unix_micros: i64,
    ) -> Vec<Listed> {
        let mut seen = BTreeMap::new();
        listed.retain(|file| {
            let identity = file.identity();
            let since = match self.seen.get(&file.split) {
                Some((before, since)) if *before == identity => *since,
                _ => now,
            };
            seen.insert(file.split.clone(), (identity, since));
            let unchanged = u64::try_from(unix_micros.saturating_sub(file.changed)).unwrap_or(0);
            now.saturating_sub(since) >= settle || Duration::from_micros(unchanged) >= settle
        });
        self.seen = seen;
        listed.sort_by(|left, right| (left.changed, &left.path).cmp(&(right.changed, &right.path)));
        listed
    }
}

/// The files of a folder, of a glob, or one file; names that mark unfinished ones are left out.
fn list(pattern: &str) -> Result<Vec<Listed>, String> {
    let paths = if pattern.contains(WILDCARDS) {
        paths_of_glob(pattern)?
    } else {
        paths_of_folder(Path::new(pattern))?
    };
    let mut listed = Vec::new();
    for path in paths {
        if is_finished(&path)
            && let Some(file) = look_at(&path)?
        {
            listed.push(file);
        }
    }
    Ok(listed)
}

/// By its name, which need not be UTF-8.
fn is_finished(path: &Path) -> bool {
    let name = path.file_name().map_or(&[][..], OsStr::as_encoded_bytes);
    !name.is_empty()
        && !name.starts_with(b".")
        && !name.starts_with(b"_")
        && !name.ends_with(b".tmp")
}

/// Names are matched here, since those that are not UTF-8 match no glob; folders are found by one.
fn paths_of_glob(pattern: &str) -> Result<Vec<PathBuf>, String> {
    if let Some(folder) = missing_folder(pattern) {
        return Err(no_folder(&folder));
    }
    let (folders, name) = match pattern.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some(parts) => parts,
        None => (".", pattern),
    };
    if !name.contains(WILDCARDS) || name == "**" {
        return globbed(pattern);
    }
    let wanted = glob::Pattern::new(name).map_err(|error| error.to_string())?;
    let mut paths = Vec::new();
    for folder in folders_of_glob(folders)? {
        let of_folder = paths_of_folder(&folder)?;
        paths.extend(of_folder.into_iter().filter(|path| {
            let name = path.file_name().unwrap_or_default();
            wanted.matches(&name.to_string_lossy())
        }));
    }
    Ok(paths)
}

fn folders_of_glob(pattern: &str) -> Result<Vec<PathBuf>, String> {
    if !pattern.contains(WILDCARDS) {
        return Ok(vec![PathBuf::from(pattern)]);
    }
    let mut folders = globbed(pattern)?;
    // What `**` stands in is one of the folders that it stands for.
    if let Some(around) = pattern.strip_suffix("/**") {
        folders.extend(folders_of_glob(around)?);
    }
    folders.retain(|folder| folder.is_dir());
    folders.sort();
    folders.dedup();
    Ok(folders)
}

fn globbed(pattern: &str) -> Result<Vec<PathBuf>, String> {
    let paths = glob::glob(pattern).map_err(|error| error.to_string())?;
    paths
        .map(|path| path.map_err(|error| error.to_string()))
        .collect()
}

/// What a pattern needs and is not there: the folder, of a glob that in front of the first wildcard.
pub(crate) fn missing_folder(pattern: &str) -> Option<PathBuf> {
    let fixed = fixed_part(pattern);
    let is_there = fixed.as_os_str().is_empty()
        || fixed.is_dir()
        || (fixed.is_file() && fixed == Path::new(pattern));
    (!is_there).then_some(fixed)
}

fn paths_of_folder(folder: &Path) -> Result<Vec<PathBuf>, String> {
    if folder.is_file() {
        return Ok(vec![folder.to_owned()]);
    }
    let entries = std::fs::read_dir(folder).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => no_folder(folder),
        _ => format!("read folder {}: {error}", folder.display()),
    })?;
    entries
        .map(|entry| match entry {
            Ok(entry) => Ok(entry.path()),
            Err(error) => Err(format!("read folder {}: {error}", folder.display())),
        })
        .collect()
}

fn no_folder(folder: &Path) -> String {
    let folder = folder.display();
    format!("folder {folder} does not exist: create it with: mkdir -p {folder}")
}

/// `None`: no file, or gone since it was listed.
fn look_at(path: &Path) -> Result<Option<Listed>, String> {
    let describe = |error: &dyn std::fmt::Display| format!("look at {}: {error}", path.display());
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(describe(&error)),
    };
    let changed = metadata.modified().map_err(|error| describe(&error))?;
    let changed = match changed.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    };
    let absolute = std::path::absolute(path).map_err(|error| describe(&error))?;
    let url = Url::from_file_path(&absolute).map_err(|()| describe(&"its path is not absolute"))?;
    Ok(Some(Listed {
        split: SplitId(url.to_string()),
        path: absolute,
        size: metadata.len(),
        changed,
    }))
}

#[cfg(test)]
mod tests;
