//! `CREATE VIEW`: refused, planned by DataFusion, lowered.
//!
//! Called by `plan_job` for each view in order. Failure: of a query that cannot be planned all faults that can be told apart; of one
//! that cannot be lowered the first.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, ObjectName, ObjectNamePart, Query, visit_expressions, visit_relations,
};

use super::catalog::{Catalog, Relation};
use super::graph::Graph;
use super::lower::{LowerError, Lowering};
use super::parse::{Name, ViewStatement};
use super::problem::{Place, Problem};
use super::session::{BROKEN, Session};
use super::sql_error::problem_of;
use super::{faults, rules};

/// The relation of a view, or what is wrong with it.
pub(super) fn read(
    statement: &ViewStatement,
    session: &Session,
    catalog: &Catalog,
    graph: &mut Graph,
    warnings: &mut Vec<Problem>,
) -> Result<Relation, Vec<Problem>> {
    let refused = rules::check_query(&statement.query, session.state());
    if !refused.is_empty() {
        return Err(with_unknown_names(refused, statement, session, catalog));
    }
    let place = statement.name.place;
    let name = statement.name.text.as_str();
    let plan = match session.query(&statement.query, catalog) {
        Ok(plan) => plan,
        Err(error) => {
            let root = error.find_root().message().into_owned();
            if let Some(broken) = root.strip_prefix(BROKEN) {
                return Err(vec![skipped("view", name, broken, place)]);
            }
            let whole = problem_of(&error, place, catalog);
            let mut problems = faults::of_query(&statement.query, session, catalog);
            let is_told = |problem: &Problem| problem.message == whole.message;
            if problems.is_empty() || (whole.place() != place && !problems.iter().any(is_told)) {
                problems.push(whole);
            }
            return Err(problems);
        }
    };
    let lowering = Lowering::new(name, place, catalog, graph, warnings);
    lowering.relation(&plan).map_err(|error| {
        vec![match error {
            LowerError::Problem(problem) => problem,
            LowerError::DataFusion(error) => problem_of(&error, place, catalog),
        }]
    })
}

/// What is refused keeps a query from being planned, but not from being searched for names that nothing has.
fn with_unknown_names(
    refused: Vec<Problem>,
    statement: &ViewStatement,
    session: &Session,
    catalog: &Catalog,
) -> Vec<Problem> {
    let mut faults = faults::of_query(&statement.query, session, catalog);
    faults.retain(|fault| {
        let is_within = |other: &Problem| {
            let end = other.column + other.length.max(1);
            fault.line == other.line && (other.column..end).contains(&fault.column)
        };
        fault.message.starts_with("unknown ") && !refused.iter().any(is_within)
    });
    faults.into_iter().chain(refused).collect()
}

/// That a statement was not looked at, as what it reads has errors.
pub(super) fn skipped(kind: &str, name: &str, broken: &str, place: Place) -> Problem {
    let why = match broken.strip_suffix(".dead_letters") {
        Some(owner) => format!("{broken}, and {owner} has errors"),
        None => format!("{broken}, which has errors"),
    };
    Problem::at(place, format!("{kind} {name} is skipped: it reads {why}"))
}

/// The names in FROM, anywhere in the query; names of common table expressions are among them.
pub(super) fn relations_read(query: &Query) -> Vec<String> {
    let mut names = Vec::new();
    let _ = visit_relations(query, |name| {
        names.push(folded(name));
        ControlFlow::<()>::Continue(())
    });
    // The first argument of TUMBLE is an expression to the parser.
    let _ = visit_expressions(query, |expression| {
        if let Expr::Identifier(ident) = expression {
            names.push(Name::fold(ident).text);
        }
        ControlFlow::<()>::Continue(())
    });
    names
}

fn folded(name: &ObjectName) -> String {
    let parts = name.0.iter().filter_map(ObjectNamePart::as_ident);
    parts
        .map(|ident| Name::fold(ident).text)
        .collect::<Vec<_>>()
        .join(".")
}
