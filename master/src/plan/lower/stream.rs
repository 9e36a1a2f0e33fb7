//! A stream while it is being lowered: a port of a stage, and what is done to its rows without state.
//!
//! Filters become steps at once; projections wait, merged into one, until a keyed operator or an output ends the
//! stream. So a chain of views over one stage costs one filter and one projection.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, ExprSchemable};

use crate::plan::graph::{DraftColumn, Lineage, ScopeColumn, Step, column, schema_of, unused_name};

/// The column that carries event time where the query has not selected it.
const HIDDEN_TIME: &str = "__time";

/// Which rows of a stage a stream takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan) enum StreamPort {
    Rows,
    DeadLetters,
    /// Of an aggregate: `Final` or `Changes` is decided by who reads them.
    Groups {
        windowed: bool,
    },
}

/// A stream.
#[derive(Clone, Debug)]
pub(in crate::plan) struct Stream {
    pub(in crate::plan) stage: usize,
    pub(in crate::plan) port: StreamPort,
    pub(in crate::plan) steps: Vec<Step>,
    /// What expressions read: the rows behind the steps.
    pub(in crate::plan) scope: Vec<ScopeColumn>,
    /// What the stream gives.
    pub(in crate::plan) columns: Vec<DraftColumn>,
    /// The column of the scope with the event time of a row, selected or not.
    pub(in crate::plan) time: Option<usize>,
}

impl Stream {
    /// All `scope` columns of a port.
    pub(in crate::plan) fn of_port(
        stage: usize,
        port: StreamPort,
        scope: Vec<ScopeColumn>,
        time: Option<usize>,
    ) -> Self {
        let columns = scope
            .iter()
            .map(|scope_column| DraftColumn {
                expression: column(scope_column.field.name()),
                field: scope_column.field.clone(),
                lineage: scope_column.lineage.clone(),
            })
            .collect();
        Self {
            stage,
            port,
            steps: Vec::new(),
            scope,
            columns,
            time,
        }
    }

    /// Keeps rows for which `condition`, over columns named as in `schema`, is true.
    pub(super) fn filter(&mut self, condition: &Expr, schema: &DFSchema) -> Result<()> {
        let condition = self.resolve(condition, schema)?;
        self.steps.push(Step::Filter(condition));
        Ok(())
    }

    /// Replaces the columns by expressions over columns named as in `schema`.
    pub(super) fn project(&mut self, columns: &[(String, Expr)], schema: &DFSchema) -> Result<()> {
        if self.is_costly_twice(columns, schema)? {
            self.flush();
        }
        let scope = self.scope_schema()?;
        let mut projected = Vec::with_capacity(columns.len());
        for (name, expression) in columns {
            let bare = expression.clone().unalias();
            let lineage = match &bare {
                Expr::Column(column) => self.columns[schema.index_of_column(column)?]
                    .lineage
                    .clone(),
                _ => Lineage::default(),
            };
            let expression = self.resolve(expression, schema)?;
            let (_, field) = expression.to_field(&scope)?;
            projected.push(DraftColumn {
                field: field
                    .as_ref()
                    .clone()
                    .with_name(name)
                    .with_metadata(Default::default()),
                expression,
                lineage,
            });
        }
        self.columns = projected;
        Ok(())
    }

    /// `expression` over `schema` as one over the scope.
    pub(super) fn resolve(&self, expression: &Expr, schema: &DFSchema) -> Result<Expr> {
        let resolved =
            expression.clone().unalias_nested().data.transform_up(
                |expression| match &expression {
                    Expr::Column(column) => {
                        let index = schema.index_of_column(column)?;
                        let replacement = self.columns[index].expression.clone();
                        // The replacement is over the scope already: it must not be looked into.
                        Ok(Transformed::new(replacement, true, TreeNodeRecursion::Jump))
                    }
                    _ => Ok(Transformed::no(expression)),
                },
            )?;
        Ok(resolved.data)
    }

    /// The scope as a schema.
    pub(super) fn scope_schema(&self) -> Result<DFSchema> {
        schema_of(self.scope.iter().map(|column| &column.field))
    }

    /// Makes the waiting projection a step of its own.
    fn flush(&mut self) {
        let visible_count = self.columns.len();
        let time = self.time.map(|_| self.keep_time());
        let columns = std::mem::take(&mut self.columns);
        let scope = columns
            .iter()
            .map(|column| ScopeColumn {
                field: column.field.clone(),
                lineage: column.lineage.clone(),
            })
            .collect();
        let mut steps = std::mem::take(&mut self.steps);
        steps.push(Step::Project(columns));
        *self = Self::of_port(self.stage, self.port, scope, time);
        self.steps = steps;
        self.columns.truncate(visible_count);
    }

    /// The position of the event time among the columns; it is added as the last where it is not selected.
    pub(super) fn keep_time(&mut self) -> usize {
        let time = self.time.expect("asked only where there is event time");
        let name = self.scope[time].field.name().clone();
        if let Some(index) = self
            .columns
            .iter()
            .position(|other| is_column(other, &name))
        {
            return index;
        }
        let taken = self
            .columns
            .iter()
            .map(|column| column.field.name().as_str());
        let hidden = unused_name(HIDDEN_TIME, taken);
        self.columns.push(DraftColumn {
            field: self.scope[time].field.clone().with_name(hidden),
            expression: column(&name),
            lineage: self.scope[time].lineage.clone(),
        });
        self.columns.len() - 1
    }

    /// Whether merging `columns` into the waiting projection would compute something twice.
    fn is_costly_twice(&self, columns: &[(String, Expr)], schema: &DFSchema) -> Result<bool> {
        let mut uses = vec![0_usize; self.columns.len()];
        for (_, expression) in columns {
            expression.apply(|expression| {
                if let Expr::Column(column) = expression {
                    uses[schema.index_of_column(column)?] += 1;
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        let costly = self
            .columns
            .iter()
            .map(|column| !matches!(column.expression, Expr::Column(_) | Expr::Literal(..)));
        Ok(uses
            .iter()
            .zip(costly)
            .any(|(uses, costly)| costly && *uses > 1))
    }
}

fn is_column(draft: &DraftColumn, name: &str) -> bool {
    matches!(&draft.expression, Expr::Column(Column { name: other, .. }) if other == name)
}
