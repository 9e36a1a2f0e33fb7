//! The steps of a program: filters and projections over rows.
//!
//! Called by `mod.rs` with a whole batch, and again with parts of it where one fails. Row by row, a condition guards
//! what stands behind it: `x <> 0 AND 10 / x > 1` fails on no row. Evaluating all conditions on all rows is
//! only the fast way to the same answer.
//! Failure: the text of the expression and what it says; never a panic on data.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int8Array, RecordBatch, RecordBatchOptions,
    new_null_array,
};
use arrow::compute::{and_kleene, filter_record_batch};
use arrow::datatypes::{Int8Type, SchemaRef};
use arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use millstream_common::plan::{OP_COLUMN, OP_DELETE};

/// One step.
#[derive(Debug)]
pub(super) enum Step {
    /// Consecutive filters of the plan. All conditions have to be true.
    Filter {
        conditions: Vec<Condition>,
        /// What the next step reads; `None` is every column.
        kept_columns: Option<Vec<usize>>,
    },
    Project {
        columns: Vec<Computed>,
        schema: SchemaRef,
    },
}

/// A boolean expression.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) expression: Arc<dyn PhysicalExpr>,
    /// For reasons of failed rows.
    pub(super) text: String,
}

/// A column's expression.
#[derive(Debug)]
pub(super) struct Computed {
    pub(super) expression: Arc<dyn PhysicalExpr>,
    /// For reasons of failed rows; names the column.
    pub(super) text: String,
}

/// Rows between two steps, `_op` apart from the other columns.
pub(super) struct Rows {
    batch: RecordBatch,
    op: Option<Int8Array>,
}

impl Rows {
    pub(super) fn new(batch: &RecordBatch, has_op: bool) -> Result<Self, String> {
        let mut batch = batch.clone();
        if !has_op {
            return Ok(Self { batch, op: None });
        }
        let is_op = |name: &String| name == OP_COLUMN;
        let last = batch.num_columns().checked_sub(1);
        let last = last.filter(|index| is_op(batch.schema_ref().field(*index).name()));
        let index = last.ok_or("the rows have no column _op")?;
        let op = batch.remove_column(index);
        match op.as_primitive_opt::<Int8Type>() {
            Some(op) => Ok(Self {
                batch,
                op: Some(op.clone()),
            }),
            None => Err(format!("column _op is {}", op.data_type())),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.batch.num_rows()
    }

    /// The rows in `schema`, which refuses NULLs where there must be none.
    pub(super) fn finish(self, schema: &SchemaRef) -> Result<RecordBatch, String> {
        let row_count = self.batch.num_rows();
        let (_, mut columns, _) = self.batch.into_parts();
        if let Some(op) = self.op {
            columns.push(Arc::new(op));
        }
        new_batch(schema, columns, row_count).map_err(|error| error.to_string())
    }

    /// Leaves out the columns that nothing reads any more.
    fn narrow(&mut self, kept_columns: Option<&[usize]>) -> Result<(), String> {
        if let Some(kept) = kept_columns {
            let narrowed = self.batch.project(kept);
            self.batch = narrowed.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn are_all_deletes(&self) -> bool {
        match &self.op {
            Some(op) => op.values().iter().all(|op| *op == OP_DELETE),
            None => false,
        }
    }

    /// Drops the rows that do not pass; where rows have an `_op`, makes deletes of them instead.
    fn keep(&mut self, passed: &BooleanArray) -> Result<(), ArrowError> {
        match &self.op {
            None => self.batch = filter_record_batch(&self.batch, passed)?,
            Some(op) => {
                let kept = op.values().iter().enumerate().map(|(row, op)| {
                    let passes = passed.is_valid(row) && passed.value(row);
                    if passes { *op } else { OP_DELETE }
                });
                self.op = Some(kept.collect::<Vec<i8>>().into());
            }
        }
        Ok(())
    }
}

impl Step {
    pub(super) fn apply(&self, rows: &mut Rows) -> Result<(), String> {
        match self {
            Self::Filter {
                conditions,
                kept_columns,
            } => apply_filter(conditions, kept_columns.as_deref(), rows),
            Self::Project { columns, schema } => apply_projection(columns, schema, rows),
        }
    }
}

fn apply_filter(
    conditions: &[Condition],
    kept_columns: Option<&[usize]>,
    rows: &mut Rows,
) -> Result<(), String> {
    let passed = match rows.are_all_deletes() {
        true => None,
        false => Some(evaluate_conditions(conditions, &rows.batch)),
    };
    match passed {
        Some(Err(_)) if rows.op.is_none() && conditions.len() > 1 => {
            rows.batch = filter_in_turn(conditions, &rows.batch)?;
            rows.narrow(kept_columns)
        }
        Some(passed) => {
            let passed = passed?;
            rows.narrow(kept_columns)?;
            rows.keep(&passed).map_err(|error| error.to_string())
        }
        None => rows.narrow(kept_columns),
    }
}

fn apply_projection(
    columns: &[Computed],
    schema: &SchemaRef,
    rows: &mut Rows,
) -> Result<(), String> {
    // What a delete carries beside its key is of no use, so it does not fail the row.
    let is_lenient = rows.count() == 1 && rows.are_all_deletes();
    let mut projected = Vec::with_capacity(columns.len());
    for (column, field) in columns.iter().zip(schema.fields()) {
        match evaluate(&column.expression, &column.text, &rows.batch) {
            Ok(array) => projected.push(array),
            Err(_) if is_lenient => projected.push(new_null_array(field.data_type(), 1)),
            Err(reason) => return Err(reason),
        }
    }
    let batch = new_batch(schema, projected, rows.count());
    rows.batch = batch.map_err(|error| error.to_string())?;
    Ok(())
}

/// The rows that pass all conditions, each evaluated only on the rows that passed those before it.
fn filter_in_turn(conditions: &[Condition], batch: &RecordBatch) -> Result<RecordBatch, String> {
    let mut left = batch.clone();
    for condition in conditions {
        let passed = evaluate(&condition.expression, &condition.text, &left)?;
        let filtered = filter_record_batch(&left, passed.as_boolean());
        left = filtered.map_err(|error| error.to_string())?;
    }
    Ok(left)
}

/// Which rows pass all conditions, evaluated on all rows; fails where a condition fails on a row that one
/// before it would have kept away from it.
fn evaluate_conditions(
    conditions: &[Condition],
    batch: &RecordBatch,
) -> Result<BooleanArray, String> {
    let mut passed: Option<BooleanArray> = None;
    for condition in conditions {
        if let Some(passed) = &passed
            && passed.true_count() == 0
        {
            break;
        }
        let array = evaluate(&condition.expression, &condition.text, batch)?;
        let next = array.as_boolean();
        passed = Some(match passed {
            Some(passed) => and_kleene(&passed, next).map_err(|error| error.to_string())?,
            None => next.clone(),
        });
    }
    Ok(passed.unwrap_or_else(|| BooleanArray::from(vec![true; batch.num_rows()])))
}

fn evaluate(
    expression: &Arc<dyn PhysicalExpr>,
    text: &str,
    batch: &RecordBatch,
) -> Result<ArrayRef, String> {
    let value = expression.evaluate(batch);
    let array = value.and_then(|value| value.into_array(batch.num_rows()));
    array.map_err(|error| format!("{text}: {}", reason(&error)))
}

/// What DataFusion says, without the layers that it passed through.
fn reason(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::ArrowError(cause, _) => cause.to_string(),
        other => other.strip_backtrace(),
    }
}

fn new_batch(
    schema: &SchemaRef,
    columns: Vec<ArrayRef>,
    row_count: usize,
) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(row_count));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}
