//! `CREATE SOURCE` as a source of the plan: columns typed, checks and computed columns planned, the watermark read.
//!
//! Called by `plan_job` for each source. Failure: every column, check and option is its own problem.

use arrow::datatypes::{DataType, Field};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{Expr, ExprSchemable};
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr as SqlExpr};
use millstream_common::plan::{
    CheckPlan, ColumnOrigin, Metadata, PlanExpression, SourceColumn, SourcePlan, SourceSpec,
    WatermarkPlan,
};
use millstream_common::secret::Lookup;
use millstream_common::time::EventSpan;

use super::catalog::Catalog;
use super::graph::schema_of;
use super::options::{RecordColumn, SourceOptions, read_source};
use super::parse::{ColumnClause, ColumnSource, Name, SourceStatement, WatermarkClause};
use super::problem::{Place, Problem};
use super::session::Session;
use super::sql_error::problem_of;
use super::{rules, tumble, types};

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
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    reader.read_plain_columns();
    reader.read_computed_columns();
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
        problems.extend(metadata_problems(statement, spec));
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
                ColumnSource::Metadata { metadata, .. } => Some(metadata_column(name, metadata)),
                ColumnSource::Computed { .. } => None,
            };
            self.columns.push(column);
        }
    }

    fn record_column(
        &mut self,
        clause: &ColumnClause,
        sql_type: &datafusion::sql::sqlparser::ast::DataType,
        place: Place,
    ) -> Option<SourceColumn> {
        match types::column_type(sql_type, place) {
            Ok(data_type) => Some(SourceColumn {
                field: Field::new(&clause.name.text, data_type, !clause.not_null),
                origin: ColumnOrigin::Record,
                type_name: sql_type.to_string().to_uppercase(),
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
                    self.report(&error, Place::of(expression));
                    continue;
                }
            };
            if let Some(encoded) = self.encode(&planned, expression) {
                self.columns[index] = Some(SourceColumn {
                    field: Field::new(&clause.name.text, declared, !clause.not_null),
                    origin: ColumnOrigin::Computed(encoded),
                    type_name: data_type.to_string().to_uppercase(),
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
                        .push(Problem::at(Place::of(&clause.condition), message));
                    continue;
                }
                Err(error) => {
                    self.report(&error, Place::of(&clause.condition));
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

    fn read_watermark(&mut self, clause: &WatermarkClause) -> Option<WatermarkPlan> {
        let name = &clause.column;
        let names = self
            .statement
            .columns
            .iter()
            .map(|column| column.name.text.as_str());
        let Some(index) = names.clone().position(|other| other == name.text) else {
            let problem = Problem::at(name.place, format!("unknown column {}", name.text));
            self.problems.push(problem.nearest(&name.text, names));
            return None;
        };
        let delay = self.delay(clause);
        let column = self.columns[index].as_mut()?;
        let data_type = column.field.data_type().clone();
        if !types::is_time(&data_type) {
            let shown = types::type_name(&data_type);
            let message = format!(
                "event time is TIMESTAMP or TIMESTAMPTZ, but {} is {shown}",
                name.text
            );
            self.problems
                .push(Problem::at(name.place, message).hint(format!(
                    "add a computed column: ts TIMESTAMP AS to_timestamp({})",
                    name.text
                )));
            return None;
        }
        if column.field.is_nullable() {
            // A row without event time belongs to no window and would never be late.
            column.field.set_nullable(false);
            let place = self.statement.columns[index].name.place;
            let message = format!(
                "{} is the event time: rows without it are dead letters",
                name.text
            );
            let warning = Problem::at(place, message).hint("write NOT NULL to say so");
            self.warnings.push(warning);
        }
        Some(WatermarkPlan {
            column: index,
            delay: delay?,
        })
    }

    /// `column - INTERVAL '...'`, or `column` for no delay.
    fn delay(&mut self, clause: &WatermarkClause) -> Option<EventSpan> {
        let name = clause.column.text.as_str();
        let is_column = |expression: &SqlExpr| match expression {
            SqlExpr::Identifier(ident) => Name::fold(ident).text == name,
            _ => false,
        };
        let place = Place::of(&clause.expression);
        let hint = {
            let shown = super::lower::quoted(name);
            format!("write WATERMARK FOR {shown} AS {shown} - INTERVAL '5 minutes'")
        };
        let interval = match &clause.expression {
            column if is_column(column) => return Some(EventSpan(0)),
            SqlExpr::BinaryOp {
                left,
                op: BinaryOperator::Minus,
                right,
            } if is_column(left) => right,
            _ => {
                let message = "a watermark is its column less a constant interval";
                self.problems.push(Problem::at(place, message).hint(hint));
                return None;
            }
        };
        let planned = self.expression(interval, &DFSchema::empty())?;
        let message = match tumble::interval_micros(&planned) {
            Some((0, micros)) if micros >= 0 => return Some(EventSpan(micros)),
            Some((0, _)) => "the delay of a watermark is not negative",
            Some(_) => "months differ in length, so they are no delay",
            None => "the delay of a watermark is a constant interval",
        };
        let place = Place::of(interval.as_ref());
        self.problems.push(Problem::at(place, message).hint(hint));
        None
    }

    fn expression(&mut self, expression: &SqlExpr, schema: &DFSchema) -> Option<Expr> {
        let refused = rules::check_expression(expression, self.session.state());
        if !refused.is_empty() {
            self.problems.extend(refused);
            return None;
        }
        match self.session.expression(expression, schema) {
            Ok(planned) => Some(planned),
            Err(error) => {
                self.report(&error, Place::of(expression));
                None
            }
        }
    }

    fn encode(&mut self, planned: &Expr, written: &SqlExpr) -> Option<PlanExpression> {
        match PlanExpression::encode(planned, written.to_string()) {
            Ok(encoded) => Some(encoded),
            Err(error) => {
                let problem = Problem::at(Place::of(written), error.to_string());
                self.problems.push(problem);
                None
            }
        }
    }

    fn report(&mut self, error: &datafusion::error::DataFusionError, place: Place) {
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

fn metadata_column(name: &Name, metadata: &Metadata) -> SourceColumn {
    let (data_type, nullable) = match metadata {
        Metadata::Key | Metadata::Header(_) => (DataType::Utf8, true),
        Metadata::Partition | Metadata::Offset => (DataType::Int64, false),
        Metadata::Timestamp => (types::TIMESTAMP, true),
        Metadata::File => (DataType::Utf8, false),
    };
    SourceColumn {
        type_name: types::type_name(&data_type),
        field: Field::new(&name.text, data_type, nullable),
        origin: ColumnOrigin::Metadata(metadata.clone()),
    }
}

/// Not every connector has all metadata.
fn metadata_problems(statement: &SourceStatement, spec: &SourceSpec) -> Vec<Problem> {
    let (connector, known): (&str, &[&str]) = match spec {
        SourceSpec::Kafka(_) => (
            "kafka",
            &["key", "partition", "offset", "timestamp", "header"],
        ),
        SourceSpec::Files(_) => ("files", &["file", "offset"]),
        SourceSpec::Datagen(_) => ("datagen", &["offset"]),
    };
    let mut problems = Vec::new();
    for clause in &statement.columns {
        let ColumnSource::Metadata { metadata, place } = &clause.source else {
            continue;
        };
        let name = match metadata {
            Metadata::Key => "key",
            Metadata::Partition => "partition",
            Metadata::Offset => "offset",
            Metadata::Timestamp => "timestamp",
            Metadata::Header(_) => "header",
            Metadata::File => "file",
        };
        if !known.contains(&name) {
            let message = format!("connector '{connector}' has no {name}");
            let hint = format!("it has {}", known.join(", "));
            problems.push(Problem::at(*place, message).hint(hint));
        }
    }
    problems
}
