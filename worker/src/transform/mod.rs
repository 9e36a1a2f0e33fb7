//! Transform: the stateless steps of a branch, from a stage's port to its target.
//!
//! Called by the task that owns the port's rows, right behind the decoder or the operator: one pass, no actor between.
//! `build.rs` makes a [`BranchProgram`] of the plan's branch once; `steps.rs` runs its filters and projections with
//! DataFusion's physical expressions. Pure: no clock, no I/O, no state from one batch to the next.
//! Keeps INV-10: each row is in the result, among the failed rows, filtered, or late and left out; the counts close.
//! Failure: an expression that fails on a row fails that row alone, found by bisection.

mod build;
mod steps;
#[cfg(test)]
mod tests;

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch, not, prep_null_mask_filter};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use millstream_common::plan::expression;

use self::steps::{Rows, Step};

/// A plan that cannot be run, or rows that do not fit into memory.
#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    /// An expression of the plan cannot be evaluated here.
    #[error("build branch")]
    Expression(#[from] expression::Error),
    /// A filter that is no condition.
    #[error("build branch: filter {text} is {found}, not a boolean")]
    NotBoolean {
        /// The filter as SQL.
        text: String,
        /// Its type.
        found: String,
    },
    /// The last transform gives other columns than the plan says.
    #[error("build branch: columns are {found} where the plan says {expected}")]
    Columns {
        /// What the plan says.
        expected: String,
        /// What the transforms give.
        found: String,
    },
    /// The batch is not of the shape that the branch was built for.
    #[error("run branch")]
    Run(#[from] ArrowError),
}

/// A branch, ready to run batches.
#[derive(Debug)]
pub struct BranchProgram {
    leaves_out_late: bool,
    /// The port is `Changes`: `_op` is the last column of every batch, in and out.
    has_op: bool,
    steps: Vec<Step>,
    schema: SchemaRef,
}

/// What became of the rows of a batch.
#[derive(Debug)]
pub struct Transformed {
    /// The rows that go on, in order; `None` where there are none.
    pub batch: Option<RecordBatch>,
    /// The rows on which an expression fails, in order.
    pub failed: Vec<FailedRow>,
    /// How many rows a filter dropped.
    pub filtered_count: usize,
    /// How many rows were left out because they are late.
    pub late_count: usize,
}

/// A row on which an expression fails: a dead letter with code `expression`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRow {
    /// Its index in the batch that was given.
    pub row: usize,
    /// Names the expression and says what failed.
    pub reason: String,
}

/// What bisection has gathered so far.
#[derive(Default)]
struct Gathered {
    batches: Vec<RecordBatch>,
    failed: Vec<FailedRow>,
    filtered_count: usize,
}

impl BranchProgram {
    /// The schema of the resulting batches: the branch's, and `_op` on the port `Changes`.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Runs the branch over a batch of its port. `late` marks the rows to leave out where the branch leads to an
    /// operator that keeps time.
    ///
    /// # Errors
    /// [`TransformError::Run`] where the batch or `late` is not of the shape that the branch was built for.
    pub fn run(
        &self,
        batch: &RecordBatch,
        late: Option<&BooleanArray>,
    ) -> Result<Transformed, TransformError> {
        let late = late.filter(|_| self.leaves_out_late);
        let on_time = match late {
            Some(late) => filter_record_batch(batch, &on_time_rows(late)?)?,
            None => batch.clone(),
        };
        let late_count = batch.num_rows() - on_time.num_rows();
        let mut gathered = Gathered::default();
        if on_time.num_rows() > 0 {
            self.gather(&on_time, 0, &mut gathered)?;
        }
        if let Some(late) = late {
            restore_row_numbers(&mut gathered.failed, late);
        }
        let batch = match gathered.batches.len() {
            0 | 1 => gathered.batches.pop(),
            _ => Some(concat_batches(&self.schema, &gathered.batches)?),
        };
        Ok(Transformed {
            batch,
            failed: gathered.failed,
            filtered_count: gathered.filtered_count,
            late_count,
        })
    }

    /// Evaluates a part of the batch that begins at `first_row`; halves it until the failing rows are alone.
    fn gather(
        &self,
        part: &RecordBatch,
        first_row: usize,
        gathered: &mut Gathered,
    ) -> Result<(), TransformError> {
        let row_count = part.num_rows();
        match self.evaluate(part) {
            Ok(rows) => {
                gathered.filtered_count += row_count - rows.num_rows();
                if rows.num_rows() > 0 {
                    gathered.batches.push(rows);
                }
            }
            Err(reason) if row_count == 1 => {
                let row = first_row;
                gathered.failed.push(FailedRow { row, reason });
            }
            Err(_) => {
                let half = row_count / 2;
                self.gather(&part.slice(0, half), first_row, gathered)?;
                let rest = part.slice(half, row_count - half);
                self.gather(&rest, first_row + half, gathered)?;
            }
        }
        Ok(())
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<RecordBatch, String> {
        let mut rows = Rows::new(batch, self.has_op)?;
        for step in &self.steps {
            if rows.count() == 0 {
                break;
            }
            step.apply(&mut rows)?;
        }
        match rows.count() {
            0 => Ok(RecordBatch::new_empty(self.schema.clone())),
            _ => rows.finish(&self.schema),
        }
    }
}

/// What is not known to be late is on time.
fn on_time_rows(late: &BooleanArray) -> Result<BooleanArray, ArrowError> {
    match late.null_count() {
        0 => not(late),
        _ => not(&prep_null_mask_filter(late)),
    }
}

/// Row numbers among the rows that are on time become row numbers in the whole batch.
fn restore_row_numbers(failed: &mut [FailedRow], late: &BooleanArray) {
    if failed.is_empty() {
        return;
    }
    let on_time = late
        .iter()
        .enumerate()
        .filter(|(_, late)| *late != Some(true));
    let rows: Vec<usize> = on_time.map(|(row, _)| row).collect();
    for failed_row in failed {
        failed_row.row = rows[failed_row.row];
    }
}
