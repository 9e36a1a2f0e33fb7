//! Savepoints: checkpoints kept by name, with everything that a job needs to go on from one.
//!
//! The log says only that an epoch is kept ([`SavepointEntry`]); what it came to is folded where the log is ([`Savepoint`]), and so are
//! boundaries. A job that goes on from a checkpoint under another plan begins with an entry of its own ([`CarriedEntry`]), which holds what was
//! carried over, so that reading the log needs no planner. Plain data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::entry::{JobEntry, JobProgress};
use crate::ids::{Epoch, Incarnation, JobName};

/// An epoch is kept by name. Stands behind the epoch and before the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavepointEntry {
    /// The job.
    pub job: JobName,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Its newest epoch.
    pub epoch: Epoch,
    /// The savepoint's name; unique in the job, also over its lives.
    pub name: String,
    /// Wall clock, microseconds since 1970 UTC.
    pub made_at_us: i64,
}

/// A job begins, or goes on, with what another plan or life of a job had come to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CarriedEntry {
    /// The job with its new plan. With the incarnation of its last life that life goes on, and sinks that stay with it.
    pub job: JobEntry,
    /// What it begins with, in terms of the new plan.
    pub progress: JobProgress,
}

/// What is kept of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Savepoint {
    /// Wall clock, microseconds since 1970 UTC.
    pub made_at_us: i64,
    /// The job as it was.
    pub entry: JobEntry,
    /// What its epochs had come to; without what sinks had not taken.
    pub progress: JobProgress,
}

/// The savepoints of a job by name.
pub type Savepoints = BTreeMap<String, Savepoint>;

impl Savepoint {
    /// Of a job that stands at an epoch.
    pub fn of(entry: &JobEntry, progress: &JobProgress, made_at_us: i64) -> Self {
        Self {
            made_at_us,
            entry: entry.clone(),
            progress: JobProgress {
                recent: Vec::new(),
                backlog: Vec::new(),
                left_out: Vec::new(),
                ..progress.clone()
            },
        }
    }

    /// Size of its state in storage.
    pub fn state_bytes(&self) -> u64 {
        let parts = self.progress.parts.values().flatten();
        parts.map(|part| part.bytes).sum()
    }
}
