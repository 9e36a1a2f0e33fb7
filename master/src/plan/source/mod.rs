//! `CREATE SOURCE` as a source of the plan: columns typed, checks and computed columns planned, the watermark read.
//!
//! Called by `plan_job` for each source. Failure: every column, check and option is its own problem, of an
//! expression every part that is at fault.

mod metadata;
mod watermark;

use arrow::datatypes::{DataType, Field};
use datafusion::common::DFSchema;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::sql::sqlparser::ast::{DataType as SqlType, Expr as SqlExpr};
use millstream_common::plan::{CheckPlan, ColumnOrigin, PlanExpression, SourceColumn, SourcePlan};
use millstream_common::secret::Lookup;

use super::catalog::Catalog;
use super::graph::schema_of;
use super::options::{RecordColumn, SourceOptions, read_source};
use super::parse::{ColumnClause, ColumnSource, SourceStatement};
use super::problem::{Place, Problem};
use super::session::Session;
use super::sql_error::problem_of;
use super::{faults, rules, types};
use crate::plan::problem::place_of;

/// A source, and what is wrong with it.
pub(super) struct ReadSource {
    /// `None` if something is wrong.
    pub(super) plan: Option<SourcePlan>,
    /// What views need to know; there even if only an option is wrong.
    pub(super) relation: Option<SourceRelation>,
    pub(super) options: SourceOptions,
    /// Of the columns' names, in order.
    pub(super) columns: Vec<Place>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

/// The rows of a source, as views see them.
pub(super) struct SourceRelation {
    pub(super) fields: Vec<Field>,
    /// The column with event time.
    pub(super) time: Option<usize>,
    pub(super) bounded: bool,
}

/// Reads one source.
pub(super) fn read(
    statement: &SourceStatement,
    session: &Session,
    lookup: &dyn Lookup,
) -> ReadSource {
    let mut reader = Reader {
        statement,
        session,
        columns: Vec::new(),
        has_computed: false,
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    reader.read_plain_columns();
    reader.read_computed_columns();
    reader.has_computed = true;
    let watermark = statement
        .watermark
        .as_ref()
        .and_then(|clause| reader.read_watermark(clause));
    let checks = reader.read_checks();
    let records: Vec<RecordColumn> = reader.record_columns();
    let mut options = read_source(statement, &records, lookup);
    let mut problems = reader.problems;
    problems.append(&mut options.problems);
    if let Some((spec, _)) = &options.spec {
        problems.extend(metadata::problems(statement, spec));
    }
    let columns: Option<Vec<SourceColumn>> = reader.columns.into_iter().collect();
    let has_watermark = watermark.is_some() || statement.watermark.is_none();
    let relation = columns
        .as_ref()
        .filter(|_| has_watermark)
        .map(|columns| SourceRelation {
            fields: columns.iter().map(|column| column.field.clone()).collect(),
            time: watermark.map(|watermark| watermark.column),
            // Nothing is known without a connector: what depends on it is not reported as well.
            bounded: options.bounded || options.spec.is_none(),
        });
    let plan = match (columns, options.spec.clone()) {
        (Some(columns), Some((spec, format))) if problems.is_empty() => Some(SourcePlan {
            name: statement.name.text.clone(),
            spec,
            format,
            columns,
            checks,
            on_violation: options.on_violation,
            watermark,
            keeps_time: false,
            idle_timeout_ms: options.idle_timeout_ms,
            bounded: options.bounded,
        }),
        _ => None,
    };
    ReadSource {
        plan,
        relation,
        options,
        columns: statement
            .columns
            .iter()
            .map(|column| column.name.place)
            .collect(),
        problems,
        warnings: reader.warnings,
    }
}

struct Reader<'a> {
    statement: &'a SourceStatement,
    session: &'a Session,
    /// `None` for a column that is wrong.
    columns: Vec<Option<SourceColumn>>,
    /// Computed columns are among them; before, nothing may read them.
    has_computed: bool,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Reader<'_> {
    /// Columns from records and metadata; computed ones are left open.
    fn read_plain_columns(&mut self) {
        for (index, clause) in self.statement.columns.iter().enumerate() {
            let name = &clause.name;
            let earlier = &self.statement.columns[..index];
            if let Some(first) = earlier.iter().find(|other| other.name.text == name.text) {
                let message = format!("column {} stands twice", name.text);
                let hint = format!("it is already declared in line {}", first.name.place.line);
                self.problems
                    .push(Problem::at(name.place, message).hint(hint));
            }
            let column = match &clause.source {
                ColumnSource::Record { data_type, place } => {
                    self.record_column(clause, data_type, *place)
                }
                ColumnSource::Metadata { metadata, .. } => Some(metadata::column(name, metadata)),
                ColumnSource::Computed { .. } => None,
            };
            self.columns.push(column);
        }
    }

    fn record_column(
        &mut self,
        clause: &ColumnClause,
        sql_type: &SqlType,
        place: Place,
    ) -> Option<SourceColumn> {
        match types::column_type(sql_type, place) {
            Ok(data_type) => Some(SourceColumn {
                field: Field::new(&clause.name.text, data_type, !clause.not_null),
                origin: ColumnOrigin::Record,
                type_name: declared_name(sql_type),
            }),
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    /// Computed columns read the others, but not each other.
    fn read_computed_columns(&mut self) {
        let Some(schema) = self.schema() else { return };
        for (index, clause) in self.statement.columns.iter().enumerate() {
            let ColumnSource::Computed {
                data_type,
                place,
                expression,
            } = &clause.source
            else {
                continue;
            };
            let declared = match types::column_type(data_type, *place) {
                Ok(declared) => declared,
                Err(problem) => {
                    self.problems.push(problem);
                    continue;
                }
            };
            let Some(planned) = self.expression(expression, &schema) else {
                continue;
            };
            let planned = match planned.cast_to(&declared, &schema) {
                Ok(planned) => planned,
                Err(error) => {
                    self.report(&error, place_of(expression.as_ref()));
                    continue;
                }
            };
            if let Some(encoded) = self.encode(&planned, expression) {
                self.columns[index] = Some(SourceColumn {
                    field: Field::new(&clause.name.text, declared, !clause.not_null),
                    origin: ColumnOrigin::Computed(encoded),
                    type_name: declared_name(data_type),
                });
            }
        }
    }

    fn read_checks(&mut self) -> Vec<CheckPlan> {
        let Some(schema) = self.schema() else {
            return Vec::new();
        };
        let mut checks = Vec::new();
        for clause in &self.statement.checks {
            let Some(condition) = self.expression(&clause.condition, &schema) else {
                continue;
            };
            match condition.get_type(&schema) {
                Ok(DataType::Boolean) => {}
                Ok(other) => {
                    let message =
                        format!("a check is true or false, not {}", types::type_name(&other));
                    self.problems
                        .push(Problem::at(place_of(&clause.condition), message));
                    continue;
                }
                Err(error) => {
                    self.report(&error, place_of(&clause.condition));
                    continue;
                }
            }
            if let Some(condition) = self.encode(&condition, &clause.condition) {
                checks.push(CheckPlan {
                    name: clause.name.clone(),
                    condition,
                });
            }
        }
        checks
    }

    fn expression(&mut self, expression: &SqlExpr, schema: &DFSchema) -> Option<Expr> {
        let refused = rules::check_expression(expression, self.session.state());
        if !refused.is_empty() {
            self.problems.extend(refused);
            return None;
        }
        let error = match self.session.expression(expression, schema) {
            Ok(planned) => return Some(planned),
            Err(error) => error,
        };
        let mut faults = faults::of_expression(expression, |part| {
            let error = self.session.expression(part, schema).err()?;
            Some(problem_of(&error, place_of(part), &Catalog::default()))
        });
        if faults.is_empty() {
            self.report(&error, place_of(expression));
        }
        faults.retain(|fault| !self.is_of_broken_column(fault));
        self.problems.extend(faults);
        None
    }

    /// A column whose declaration is wrong is not unknown as well.
    fn is_of_broken_column(&self, fault: &Problem) -> bool {
        let Some(name) = fault.message.strip_prefix("unknown column ") else {
            return false;
        };
        let clauses = self.statement.columns.iter().zip(&self.columns);
        let mut named = clauses.filter(|(clause, _)| clause.name.text == name);
        named.any(|(clause, column)| {
            let is_computed = matches!(clause.source, ColumnSource::Computed { .. });
            column.is_none() && (self.has_computed || !is_computed)
        })
    }

    fn encode(&mut self, planned: &Expr, written: &SqlExpr) -> Option<PlanExpression> {
        match PlanExpression::encode(planned, written.to_string()) {
            Ok(encoded) => Some(encoded),
            Err(error) => {
                let problem = Problem::at(place_of(written), error.to_string());
                self.problems.push(problem);
                None
            }
        }
    }

    fn report(&mut self, error: &DataFusionError, place: Place) {
        self.problems
            .push(problem_of(error, place, &Catalog::default()));
    }

    /// Of the columns that are known by now.
    fn schema(&mut self) -> Option<DFSchema> {
        let known = self.columns.iter().flatten().map(|column| &column.field);
        // Fails on columns that stand twice, which is reported already.
        schema_of(known).ok()
    }

    fn record_columns(&self) -> Vec<RecordColumn> {
        self.columns
            .iter()
            .flatten()
            .filter(|column| column.origin == ColumnOrigin::Record)
            .map(|column| RecordColumn {
                name: column.field.name().clone(),
                data_type: column.field.data_type().clone(),
            })
            .collect()
    }
}

/// The type as it is called in dead letters; JSON and JSONB are one.
fn declared_name(sql_type: &SqlType) -> String {
    match sql_type {
        SqlType::JSON | SqlType::JSONB => "JSON".to_owned(),
        other => other.to_string().to_uppercase(),
    }
}
