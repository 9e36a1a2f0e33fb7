//! Files that survive a power loss: written aside, synced, then linked to their name.
//!
//! Used by `writer.rs` and `mod.rs`, always inside blocking work. A hard link makes a name only if it is free, so
//! no file is ever replaced; what holds the name already is compared by checksum. Failure: errors of the file system.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// A file being written, with size and CRC-32C of what went into it.
pub(super) struct CheckedFile {
    file: File,
    pub(super) bytes: u64,
    pub(super) checksum: u32,
}

impl CheckedFile {
    /// Makes the file at `path`, and its folder.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(Self {
            file: File::create(path)?,
            bytes: 0,
            checksum: 0,
        })
    }

    /// Waits until the contents are on disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

impl Write for CheckedFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.file.write(buffer)?;
        self.bytes += count as u64;
        self.checksum = crc32c::crc32c_append(self.checksum, &buffer[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Size and CRC-32C of the file at `path`.
pub(super) fn fingerprint(path: &Path) -> io::Result<(u64, u32)> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 16];
    let (mut bytes, mut checksum) = (0, 0);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((bytes, checksum));
        }
        bytes += count as u64;
        checksum = crc32c::crc32c_append(checksum, &buffer[..count]);
    }
}

/// How a name came to hold its contents.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Published {
    /// The file has the name now, or had it already with the same contents.
    Yes,
    /// Another file has the name.
    Taken,
}

/// Gives the file at `from` the name `to`, unless that is taken by other contents.
pub(super) fn publish(from: &Path, to: &Path, print: (u64, u32)) -> io::Result<Published> {
    if let Some(folder) = to.parent() {
        create_folders_synced(folder)?;
    }
    match fs::hard_link(from, to) {
        Ok(()) => Ok(Published::Yes),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let is_same = fingerprint(to)? == print;
            Ok(if is_same {
                Published::Yes
            } else {
                Published::Taken
            })
        }
        Err(error) => Err(error),
    }
}

/// Waits until the names in the folders of `files` are on disk.
pub(super) fn sync_folders<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> io::Result<()> {
    let folders: BTreeSet<&Path> = files.into_iter().filter_map(|file| file.parent()).collect();
    for folder in folders {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Creates `folder` and syncs each folder that got a new entry.
fn create_folders_synced(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !path.is_dir())
        .collect();
    fs::create_dir_all(folder)?;
    for path in missing {
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all()?,
            _ => File::open(".")?.sync_all()?,
        }
    }
    Ok(())
}

/// Makes `folder`, proves that files can be written to it, and removes all that are in it.
pub(super) fn prepare(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    File::create(folder.join("probe"))?;
    for entry in fs::read_dir(folder)? {
        remove(&entry?.path())?;
    }
    Ok(())
}

/// Removes a file, which may be absent.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_given_once_and_never_taken_away() {
        let folder = tempfile::tempdir().expect("folder");
        let from = folder.path().join("tmp/one");
        let mut file = CheckedFile::create(&from).expect("create");
        file.write_all(b"rows").expect("write");
        file.sync().expect("sync");
        let print = (file.bytes, file.checksum);
        assert_eq!(fingerprint(&from).expect("read"), print);
        let to = folder.path().join("a=1/part");
        for _ in 0..2 {
            assert_eq!(publish(&from, &to, print).expect("publish"), Published::Yes);
        }
        fs::write(folder.path().join("a=1/other"), b"else").expect("write");
        let other = folder.path().join("a=1/other");
        assert_eq!(
            publish(&from, &other, print).expect("look"),
            Published::Taken
        );
        assert_eq!(fs::read(other).expect("read"), b"else");
    }
}
