//! Folds the log into the jobs it tells of: what a starting master begins with.
//!
//! Called by `master.rs` at start and by the supervisor when a job's actor has failed. Pure. Failure: an Epoch entry that breaks its
//! job's chain, which no master of ours can have written.

use std::collections::BTreeMap;

use millstream_common::ids::{JobName, Seq};
use millstream_common::log::Entry;
use millstream_common::log::entry::{BrokenChain, JobEnd, JobEntry, JobProgress};

/// A job as the log tells it.
#[derive(Clone, Debug)]
pub struct ReplayedJob {
    /// As submitted, in its newest life.
    pub entry: JobEntry,
    /// What its epochs came to.
    pub progress: JobProgress,
    /// How it ended, unless it is to go on.
    pub end: Option<JobEnd>,
}

/// The jobs that canonical `entries` tell of.
pub fn replay<'a>(
    entries: impl IntoIterator<Item = (Seq, &'a Entry)>,
) -> Result<BTreeMap<JobName, ReplayedJob>, BrokenChain> {
    let mut jobs: BTreeMap<JobName, ReplayedJob> = BTreeMap::new();
    for (_, entry) in entries {
        match entry {
            Entry::Fence { .. } | Entry::Assign(_) => {}
            Entry::Job(job) => {
                let replayed = ReplayedJob {
                    entry: job.as_ref().clone(),
                    progress: JobProgress::default(),
                    end: None,
                };
                jobs.insert(job.job.clone(), replayed);
            }
            Entry::Epoch(epoch) => {
                let job = jobs.get_mut(&epoch.job);
                if let Some(job) = job.filter(|job| job.entry.incarnation == epoch.incarnation) {
                    job.progress.apply(epoch)?;
                    job.progress.forget_delivered(job.entry.plan.sinks.len());
                }
            }
            Entry::Ended {
                job,
                incarnation,
                end,
            } => {
                let job = jobs.get_mut(job);
                if let Some(job) = job.filter(|job| job.entry.incarnation == *incarnation) {
                    job.end = Some(end.clone());
                }
            }
            Entry::Resumed { job, incarnation } => {
                let job = jobs.get_mut(job);
                if let Some(job) = job.filter(|job| job.entry.incarnation == *incarnation) {
                    job.end = None;
                }
            }
        }
    }
    Ok(jobs)
}
