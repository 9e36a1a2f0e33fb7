//! The edge to the file system: how files are opened and told apart.
//!
//! [`DiskFiles`] is the machine's; a simulator brings another [`FileSource`]. Called on the reader's thread only, where
//! blocking is allowed.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use url::Url;

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

/// The path behind a split's name: a `file://` URL, in which odd characters stand percent-encoded, or a plain path.
fn local_path(name: &str) -> io::Result<PathBuf> {
    if !name.starts_with("file://") {
        return Ok(PathBuf::from(name));
    }
    let parsed = Url::parse(name)
        .ok()
        .and_then(|url| url.to_file_path().ok());
    parsed.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not the URL of a local file"))
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one place that opens input files"
)]
impl FileSource for DiskFiles {
    fn open(&self, path: &str) -> io::Result<Box<dyn FileHandle>> {
        Ok(Box::new(File::open(local_path(path)?)?))
    }

    fn identity(&self, path: &str) -> io::Result<String> {
        let metadata = std::fs::metadata(local_path(path)?)?;
        let modified = metadata.modified()?;
        let micros = match modified.duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_micros() as i128,
            Err(before) => -(before.duration().as_micros() as i128),
        };
        Ok(format!("{}-{micros}", metadata.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_named_by_its_url_is_opened_at_its_path() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("a b.csv");
        std::fs::write(&path, "x").expect("write");
        let url = Url::from_file_path(&path).expect("absolute");
        assert!(url.as_str().contains("a%20b.csv"), "{url}");
        let identity = DiskFiles.identity(url.as_str()).expect("found");
        assert_eq!(
            identity,
            DiskFiles.identity(&path.to_string_lossy()).expect("found")
        );
        assert!(DiskFiles.open(url.as_str()).is_ok());
    }
}
