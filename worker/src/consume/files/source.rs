//! The edge to the file system: how files are opened and told apart.
//!
//! [`DiskFiles`] is the machine's; a simulator brings another [`FileSource`]. Called on the reader's thread only, where
//! blocking is allowed.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// An open file.
pub trait FileHandle: Read + Seek + Send {}

impl<T: Read + Seek + Send> FileHandle for T {}

/// Where files are.
pub trait FileSource: Send + Sync {
    /// Opens a file at its beginning.
    fn open(&self, path: &str) -> io::Result<Box<dyn FileHandle>>;
    /// What the file is now: `{size}-{mtime in microseconds}`; another content has another identity.
    fn identity(&self, path: &str) -> io::Result<String>;
}

/// A shared file source.
pub type FileSourceRef = Arc<dyn FileSource>;

/// The machine's files.
#[derive(Debug, Default)]
pub struct DiskFiles;

#[allow(
    clippy::disallowed_methods,
    reason = "the one place that opens input files"
)]
impl FileSource for DiskFiles {
    fn open(&self, path: &str) -> io::Result<Box<dyn FileHandle>> {
        Ok(Box::new(File::open(path)?))
    }

    fn identity(&self, path: &str) -> io::Result<String> {
        let metadata = std::fs::metadata(path)?;
        let modified = metadata.modified()?;
        let micros = match modified.duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_micros() as i128,
            Err(before) => -(before.duration().as_micros() as i128),
        };
        Ok(format!("{}-{micros}", metadata.len()))
    }
}
