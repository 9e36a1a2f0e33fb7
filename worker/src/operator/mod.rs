//! Keyed operators: DISTINCT ON, windowed and unwindowed aggregation, as state machines without actors.
//!
//! Called by `keyed_actor.rs` only: batches in, batches out, a state part at each barrier. An operator owns the keys of
//! its task's vnodes and nothing else; it knows no edge, no storage, no clock. What has no room in memory it keeps on
//! disk (`spill`). Keeps INV-7: what `restore` rebuilds from the parts answers every later batch as the original would have.
//! Failure: an error ends the pipeline.

mod aggregate;
mod distinct;
mod event_time;
mod held_bytes;
pub mod key_hash;
pub mod keyed_actor;
mod part_rows;
pub mod spill;
pub mod task_state;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt::Display;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_common::error::Kind;
use millstream_common::ids::{Epoch, OperatorId, Vnode};
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{KeyedKind, KeyedPlan, Port};
use millstream_common::time::EventTime;

use self::aggregate::Aggregate;
pub use self::aggregate::PartialAggregate;
use self::distinct::Distinct;
pub use self::part_rows::PartRows;
use self::spill::{SpillError, TaskSpill};
use crate::exchange::message::OwnedRows;

/// The first column of every state part.
const VNODE_COLUMN: &str = "_vnode";

/// Builds the operator of one task, empty.
pub fn build(
    plan: &KeyedPlan,
    functions: &Functions,
) -> Result<Box<dyn KeyedOperator>, OperatorError> {
    match &plan.kind {
        KeyedKind::Distinct { time_column } => Ok(Box::new(Distinct::new(plan, *time_column)?)),
        KeyedKind::Aggregate {
            aggregates,
            window,
            output,
        } => Ok(Box::new(Aggregate::new(
            plan, aggregates, *window, output, functions,
        )?)),
    }
}

/// The schema of what travels to the tasks of a stage.
pub fn edge_schema(plan: &KeyedPlan, functions: &Functions) -> Result<SchemaRef, OperatorError> {
    let partial = PartialAggregate::new(plan, functions)?;
    Ok(partial.map_or_else(|| plan.input.0.clone(), |partial| partial.schema().clone()))
}

/// What an operator can fail with: a broken plan, state of another shape, or an expression.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The plan's expressions or schemas do not fit each other.
    #[error("build operator {operator}: {cause}")]
    Build {
        /// The operator's id.
        operator: String,
        /// What does not fit.
        cause: String,
    },
    /// A batch or state part cannot be worked on.
    #[error("run operator {operator}: {cause}")]
    Run {
        /// The operator's id.
        operator: String,
        /// What went wrong.
        cause: String,
    },
    /// What has no room in memory cannot be kept.
    #[error(transparent)]
    Spill(#[from] SpillError),
}

impl OperatorError {
    /// Who has to act.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Build { .. } | Self::Run { .. } => Kind::Internal,
            Self::Spill(_) => Kind::External,
        }
    }
}

/// Rows that an operator hands on.
#[derive(Debug)]
pub struct Emitted {
    /// The stream they belong to.
    pub port: Port,
    /// The rows; on [`Port::Changes`] with `_op` as last column.
    pub batch: RecordBatch,
}

/// What to do at a barrier.
#[derive(Clone, Debug)]
pub struct BarrierRequest {
    /// The epoch that ends.
    pub epoch: Epoch,
    /// The least watermark of the stage's sources, as recorded with the epoch before: windows that end at or before it
    /// are closed, keys older than it forgotten. Never goes back.
    pub watermark: Option<EventTime>,
    /// Emit what changed since the last time this was true. A windowed group that closes emits its last change even if
    /// this is false, as it is gone afterwards; without windows, the last barrier of a job has to say true.
    pub emit_changes: bool,
}

/// What a barrier brought about.
#[derive(Debug)]
pub struct BarrierOutcome {
    /// Closed windows, then changed groups.
    pub emitted: Vec<Emitted>,
    /// What state storage has to learn.
    pub write: StateWrite,
    /// Earlier parts that hold nothing but forgotten keys, by the epoch they were written in.
    pub forget: BTreeSet<Epoch>,
}

/// A state part to write.
#[derive(Debug)]
pub enum StateWrite {
    /// Nothing changed.
    Nothing,
    /// Keys that changed since the last part; the earlier parts stay.
    Delta(PartRows),
    /// All live keys; the task's earlier parts are not needed any more.
    Full(PartRows),
}

/// A keyed operator of one task.
pub trait KeyedOperator: Send {
    /// How many rows of the plan's input these stand for.
    fn row_count(&self, rows: &OwnedRows) -> Result<u64, OperatorError> {
        Ok(rows.count() as u64)
    }
    /// Takes a batch of the running epoch; returns what can be handed on at once.
    fn fold(&mut self, rows: OwnedRows) -> Result<Vec<Emitted>, OperatorError>;
    /// Ends the epoch.
    fn barrier(&mut self, request: &BarrierRequest) -> Result<BarrierOutcome, OperatorError>;
    /// Takes a state part, oldest first, before the first batch: of its rows (first column `_vnode`, UInt8) those
    /// for which `owns` is true. `watermark` is that of the [`BarrierRequest`] which ended the restored epoch: what it
    /// has closed or forgotten stays so. A greater one would lose windows that were not emitted yet.
    fn restore(
        &mut self,
        part_epoch: Epoch,
        part: &RecordBatch,
        owns: &dyn Fn(Vnode) -> bool,
        watermark: Option<EventTime>,
    ) -> Result<(), OperatorError>;
    /// More of what the last barrier emitted, behind it; empty if that was all. Asked for until then, before the next batch.
    fn emit_more(&mut self) -> Result<Vec<Emitted>, OperatorError> {
        Ok(Vec::new())
    }
    /// Moves state to disk, until so many bytes of memory are free or nothing is left that can go. Behind a barrier and all that it emitted,
    /// or behind a part. True if groups stayed only because their changes were not emitted yet.
    fn spill(&mut self, bytes: usize, spill: &TaskSpill) -> Result<bool, OperatorError>;
    /// State is on disk: calls may wait for it, and belong where that harms nobody.
    fn waits_for_disk(&self) -> bool;
    /// Every group that was restored counts as changed: a sink begins with it.
    fn mark_all_changed(&mut self);
    /// Bytes of memory held, about.
    fn state_bytes(&self) -> usize;
    /// Bytes of files held; 0 if all of it has room in memory.
    fn disk_bytes(&self) -> u64;
    /// Live keys; of those on disk, about.
    fn key_count(&self) -> usize;
}

fn build_error(operator: &OperatorId, cause: impl Display) -> OperatorError {
    OperatorError::Build {
        operator: operator.to_string(),
        cause: cause.to_string(),
    }
}

fn run_error(operator: &OperatorId, cause: impl Display) -> OperatorError {
    OperatorError::Run {
        operator: operator.to_string(),
        cause: cause.to_string(),
    }
}
