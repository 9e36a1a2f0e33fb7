//! DataFusion's SQL planner, set up for streams.
//!
//! Called for each view, check and computed column. It knows DataFusion's functions, [`TumblePlanner`], our types and the
//! relations of the [`Catalog`]; nothing is executed here. Rules: type coercion, our types of sums, and constants folded; never
//! a rule that turns DISTINCT ON into an aggregate.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DFSchema, TableReference, plan_err};
use datafusion::error::Result;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::builder::LogicalTableSource;
use datafusion::logical_expr::planner::{
    ContextProvider, ExprPlanner, RelationPlanner, TypePlanner,
};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF,
};
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion::optimizer::simplify_expressions::{ExprSimplifier, SimplifyExpressions};
use datafusion::prelude::SessionConfig;
use datafusion::sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, Query, Statement};

use super::catalog::{Catalog, Entry};
use super::sums::SumTypes;
use super::tumble::TumblePlanner;
use super::types::MillstreamTypes;

/// The planner of one job.
pub(super) struct Session {
    state: SessionState,
    types: Arc<dyn TypePlanner>,
}

impl Session {
    /// Registers functions and rules.
    pub(super) fn new() -> Self {
        let mut config = SessionConfig::new();
        let options = config.options_mut();
        options.sql_parser.collect_spans = true;
        options.sql_parser.map_string_types_to_utf8view = false;
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_default_features()
            .with_relation_planners(vec![Arc::new(TumblePlanner)])
            .with_analyzer_rules(vec![Arc::new(SumTypes), Arc::new(TypeCoercion::new())])
            .with_optimizer_rules(vec![Arc::new(SimplifyExpressions::new())])
            .build();
        Self {
            state,
            types: Arc::new(MillstreamTypes),
        }
    }

    /// The functions it knows.
    pub(super) fn state(&self) -> &SessionState {
        &self.state
    }

    /// The query with types settled and constants folded.
    pub(super) fn query(&self, query: &Query, catalog: &Catalog) -> Result<LogicalPlan> {
        let provider = Provider {
            session: self,
            catalog,
        };
        let statement = Statement::Query(Box::new(query.clone()));
        let planner = SqlToRel::new_with_options(&provider, self.parser_options());
        let plan = planner.sql_statement_to_plan(statement)?;
        self.state.optimize(&plan)
    }

    /// An expression over `schema`, with types settled and constants folded.
    pub(super) fn expression(&self, expression: &SqlExpr, schema: &DFSchema) -> Result<Expr> {
        let catalog = Catalog::default();
        let provider = Provider {
            session: self,
            catalog: &catalog,
        };
        let planner = SqlToRel::new_with_options(&provider, self.parser_options());
        let mut context = PlannerContext::new();
        let expression = planner.sql_to_expr(expression.clone(), schema, &mut context)?;
        let context = SimplifyContext::builder()
            .with_schema(Arc::new(schema.clone()))
            .with_config_options(Arc::clone(self.state.config_options()))
            .build();
        let simplifier = ExprSimplifier::new(context);
        let coerced = simplifier.coerce(expression, schema)?;
        simplifier.simplify(coerced)
    }

    fn parser_options(&self) -> ParserOptions {
        ParserOptions::from(&self.state.config_options().sql_parser)
    }
}

/// What DataFusion's planner asks while it plans one statement.
struct Provider<'a> {
    session: &'a Session,
    catalog: &'a Catalog,
}

/// Starts the error of a query that reads a relation with errors of its own.
pub(super) const BROKEN: &str = "broken relation ";

/// The name of a relation as the catalog has it.
pub(super) fn relation_name(reference: &TableReference) -> String {
    match reference.schema() {
        Some(schema) => format!("{schema}.{}", reference.table()),
        None => reference.table().to_owned(),
    }
}

impl ContextProvider for Provider<'_> {
    fn get_table_source(&self, reference: TableReference) -> Result<Arc<dyn TableSource>> {
        let name = relation_name(&reference);
        match self.catalog.get(&name) {
            Some(Entry::Known(relation)) => Ok(Arc::new(LogicalTableSource::new(Arc::clone(
                &relation.schema,
            )))),
            Some(Entry::Broken) => plan_err!("{BROKEN}{name}"),
            None => plan_err!("unknown relation {name}"),
        }
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.session.state.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        self.session.state.relation_planners()
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::clone(&self.session.types))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.session.state.scalar_functions().get(name).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.session
            .state
            .higher_order_functions()
            .get(name)
            .cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.session.state.aggregate_functions().get(name).cloned()
    }

    fn get_window_meta(&self, _: &str) -> Option<Arc<WindowUDF>> {
        None
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.session.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        sorted(self.session.state.scalar_functions().keys())
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        sorted(self.session.state.higher_order_functions().keys())
    }

    fn udaf_names(&self) -> Vec<String> {
        sorted(self.session.state.aggregate_functions().keys())
    }

    fn udwf_names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// In a fixed order, so that suggestions never change from run to run.
fn sorted<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut names: Vec<String> = names.cloned().collect();
    names.sort();
    names
}
