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
use millstream_common::ids::{Epoch, Seq, Token};
use serde_json::Value;

use super::postgres::Row;
use super::sent_back::Said;
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

/// What the sink says of itself: its newest life, and the last epoch of its newest whole run since it was last sent back.
pub(crate) fn said() -> Option<Said> {
    let pass = passes().pop()?;
    let newest = pass.commits.last();
    let said = newest.and_then(|commit| {
        Some(Said {
            incarnation: pass.incarnation.clone(),
            epoch: serde_json::from_value(commit["last"].clone()).ok()?,
            rewound: pass.rewound,
            token: serde_json::from_value(commit["token"].clone()).ok()?,
        })
    });
    let back = pass.rewound > Seq::default();
    said.or(back.then_some(Said {
        incarnation: pass.incarnation,
        epoch: pass.to,
        rewound: pass.rewound,
        // It is not noted whose the note is; the fences say who came last.
        token: pass.fenced,
    }))
}

/// What a sink wrote from one time that it was sent back to the next.
struct Pass {
    incarnation: String,
    rewound: Seq,
    to: Epoch,
    fenced: Token,
    commits: Vec<Value>,
}

/// All passes, the first ones first.
fn passes() -> Vec<Pass> {
    let journal = Path::new(FOLDER).join("_millstream");
    let mut passes = Vec::new();
    for incarnation in names(&journal) {
        let life = journal.join(&incarnation).join(FOLDER);
        let fenced = names(&life.join("fences"));
        let fenced = fenced.last().and_then(|name| number(name));
        let pass = |rewound: u64, to: Epoch, runs: &Path| Pass {
            incarnation: incarnation.clone(),
            rewound: Seq(rewound),
            to,
            fenced: Token(fenced.unwrap_or_default()),
            commits: objects(&runs.join("commits")),
        };
        let first = pass(0, Epoch(0), &life);
        if !first.commits.is_empty() {
            passes.push(first);
        }
        for rewind in objects(&life.join("rewinds")) {
            let at = rewind["at"].as_u64().unwrap_or_default();
            let to = Epoch(rewind["to"].as_u64().unwrap_or_default());
            passes.push(pass(at, to, &life.join(format!("rewound-{at:020}"))));
        }
    }
    passes
}

/// The rows of all whole runs; a row that is there twice is there twice. Where the sink was never sent back, whoever only lists the folder
/// finds the same; else a run that it had begun then may be there in part.
pub(crate) fn rows() -> Vec<Row> {
    let passes = passes();
    let files = match passes.as_slice() {
        [] => return Vec::new(),
        [only] if only.rewound == Seq::default() => listed(only),
        passes => committed(passes),
    };
    let texts = files
        .iter()
        .filter_map(|name| std::fs::read(Path::new(FOLDER).join(name)).ok());
    let rows = texts.flat_map(|text| {
        let lines = text.split(|byte| *byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty());
        lines.map(topics::row).collect::<Vec<Row>>()
    });
    rows.collect()
}

/// The files that commits name.
fn committed(passes: &[Pass]) -> Vec<String> {
    let commits = passes.iter().flat_map(|pass| &pass.commits);
    let files = commits.filter_map(|commit| commit["files"].as_array());
    let names = files.flatten().filter_map(|file| file["name"].as_str());
    names.map(str::to_owned).collect()
}

/// The files that bear epochs up to the newest commit's in their names.
fn listed(pass: &Pass) -> Vec<String> {
    let newest = pass
        .commits
        .last()
        .and_then(|commit| commit["last"].as_u64());
    let is_whole = |name: &String| {
        let epoch = name
            .split('-')
            .nth(1)
            .and_then(|epoch| epoch.parse::<u64>().ok());
        name.starts_with("part-") && epoch.is_some_and(|epoch| Some(epoch) <= newest)
    };
    let names = names(Path::new(FOLDER)).into_iter();
    names.filter(is_whole).collect()
}

/// The objects in a folder of the journal, by their numbers.
fn objects(folder: &Path) -> Vec<Value> {
    let numbered = names(folder)
        .into_iter()
        .filter(|name| number(name).is_some());
    let texts = numbered.filter_map(|name| std::fs::read(folder.join(name)).ok());
    let objects = texts.filter_map(|text| serde_json::from_slice(&text).ok());
    objects.collect()
}

fn number(name: &str) -> Option<u64> {
    name.strip_suffix(".json")?.parse().ok()
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
