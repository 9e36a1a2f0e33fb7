//! Savepoints as a client sees them, and what it asks to go on from.

use serde::Serialize;

use crate::ids::Epoch;
use crate::log::savepoint::Savepoint;

/// A checkpoint kept by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SavepointView {
    /// Its name.
    pub name: String,
    /// The epoch.
    pub epoch: Epoch,
    /// Microseconds since 1970 UTC, by the master's clock.
    pub made_at_us: i64,
    /// Objects that hold its state.
    pub state_parts: u64,
    /// Their size.
    pub state_bytes: u64,
}

impl SavepointView {
    /// Of the savepoint of that name.
    pub fn of(name: &str, savepoint: &Savepoint) -> Self {
        let parts = savepoint.progress.parts.values();
        Self {
            name: name.to_owned(),
            epoch: savepoint.progress.epoch,
            made_at_us: savepoint.made_at_us,
            state_parts: parts.map(|parts| parts.len() as u64).sum(),
            state_bytes: savepoint.state_bytes(),
        }
    }
}

/// The newest epoch, where a checkpoint is named.
pub const LATEST: &str = "latest";

/// What a submission goes on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromCheckpoint {
    /// The name of a savepoint, the number of an epoch, or [`LATEST`]; of another job as `JOB/NAME`.
    pub checkpoint: String,
    /// State that the SQL has no place for any more is dropped, not refused.
    pub may_drop: bool,
}
