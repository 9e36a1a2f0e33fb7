//! Expressions as people write them: for `explain`, error texts and fingerprints.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::Expr;
use datafusion::sql::unparser::Unparser;
use datafusion::sql::unparser::dialect::Dialect;

use super::tumble;
use super::value::show_micros;

/// `expression` as SQL; never fails, at worst it reads like DataFusion's own plans.
pub(super) fn show(expression: &Expr) -> String {
    if let Some((bound, time, size)) = tumble::as_bound(expression) {
        return format!("{bound}({}, {})", show(time), show_micros(size));
    }
    if let Expr::AggregateFunction(call) = expression
        && call.func.name() == "count"
        && !call.params.distinct
        && call.params.filter.is_none()
        && matches!(call.params.args.as_slice(), [Expr::Literal(..)])
    {
        return "count(*)".to_owned();
    }
    match Unparser::new(&Plain).expr_to_sql(&without_casts(expression)) {
        Ok(sql) => strip_parentheses(&sql.to_string()).to_owned(),
        Err(_) => expression.human_display().to_string(),
    }
}

/// A column by its bare name, anything else as [`show`].
pub(super) fn show_bare(expression: &Expr) -> String {
    match expression {
        Expr::Column(column) => column.name.clone(),
        other => show(other),
    }
}

/// Quotes only what has to be quoted.
struct Plain;

impl Dialect for Plain {
    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        super::lower::quoted(identifier)
            .starts_with('"')
            .then_some('"')
    }
}

/// Casts of literals are how types were settled, not what was written.
fn without_casts(expression: &Expr) -> Expr {
    let transformed = expression.clone().transform_up(|expression| {
        Ok(match expression {
            Expr::Cast(cast) if matches!(*cast.expr, Expr::Literal(..)) => {
                Transformed::yes(*cast.expr)
            }
            other => Transformed::no(other),
        })
    });
    transformed.map_or_else(|_| expression.clone(), |transformed| transformed.data)
}

/// One pair of parentheses around the whole says nothing.
fn strip_parentheses(sql: &str) -> &str {
    let Some(inner) = sql
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'))
    else {
        return sql;
    };
    let mut depth = 0_i32;
    for character in inner.chars() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            return sql;
        }
    }
    inner
}
