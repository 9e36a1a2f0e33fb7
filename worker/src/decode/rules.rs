//! The rules of a source that are expressions: computed columns and CHECKs.
//!
//! Built once from the plan, applied to the good rows of each batch. An expression that fails on a batch is tried on
//! ever smaller halves until the rows at fault are alone (code `expression`); the others keep their values.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, concat};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::physical_expr::PhysicalExpr;
use millstream_common::dead_letter::Code;
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{CheckPlan, ColumnOrigin, SourcePlan};

use super::columns::null_reason;
use super::refusals::{Refusals, shown};
use super::rows::Rows;

/// Computed columns and CHECKs of one source.
#[derive(Debug)]
pub(super) struct Rules {
    /// Of the columns that are not computed.
    base_schema: SchemaRef,
    /// Their indexes in the source.
    base_columns: Vec<usize>,
    computed: Vec<ComputedColumn>,
    schema: SchemaRef,
    checks: Vec<Check>,
}

#[derive(Debug)]
struct ComputedColumn {
    index: usize,
    field: Field,
    expression: Arc<dyn PhysicalExpr>,
    text: String,
}

#[derive(Debug)]
struct Check {
    /// As reasons name it.
    rule: String,
    condition: Arc<dyn PhysicalExpr>,
}

impl Rules {
    /// The rules of `plan`; `Err` says which expression does not fit.
    pub(super) fn new(plan: &SourcePlan, functions: &Functions) -> Result<Self, String> {
        let is_computed =
            |index: &usize| matches!(plan.columns[*index].origin, ColumnOrigin::Computed(_));
        let all = 0..plan.columns.len();
        let base_columns: Vec<usize> = all.filter(|index| !is_computed(index)).collect();
        let base_fields = base_columns
            .iter()
            .map(|index| plan.columns[*index].field.clone());
        let base_schema = Arc::new(Schema::new(base_fields.collect::<Vec<Field>>()));
        let mut computed = Vec::new();
        for (index, column) in plan.columns.iter().enumerate() {
            let ColumnOrigin::Computed(expression) = &column.origin else {
                continue;
            };
            computed.push(ComputedColumn {
                index,
                field: column.field.clone(),
                expression: expression
                    .physical(functions, &base_schema)
                    .map_err(|error| error.to_string())?,
                text: expression.text.clone(),
            });
        }
        let schema = plan.schema().0;
        let checks = plan
            .checks
            .iter()
            .map(|check| Check::new(check, functions, &schema));
        Ok(Self {
            checks: checks.collect::<Result<_, String>>()?,
            base_schema,
            base_columns,
            computed,
            schema,
        })
    }

    /// Fills the computed columns; refuses rows on which an expression fails or gives a NULL that is not allowed.
    pub(super) fn compute(
        &self,
        rows: &mut Rows,
        refusals: &mut Refusals,
    ) -> Result<(), ArrowError> {
        if self.computed.is_empty() {
            return Ok(());
        }
        let inputs = self
            .base_columns
            .iter()
            .filter_map(|index| rows.columns[*index].clone());
        let batch = batch(&self.base_schema, inputs.collect(), rows.count())?;
        for column in &self.computed {
            let mut failed = Vec::new();
            let array = column.evaluate(&batch, &mut failed)?;
            for (row, problem) in failed {
                refusals.refuse(rows.record(row), Code::Expression, || {
                    let name = column.field.name();
                    format!("column \"{name}\": {}: {}", column.text, shown(&problem))
                });
            }
            if !column.field.is_nullable() && array.null_count() > 0 {
                for row in (0..array.len()).filter(|row| array.is_null(*row)) {
                    refusals.refuse(rows.record(row), Code::NullViolation, || {
                        null_reason(column.field.name())
                    });
                }
            }
            rows.columns[column.index] = Some(array);
        }
        Ok(())
    }

    /// The rows as a batch of the source's schema.
    pub(super) fn batch(&self, rows: &Rows) -> Result<RecordBatch, ArrowError> {
        let columns = rows.columns.iter().flatten().cloned().collect();
        batch(&self.schema, columns, rows.count())
    }

    /// Refuses the rows for which a CHECK is false or fails; NULL passes.
    pub(super) fn check(&self, rows: &Rows, refusals: &mut Refusals) -> Result<(), ArrowError> {
        if self.checks.is_empty() {
            return Ok(());
        }
        let batch = self.batch(rows)?;
        for check in &self.checks {
            let mut failed = Vec::new();
            let passed = evaluate(&check.condition, &batch, &mut failed)?;
            for (row, problem) in failed {
                refusals.refuse(rows.record(row), Code::Expression, || {
                    format!("{}: {}", check.rule, shown(&problem))
                });
            }
            let passed = passed.as_boolean();
            if passed.false_count() == 0 {
                continue;
            }
            for row in 0..passed.len() {
                if passed.is_valid(row) && !passed.value(row) {
                    refusals.refuse(rows.record(row), Code::CheckViolation, || {
                        format!("{} is false", check.rule)
                    });
                }
            }
        }
        Ok(())
    }
}

impl Check {
    fn new(plan: &CheckPlan, functions: &Functions, schema: &SchemaRef) -> Result<Self, String> {
        let text = &plan.condition.text;
        let condition = plan
            .condition
            .physical(functions, schema)
            .map_err(|error| error.to_string())?;
        match condition.data_type(schema) {
            Ok(DataType::Boolean) => (),
            Ok(other) => return Err(format!("check {text} is a {other}, not a condition")),
            Err(error) => return Err(error.strip_backtrace()),
        }
        let rule = match &plan.name {
            Some(name) => format!("check \"{name}\" ({text})"),
            None => format!("check {text}"),
        };
        Ok(Self { rule, condition })
    }
}

impl ComputedColumn {
    fn evaluate(
        &self,
        batch: &RecordBatch,
        failed: &mut Vec<(usize, String)>,
    ) -> Result<ArrayRef, ArrowError> {
        let array = evaluate(&self.expression, batch, failed)?;
        if array.data_type() == self.field.data_type() {
            return Ok(array);
        }
        let options = CastOptions {
            safe: true,
            ..CastOptions::default()
        };
        let cast = cast_with_options(&array, self.field.data_type(), &options)?;
        for row in 0..cast.len() {
            if cast.is_null(row) && array.is_valid(row) {
                let problem = format!("does not fit type {}", self.field.data_type());
                failed.push((row, problem));
            }
        }
        Ok(cast)
    }
}

fn batch(
    schema: &SchemaRef,
    columns: Vec<ArrayRef>,
    row_count: usize,
) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(row_count));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}

/// The values of `expression`; rows on which it fails are NULL and in `failed`, in order, with the cause.
fn evaluate(
    expression: &Arc<dyn PhysicalExpr>,
    batch: &RecordBatch,
    failed: &mut Vec<(usize, String)>,
) -> Result<ArrayRef, ArrowError> {
    let mut parts = Vec::new();
    evaluate_range(expression, batch, 0..batch.num_rows(), &mut parts, failed)?;
    match parts.as_slice() {
        [whole] => Ok(whole.clone()),
        parts => concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>()),
    }
}

fn evaluate_range(
    expression: &Arc<dyn PhysicalExpr>,
    batch: &RecordBatch,
    range: std::ops::Range<usize>,
    parts: &mut Vec<ArrayRef>,
    failed: &mut Vec<(usize, String)>,
) -> Result<(), ArrowError> {
    let slice = batch.slice(range.start, range.len());
    let result = expression
        .evaluate(&slice)
        .and_then(|value| value.into_array(range.len()));
    let error = match result {
        Ok(array) => {
            parts.push(array);
            return Ok(());
        }
        Err(error) => error,
    };
    if range.len() > 1 {
        let middle = range.start + range.len() / 2;
        evaluate_range(expression, batch, range.start..middle, parts, failed)?;
        return evaluate_range(expression, batch, middle..range.end, parts, failed);
    }
    let data_type = expression
        .data_type(&batch.schema())
        .map_err(|error| ArrowError::ComputeError(error.strip_backtrace()))?;
    parts.push(new_null_array(&data_type, range.len()));
    failed.extend(range.map(|row| (row, error.strip_backtrace())));
    Ok(())
}
