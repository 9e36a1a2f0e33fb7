//! From DataFusion's logical plan of a view to streams and keyed stages.
//!
//! Called for each view in order; what it reads is in the catalog already. Stateless nodes change streams; DISTINCT and
//! GROUP BY end streams in an exchange to a new stage. Equal parts of one view (a common table expression used twice) are lowered
//! once. Failure: what streams cannot do is a [`Problem`] that names it.

mod aggregate;
mod columns;
mod distinct;
mod stream;
mod window;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::Schema;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use millstream_common::plan::Port;

pub(super) use columns::quoted;
pub(super) use stream::{Stream, StreamPort};

use super::catalog::{Catalog, Entry, Relation};
use super::graph::{DraftBranch, DraftHead, DraftTarget, Graph};
use super::problem::{Place, Problem};
use super::session::relation_name;
use super::tumble::Tumble;
use super::types;
use columns::{merge_fields, merge_lineage, named, scope_of};

/// Why a plan could not be lowered.
pub(super) enum LowerError {
    Problem(Problem),
    DataFusion(DataFusionError),
}

impl From<Problem> for LowerError {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<DataFusionError> for LowerError {
    fn from(error: DataFusionError) -> Self {
        Self::DataFusion(error)
    }
}

type Streams = Vec<Stream>;

/// Lowers one view.
pub(super) struct Lowering<'a> {
    /// The view's name: operators are named after it.
    pub(super) view: &'a str,
    /// Where problems without a better place are.
    pub(super) place: Place,
    pub(super) catalog: &'a Catalog,
    pub(super) graph: &'a mut Graph,
    pub(super) warnings: &'a mut Vec<Problem>,
    ordinals: [usize; 2],
    /// Keyed nodes already lowered.
    done: Vec<(LogicalPlan, Streams)>,
}

impl<'a> Lowering<'a> {
    /// Of the view of this name.
    pub(super) fn new(
        view: &'a str,
        place: Place,
        catalog: &'a Catalog,
        graph: &'a mut Graph,
        warnings: &'a mut Vec<Problem>,
    ) -> Self {
        Self {
            view,
            place,
            catalog,
            graph,
            warnings,
            ordinals: [0, 0],
            done: Vec::new(),
        }
    }

    /// The relation that `plan` makes.
    pub(super) fn relation(mut self, plan: &LogicalPlan) -> Result<Relation, LowerError> {
        let mut streams = self.lower(plan)?;
        for stream in &mut streams {
            self.carry_types(stream)?;
        }
        let fields = merge_fields(&streams);
        for (index, field) in fields.iter().enumerate() {
            if fields[..index]
                .iter()
                .any(|other| other.name() == field.name())
            {
                let message = format!("column {} stands twice in {}", field.name(), self.view);
                return Err(Problem::at(self.place, message)
                    .hint("give one of them another name with AS")
                    .into());
            }
        }
        Ok(Relation {
            schema: Arc::new(Schema::new(fields)),
            streams,
        })
    }

    /// Casts columns to types that rows carry.
    fn carry_types(&self, stream: &mut Stream) -> Result<(), LowerError> {
        for draft in &mut stream.columns {
            let data_type = draft.field.data_type();
            let Some(carried) = types::carried_type(data_type) else {
                let message = format!(
                    "column {} has the type {}, which a relation cannot carry",
                    draft.field.name(),
                    types::type_name(data_type)
                );
                return Err(Problem::at(self.place, message)
                    .hint("select single values out of it, or cast it to TEXT")
                    .into());
            };
            if carried != *data_type {
                let expression = std::mem::take(&mut draft.expression);
                draft.expression = datafusion::logical_expr::cast(expression, carried.clone());
                draft.field = draft.field.clone().with_data_type(carried);
            }
        }
        Ok(())
    }

    fn lower(&mut self, plan: &LogicalPlan) -> Result<Streams, LowerError> {
        match plan {
            LogicalPlan::TableScan(scan) => {
                let name = relation_name(&scan.table_name);
                match self.catalog.get(&name) {
                    Some(Entry::Known(relation)) => Ok(relation.streams.clone()),
                    _ => Err(self.catalog.unknown(&name, self.place).into()),
                }
            }
            LogicalPlan::SubqueryAlias(alias) => self.lower(&alias.input),
            LogicalPlan::Projection(projection) => {
                let mut streams = self.lower(&projection.input)?;
                let columns = named(plan, &projection.expr);
                for stream in &mut streams {
                    stream.project(&columns, projection.input.schema())?;
                }
                Ok(streams)
            }
            LogicalPlan::Filter(filter) => {
                let mut streams = self.lower(&filter.input)?;
                for stream in &mut streams {
                    stream.filter(&filter.predicate, filter.input.schema())?;
                }
                Ok(streams)
            }
            LogicalPlan::Union(union) => {
                let mut streams = Vec::new();
                for input in &union.inputs {
                    streams.extend(self.lower_union_input(input, union)?);
                }
                self.check_union(&streams)?;
                Ok(streams)
            }
            LogicalPlan::Extension(extension) => {
                match extension.node.as_any().downcast_ref::<Tumble>() {
                    Some(tumble) => self.lower_tumble(tumble),
                    None => Err(self.unsupported(plan)),
                }
            }
            LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) => self.lower_once(plan),
            _ => Err(self.unsupported(plan)),
        }
    }

    /// An input of UNION ALL has the columns of the union, in its types.
    fn lower_union_input(
        &mut self,
        input: &LogicalPlan,
        union: &datafusion::logical_expr::Union,
    ) -> Result<Streams, LowerError> {
        let mut streams = self.lower(input)?;
        for stream in &mut streams {
            for (draft, field) in stream.columns.iter_mut().zip(union.schema.fields()) {
                draft.field = draft.field.clone().with_name(field.name());
            }
        }
        Ok(streams)
    }

    /// Changes of several aggregates cannot be told apart by their keys.
    fn check_union(&self, streams: &[Stream]) -> Result<(), LowerError> {
        let changes_only = streams
            .iter()
            .any(|stream| stream.port == StreamPort::Groups { windowed: false });
        if changes_only && streams.len() > 1 {
            let message = "UNION ALL over a GROUP BY without a window is not supported yet";
            return Err(Problem::at(self.place, message)
                .hint("put the rows together first, and group what UNION ALL gives")
                .into());
        }
        Ok(())
    }

    fn lower_once(&mut self, plan: &LogicalPlan) -> Result<Streams, LowerError> {
        if let Some((_, streams)) = self.done.iter().find(|(done, _)| done == plan) {
            return Ok(streams.clone());
        }
        let streams = match plan {
            LogicalPlan::Aggregate(aggregate) => self.lower_aggregate(aggregate)?,
            LogicalPlan::Distinct(distinct) => self.lower_distinct(distinct)?,
            _ => return Err(self.unsupported(plan)),
        };
        self.done.push((plan.clone(), streams.clone()));
        Ok(streams)
    }

    fn unsupported(&self, plan: &LogicalPlan) -> LowerError {
        let what = plan.display().to_string();
        let name = what.split([':', ' ']).next().unwrap_or("this").to_owned();
        Problem::at(self.place, format!("{name} is not supported in a view"))
            .hint("a view is made of SELECT, WHERE, GROUP BY, DISTINCT ON, TUMBLE and UNION ALL")
            .into()
    }

    /// Ends streams in the keyed stage `stage`.
    fn connect(&mut self, streams: Streams, stage: usize) {
        for stream in streams {
            let port = match stream.port {
                StreamPort::Rows => Port::Rows,
                StreamPort::DeadLetters => Port::DeadLetters,
                StreamPort::Groups { .. } => Port::Final,
            };
            self.graph.stages[stream.stage].branches.push(DraftBranch {
                port,
                steps: stream.steps,
                columns: stream.columns,
                target: DraftTarget::Exchange(stage),
            });
        }
    }

    /// The sources that reach these streams, and whether one of them never ends.
    fn origin(&self, streams: &[Stream]) -> (BTreeSet<usize>, bool) {
        let stages = streams
            .iter()
            .map(|stream| &self.graph.stages[stream.stage]);
        let sources = stages
            .clone()
            .flat_map(|stage| stage.sources.iter().copied())
            .collect();
        (sources, stages.into_iter().any(|stage| stage.unbounded))
    }

    /// A state needs rows that are never taken back, and that come through a task.
    fn refuse_changes(
        &self,
        streams: &[Stream],
        what: &str,
        place: Place,
    ) -> Result<(), LowerError> {
        let head_of = |stream: &Stream| &self.graph.stages[stream.stage].head;
        let of_sink = |stream: &&Stream| matches!(head_of(stream), DraftHead::Sink(_));
        if let Some(stream) = streams.iter().find(of_sink) {
            let sink = &self.graph.stages[stream.stage].name;
            let message = format!("{what} over the rows that a sink refused is not supported yet");
            return Err(Problem::at(place, message)
                .hint(format!(
                    "send {sink}.dead_letters to a table, and count there"
                ))
                .into());
        }
        let taken_back = streams
            .iter()
            .any(|stream| stream.port == StreamPort::Groups { windowed: false });
        if !taken_back {
            return Ok(());
        }
        let message = format!("{what} over a GROUP BY without a window is not supported yet");
        Err(Problem::at(place, message)
            .hint("give the inner GROUP BY a window: FROM TUMBLE(relation, time, INTERVAL '1 minute')")
            .into())
    }

    fn next_operator(&mut self, kind: &str, slot: usize) -> String {
        self.ordinals[slot] += 1;
        format!("{}/{kind}/{}", self.view, self.ordinals[slot])
    }
}
