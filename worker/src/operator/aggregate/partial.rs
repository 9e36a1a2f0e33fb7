//! The part of a GROUP BY that stands in front of the exchange: rows become states of their groups where they are.
//!
//! Owned by a branch that leads to an aggregate (`branch.rs`), one a task. What travels is one row a group instead of one a row: group
//! columns, states, and how many rows they were made of. Everything leaves before the barrier, and earlier when [`HELD_BYTES`] are held.
//! Where groups hardly repeat, folding twice would cost more than it saves: for the rest of the epoch each row becomes a state of
//! its own, without a table.
//! Keeps INV-5: no row of an epoch is held here over its barrier. Keeps INV-9: what is held is bounded.
//! Failure: an expression that cannot be evaluated ends the pipeline.

use std::mem::take;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::common::{DataFusionError, exec_err};
use millstream_common::ids::OperatorId;
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{KeyedKind, KeyedPlan};

use super::super::key_hash::canonical;
use super::super::{OperatorError, build_error, run_error};
use super::calls::AggregateCalls;
use super::fold::{DrainedGroups, GroupFold};
use super::group_fields;
use crate::exchange::message::OwnedRows;

/// The last column: how many rows the states were made of.
const ROWS_COLUMN: &str = "_rows";
/// Groups and states in front of an exchange, in bytes: a table of about the size of a core's cache.
const HELD_BYTES: usize = 4 << 20;
/// Too few rows to tell whether groups repeat.
const TRIED_ROWS_MIN: usize = 16_384;

/// Folds the rows of one branch.
pub struct PartialAggregate {
    operator: OperatorId,
    calls: Arc<AggregateCalls>,
    fold: GroupFold,
    /// Rows of each group held.
    row_counts: Vec<i64>,
    row_count: usize,
    /// Groups hardly repeat in this epoch.
    repeats_little: bool,
    schema: SchemaRef,
    group_count: usize,
}

impl PartialAggregate {
    /// For a branch that leads to `plan`; `None` where that is no aggregate.
    ///
    /// # Errors
    /// An aggregate that the plan does not describe rightly.
    pub fn new(plan: &KeyedPlan, functions: &Functions) -> Result<Option<Self>, OperatorError> {
        let KeyedKind::Aggregate {
            aggregates, window, ..
        } = &plan.kind
        else {
            return Ok(None);
        };
        let refuse = |error: DataFusionError| build_error(&plan.operator, error.strip_backtrace());
        let groups = group_fields(plan, *window).map_err(refuse)?;
        let calls = AggregateCalls::lower(aggregates, &plan.input.0, functions).map_err(refuse)?;
        let calls = Arc::new(calls);
        let schema = state_schema(&groups, &calls);
        let group_count = groups.len();
        let groups = Arc::new(Schema::new(groups));
        Ok(Some(Self {
            operator: plan.operator.clone(),
            fold: GroupFold::new(Arc::clone(&calls), groups),
            calls,
            row_counts: Vec::new(),
            row_count: 0,
            repeats_little: false,
            schema,
            group_count,
        }))
    }

    /// What leaves: group columns, states, `_rows`.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Takes rows in the schema of the plan's input; returns states that are to be sent now.
    ///
    /// # Errors
    /// An expression that cannot be evaluated.
    pub fn fold(&mut self, batch: &RecordBatch) -> Result<Option<RecordBatch>, OperatorError> {
        let folded = match self.repeats_little {
            true => self.convert(batch).map(Some),
            false => self.hold(batch),
        };
        folded.map_err(|error| run_error(&self.operator, error.strip_backtrace()))
    }

    /// The states held, at the end of an epoch; with the next one it is tried anew whether groups repeat.
    ///
    /// # Errors
    /// States that do not fit the plan.
    pub fn finish_epoch(&mut self) -> Result<Option<RecordBatch>, OperatorError> {
        self.repeats_little = false;
        self.drain()
            .map_err(|error| run_error(&self.operator, error.strip_backtrace()))
    }

    fn hold(&mut self, batch: &RecordBatch) -> Result<Option<RecordBatch>, DataFusionError> {
        let groups = self.fold.fold_rows(batch)?;
        for &group in groups {
            if group >= self.row_counts.len() {
                self.row_counts.resize(group + 1, 0);
            }
            self.row_counts[group] += 1;
        }
        self.row_count += batch.num_rows();
        if self.fold.bytes() < HELD_BYTES {
            return Ok(None);
        }
        let tells = self.row_count >= TRIED_ROWS_MIN && self.calls.are_cheap_by_row();
        self.repeats_little = tells && self.row_counts.len() * 2 > self.row_count;
        self.drain()
    }

    fn drain(&mut self) -> Result<Option<RecordBatch>, DataFusionError> {
        self.row_count = 0;
        let row_counts = take(&mut self.row_counts);
        let Some(drained) = self.fold.drain()? else {
            return Ok(None);
        };
        let DrainedGroups { groups, states, .. } = drained;
        self.batch(groups, states, row_counts).map(Some)
    }

    /// A state for each row.
    fn convert(&self, batch: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
        let groups = &batch.columns()[..self.group_count];
        let groups = groups.iter().map(canonical).collect();
        let states = self.calls.states_by_row(batch)?;
        self.batch(groups, states, vec![1; batch.num_rows()])
    }

    fn batch(
        &self,
        groups: Vec<ArrayRef>,
        states: Vec<ArrayRef>,
        row_counts: Vec<i64>,
    ) -> Result<RecordBatch, DataFusionError> {
        let row_counts: ArrayRef = Arc::new(Int64Array::from(row_counts));
        let columns = groups.into_iter().chain(states).chain([row_counts]);
        let columns = columns.collect();
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

/// The schema of what travels to an aggregate over these groups.
fn state_schema(groups: &[Field], calls: &AggregateCalls) -> SchemaRef {
    let rows = Field::new(ROWS_COLUMN, DataType::Int64, false);
    let states = calls.state_fields().iter();
    let fields = groups.iter().chain(states).cloned().chain([rows]);
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// How many rows the states were made of.
pub(super) fn row_count(states: &OwnedRows) -> Result<u64, DataFusionError> {
    let counts = states.batch().columns().last();
    let counts = counts.and_then(|column| column.as_primitive_opt::<Int64Type>());
    let Some(counts) = counts else {
        return exec_err!("states come without the number of their rows");
    };
    let counts = counts.values();
    let sum: i64 = match states.choice() {
        None => counts.iter().sum(),
        Some((rows, _)) => rows.iter().map(|row| counts[*row as usize]).sum(),
    };
    Ok(sum.unsigned_abs())
}
