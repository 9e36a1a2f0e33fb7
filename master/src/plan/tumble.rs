//! `TUMBLE(relation, time, INTERVAL size)`: a table function that gives each row the window it falls into.
//!
//! [`TumblePlanner`] is called by DataFusion's SQL planner for every relation in FROM; it makes a [`Tumble`] node, which `lower`
//! turns into two columns. While a plan is being lowered those columns are calls of [`bound`], so that texts stay short; [`expand`]
//! turns the calls into arithmetic that any worker can evaluate. Windows are [start, end), aligned to the epoch.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{
    DFSchema, DFSchemaRef, Diagnostic, Span, internal_err, plan_datafusion_err,
};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Extension, LogicalPlan, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, UserDefinedLogicalNodeCore, Volatility, cast, lit,
};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, ObjectName, ObjectNamePart, Spanned, TableFactor,
};

use super::types;

/// The column with the start of the window.
pub(super) const WINDOW_START: &str = "window_start";
/// The column with the (exclusive) end of the window.
pub(super) const WINDOW_END: &str = "window_end";

/// Which end of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Start,
    End,
}

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

/// The first argument: a name, or a query in parentheses.
fn as_relation(input: SqlExpr) -> Result<TableFactor> {
    let span = input.span();
    let parts = match input {
        SqlExpr::Identifier(ident) => vec![ident],
        SqlExpr::CompoundIdentifier(idents) => idents,
        SqlExpr::Subquery(subquery) => {
            return Ok(TableFactor::Derived {
                lateral: false,
                subquery,
                alias: None,
                sample: None,
            });
        }
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

/// A constant interval in microseconds.
pub(super) fn interval_micros(expression: &Expr) -> Option<(i32, i64)> {
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = expression else {
        return None;
    };
    let days = i64::from(interval.days).checked_mul(86_400_000_000)?;
    let micros = days.checked_add(interval.nanoseconds / 1_000)?;
    Some((interval.months, micros))
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
                "the time of a window is a TIMESTAMP, but {time} is {}",
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

/// Stands for a window bound until [`expand`]; never evaluated.
#[derive(Debug, PartialEq, Eq, Hash)]
struct BoundFunction {
    name: &'static str,
    signature: Signature,
}

static START: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| bound_function("tumble_start"));
static END: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| bound_function("tumble_end"));

fn bound_function(name: &'static str) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(BoundFunction {
        name,
        signature: Signature::any(2, Volatility::Immutable),
    }))
}

impl ScalarUDFImpl for BoundFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, argument_types: &[DataType]) -> Result<DataType> {
        match argument_types.first() {
            Some(data_type) => Ok(data_type.clone()),
            None => internal_err!("a window bound has a time"),
        }
    }

    fn return_field_from_args(
        &self,
        arguments: datafusion::logical_expr::ReturnFieldArgs<'_>,
    ) -> Result<arrow::datatypes::FieldRef> {
        let time = &arguments.arg_fields[0];
        let field = Field::new(self.name, time.data_type().clone(), time.is_nullable());
        Ok(Arc::new(field))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("{} is replaced before a plan is run", self.name)
    }
}

/// A bound of the window of `size_micros` that `time` falls into.
pub(super) fn bound(time: Expr, size_micros: i64, which: Bound) -> Expr {
    let function = match which {
        Bound::Start => &START,
        Bound::End => &END,
    };
    let size = lit(ScalarValue::new_interval_mdn(0, 0, size_micros * 1_000));
    function.call(vec![time, size])
}

/// Replaces every [`bound`] by arithmetic on microseconds; `schema` is of the rows it reads.
pub(super) fn expand(expression: Expr, schema: &DFSchema) -> Result<Expr> {
    let transformed = expression.transform_up(|expression| {
        let Expr::ScalarFunction(call) = &expression else {
            return Ok(Transformed::no(expression));
        };
        let is_start = call.name() == START.name();
        if !is_start && call.name() != END.name() {
            return Ok(Transformed::no(expression));
        }
        let [time, size] = call.args.as_slice() else {
            return internal_err!("a window bound has a time and a size");
        };
        let Some((_, size)) = interval_micros(size) else {
            return internal_err!("the size of a window is constant");
        };
        let data_type = time.get_type(schema)?;
        let micros = cast(time.clone(), DataType::Int64);
        // The remainder takes the sign of the time; adding the size and taking it again makes it
        // positive, so that windows before 1970 are aligned as those after it.
        let into_window = (micros.clone() % lit(size) + lit(size)) % lit(size);
        let start = micros - into_window;
        let bound = if is_start { start } else { start + lit(size) };
        Ok(Transformed::yes(cast(bound, data_type)))
    })?;
    Ok(transformed.data)
}

/// The name, time and size in microseconds of a [`bound`].
pub(super) fn as_bound(expression: &Expr) -> Option<(&str, &Expr, i64)> {
    let Expr::ScalarFunction(call) = expression else {
        return None;
    };
    if call.name() != START.name() && call.name() != END.name() {
        return None;
    }
    let [time, size] = call.args.as_slice() else {
        return None;
    };
    let (_, size) = interval_micros(size)?;
    Some((call.name(), time, size))
}
