//! The bytes of a file, decompressed, and whether an error is the file's or the disk's.
//!
//! A disk that cannot be read is an error of the reader, to be tried again. A file that cannot be decompressed stays so:
//! what was read of it counts, and the rest is one dead letter.

use std::io::{self, Read, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::read::MultiGzDecoder;
use millstream_common::plan::connector::Compression;

use super::source::FileHandle;

/// Remembers that the disk, not the file, was at fault.
#[derive(Clone, Debug, Default)]
pub(super) struct DiskFault(Arc<AtomicBool>);

impl DiskFault {
    /// Whether the last error came from the disk.
    pub(super) fn has_occurred(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Passes `result` on, noting an error.
    pub(super) fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        let is_fault = |error: &io::Error| error.kind() != io::ErrorKind::Interrupted;
        if result.as_ref().is_err_and(is_fault) {
            self.0.store(true, Ordering::Relaxed);
        }
        result
    }
}

/// A file whose faults are noted.
struct Noted {
    file: Box<dyn FileHandle>,
    fault: DiskFault,
}

impl Read for Noted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.file.read(buffer);
        self.fault.note(result)
    }
}

/// The decompressed bytes of a file.
pub(super) struct Input {
    bytes: Box<dyn Read + Send>,
    fault: DiskFault,
}

impl Input {
    /// Begins to read `file`; `path` tells the compression where it is `Auto`.
    pub(super) fn new(
        mut file: Box<dyn FileHandle>,
        path: &str,
        compression: Compression,
    ) -> io::Result<Self> {
        let fault = DiskFault::default();
        let is_empty = file.seek(SeekFrom::End(0))? == 0;
        file.seek(SeekFrom::Start(0))?;
        let noted = Noted {
            file,
            fault: fault.clone(),
        };
        let bytes: Box<dyn Read + Send> = match resolved(compression, path) {
            _ if is_empty => Box::new(noted),
            Compression::Gzip => Box::new(MultiGzDecoder::new(noted)),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(noted)?),
            Compression::None | Compression::Auto => Box::new(noted),
        };
        Ok(Self { bytes, fault })
    }
}

fn resolved(compression: Compression, path: &str) -> Compression {
    let ending = Path::new(path)
        .extension()
        .and_then(|ending| ending.to_str());
    match (compression, ending) {
        (Compression::Auto, Some("gz")) => Compression::Gzip,
        (Compression::Auto, Some("zst")) => Compression::Zstd,
        (Compression::Auto, _) => Compression::None,
        (given, _) => given,
    }
}

/// What follows the bytes of a window.
#[derive(Debug)]
pub(super) enum Rest {
    /// More may follow.
    More,
    /// The file ends here.
    End,
    /// The file cannot be decompressed further, and why.
    Broken(String),
}

/// The part of a file that is being looked at. Owned by the reader and used for one file after another.
pub(super) struct Window {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    rest: Rest,
}

impl Window {
    /// A window of `bytes_max` bytes.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            buffer: vec![0; bytes_max],
            start: 0,
            end: 0,
            rest: Rest::More,
        }
    }

    /// Forgets the file before.
    pub(super) fn clear(&mut self) {
        (self.start, self.end, self.rest) = (0, 0, Rest::More);
    }

    /// The bytes not yet consumed.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// What follows them.
    pub(super) fn rest(&self) -> &Rest {
        &self.rest
    }

    /// Takes `count` bytes from the front.
    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
    }

    /// Reads until the window is full or the file ends; an error is the disk's.
    pub(super) fn fill(&mut self, input: &mut Input) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        while self.end < self.buffer.len() && matches!(self.rest, Rest::More) {
            match input.bytes.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.rest = Rest::End,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) if input.fault.has_occurred() => return Err(error),
                Err(error) => self.rest = Rest::Broken(error.to_string()),
            }
        }
        Ok(())
    }
}
