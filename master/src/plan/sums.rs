//! What `sum` and `avg` give: the sum of BIGINT is NUMERIC, so that it cannot overflow; an average is DOUBLE PRECISION.
//!
//! An analyzer rule in front of type coercion: it casts the argument, and DataFusion's own functions do the rest.

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, cast};
use datafusion::optimizer::AnalyzerRule;

use super::types::SUM_NUMERIC;

/// Casts the arguments of sums and averages.
#[derive(Debug)]
pub(super) struct SumTypes;

impl AnalyzerRule for SumTypes {
    fn name(&self) -> &str {
        "sum_types"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let transformed = plan.transform_up(|plan| {
            // Every node is built anew: the types of an aggregate reach all that stands above it.
            let plan = rewrite(plan)?;
            Ok(Transformed::yes(plan.recompute_schema()?))
        })?;
        Ok(transformed.data)
    }
}

fn rewrite(plan: LogicalPlan) -> Result<LogicalPlan> {
    let names = NamePreserver::new(&plan);
    let LogicalPlan::Aggregate(mut aggregate) = plan else {
        return Ok(plan);
    };
    let input = aggregate.input.schema();
    for expression in &mut aggregate.aggr_expr {
        let name = names.save(expression);
        let transformed = expression.clone().transform_up(|expression| {
            let Expr::AggregateFunction(mut call) = expression else {
                return Ok(Transformed::no(expression));
            };
            let target = match (call.func.name(), call.params.args.as_slice()) {
                ("sum" | "avg", [argument]) => wanted(&call, &argument.get_type(input)?),
                _ => None,
            };
            let Some(target) = target else {
                return Ok(Transformed::no(Expr::AggregateFunction(call)));
            };
            let arguments = std::mem::take(&mut call.params.args);
            call.params.args = arguments
                .into_iter()
                .map(|argument| cast(argument, target.clone()))
                .collect();
            Ok(Transformed::yes(Expr::AggregateFunction(call)))
        })?;
        *expression = name.restore(transformed.data);
    }
    Ok(LogicalPlan::Aggregate(aggregate))
}

fn wanted(call: &AggregateFunction, argument: &DataType) -> Option<DataType> {
    match (call.func.name(), argument) {
        ("sum", DataType::Int64) => Some(SUM_NUMERIC),
        ("avg", DataType::Decimal128(..)) => Some(DataType::Float64),
        _ => None,
    }
}
