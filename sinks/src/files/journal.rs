//! What a files sink knows about itself: fences, plans and commits, as create-only objects beside the files.
//!
//! Used by `mod.rs`. All in `_millstream/{incarnation}/{sink}/` under the sink's folder:
//! `fences/{token}`: the largest one wins (INV-4). `plans/{guard}`: how the run after `guard` ends and what its files are;
//! made before any of them is visible, so whoever goes on after a crash finishes that run and no other (INV-2).
//! `commits/{last}`: the run is whole; the newest is the marker (INV-3). `rewinds/{at}`: the sink was sent back by the entry at that
//! position of the log; plans and commits since are in `rewound-{at}/`, and their files have names of their own. What no deliverer needs
//! any more is pruned after each commit (INV-9): older fences, plans of older runs, and all but the newest [`COMMITS_KEPT`] commits; a data file bears the
//! last epoch of its run in its name, so one that is not above the marker is whole, whether its commit is kept or not.
//! Failure: of the storage, known or unknown.

use std::sync::Arc;

use bytes::Bytes;
use millstream_common::blocking::BlockingRef;
use millstream_common::ids::{Epoch, Seq, Token};
use millstream_common::log::rewind::SinkRewind;
use millstream_common::store::{Error, FileStore, Store};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::names::journal_folder;
use crate::sink::{Deliverer, EpochRun, Held, SinkError};

/// Commits that stay for readers: an hour and a half of runs at the default `roll_interval`.
const COMMITS_KEPT: usize = 100;

/// The journal of one life of one sink.
pub(super) struct Journal {
    store: Arc<dyn Store>,
    prefix: String,
    token: Token,
    /// The last rewind that the sink has followed: its runs begin anew, with names of their own.
    rewind: Option<SinkRewind>,
    job: String,
    /// For errors.
    what: String,
}

/// A run that is about to become visible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunPlan {
    pub guard: Epoch,
    pub last: Epoch,
    pub files: Vec<PlannedFile>,
}

/// A file of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PlannedFile {
    /// Relative to the sink's folder.
    pub name: String,
    /// Its first row, counted over the rows of its folder in the run.
    pub first_row: u64,
    /// How many rows it holds.
    pub row_count: u64,
}

/// A run that is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunCommit {
    pub guard: Epoch,
    pub last: Epoch,
    pub token: Token,
    pub files: Vec<CommittedFile>,
}

/// A file of a whole run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CommittedFile {
    /// Relative to the sink's folder.
    pub name: String,
    pub row_count: u64,
    pub bytes: u64,
    /// CRC-32C.
    pub checksum: u32,
}

#[derive(Serialize)]
struct Fence<'a> {
    job: &'a str,
    token: Token,
}

impl Journal {
    /// Opens the journal under `root`, the sink's folder.
    pub(super) async fn open(
        root: &str,
        deliverer: &Deliverer,
        blocking: BlockingRef,
    ) -> Result<Self, SinkError> {
        let what = format!("write files to {root}");
        let opened = FileStore::open(&format!("{root}/_millstream"), blocking).await;
        let store = opened.map_err(|error| SinkError::unavailable(&what, error))?;
        Ok(Self {
            store: Arc::new(store),
            prefix: folder(deliverer),
            token: deliverer.token,
            rewind: None,
            job: deliverer.job.to_string(),
            what,
        })
    }

    /// Fences smaller tokens, follows `asked` if it is newer than all rewinds before, then reads the marker and the run that follows
    /// it, if one was begun.
    pub(super) async fn fence(&mut self, asked: Option<SinkRewind>) -> Result<Held, SinkError> {
        let fence = Fence {
            job: &self.job,
            token: self.token,
        };
        let key = self.key("fences", self.token.0);
        match self.store.create(&key, self.encode(&fence)?).await {
            Ok(()) | Err(Error::Exists { .. }) => {}
            Err(error) => return Err(self.failed(error)),
        }
        self.check_fence().await?;
        self.follow(asked).await?;
        let marker = self.marker().await?;
        let plan: Option<RunPlan> = self.read("plans", marker).await?;
        Ok(Held {
            marker: Some(marker),
            begun: plan.map(|plan| plan.last),
        })
    }

    /// An error if a newer deliverer has fenced this one.
    pub(super) async fn check_fence(&self) -> Result<(), SinkError> {
        match self.newest("fences").await? {
            Some(newest) if newest > self.token.0 => Err(SinkError::Fenced {
                newer: Token(newest),
            }),
            _ => Ok(()),
        }
    }

    /// Takes the newest rewind, which is noted before any run behind it: once, by a create-only object (INV-3). A folder that was
    /// restored from a copy may hold less than the epoch it is sent back to: it stays there.
    async fn follow(&mut self, asked: Option<SinkRewind>) -> Result<(), SinkError> {
        let known = self.newest("rewinds").await?;
        if let Some(at) = known {
            self.rewind = self.read("rewinds", Epoch(at)).await?;
        }
        let Some(asked) = asked.filter(|asked| Some(asked.at.0) > known) else {
            return Ok(());
        };
        let noted = SinkRewind {
            to: asked.to.min(self.marker().await?),
            at: asked.at,
        };
        let key = self.key("rewinds", asked.at.0);
        self.rewind = match self.store.create(&key, self.encode(&noted)?).await {
            Ok(()) => Some(noted),
            Err(Error::Exists { .. }) => self.read("rewinds", Epoch(asked.at.0)).await?,
            Err(error) => return Err(self.failed(error)),
        };
        Ok(())
    }

    /// The position of the last rewind that the sink has followed.
    pub(super) fn rewound(&self) -> Option<Seq> {
        self.rewind.map(|rewind| rewind.at)
    }

    /// The last epoch of the newest commit; where there is none, that which the sink went back to, or 0.
    pub(super) async fn marker(&self) -> Result<Epoch, SinkError> {
        let to = self.rewind.map(|rewind| rewind.to);
        let newest = self.newest("commits").await?.map(Epoch);
        Ok(newest.or(to).unwrap_or_default())
    }

    /// Fixes what the run after `plan.guard` is. If another plan is there, it holds.
    pub(super) async fn plan(&self, plan: &RunPlan) -> Result<(), SinkError> {
        let key = self.key("plans", plan.guard.0);
        match self.store.create(&key, self.encode(plan)?).await {
            Ok(()) => return Ok(()),
            Err(Error::Exists { .. }) => {}
            Err(error) => return Err(self.failed(error)),
        }
        let found: Option<RunPlan> = self.read("plans", plan.guard).await?;
        match found {
            Some(found) if found == *plan => Ok(()),
            Some(found) if found.last == plan.last => Err(SinkError::refused(
                &self.what,
                format!("{key} was made of the same rows but names other files than now"),
            )),
            // Made by an older deliverer after our fence read none: fencing anew finds it.
            _ => Err(SinkError::unavailable(
                &self.what,
                "another run was begun meanwhile",
            )),
        }
    }

    /// Makes the run whole: the marker moves to its end.
    pub(super) async fn commit(
        &self,
        run: &EpochRun,
        files: Vec<CommittedFile>,
    ) -> Result<(), SinkError> {
        let commit = RunCommit {
            guard: run.guard,
            last: run.last,
            token: self.token,
            files,
        };
        let key = self.key("commits", run.last.0);
        match self.store.create(&key, self.encode(&commit)?).await {
            Ok(()) => return Ok(()),
            Err(Error::Exists { .. }) => {}
            Err(error) => return Err(self.failed(error)),
        }
        let found: Option<RunCommit> = self.read("commits", run.last).await?;
        match found {
            Some(found) if found.guard == run.guard && found.files == commit.files => Ok(()),
            _ => Err(SinkError::MarkerMismatch {
                found: run.last,
                expected: run.guard,
                advice: format!("{key} is of another run"),
            }),
        }
    }

    /// Removes what nobody needs after `run` is whole. Its own plan stays until the next run.
    ///
    /// A deliverer that was fenced long ago may then create the plan of an old run anew; it looks at the fence once more
    /// before it shows a file, and the newest fence is never removed (INV-4).
    pub(super) async fn prune(&self, run: &EpochRun) -> Result<(), SinkError> {
        let fences = self.numbers("fences").await?;
        let fences = fences.into_iter().filter(|token| *token < self.token.0);
        self.remove("fences", fences).await?;
        let plans = self.numbers("plans").await?;
        let plans = plans.into_iter().filter(|guard| *guard < run.guard.0);
        self.remove("plans", plans).await?;
        let commits = self.numbers("commits").await?;
        let old_count = commits.len().saturating_sub(COMMITS_KEPT);
        let commits = commits.into_iter().take(old_count);
        self.remove("commits", commits).await
    }

    async fn remove(
        &self,
        kind: &str,
        numbers: impl Iterator<Item = u64>,
    ) -> Result<(), SinkError> {
        for number in numbers {
            let removed = self.store.delete(&self.key(kind, number)).await;
            removed.map_err(|error| self.failed(error))?;
        }
        Ok(())
    }

    fn key(&self, kind: &str, number: u64) -> String {
        format!("{}/{number:020}.json", self.folder(kind))
    }

    /// Fences and rewinds are of the sink; plans and commits of what it was sent since it last went back.
    fn folder(&self, kind: &str) -> String {
        let of_runs = matches!(kind, "plans" | "commits");
        match self.rewind.filter(|_| of_runs) {
            Some(rewind) => format!("{}/rewound-{:020}/{kind}", self.prefix, rewind.at.0),
            None => format!("{}/{kind}", self.prefix),
        }
    }

    async fn newest(&self, kind: &str) -> Result<Option<u64>, SinkError> {
        Ok(self.numbers(kind).await?.last().copied())
    }

    /// The numbers of all objects of a kind, in order.
    async fn numbers(&self, kind: &str) -> Result<Vec<u64>, SinkError> {
        let folder = format!("{}/", self.folder(kind));
        let listed = self.store.list(&folder).await;
        let keys = listed.map_err(|error| self.failed(error))?;
        let numbers = keys.iter().filter_map(|key| {
            let name = key.rsplit('/').next()?;
            name.strip_suffix(".json")?.parse::<u64>().ok()
        });
        let mut numbers: Vec<u64> = numbers.collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    async fn read<T: DeserializeOwned>(
        &self,
        kind: &str,
        epoch: Epoch,
    ) -> Result<Option<T>, SinkError> {
        let key = self.key(kind, epoch.0);
        let found = self.store.get(&key).await;
        let Some(bytes) = found.map_err(|error| self.failed(error))? else {
            return Ok(None);
        };
        let decoded = serde_json::from_slice(&bytes);
        decoded
            .map(Some)
            .map_err(|error| SinkError::refused(format!("read {key}"), error))
    }

    fn encode<T: Serialize>(&self, value: &T) -> Result<Bytes, SinkError> {
        let encoded = serde_json::to_vec_pretty(value);
        encoded
            .map(Bytes::from)
            .map_err(|error| SinkError::refused(&self.what, error))
    }

    fn failed(&self, error: Error) -> SinkError {
        SinkError::unavailable(&self.what, error)
    }
}

/// Where all of one life of one sink is, under `_millstream`.
pub(super) fn folder(deliverer: &Deliverer) -> String {
    let sink = journal_folder(&deliverer.sink);
    format!("{}/{sink}", deliverer.incarnation)
}
