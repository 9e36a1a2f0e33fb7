//! Folds the log into the jobs it tells of: what a starting master begins with.
//!
//! Called by the trail of a master (`reign/trail.rs`) and by the supervisor when a job's actor has failed. Pure. Failure: an Epoch entry that breaks its
//! job's chain, which no master of ours can have written.

pub(crate) mod retold;

use std::collections::BTreeMap;

use millstream_common::ids::{Generation, Incarnation, JobName, Seq, Term};
use millstream_common::log::entry::{
    Assignment, BrokenChain, JobEnd, JobEntry, JobProgress, generation_of,
};
use millstream_common::log::savepoint::{Savepoint, Savepoints};
use millstream_common::log::{Entry, LogObject};
use serde::{Deserialize, Serialize};

use self::retold::Retold;
use crate::job::reattach::Lasting;
use crate::letters::index::Letters;

/// A job as the log tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplayedJob {
    /// As submitted, in its newest life.
    pub entry: JobEntry,
    /// What its epochs came to.
    pub progress: JobProgress,
    /// How it ended, unless it is to go on.
    pub end: Option<JobEnd>,
    /// Of its newest assignment: an epoch of an older one does not count (INV-4).
    pub generation: Generation,
    /// Its newest assignment, unless it has ended since.
    pub assignment: Option<Assignment>,
    /// Its dead letters that are kept.
    #[serde(default)]
    pub letters: Letters,
    /// Its checkpoints that are kept by name, over all its lives.
    #[serde(default)]
    pub savepoints: Savepoints,
    /// For its traces.
    #[serde(default)]
    pub retold: Retold,
}

impl ReplayedJob {
    /// Folds the next entry of its life in.
    fn take(&mut self, seq: Seq, entry: &Entry) -> Result<(), BrokenChain> {
        match entry {
            Entry::Assign(assign) => {
                self.generation = generation_of(seq);
                self.assignment = Some(assign.assignment.clone());
                let placement = assign.placement.as_ref();
                self.retold.placed(self.generation, placement);
            }
            Entry::Epoch(epoch) if epoch.generation == self.generation => {
                self.progress.apply(epoch)?;
                self.letters.note(&self.entry.plan, epoch);
                self.retold.note(epoch);
                self.progress.note_delivered(self.entry.plan.sinks.len());
            }
            Entry::Ended { end, .. } => {
                self.end = Some(end.clone());
                self.assignment = None;
            }
            Entry::Resumed { .. } => {
                self.end = None;
                self.retold.begun(self.progress.epoch);
            }
            Entry::Savepoint(kept) if kept.epoch == self.progress.epoch => {
                let savepoint = Savepoint::of(&self.entry, &self.progress, kept.made_at_us);
                self.savepoints
                    .entry(kept.name.clone())
                    .or_insert(savepoint);
            }
            Entry::Replay(replay) => {
                let (split, object) = (replay.split.clone(), replay.object.clone());
                self.progress.add_replay(replay.source, split, object);
            }
            Entry::Backlog { part, .. } => self.progress.fold(part),
            Entry::Forgotten { through, .. } => self.progress.forget(*through),
            Entry::SinkCommanded {
                sink,
                command,
                by_quota,
                ..
            } => self.progress.command_sink(*sink, *command, *by_quota),
            Entry::SinkRewound { sink, to, .. } => {
                self.progress.rewind_sink(*sink, *to, seq);
            }
            // Of an assignment of before, or not of one life.
            Entry::Epoch(_)
            | Entry::Savepoint(_)
            | Entry::Fence { .. }
            | Entry::Job(_)
            | Entry::Carried(_)
            | Entry::SavepointDropped { .. } => {}
        }
        Ok(())
    }

    /// What workers may have kept of it.
    pub(crate) fn lasting(&self) -> Option<Lasting> {
        let assignment = self.assignment.clone()?;
        Some(Lasting {
            incarnation: self.entry.incarnation,
            generation: self.generation,
            assignment,
        })
    }
}

/// Jobs by name, as far as the log has been read.
pub type ReplayedJobs = BTreeMap<JobName, ReplayedJob>;

/// What the log comes to, folded object by object.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Replay {
    /// The last position folded.
    pub through: Seq,
    /// The newest term; an object of an older one does not count (INV-4).
    pub term: Term,
    /// The jobs.
    pub jobs: ReplayedJobs,
}

impl Replay {
    /// Folds the object at the next position.
    pub fn take(&mut self, seq: Seq, object: &LogObject) -> Result<(), BrokenChain> {
        self.through = seq;
        if object.term < self.term {
            return Ok(());
        }
        self.term = object.term;
        let mut entries = object.entries.iter();
        entries.try_for_each(|entry| apply(&mut self.jobs, seq, entry))
    }
}

/// The jobs that canonical `entries` tell of.
pub fn replay<'a>(
    entries: impl IntoIterator<Item = (Seq, &'a Entry)>,
) -> Result<ReplayedJobs, BrokenChain> {
    let mut jobs = ReplayedJobs::new();
    for (seq, entry) in entries {
        apply(&mut jobs, seq, entry)?;
    }
    Ok(jobs)
}

/// Folds the next canonical entry in.
pub fn apply(jobs: &mut ReplayedJobs, seq: Seq, entry: &Entry) -> Result<(), BrokenChain> {
    match entry {
        Entry::Fence { .. } => {}
        Entry::Job(job) => begin(jobs, job.as_ref().clone(), JobProgress::default()),
        Entry::Carried(carried) => begin(jobs, carried.job.clone(), carried.progress.clone()),
        Entry::SavepointDropped { job, name } => {
            if let Some(job) = jobs.get_mut(job) {
                job.savepoints.remove(name);
            }
        }
        Entry::Assign(_)
        | Entry::Epoch(_)
        | Entry::Ended { .. }
        | Entry::Resumed { .. }
        | Entry::Savepoint(_)
        | Entry::Replay(_)
        | Entry::Backlog { .. }
        | Entry::Forgotten { .. }
        | Entry::SinkCommanded { .. }
        | Entry::SinkRewound { .. } => {
            let job = entry.life().and_then(|(job, life)| living(jobs, job, life));
            if let Some(job) = job {
                job.take(seq, entry)?;
            }
        }
    }
    Ok(())
}
/// A job begins, or goes on under another plan. Its savepoints stay. Epochs of assignments of before do not count.
fn begin(jobs: &mut ReplayedJobs, entry: JobEntry, progress: JobProgress) {
    let old = jobs.remove(&entry.job);
    let same_life = old
        .as_ref()
        .filter(|old| old.entry.incarnation == entry.incarnation);
    let mut retold = Retold::default();
    retold.begun(progress.epoch);
    let replayed = ReplayedJob {
        // Outputs keep their numbers under every plan of a life.
        letters: same_life.map_or_else(Letters::default, |old| old.letters.clone()),
        progress,
        end: None,
        generation: Generation::default(),
        assignment: None,
        savepoints: old.map(|old| old.savepoints).unwrap_or_default(),
        retold,
        entry,
    };
    jobs.insert(replayed.entry.job.clone(), replayed);
}

/// The job, if this is its newest life.
fn living<'a>(
    jobs: &'a mut ReplayedJobs,
    job: &JobName,
    incarnation: Incarnation,
) -> Option<&'a mut ReplayedJob> {
    let job = jobs.get_mut(job);
    job.filter(|job| job.entry.incarnation == incarnation)
}

#[cfg(test)]
mod tests;
