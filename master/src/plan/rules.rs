//! What SQL knows and a stream does not, or not yet: refused by name, with a place and what to write instead.
//!
//! Called on the syntax tree of each view before it is planned, and of each check and computed column. All refusals of a
//! statement are found at once.

use std::ops::ControlFlow;

use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::Volatility;
use datafusion::sql::sqlparser::ast::{
    DataType, Expr, Function, FunctionArguments, GroupByExpr, Query, Select, SetExpr, SetOperator,
    SetQuantifier, Spanned, TableFactor, Visit, Visitor,
};

use super::problem::{Place, Problem};
use super::types;
use crate::plan::problem::place_of;

/// Aggregates whose result does not depend on the order of rows and whose state is small.
const AGGREGATES: [&str; 22] = [
    "approx_distinct",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "count",
    "corr",
    "covar_pop",
    "covar_samp",
    "max",
    "mean",
    "min",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "sum",
    "var",
    "var_pop",
    "var_population",
    "var_samp",
];

/// What a query may not say.
pub(super) fn check_query(query: &Query, functions: &SessionState) -> Vec<Problem> {
    let mut rules = Rules {
        functions,
        problems: Vec::new(),
    };
    let _ = query.visit(&mut rules);
    rules.problems
}

/// What a check or a computed column may not say.
pub(super) fn check_expression(expression: &Expr, functions: &SessionState) -> Vec<Problem> {
    let mut rules = Rules {
        functions,
        problems: Vec::new(),
    };
    let _ = expression.visit(&mut rules);
    rules.problems
}

struct Rules<'a> {
    functions: &'a SessionState,
    problems: Vec<Problem>,
}

impl Visitor for Rules<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if let Some(order_by) = &query.order_by {
            self.refuse(
                order_by,
                "ORDER BY is not possible in a view: a stream has no last row to sort",
                "leave it out, and sort where the sink is read; \
                 for the first row of a key use SELECT DISTINCT ON (key)",
            );
        }
        if let Some(limit) = &query.limit_clause {
            self.refuse(
                limit,
                "LIMIT is not possible in a view: a stream has no first rows",
                "leave it out, and limit where the sink is read",
            );
        }
        if let Some(fetch) = &query.fetch {
            self.refuse(fetch, "FETCH is not possible in a view", "leave it out");
        }
        if let Some(with) = query.with.as_ref().filter(|with| with.recursive) {
            self.refuse(
                with,
                "WITH RECURSIVE is not supported",
                "write it without RECURSIVE",
            );
        }
        if !query.pipe_operators.is_empty() || !query.locks.is_empty() {
            self.refuse(
                query,
                "only SELECT is supported in a view",
                "write SELECT ... FROM ...",
            );
        }
        self.check_body(&query.body);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if select.from.is_empty() {
            self.refuse(
                select,
                "a view reads at least one relation",
                "add FROM relation",
            );
        }
        let joined = select
            .from
            .iter()
            .flat_map(|from| &from.joins)
            .map(|join| &join.relation);
        let listed = select.from.iter().skip(1).map(|from| &from.relation);
        if let Some(relation) = joined.chain(listed).next() {
            self.refuse(
                relation,
                "joins are not supported yet",
                "let each view read one relation; \
                 rows of several relations of equal columns are put together by UNION ALL",
            );
        }
        if let GroupByExpr::Expressions(_, modifiers) = &select.group_by
            && !modifiers.is_empty()
        {
            self.refuse_grouping_sets(&select.group_by);
        }
        let unsupported = [
            (select.qualify.is_some(), "QUALIFY"),
            (select.top.is_some(), "TOP"),
            (select.into.is_some(), "SELECT INTO"),
            (!select.lateral_views.is_empty(), "LATERAL VIEW"),
            (!select.named_window.is_empty(), "WINDOW"),
            (!select.cluster_by.is_empty(), "CLUSTER BY"),
            (!select.distribute_by.is_empty(), "DISTRIBUTE BY"),
            (!select.sort_by.is_empty(), "SORT BY"),
            (!select.connect_by.is_empty(), "CONNECT BY"),
            (select.prewhere.is_some(), "PREWHERE"),
        ];
        for (present, name) in unsupported {
            if present {
                self.refuse(select, format!("{name} is not supported"), "leave it out");
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, args, .. } => {
                let function = name.to_string().to_lowercase();
                if args.is_some() && (function == "hop" || function == "session") {
                    self.refuse(
                        name,
                        format!("{} windows are not supported yet", function.to_uppercase()),
                        "use TUMBLE(relation, time, INTERVAL '1 minute')",
                    );
                }
            }
            TableFactor::Derived { lateral: false, .. } => {}
            TableFactor::NestedJoin { .. } => self.refuse(
                factor,
                "joins are not supported yet",
                "let each view read one relation",
            ),
            other => self.refuse(
                other,
                "this kind of relation is not supported",
                "read a source, a view, a query in parentheses, or TUMBLE(...)",
            ),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
        match expression {
            Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. } => self.refuse(
                expression,
                "a query inside an expression is not supported yet",
                "make it a view and read that, or write the values: column IN ('a', 'b')",
            ),
            Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_) => {
                self.refuse_grouping_sets(expression);
            }
            // A name that is no type of SQL at all; DataFusion judges the others.
            Expr::Cast {
                data_type: data_type @ DataType::Custom(name, _),
                ..
            } => {
                let unknown = types::column_type(data_type, place_of(name));
                self.problems.extend(unknown.err());
            }
            Expr::Function(function) => self.check_function(function, expression),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Rules<'_> {
    fn refuse(&mut self, node: &impl Spanned, message: impl Into<String>, hint: &str) {
        self.problems
            .push(Problem::at(place_of(node), message).hint(hint));
    }

    fn refuse_grouping_sets(&mut self, node: &impl Spanned) {
        self.refuse(
            node,
            "ROLLUP, CUBE and GROUPING SETS are not supported",
            "write a view for each grouping",
        );
    }

    fn check_body(&mut self, body: &SetExpr) {
        match body {
            SetExpr::SetOperation {
                left,
                op,
                set_quantifier,
                right,
            } => {
                if *op != SetOperator::Union || *set_quantifier != SetQuantifier::All {
                    let name = format!("{op} {set_quantifier}");
                    let hint = if *op == SetOperator::Union {
                        "write UNION ALL; duplicates are removed by SELECT DISTINCT ON (key)"
                    } else {
                        "only UNION ALL is supported"
                    };
                    let message = format!("{} is not supported yet", name.trim());
                    self.refuse(right.as_ref(), message, hint);
                }
                self.check_body(left);
                self.check_body(right);
            }
            SetExpr::Select(_) | SetExpr::Query(_) => {}
            other => self.refuse(
                other,
                "only SELECT is supported in a view",
                "write SELECT ... FROM ...",
            ),
        }
    }

    fn check_function(&mut self, function: &Function, expression: &Expr) {
        let name = function.name.to_string().to_lowercase();
        let place = place_of(&function.name);
        if function.over.is_some() {
            self.refuse(
                expression,
                format!("the window function {name}(...) OVER is not supported"),
                "use TUMBLE with GROUP BY, or SELECT DISTINCT ON (key) for the first row of a key",
            );
            return;
        }
        if let Some(scalar) = self.functions.scalar_functions().get(&name)
            && scalar.signature().volatility != Volatility::Immutable
        {
            let is_clock = scalar.signature().volatility == Volatility::Stable
                || name.contains("time")
                || name.contains("date");
            let hint = if is_clock {
                "use the event time of the row, or the time Kafka received it: INCLUDE timestamp AS received_at"
            } else {
                "after a failure rows are computed again and must be the same: \
                 use a column of the row, or a hash of one, such as md5(key)"
            };
            let message = format!("{name}() is not possible here: it differs from call to call");
            self.problems.push(Problem::at(place, message).hint(hint));
        }
        if self.functions.aggregate_functions().contains_key(&name) {
            self.check_aggregate(function, &name, place);
        }
    }

    fn check_aggregate(&mut self, function: &Function, name: &str, place: Place) {
        if !AGGREGATES.contains(&name) {
            let message = format!("the aggregate {name} is not supported yet");
            let hint = format!("aggregates are {}", AGGREGATES.join(", "));
            self.problems.push(Problem::at(place, message).hint(hint));
        }
        let ordered = match &function.args {
            FunctionArguments::List(list) => !list.clauses.is_empty(),
            _ => false,
        };
        if ordered || !function.within_group.is_empty() || function.null_treatment.is_some() {
            let message = format!("{name} takes no ORDER BY and no treatment of NULL");
            let hint = "leave it out; WHERE or FILTER (WHERE ...) leave rows out";
            self.problems.push(Problem::at(place, message).hint(hint));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::session::Session;

    use super::*;

    #[test]
    fn only_clocks_and_dice_are_refused_as_different_from_call_to_call() {
        let session = Session::new();
        let functions = session.state().scalar_functions();
        let mut refused: Vec<&str> = functions
            .iter()
            .filter(|(_, function)| function.signature().volatility != Volatility::Immutable)
            .map(|(name, _)| name.as_str())
            .collect();
        refused.sort_unstable();
        let expected = [
            "current_date",
            "current_time",
            "current_timestamp",
            "file_row_index",
            "input_file_name",
            "now",
            "rand",
            "random",
            "today",
            "uuid",
        ];
        assert_eq!(refused, expected);
    }
}
