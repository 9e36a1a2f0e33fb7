//! A process with all that it starts, and what they use together.
//!
//! Used by `run.rs`. Owns the processes: what is left of them is killed when this is dropped. They stay in the group of the bench, so that Ctrl-C
//! reaches them too. Failure: a program that cannot be started.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use tokio::process::{Child, ChildStdout, Command};

use crate::process::{self, Seen};

/// The processes.
pub(super) struct Tree {
    child: Child,
    /// CPU time by number, also of those that have ended.
    members: BTreeMap<u32, Duration>,
    peak_rss_bytes: u64,
}

impl Tree {
    /// Starts a program, with its stderr in `log`; returns its stdout too.
    pub(super) fn start(command: &mut Command, log: &Path) -> anyhow::Result<(Self, ChildStdout)> {
        let log = File::create(log).with_context(|| format!("create {}", log.display()))?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("start a peer")?;
        let id = child.id().context("the child runs")?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let tree = Self {
            child,
            members: BTreeMap::from([(id, Duration::ZERO)]),
            peak_rss_bytes: 0,
        };
        Ok((tree, stdout))
    }

    /// Looks at every process of the machine. Memory is that of all members at one time.
    pub(super) fn look(&mut self) {
        let mut rss_bytes = 0;
        for (id, seen) in members(&self.members, &process::all()) {
            self.members.insert(id, seen.cpu);
            rss_bytes += process::rss_bytes_of(id);
        }
        self.peak_rss_bytes = self.peak_rss_bytes.max(rss_bytes);
    }

    /// CPU time of all members so far.
    pub(super) fn cpu(&mut self) -> Duration {
        self.look();
        self.members.values().sum()
    }

    /// The most that was seen.
    pub(super) fn peak_rss_bytes(&self) -> u64 {
        self.peak_rss_bytes
    }

    /// Waits until the first of them has ended.
    pub(super) async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.wait().await.context("wait for a peer")
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let left: Vec<String> = members(&self.members, &process::all())
            .into_iter()
            .map(|(id, _)| id.to_string())
            .collect();
        if !left.is_empty() {
            // One that has ended meanwhile makes it fail, and is what was wanted.
            let _ = std::process::Command::new("kill")
                .args(["-s", "KILL"])
                .args(left)
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// Those of `all` that are known, and their children down to the last.
fn members(known: &BTreeMap<u32, Duration>, all: &BTreeMap<u32, Seen>) -> Vec<(u32, Seen)> {
    let belongs = |id: u32| {
        let mut id = id;
        // A chain is not longer than there are processes, also if numbers changed hands meanwhile.
        for _ in 0..all.len() {
            if known.contains_key(&id) {
                return true;
            }
            match all.get(&id) {
                Some(seen) => id = seen.parent,
                None => return false,
            }
        }
        false
    };
    let found = all.iter().filter(|(id, _)| belongs(**id));
    found.map(|(id, seen)| (*id, *seen)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_of_children_belong_and_neighbours_do_not() {
        let parents = [(1, 0), (7, 1), (8, 7), (9, 8), (10, 1), (12, 12)];
        let all = parents.map(|(id, parent)| {
            let cpu = Duration::from_secs(1);
            (id, Seen { parent, cpu })
        });
        let known = BTreeMap::from([(7, Duration::ZERO)]);
        let found = members(&known, &BTreeMap::from(all));
        let ids: Vec<u32> = found.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [7, 8, 9]);
    }

    #[tokio::test]
    async fn what_a_child_starts_is_counted_and_ends_with_it() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & wait"]);
        let (mut tree, _stdout) = Tree::start(&mut command, &folder.path().join("log"))?;
        while tree.members.len() < 2 {
            tree.look();
            tokio::task::yield_now().await;
        }
        assert!(tree.peak_rss_bytes() > 0);
        let ids: Vec<u32> = tree.members.keys().copied().collect();
        drop(tree);
        // A killed process is there until its parent has looked.
        let runs = |id: &u32| process::rss_bytes_of(*id) > 0;
        while ids.iter().any(runs) {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}
