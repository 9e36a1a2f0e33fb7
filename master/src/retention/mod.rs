//! What storage holds and nothing needs any more is collected, so that an endless job's use of it is bounded.
//!
//! [`history`] reads the log behind its newest boundary, [`decision`] says what may go (pure), [`collector_actor`] looks, folds the
//! log into boundaries and deletes. Whatever is not understood stays.

pub mod collector_actor;
pub mod decision;
mod held_since;
pub mod history;
mod letters;
#[cfg(test)]
mod tests;

use std::time::Duration;

use millstream_common::control::StorageUse;
use millstream_common::ids::{Epoch, Incarnation};
use millstream_common::log::backlog;

/// How long what is not needed any more is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Between two looks.
    pub interval: Duration,
    /// Log objects stay this long behind their boundary: longer than a master may sleep and still be heard.
    pub log: Duration,
    /// Segments stay this long after every sink holds them, where the job does not say otherwise: how far back a sink may be sent.
    pub segments: Duration,
    /// The newest epochs whose state is kept.
    pub checkpoints: usize,
    /// A boundary is made when so many objects lie behind the last: what a starting master has to replay.
    pub objects_per_boundary: usize,
    /// Objects deleted in one look.
    pub deletes_max: usize,
    /// Epochs that some sink lacks, or may be sent back to, are put away into storage when they and their segments are so many.
    pub recent_weight_max: usize,
}

/// What a look found of one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    /// What storage holds for it.
    pub used: StorageUse,
    /// In this life.
    pub life: Incarnation,
    /// Every sink has held the epochs up to this one for long enough: once the log says that they are forgotten, their segments go.
    pub forgettable: Epoch,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(60),
            log: Duration::from_hours(24),
            segments: Duration::from_hours(1),
            checkpoints: 3,
            objects_per_boundary: 64,
            deletes_max: 1_000,
            recent_weight_max: backlog::RECENT_WEIGHT_MAX,
        }
    }
}
