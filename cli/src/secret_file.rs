//! Files that only their owner may read.
//!
//! Written by `millstream certificates` and `millstream token`. Failure: one that is there already is never written over.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;

/// Creates `path` with `text`, for its owner alone.
pub(crate) fn create(path: &Path, text: &str) -> anyhow::Result<()> {
    write_new(path, text, 0o600)
}

/// Creates `path` with `text`, for all to read.
pub(crate) fn create_public(path: &Path, text: &str) -> anyhow::Result<()> {
    write_new(path, text, 0o644)
}

fn write_new(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| format!("create {}", path.display()))
}
