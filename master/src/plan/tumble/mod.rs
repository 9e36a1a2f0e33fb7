//! `TUMBLE(relation, time, INTERVAL size)`: a table function that gives each row the window it falls into.
//!
//! [`TumblePlanner`] is called by DataFusion's SQL planner for every relation in FROM; it makes a [`Tumble`] node, which `lower`
//! turns into two columns of [`bound`] calls. Windows are [start, end), aligned to the epoch. Failure: an error with the
//! place of the argument and what to write.

mod bound;

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::common::{
    DFSchema, DFSchemaRef, Diagnostic, Span, internal_err, plan_datafusion_err,
};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, LogicalPlan, UserDefinedLogicalNodeCore,
};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, ObjectName, ObjectNamePart, Spanned, TableFactor,
};

pub(super) use bound::{Bound, as_bound, bound, expand, interval_micros};

use super::types;

/// The column with the start of the window.
pub(super) const WINDOW_START: &str = "window_start";
/// The column with the (exclusive) end of the window.
pub(super) const WINDOW_END: &str = "window_end";

/// Plans `TUMBLE` in FROM; leaves every other relation to DataFusion.
#[derive(Debug)]
pub(super) struct TumblePlanner;

impl RelationPlanner for TumblePlanner {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let is_tumble = matches!(&relation, TableFactor::Table { name, args: Some(_), .. }
            if name.to_string().eq_ignore_ascii_case("tumble"));
        let TableFactor::Table {
            name,
            alias,
            args: Some(args),
            ..
        } = relation
        else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        if !is_tumble {
            let what = format!("unknown table function {name}");
            return Err(refuse(
                what,
                name.span(),
                "there is TUMBLE(relation, time, INTERVAL '1 minute')",
            ));
        }
        let arguments: Vec<SqlExpr> = args
            .args
            .into_iter()
            .filter_map(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression),
                _ => None,
            })
            .collect();
        let Ok([input, time, size]) = <[SqlExpr; 3]>::try_from(arguments) else {
            let what = "TUMBLE takes a relation, its event time and the size of the window";
            let hint = "write TUMBLE(relation, time, INTERVAL '1 minute')";
            return Err(refuse(what, name.span(), hint));
        };
        let input = context.plan(as_relation(input)?)?;
        let time_span = time.span();
        let time = context.sql_to_expr(time, input.schema())?;
        let size_span = size.span();
        let size = context.sql_to_expr(size, &DFSchema::empty())?;
        let size_micros =
            size_micros(&size).map_err(|(what, hint)| refuse(what, size_span, hint))?;
        let span = Span::try_from_sqlparser_span(time_span);
        let node = Tumble::new(input, time, size_micros, span)?;
        let plan = LogicalPlan::Extension(Extension {
            node: Arc::new(node),
        });
        let planned = PlannedRelation::new(plan, alias);
        Ok(RelationPlanning::Planned(Box::new(planned)))
    }
}

/// The first argument: a name.
fn as_relation(input: SqlExpr) -> Result<TableFactor> {
    let span = input.span();
    let parts = match input {
        SqlExpr::Identifier(ident) => vec![ident],
        SqlExpr::CompoundIdentifier(idents) => idents,
        other => {
            let what = format!("{other} is no relation");
            return Err(refuse(
                what,
                span,
                "write TUMBLE(relation, time, INTERVAL '1 minute')",
            ));
        }
    };
    Ok(TableFactor::Table {
        name: ObjectName(parts.into_iter().map(ObjectNamePart::Identifier).collect()),
        alias: None,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    })
}

fn size_micros(size: &Expr) -> Result<i64, (&'static str, &'static str)> {
    let write = "write INTERVAL '1 minute', in days, hours, minutes or seconds";
    match interval_micros(size) {
        None => Err(("the size of a window is a constant interval", write)),
        Some((months, _)) if months != 0 => {
            Err(("months differ in length, so they are no window", write))
        }
        Some((_, micros)) if micros <= 0 => {
            Err(("the size of a window is more than nothing", write))
        }
        Some((_, micros)) => Ok(micros),
    }
}

/// An error of planning with its place and what to write.
fn refuse(
    what: impl Into<String>,
    span: datafusion::sql::sqlparser::tokenizer::Span,
    hint: &str,
) -> DataFusionError {
    let what = what.into();
    let diagnostic = Diagnostic::new_error(what.clone(), Span::try_from_sqlparser_span(span));
    plan_datafusion_err!("{what}").with_diagnostic(diagnostic.with_help(hint, None))
}

/// The rows of `input`, each with the window that its `time` falls into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tumble {
    pub(super) input: LogicalPlan,
    pub(super) time: Expr,
    pub(super) size_micros: i64,
    /// Of the time argument.
    pub(super) span: Option<Span>,
    schema: DFSchemaRef,
}

impl Tumble {
    fn new(input: LogicalPlan, time: Expr, size_micros: i64, span: Option<Span>) -> Result<Self> {
        let (_, time_field) = time.to_field(input.schema())?;
        let data_type = time_field.data_type().clone();
        let nullable = time_field.is_nullable();
        if !types::is_time(&data_type) {
            let what = format!(
                "the time of a window is a TIMESTAMP, but {} is {}",
                super::text::show_bare(&time),
                types::type_name(&data_type)
            );
            let diagnostic = Diagnostic::new_error(what.clone(), span);
            return Err(plan_datafusion_err!("{what}").with_diagnostic(diagnostic));
        }
        let mut fields: Vec<_> = input
            .schema()
            .iter()
            .map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)))
            .collect();
        let qualifier = fields.first().and_then(|(qualifier, _)| qualifier.clone());
        for name in [WINDOW_START, WINDOW_END] {
            if fields.iter().any(|(_, field)| field.name() == name) {
                let what = format!("the relation already has a column {name}");
                let diagnostic = Diagnostic::new_error(what.clone(), span)
                    .with_help("give it another name in a view before TUMBLE", None);
                return Err(plan_datafusion_err!("{what}").with_diagnostic(diagnostic));
            }
            let field = Field::new(name, data_type.clone(), nullable);
            fields.push((qualifier.clone(), Arc::new(field)));
        }
        let schema = DFSchema::new_with_metadata(fields, Default::default())?;
        Ok(Self {
            input,
            time,
            size_micros,
            span,
            schema: Arc::new(schema),
        })
    }
}

impl Hash for Tumble {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.input.hash(state);
        self.time.hash(state);
        self.size_micros.hash(state);
    }
}

impl PartialOrd for Tumble {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.size_micros.partial_cmp(&other.size_micros)
    }
}

impl UserDefinedLogicalNodeCore for Tumble {
    fn name(&self) -> &str {
        "Tumble"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![self.time.clone()]
    }

    fn fmt_for_explain(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = super::value::show_micros(self.size_micros);
        write!(formatter, "Tumble: {}, {size}", self.time)
    }

    fn with_exprs_and_inputs(
        &self,
        expressions: Vec<Expr>,
        inputs: Vec<LogicalPlan>,
    ) -> Result<Self> {
        match (expressions.into_iter().next(), inputs.into_iter().next()) {
            (Some(time), Some(input)) => Self::new(input, time, self.size_micros, self.span),
            _ => internal_err!("a window has one input and one time"),
        }
    }
}
