//! Options of memory for keyed state, and of the folder for what has no room in it.
//!
//! Part of the arguments of `worker` and `run`. By default half of the memory that the process may have: its control group's, or the
//! machine's. Failure: a size that is none, or a named folder that cannot be made. Without a folder that was not asked for, all state stays in
//! memory, as the log says.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use millstream_common::blocking::BlockingRef;
use millstream_worker::operator::spill::Spill;
use millstream_worker::operator::spill::budget::StateBudget;
use millstream_worker::operator::spill::disk::SpillFolder;

/// What is taken where nobody says how much memory there is.
const MEMORY_BYTES: u64 = 2 << 30;
/// A share of the memory for state: what is read from disk is kept in it.
const CACHE_SHARE: u64 = 8;

#[derive(Args)]
pub(crate) struct SpillArguments {
    /// Memory for keyed state, like 8GiB: what has no room in it moves to --spill-folder, and the job slows. By default half of what
    /// the process may have.
    #[arg(long, env = "MILLSTREAM_STATE_MEMORY", value_name = "SIZE", value_parser = size)]
    state_memory: Option<StateMemory>,
    /// Where keyed state goes that has no room in memory; nothing in it is needed after the process has ended. By default a folder of the user's in
    /// /var/tmp.
    #[arg(long, env = "MILLSTREAM_SPILL_FOLDER", value_name = "FOLDER")]
    spill_folder: Option<PathBuf>,
}

/// What an option says; a variable that is set to nothing says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StateMemory {
    Default,
    Bytes(u64),
}

impl SpillArguments {
    /// Memory and folder as they are asked for.
    pub(crate) fn spill(self, blocking: &BlockingRef) -> anyhow::Result<Spill> {
        let bytes = match self.state_memory {
            Some(StateMemory::Bytes(bytes)) => bytes,
            Some(StateMemory::Default) | None => memory_bytes() / 2,
        };
        let cache_bytes = bytes / CACHE_SHARE;
        let named = self.spill_folder;
        let named = named.filter(|folder| !folder.as_os_str().is_empty());
        let is_named = named.is_some();
        let folder = named.unwrap_or_else(|| default_folder(user()));
        let disk = SpillFolder::new(folder.clone(), cache_bytes as usize, Arc::clone(blocking));
        let prepared = disk.prepare().map_err(anyhow::Error::from);
        let prepared = prepared.and_then(|()| match is_named || owner(&folder) == Some(user()) {
            true => Ok(()),
            false => Err(anyhow::anyhow!(
                "{} belongs to somebody else",
                folder.display()
            )),
        });
        match prepared {
            Ok(()) => {}
            Err(error) if is_named => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "all keyed state has to have room in memory: name a folder with --spill-folder");
                return Ok(Spill::without_limit());
            }
        }
        Ok(Spill {
            budget: StateBudget::new((bytes - cache_bytes) as usize),
            disk: Arc::new(disk),
        })
    }
}

/// One for each user, for nobody else may read it.
fn default_folder(user: u32) -> PathBuf {
    PathBuf::from(format!("/var/tmp/millstream-{user}"))
}

/// Whose process this is. The link is root's, what it leads to is not.
fn user() -> u32 {
    std::fs::metadata("/proc/self").map_or(0, |own| own.uid())
}

fn owner(path: &Path) -> Option<u32> {
    std::fs::symlink_metadata(path)
        .map(|found| found.uid())
        .ok()
}

/// The memory that this process may have.
fn memory_bytes() -> u64 {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
    let of_machine = read("/proc/meminfo").and_then(|text| total_bytes(&text));
    let limits = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ];
    // A group without limit says "max", or more than any machine has.
    let of_group = limits.into_iter().filter_map(read);
    let of_group = of_group.filter_map(|text| text.trim().parse().ok());
    of_group.chain(of_machine).min().unwrap_or(MEMORY_BYTES)
}

/// `MemTotal` of /proc/meminfo.
fn total_bytes(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

/// A size with its unit; as for containers, a unit without `i` is one of 1,024, too.
fn size(text: &str) -> Result<StateMemory, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(StateMemory::Default);
    }
    let digits = text.find(|letter: char| !letter.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err("write a size like 512MiB or 8GiB".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| "write a size like 512MiB or 8GiB".to_owned())?;
    match number.checked_mul(1 << shift) {
        Some(0) | None => Err("that is no amount of memory: write a size like 8GiB".to_owned()),
        Some(bytes) => Ok(StateMemory::Bytes(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_a_unit_and_is_more_than_nothing() {
        for (text, bytes) in [
            ("512MiB", 512 << 20),
            ("8GiB", 8 << 30),
            ("8 gb", 8 << 30),
            ("3g", 3 << 30),
            ("1T", 1 << 40),
        ] {
            assert_eq!(size(text), Ok(StateMemory::Bytes(bytes)), "{text}");
        }
        assert_eq!(size(""), Ok(StateMemory::Default));
        for text in [
            "8",
            "GiB",
            "-1GiB",
            "1.5GiB",
            "8 pigs",
            "99999999999TiB",
            "0GiB",
        ] {
            let problem = size(text).expect_err("no size");
            assert!(problem.contains("8GiB"), "{text}: {problem}");
        }
    }

    #[test]
    fn the_default_folder_is_of_whoever_runs_the_process() {
        let own = tempfile::tempdir().expect("a folder");
        assert_eq!(owner(own.path()), Some(user()));
        // As another user, this holds only if it is not the link's owner that is asked.
        let status = std::fs::read_to_string("/proc/self/status").expect("a status");
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        let effective = line.and_then(|ids| ids.split_whitespace().nth(1));
        assert_eq!(effective, Some(user().to_string().as_str()));
    }

    #[test]
    fn the_machine_says_how_much_memory_it_has() {
        let text = "MemTotal:       24586372 kB\nMemFree:        20000000 kB\n";
        assert_eq!(total_bytes(text), Some(24_586_372 * 1_024));
        assert_eq!(total_bytes("MemTotal: much"), None);
        assert!(memory_bytes() > 0);
    }
}
