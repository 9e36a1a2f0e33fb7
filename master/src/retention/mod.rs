//! What storage holds and nothing needs any more is collected, so that an endless job's use of it is bounded.
//!
//! [`history`] reads the log behind its newest boundary, [`decision`] says what may go (pure), [`collector_actor`] looks, folds the
//! log into boundaries and deletes. Whatever is not understood stays.

pub mod collector_actor;
pub mod decision;
pub mod history;
mod letters;
#[cfg(test)]
mod tests;

use std::time::Duration;

/// How long what is not needed any more is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Between two looks.
    pub interval: Duration,
    /// Log objects stay this long behind their boundary: longer than a master may sleep and still be heard.
    pub log: Duration,
    /// Segments stay this long after every sink holds them: how far back a restored sink may be.
    pub segments: Duration,
    /// The newest epochs whose state is kept.
    pub checkpoints: usize,
    /// A boundary is made when so many objects lie behind the last: what a starting master has to replay.
    pub objects_per_boundary: usize,
    /// Objects deleted in one look.
    pub deletes_max: usize,
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
        }
    }
}
