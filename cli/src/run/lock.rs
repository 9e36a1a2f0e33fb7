//! One process a storage folder: a second `run` would take the storage from the first, which fails then without knowing why.
//!
//! Called by `run` before its master begins. Owns a lock of the operating system on a file in the folder, which ends with the
//! process, however that ends; the file says which process it is. Storage that is no folder has no lock: there the log decides.
//! Failure: another process holds it, told with what to do.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, bail};

const FILE: &str = "run.lock";

/// Held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// Locks the folder of `storage_url`; `None` if it is none.
pub(super) fn take(storage_url: &str) -> anyhow::Result<Option<Lock>> {
    let Some(folder) = storage_url.strip_prefix("file://") else {
        return Ok(None);
    };
    let path = Path::new(folder).join(FILE);
    let what = || format!("lock {}", path.display());
    fs::create_dir_all(folder).with_context(what)?;
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let mut file = opened.with_context(what)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let process = holder(&mut file);
            bail!(
                "{folder} is in use by process {process}: stop that one first (Ctrl-C, or `kill -INT {process}`), or \
                 give this one another folder with --storage"
            );
        }
        // Some network file systems know no locks: there the log alone decides, as it does on s3://.
        Err(TryLockError::Error(_)) => return Ok(None),
    }
    let process = std::process::id().to_string();
    file.set_len(0).with_context(what)?;
    file.seek(SeekFrom::Start(0)).with_context(what)?;
    file.write_all(process.as_bytes()).with_context(what)?;
    Ok(Some(Lock { _file: file }))
}

/// The process that holds the lock, as it says.
fn holder(file: &mut File) -> String {
    let mut process = String::new();
    // It may not have written yet.
    let _ = file.read_to_string(&mut process);
    process
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_told_which_one_holds_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}/clicks", folder.path().display());
        let held = take(&url).unwrap();
        assert!(held.is_some());
        let refused = take(&url).unwrap_err().to_string();
        let process = std::process::id();
        assert!(
            refused.contains(&format!("in use by process {process}")),
            "{refused}"
        );
        assert!(
            refused.contains(&format!("kill -INT {process}")),
            "{refused}"
        );
        drop(held);
        assert!(take(&url).unwrap().is_some());
        assert!(take("s3://bucket/clicks").unwrap().is_none());
    }
}
