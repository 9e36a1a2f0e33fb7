//! A disk that outlives the hosts: the real files sink writes to it, and a reader looks at whole runs.
//!
//! Blocking work of a sink is a request like any other: it has a way, weather, and takes effect even if who asked has died. The
//! files are real ones, in memory, in a folder of this process alone, which the parent removes. Failure: one that cannot be
//! made is a panic, and so a failed seed.

use std::any::Any;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use millstream_common::blocking::{Blocking, Panicked};

use super::postgres::Row;
use super::{Outside, World, topics};
use crate::process;
use crate::trace;

/// The sink's folder, under the working folder.
pub(crate) const FOLDER: &str = "files_out";
/// For the weather, which knows tables.
pub(crate) const NAME: &str = "disk";
/// A file on a full disk gets so far: less than the rows of a run need, more than its plan.
const FULL_FROM_BYTES: u64 = 256;

/// Where the simulation of that process has its files.
pub(crate) fn folder_of(process: u32) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let root = match memory.is_dir() {
        true => memory.to_owned(),
        false => std::env::temp_dir(),
    };
    root.join(format!("millstream-sim-{process}"))
}

/// Makes the folder of this process its working folder.
pub(crate) fn enter() -> std::io::Result<()> {
    let folder = folder_of(std::process::id());
    make_anew(&folder)?;
    std::env::set_current_dir(folder)
}

/// The kernel gives numbers of processes again, and a parent that was killed has removed nothing: what lies there is of another seed.
fn make_anew(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    std::fs::create_dir_all(folder)
}

/// The disk as one host reaches it.
pub(crate) struct SimulatedDisk {
    pub(crate) host: String,
    pub(crate) outside: Arc<Outside>,
}

#[async_trait]
impl Blocking for SimulatedDisk {
    async fn run_boxed(
        &self,
        work: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>,
    ) -> Result<Box<dyn Any + Send>, Panicked> {
        let fate = self.outside.fate(Some(NAME));
        let effect = move |world: &mut World| {
            world.has_disk_changed = true;
            match trace::now() < world.weather.disk_full_until {
                true => process::with_file_bytes_max(FULL_FROM_BYTES, work),
                false => work(),
            }
        };
        let outside = &self.outside;
        Ok(outside
            .call(&self.host, "use disk", fate.delay, effect)
            .await)
    }

    fn start_thread(&self, name: String, _: Box<dyn FnOnce() + Send>) {
        panic!("thread {name} cannot run in a simulation");
    }
}

/// The life of the sink and the last epoch of its newest whole run.
pub(crate) fn marker() -> Option<(String, u64)> {
    let journal = Path::new(FOLDER).join("_millstream");
    let lives = names(&journal).into_iter();
    let mut markers = lives.filter_map(|life| {
        let commits = names(&journal.join(&life).join(FOLDER).join("commits"));
        let newest = commits.last()?.strip_suffix(".json")?.parse().ok()?;
        Some((life, newest))
    });
    markers.next_back()
}

/// The rows of all runs up to that epoch; a row that is there twice is there twice.
pub(crate) fn rows(up_to: u64) -> Vec<Row> {
    let whole = |name: &String| {
        let epoch = name.split('-').nth(1)?.parse::<u64>().ok()?;
        (name.starts_with("part-") && epoch <= up_to).then_some(())
    };
    let files = names(Path::new(FOLDER)).into_iter();
    let files = files.filter(|name| whole(name).is_some());
    let texts = files.filter_map(|name| std::fs::read(Path::new(FOLDER).join(name)).ok());
    let rows = texts.flat_map(|text| {
        let lines = text.split(|byte| *byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty());
        lines.map(topics::row).collect::<Vec<Row>>()
    });
    rows.collect()
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_finds_nothing_of_another_that_had_the_same_number() {
        let folder = folder_of(std::process::id()).join("anew");
        for _ in 0..2 {
            make_anew(&folder).expect("make it");
            assert_eq!(names(&folder), BTreeSet::new());
            std::fs::write(folder.join("part-000000000001.json"), "{}").expect("write");
        }
        std::fs::remove_dir_all(folder_of(std::process::id())).expect("remove it");
    }
}
