//! What every sink is: a place that takes runs of epochs whole, and knows how far it is.
//!
//! Implemented by `postgres`, `files`, `kafka`, `console`, `blackhole`; driven by `sink_actor.rs` in one order: fence, read the
//! marker, apply what follows it. The truth about a sink is in the sink: its marker is written in the same atomic
//! unit as the rows (INV-3), so an apply whose answer was lost is found done. After any error the actor fences
//! anew before it applies again. Every sink passes `conformance.rs`.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use millstream_common::error::Kind;
use millstream_common::ids::{Epoch, Incarnation, JobName, Token};
use millstream_common::log::rewind::SinkRewind;
use millstream_common::row_bytes::row_bytes;
use millstream_common::trace::TraceContext;

use crate::row_group;

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
    /// Something outside failed while doing `what`.
    pub fn unavailable(what: impl Into<String>, cause: impl ToString) -> Self {
        Self::Unavailable {
            what: what.into(),
            cause: cause.to_string(),
        }
    }

    /// A person has to act before `what` can be done.
    pub fn refused(what: impl Into<String>, cause: impl ToString) -> Self {
        Self::Refused {
            what: what.into(),
            cause: cause.to_string(),
        }
    }

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
    /// The log says that the sink is to go back, under this token or an older one.
    pub rewind: Option<SinkRewind>,
}

/// Consecutive epochs, applied as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochRun {
    /// The marker the sink must hold now: the parent of the first epoch.
    pub guard: Epoch,
    /// The marker it holds afterwards.
    pub last: Epoch,
    /// Rows of the run, as reported; an empty run only moves the marker.
    pub row_count: u64,
}

/// Rows of a run, in the form in which they are at hand.
#[derive(Clone, Debug, PartialEq)]
pub enum RunPart {
    /// Batches in order.
    Batches(Vec<RecordBatch>),
    /// Parquet, see [`row_group`].
    RowGroup(Bytes),
}

impl RunPart {
    /// The rows; decodes what is encoded.
    pub fn into_batches(self) -> Result<Vec<RecordBatch>, SinkError> {
        match self {
            Self::Batches(batches) => Ok(batches),
            Self::RowGroup(file) => row_group::decode(file)
                .map_err(|error| SinkError::refused("decode row group", error)),
        }
    }

    /// What its rows take, also where they are slices of something larger: such slices follow each other.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Batches(batches) => batches.iter().map(row_bytes).sum(),
            Self::RowGroup(file) => file.len(),
        }
    }
}

/// The rows of `parts`, for rows that are at hand in parts.
pub fn batches_of(
    parts: BoxStream<'_, Result<RunPart, SinkError>>,
) -> BoxStream<'_, Result<RecordBatch, SinkError>> {
    parts
        .map(|part| part.and_then(RunPart::into_batches))
        .map_ok(|batches| stream::iter(batches.into_iter().map(Ok)))
        .try_flatten()
        .boxed()
}

/// The rows of a run; may be read more than once, always the same rows in the same order.
pub trait RunRows: Send + Sync {
    /// Columns of the output, then `_op` (Int8: 0 upsert, 1 delete).
    fn schema(&self) -> SchemaRef;
    /// The context under which the run is delivered, if its trace is kept: for places that can carry it on.
    fn trace(&self) -> Option<TraceContext> {
        None
    }
    /// The rows from the first: epochs in order, within an epoch segments in order.
    fn batches(&self) -> BoxStream<'_, Result<RecordBatch, SinkError>>;
    /// The same, for sinks that take row groups; always in the same form.
    fn parts(&self) -> BoxStream<'_, Result<RunPart, SinkError>> {
        let batches = self.batches();
        batches
            .map_ok(|batch| RunPart::Batches(vec![batch]))
            .boxed()
    }
}

/// Where refused rows become dead letters before the unit that leaves them out commits (INV-10).
#[async_trait]
pub trait Rejects: Send + Sync {
    /// Returns when an Epoch in the log names the refused rows of the run. From then on they are dead letters, and left out
    /// of what any deliverer is given to apply, so the sink may commit without them, or fail and be given the rest again.
    /// A sink calls it at most once an apply, after it has found all of them and before anything of the run can be seen.
    /// An error ends the apply: nothing of the run may be kept.
    async fn keep(&self, run: &EpochRun, rejected: &[RejectedRow]) -> Result<(), SinkError>;
}

/// A row that a sink refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedRow {
    /// Its number among the rows of the run as they were given, from 0.
    pub row: u64,
    /// The row as JSON.
    pub payload: String,
    /// What the sink said, naming the column or constraint.
    pub reason: String,
}

/// What an apply did; the sink's marker is at `run.last`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows and deletes that the sink took.
    pub row_count: u64,
    /// Rows it refused; they went to [`Rejects`].
    pub rejected_count: u64,
    /// Rows it refused and nobody keeps (`on_violation = 'drop'`).
    pub dropped_count: u64,
}

/// More refused rows in one run than this suspend the sink: then the table is wrong, not the rows.
pub const REJECTED_ROWS_MAX: usize = 1_000;

/// What a sink holds when a deliverer takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The last epoch in it; 0 if this incarnation has delivered nothing. `None`: the sink keeps no durable
    /// marker (console, blackhole), and delivery goes on after what the log still holds.
    pub marker: Option<Epoch>,
    /// The last epoch of a run that was begun and may be visible in part: the next run must end
    /// exactly there.
    pub begun: Option<Epoch>,
}

/// When what waits becomes a run, and how large a run may be. A run holds at least one epoch,
/// however large, and epochs are never split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cadence {
    /// A run ends before the epoch that would lift its segments above this size.
    pub run_bytes_max: u64,
    /// Most epochs in a run.
    pub run_epochs_max: usize,
    /// How long the oldest waiting epoch may wait for a full run. Zero applies at once.
    pub gather: Duration,
}

/// A place for rows.
///
/// The actor decides by [`Sink::cadence`] when a run is due and hands it over whole, so that nothing is
/// ever gathered inside a sink: what is not applied is only references to segments, which can be read again.
#[async_trait]
pub trait Sink: Send {
    /// When runs are due; the same value at every call.
    fn cadence(&self) -> Cadence;
    /// Connects if need be, fences every deliverer with a smaller token, and only then reads the
    /// marker. May be called again after any error. A rewind that the sink has not noted yet moves the marker back and is noted, in one
    /// unit and behind the fence; one that it has noted changes nothing (INV-3).
    async fn fence(&mut self) -> Result<Held, SinkError>;
    /// Applies the run whole or not at all, with its marker, guarded by `run.guard` and the token. A run that
    /// the sink holds already is a success. May be dropped at any await: the next fence finds out.
    async fn apply(
        &mut self,
        run: &EpochRun,
        rows: &dyn RunRows,
        rejects: &dyn Rejects,
    ) -> Result<Applied, SinkError>;
}
