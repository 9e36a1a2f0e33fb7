//! All that is wrong with a query or an expression, where DataFusion's planner stops at the first error.
//!
//! Called by `view` and `source` once a plan has failed. Each part is planned by itself: of an expression every part of it, of a
//! query the relations, expressions and clauses of every SELECT in it. A part is at fault if it cannot be planned and no part of
//! it is. What only the whole can tell (two columns of one name) stays the caller's. Failure: at most [`PLANS_MAX`] parts
//! are planned; faults behind them are found once the first are mended.

use std::ops::ControlFlow;

use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    Cte, Distinct, Expr, GroupByExpr, Query, Select, SelectItem, SetExpr, TableFactor, Value,
    Visit, Visitor, With,
};

use super::catalog::Catalog;
use super::parse::Name;
use super::problem::{Place, Problem, place_of};
use super::session::{BROKEN, Session};
use super::sql_error::problem_of;

/// Parts of one query that are planned; a plan takes well below a millisecond.
const PLANS_MAX: usize = 500;

/// The faults of `expression`; `plan` tells what is wrong with a part of it.
pub(super) fn of_expression(
    expression: &Expr,
    plan: impl FnMut(&Expr) -> Option<Problem>,
) -> Vec<Problem> {
    parts_of(expression, &[], plan)
}

/// The faults of `query`; none if only the whole is wrong.
pub(super) fn of_query(query: &Query, session: &Session, catalog: &Catalog) -> Vec<Problem> {
    let mut search = Search {
        session,
        catalog,
        found: Vec::new(),
        plan_count: 0,
    };
    search.query(query, &[]);
    search.found
}

/// The faults of `expression`. Parts with one of `names` in them mean something only where they stand.
fn parts_of(
    expression: &Expr,
    names: &[String],
    plan: impl FnMut(&Expr) -> Option<Problem>,
) -> Vec<Problem> {
    let mut parts = Parts {
        names,
        plan,
        settled: Vec::new(),
        query_depth: 0,
        found: Vec::new(),
    };
    let _ = expression.visit(&mut parts);
    parts.found
}

struct Parts<'a, Plan> {
    names: &'a [String],
    plan: Plan,
    /// Of each expression around the one that is visited: whether a part of it was at fault, or cannot be judged.
    settled: Vec<bool>,
    /// Queries inside an expression have columns of their own.
    query_depth: usize,
    found: Vec<Problem>,
}

impl<Plan: FnMut(&Expr) -> Option<Problem>> Visitor for Parts<'_, Plan> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.query_depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.query_depth -= 1;
        if let Some(around) = self.settled.last_mut() {
            *around = true;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
        self.settled.push(false);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expression: &Expr) -> ControlFlow<()> {
        let mut is_settled = self.settled.pop().unwrap_or(false) || self.query_depth > 0;
        is_settled |= matches!(expression, Expr::Identifier(ident)
            if self.names.contains(&Name::fold(ident).text));
        if !is_settled && let Some(problem) = (self.plan)(expression) {
            self.found.push(problem);
            is_settled = true;
        }
        if let Some(around) = self.settled.last_mut() {
            *around |= is_settled;
        }
        ControlFlow::Continue(())
    }
}

struct Search<'a> {
    session: &'a Session,
    catalog: &'a Catalog,
    found: Vec<Problem>,
    plan_count: usize,
}

/// A SELECT, and what can be named in it.
struct Scope<'a> {
    query: &'a Query,
    select: &'a Select,
    /// Of the queries around it.
    ctes: &'a [Cte],
}

impl Search<'_> {
    fn query(&mut self, query: &Query, outer: &[Cte]) {
        let mut ctes = outer.to_vec();
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.query(&cte.query, &ctes);
            ctes.push(cte.clone());
        }
        self.body(&query.body, query, &ctes);
    }

    fn body(&mut self, body: &SetExpr, query: &Query, ctes: &[Cte]) {
        match body {
            SetExpr::Select(select) => self.select(&Scope {
                query,
                select,
                ctes,
            }),
            SetExpr::Query(inner) => self.query(inner, ctes),
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left, query, ctes);
                self.body(right, query, ctes);
            }
            _ => {}
        }
    }

    fn select(&mut self, scope: &Scope<'_>) {
        let select = scope.select;
        let found_before = self.found.len();
        for from in &select.from {
            let joined = from.joins.iter().map(|join| &join.relation);
            for relation in std::iter::once(&from.relation).chain(joined) {
                if let TableFactor::Derived { subquery, .. } = relation {
                    self.query(subquery, scope.ctes);
                }
            }
        }
        let place = select.from.first().map(place_of).unwrap_or_default();
        if let Err(error) = self.plan(scope, scope.reading_nothing()) {
            // Without its relations nothing else of it can be judged.
            if self.found.len() == found_before {
                self.found.extend(self.problem(&error, place));
            }
            return;
        }
        let listed = select.projection.iter().filter_map(expression_of);
        for expression in listed.chain(&select.selection) {
            self.expression(scope, expression, &[]);
        }
        let aliases = aliases_of(select);
        for expression in grouping_of(select) {
            self.expression(scope, expression, &aliases);
        }
        if self.found.len() == found_before {
            self.clauses(scope);
        }
    }

    /// Every part of an expression over the relations of `scope`.
    fn expression(&mut self, scope: &Scope<'_>, expression: &Expr, names: &[String]) {
        let found = parts_of(expression, names, |part| {
            if matches!(part, Expr::Value(_)) {
                return None;
            }
            let mut select = scope.reading_nothing();
            select.projection = vec![SelectItem::UnnamedExpr(part.clone())];
            let error = self.plan(scope, select).err()?;
            self.problem(&error, place_of(part))
        });
        self.found.extend(found);
    }

    /// What is wrong only in its clause: a condition that is none, a column that is in no group.
    fn clauses(&mut self, scope: &Scope<'_>) {
        let select = scope.select;
        if let Some(condition) = &select.selection {
            let mut filtered = scope.reading_nothing();
            filtered.selection = Some(condition.clone());
            self.clause(scope, filtered, place_of(condition));
        }
        let GroupByExpr::Expressions(groups, _) = &select.group_by else {
            return;
        };
        // Names that GROUP BY takes from the list stay in it; numbers mean places in it.
        let is_named = |item: &SelectItem| {
            match item {
            SelectItem::ExprWithAlias { alias, .. } => groups.iter().any(|group| {
                matches!(group, Expr::Identifier(ident) if Name::fold(ident).text == Name::fold(alias).text)
            }),
            _ => false,
        }
        };
        if groups.is_empty() || groups.iter().any(|group| matches!(group, Expr::Value(_))) {
            return;
        }
        for item in &select.projection {
            let Some(expression) = expression_of(item) else {
                continue;
            };
            let others = select.projection.iter().filter(|other| *other != item);
            let mut grouped = scope.reading_nothing();
            grouped.projection = others.filter(|other| is_named(other)).cloned().collect();
            grouped.projection.push(item.clone());
            grouped.group_by = select.group_by.clone();
            self.clause(scope, grouped, place_of(expression));
        }
    }

    fn clause(&mut self, scope: &Scope<'_>, select: Select, place: Place) {
        if let Err(error) = self.plan(scope, select) {
            self.found.extend(self.problem(&error, place));
        }
    }

    fn plan(&mut self, scope: &Scope<'_>, select: Select) -> Result<(), Box<DataFusionError>> {
        if self.plan_count == PLANS_MAX {
            return Ok(());
        }
        self.plan_count += 1;
        let planned = self.session.query(&scope.query_of(select), self.catalog);
        planned.map(drop).map_err(Box::new)
    }

    /// `None`: a relation that is read has errors of its own, which is said of the whole.
    fn problem(&self, error: &DataFusionError, place: Place) -> Option<Problem> {
        let is_skipped = error.find_root().message().starts_with(BROKEN);
        (!is_skipped).then(|| problem_of(error, place, self.catalog))
    }
}

impl Scope<'_> {
    /// `SELECT NULL` from its relations.
    fn reading_nothing(&self) -> Select {
        let mut select = self.select.clone();
        select.distinct = None;
        select.projection = vec![SelectItem::UnnamedExpr(Expr::value(Value::Null))];
        select.selection = None;
        select.group_by = GroupByExpr::Expressions(Vec::new(), Vec::new());
        select.having = None;
        select.qualify = None;
        select.top = None;
        select.into = None;
        select
    }

    /// `select` as a query of its own, with the common table expressions that it may name.
    fn query_of(&self, select: Select) -> Query {
        let with = With {
            with_token: AttachedToken::empty(),
            recursive: false,
            cte_tables: self.ctes.to_vec(),
        };
        Query {
            with: (!self.ctes.is_empty()).then_some(with),
            body: Box::new(SetExpr::Select(Box::new(select))),
            order_by: None,
            limit_clause: None,
            fetch: None,
            ..self.query.clone()
        }
    }
}

fn expression_of(item: &SelectItem) -> Option<&Expr> {
    match item {
        SelectItem::UnnamedExpr(expression)
        | SelectItem::ExprWithAlias {
            expr: expression, ..
        } => Some(expression),
        _ => None,
    }
}

/// The names that a SELECT gives to its columns: GROUP BY, HAVING and DISTINCT ON may use them.
fn aliases_of(select: &Select) -> Vec<String> {
    let named = select.projection.iter().filter_map(|item| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(Name::fold(alias).text),
        _ => None,
    });
    named.collect()
}

fn grouping_of(select: &Select) -> impl Iterator<Item = &Expr> {
    let distinct: &[Expr] = match &select.distinct {
        Some(Distinct::On(keys)) => keys,
        _ => &[],
    };
    let groups: &[Expr] = match &select.group_by {
        GroupByExpr::Expressions(groups, _) => groups,
        GroupByExpr::All(_) => &[],
    };
    distinct.iter().chain(groups).chain(&select.having)
}
