//! The edge to the file system: how files are opened and told apart.
//!
//! [`DiskFiles`] is the machine's; a simulator brings another [`FileSource`]. Called on the reader's thread only, where
//! blocking is allowed.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use url::Url;

/// The bytes of a file.
pub trait FileHandle: Read + Seek + Send {}

impl<T: Read + Seek + Send> FileHandle for T {}

/// Says what a file is at present: `{size}-{mtime in microseconds}`; another content has another identity.
pub type Identify = Box<dyn Fn() -> io::Result<String> + Send>;

/// An open file.
pub struct OpenFile {
    /// It, at its beginning.
    pub bytes: Box<dyn FileHandle>,
    /// Asks the file itself, so that one that was moved or removed meanwhile is still the same.
    pub identify: Identify,
}

/// Where files are.
pub trait FileSource: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &str) -> io::Result<OpenFile>;
    /// Whether the folder is there that the file `path` was found in, or below; `fixed` is what of the source's path has
    /// no wildcards. If it is not, no file of it is there, and yet none is gone.
    fn has_folder(&self, fixed: &Path, path: &str) -> bool;
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
    fn open(&self, path: &str) -> io::Result<OpenFile> {
        let file = File::open(local_path(path)?)?;
        let asked = file.try_clone()?;
        Ok(OpenFile {
            bytes: Box::new(file),
            identify: Box::new(move || identity(&asked.metadata()?)),
        })
    }

    fn has_folder(&self, fixed: &Path, path: &str) -> bool {
        let Ok(file) = local_path(path) else {
            return false;
        };
        // A relative path was resolved by the master, where it stood; of one file the folder is around it.
        match fixed.is_absolute() && fixed != file {
            true => fixed.is_dir(),
            false => file.parent().is_some_and(Path::is_dir),
        }
    }
}

fn identity(metadata: &Metadata) -> io::Result<String> {
    let micros = match metadata.modified()?.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_micros() as i128,
        Err(before) => -(before.duration().as_micros() as i128),
    };
    Ok(format!("{}-{micros}", metadata.len()))
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
        let identity_of = |name: &str| (DiskFiles.open(name).expect("open").identify)();
        let identity = identity_of(url.as_str()).expect("identity");
        assert_eq!(
            identity,
            identity_of(&path.to_string_lossy()).expect("identity")
        );
    }
}
