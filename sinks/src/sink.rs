//! What every sink is: a place that takes runs of epochs whole, and knows how far it is.
//!
//! Implemented by `postgres`, `files`, `console`, `blackhole`; driven by `sink_actor.rs` in one order: fence, read the
//! marker, apply what follows it. The truth about a sink is in the sink: its marker is written in the same atomic
//! unit as the rows (INV-3), so an apply whose answer was lost is found done. Every sink passes `conformance.rs`.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::stream::BoxStream;
use millstream_common::error::Kind;
use millstream_common::ids::{Epoch, Incarnation, JobName, Token};

/// What a sink can fail with.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// A newer deliverer has fenced this one: it ends, quietly.
    #[error("a newer deliverer (token {newer}) has taken over")]
    Fenced {
        /// The newer token, as far as it is known.
        newer: Token,
    },
    /// The sink's marker is not where the log says it can be: delivering would lose or double rows.
    #[error("the sink holds epoch {found}, but delivery must go on after {expected}: {advice}")]
    MarkerMismatch {
        /// What the sink says.
        found: Epoch,
        /// What the run's guard says.
        expected: Epoch,
        /// What a person can do.
        advice: String,
    },
    /// Something outside failed; the same run is tried again after fencing anew.
    #[error("{what}: {cause}")]
    Unavailable {
        /// "verb noun", such as `connect to postgres at db:5432`.
        what: String,
        /// What the other side says.
        cause: String,
    },
    /// Trying again cannot help: a missing table, a type that does not fit, a row refused with `on_violation = 'fail'`.
    #[error("{what}: {cause}")]
    Refused {
        /// "verb noun".
        what: String,
        /// What the other side says, and what to do about it.
        cause: String,
    },
}

impl SinkError {
    /// Who has to act.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Fenced { .. } => Kind::Internal,
            Self::MarkerMismatch { .. } | Self::Refused { .. } => Kind::User,
            Self::Unavailable { .. } => Kind::External,
        }
    }
}

/// Who delivers: part of every marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deliverer {
    /// The job, for people.
    pub job: JobName,
    /// The life of the job's state: another one starts at epoch 0.
    pub incarnation: Incarnation,
    /// The sink's name.
    pub sink: String,
    /// Fences every smaller one.
    pub token: Token,
}

/// Consecutive epochs, applied as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochRun {
    /// The marker the sink must hold now: the parent of the first epoch.
    pub guard: Epoch,
    /// The marker it holds afterwards.
    pub last: Epoch,
    /// Rows of the run, as reported; an empty run only moves the marker.
    pub row_count: u64,
    /// Nothing comes after this run: close what is being gathered.
    pub end: bool,
}

/// The rows of a run; may be read more than once, always the same rows in the same order.
pub trait RunRows: Send + Sync {
    /// Columns of the output, then `_op` (Int8: 0 upsert, 1 delete).
    fn schema(&self) -> SchemaRef;
    /// The rows from the first: epochs in order, within an epoch segments in order.
    fn batches(&self) -> BoxStream<'_, Result<RecordBatch, SinkError>>;
}

/// What an apply did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// Rows (or deletes) that the sink took.
    pub row_count: u64,
    /// Rows it refused, with the reason of each; they are dead letters of the sink.
    pub rejected: Vec<RejectedRow>,
    /// The epoch that the sink durably holds now: `run.last`, or an earlier one while it gathers.
    pub marker: Epoch,
}

/// A row that a sink refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRow {
    /// The row as JSON.
    pub payload: String,
    /// What the sink said, naming the column or constraint.
    pub reason: String,
}

/// A place for rows.
#[async_trait]
pub trait Sink: Send {
    /// Connects if need be, fences every deliverer with a smaller token, and only then reads the
    /// marker; epoch 0 where this incarnation has none. May be called again after any error.
    async fn fence(&mut self) -> Result<Epoch, SinkError>;
    /// Applies the run whole or not at all, with its marker, guarded by `run.guard` and the token.
    async fn apply(&mut self, run: &EpochRun, rows: &dyn RunRows) -> Result<Applied, SinkError>;
}
