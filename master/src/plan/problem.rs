//! Places of a job's SQL: where a node of the syntax tree stands.
//!
//! Called by every module of `plan`; what is wrong at a place is a [`Problem`], which the whole project shares. Cannot fail.

use datafusion::sql::sqlparser::ast::Spanned;
use datafusion::sql::sqlparser::tokenizer::Span;
pub use millstream_common::problem::{Place, Problem, render};

/// Where a node of the syntax tree stands.
pub(crate) fn place_of(node: &impl Spanned) -> Place {
    place_at(node.span())
}

/// The place of a span of sqlparser's.
pub(crate) fn place_at(span: Span) -> Place {
    place(
        span.start.line,
        span.start.column,
        span.end.line,
        span.end.column,
    )
}

/// The place of a span of DataFusion's.
pub(crate) fn place_in_plan(span: datafusion::common::Span) -> Place {
    place(
        span.start.line,
        span.start.column,
        span.end.line,
        span.end.column,
    )
}

/// A span over several lines goes to the end of its first.
fn place(line: u64, column: u64, end_line: u64, end_column: u64) -> Place {
    Place {
        line,
        column,
        length: match line == end_line {
            true => end_column.saturating_sub(column),
            false => 0,
        },
    }
}
