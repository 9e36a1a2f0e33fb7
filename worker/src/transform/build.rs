//! From a plan's branch to a program: expressions become physical, types are checked once.
//!
//! Called when a pipeline is wired. A projection that follows filters gets only the columns that it reads, so that filters
//! do not copy the others.
//! Failure: whatever does not fit is said here, not on the first batch.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column};
use millstream_common::plan::expression::{self, Functions};
use millstream_common::plan::{
    Branch, NamedExpression, OP_COLUMN, PlanExpression, Port, Transform,
};
use millstream_common::preview::Tap;

use super::steps::{Computed, Condition, Step};
use super::{BranchProgram, TransformError};

impl BranchProgram {
    /// For `branch`, over batches of its port. `input` is the schema of the port's rows as the plan has it: without
    /// `_op`, which batches of the port `Changes` have as last column nevertheless.
    ///
    /// # Errors
    /// Where an expression is unknown here, or the columns are not those of `branch.schema`.
    pub fn build(
        branch: &Branch,
        input: &SchemaRef,
        functions: &Functions,
    ) -> Result<Self, TransformError> {
        let late = branch.keeps_time;
        Builder::through(&branch.transforms, input, functions)?.ending(
            &branch.schema.0,
            branch.port,
            late,
        )
    }

    /// For the rows that a preview shows of `input`, the schema of the tap's port as in [`Self::build`]. NULLs are allowed everywhere.
    ///
    /// # Errors
    /// As in [`Self::build`].
    pub fn tapping(
        tap: &Tap,
        input: &SchemaRef,
        functions: &Functions,
    ) -> Result<Self, TransformError> {
        let fields = tap.schema.0.fields().iter();
        let nullable = fields.map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
        Builder::through(&tap.transforms, input, functions)?.ending(&schema, tap.port, false)
    }
}

struct Builder<'a> {
    functions: &'a Functions,
    /// Of the rows behind the last step.
    schema: SchemaRef,
    steps: Vec<Step>,
}

impl<'a> Builder<'a> {
    /// With all `transforms`, over rows of `input`.
    fn through(
        transforms: &[Transform],
        input: &SchemaRef,
        functions: &'a Functions,
    ) -> Result<Self, TransformError> {
        let mut builder = Self {
            functions,
            schema: input.clone(),
            steps: Vec::new(),
        };
        let mut transforms = transforms.iter().peekable();
        while let Some(transform) = transforms.next() {
            match transform {
                Transform::Project(columns) => builder.project(columns)?,
                Transform::Filter(condition) => {
                    let mut conditions = vec![condition];
                    while let Some(Transform::Filter(condition)) =
                        transforms.next_if(|next| matches!(next, Transform::Filter(_)))
                    {
                        conditions.push(condition);
                    }
                    let next = match transforms.peek() {
                        Some(Transform::Project(columns)) => Some(columns.as_slice()),
                        _ => None,
                    };
                    builder.filter(&conditions, next)?;
                }
            }
        }
        Ok(builder)
    }

    /// The program of rows of a port that are to have `schema` at the end.
    fn ending(
        mut self,
        schema: &SchemaRef,
        port: Port,
        leaves_out_late: bool,
    ) -> Result<BranchProgram, TransformError> {
        self.adapt(schema)?;
        let has_op = port == Port::Changes;
        Ok(BranchProgram {
            leaves_out_late,
            has_op,
            steps: self.steps,
            schema: match has_op {
                true => with_op(schema),
                false => schema.clone(),
            },
        })
    }

    fn filter(
        &mut self,
        conditions: &[&PlanExpression],
        next: Option<&[NamedExpression]>,
    ) -> Result<(), TransformError> {
        let mut built = Vec::with_capacity(conditions.len());
        for condition in conditions {
            self.add_conditions(condition, &mut built)?;
        }
        let kept_columns = match next {
            Some(columns) => Some(self.columns_read(columns)?),
            None => None,
        };
        if let Some(kept) = &kept_columns {
            let fields: Fields = kept
                .iter()
                .map(|index| self.schema.fields()[*index].clone())
                .collect();
            self.schema = Arc::new(Schema::new(fields));
        }
        self.steps.push(Step::Filter {
            conditions: built,
            kept_columns,
        });
        Ok(())
    }

    /// Takes an AND apart, so that each part guards the next.
    fn add_conditions(
        &self,
        condition: &PlanExpression,
        conditions: &mut Vec<Condition>,
    ) -> Result<(), TransformError> {
        let whole = condition.decode(self.functions)?;
        let text = &condition.text;
        for part in split_conjunction(&whole) {
            let part = PlanExpression::encode(part, text)?;
            let expression = part.physical(self.functions, &self.schema)?;
            match data_type(&expression, &self.schema, text)? {
                DataType::Boolean => conditions.push(Condition {
                    expression,
                    text: text.clone(),
                }),
                other => {
                    return Err(TransformError::NotBoolean {
                        text: text.clone(),
                        found: other.to_string(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Indexes of the columns that the expressions read.
    fn columns_read(&self, columns: &[NamedExpression]) -> Result<Vec<usize>, TransformError> {
        let mut read = BTreeSet::new();
        for column in columns {
            let expression = column.expression.decode(self.functions)?;
            for reference in expression.column_refs() {
                // A name that is not found is reported where the expression is built.
                read.extend(self.schema.index_of(&reference.name).ok());
            }
        }
        Ok(read.into_iter().collect())
    }

    fn project(&mut self, columns: &[NamedExpression]) -> Result<(), TransformError> {
        let mut computed = Vec::with_capacity(columns.len());
        let mut fields = Vec::with_capacity(columns.len());
        for column in columns {
            let text = column.expression.text.clone();
            let expression = column.expression.physical(self.functions, &self.schema)?;
            let found = data_type(&expression, &self.schema, &text)?;
            fields.push(Field::new(&column.name, found, true));
            computed.push(Computed {
                expression,
                text: format!("column {}: {text}", column.name),
            });
        }
        self.schema = Arc::new(Schema::new(fields));
        self.steps.push(Step::Project {
            columns: computed,
            schema: self.schema.clone(),
        });
        Ok(())
    }

    /// Casts where a type differs from the plan's only in how it is laid out; refuses other differences.
    fn adapt(&mut self, expected: &SchemaRef) -> Result<(), TransformError> {
        let refused = || TransformError::Columns {
            expected: describe(expected),
            found: describe(&self.schema),
        };
        if expected.fields().len() != self.schema.fields().len() {
            return Err(refused());
        }
        let mut columns = Vec::with_capacity(expected.fields().len());
        let mut is_cast = false;
        let pairs = self.schema.fields().iter().zip(expected.fields());
        for (index, (from, to)) in pairs.enumerate() {
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(from.name(), index));
            let expression = match (from.data_type(), to.data_type()) {
                _ if from.name() != to.name() => return Err(refused()),
                (found, wanted) if found == wanted => column,
                (found, wanted) if differs_in_layout(found, wanted) => {
                    is_cast = true;
                    Arc::new(CastExpr::new(column, wanted.clone(), None))
                }
                _ => return Err(refused()),
            };
            let text = format!("column {}", to.name());
            columns.push(Computed { expression, text });
        }
        if is_cast {
            let nullable = |field: &Arc<Field>| field.as_ref().clone().with_nullable(true);
            let fields: Vec<Field> = expected.fields().iter().map(nullable).collect();
            let schema = Arc::new(Schema::new(fields));
            self.steps.push(Step::Project { columns, schema });
        }
        Ok(())
    }
}

/// The branch's schema with `_op` behind it.
fn with_op(schema: &SchemaRef) -> SchemaRef {
    let op = Arc::new(Field::new(OP_COLUMN, DataType::Int8, false));
    let fields: Fields = schema.fields().iter().cloned().chain([op]).collect();
    Arc::new(Schema::new(fields))
}

fn data_type(
    expression: &Arc<dyn PhysicalExpr>,
    input: &SchemaRef,
    text: &str,
) -> Result<DataType, TransformError> {
    let found = expression.data_type(input);
    found.map_err(|error| {
        let broken = expression::Error::Decode {
            text: text.to_owned(),
            cause: error.strip_backtrace(),
        };
        broken.into()
    })
}

/// The same values in another layout: a cast that can lose nothing.
fn differs_in_layout(found: &DataType, wanted: &DataType) -> bool {
    use DataType::{
        Binary, BinaryView, Dictionary, LargeBinary, LargeUtf8, List, Map, Struct, Utf8, Utf8View,
    };
    let same_family = match (found, wanted) {
        (Utf8 | LargeUtf8 | Utf8View, Utf8 | LargeUtf8 | Utf8View) => true,
        (Binary | LargeBinary | BinaryView, Binary | LargeBinary | BinaryView) => true,
        (Dictionary(_, value), wanted) => value.as_ref() == wanted,
        (List(_), List(_)) | (Struct(_), Struct(_)) | (Map(_, _), Map(_, _)) => {
            found.equals_datatype(wanted) || same_but_for_nulls(found, wanted)
        }
        _ => false,
    };
    same_family && can_cast_types(found, wanted)
}

/// Nested types that differ only in whether inner values may be NULL.
fn same_but_for_nulls(found: &DataType, wanted: &DataType) -> bool {
    let same = |left: &Arc<Field>, right: &Arc<Field>| {
        left.name() == right.name() && same_but_for_nulls(left.data_type(), right.data_type())
    };
    match (found, wanted) {
        (DataType::List(left), DataType::List(right)) => same(left, right),
        (DataType::Map(left, _), DataType::Map(right, _)) => same(left, right),
        (DataType::Struct(left), DataType::Struct(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .zip(right)
                    .all(|(left, right)| same(left, right))
        }
        _ => found == wanted,
    }
}

fn describe(schema: &Schema) -> String {
    let columns = schema.fields().iter();
    let columns = columns.map(|field| format!("{} {}", field.name(), field.data_type()));
    format!("({})", columns.collect::<Vec<_>>().join(", "))
}
