//! Where the rows of each relation are in the plan: for previews, which see also views that exist only as a step of a stage.
//!
//! Called by `finish` once nothing unread is left. A relation is what its streams make of the ports of their stages; that a stage does
//! it for somebody else only, or for nobody, makes no difference to who taps the port. Columns that no task keeps are left out and named.
//! Failure: a relation whose rows are nowhere says why.

use std::collections::BTreeSet;

use arrow::datatypes::{Field, Schema};
use millstream_common::ids::StageIndex;
use millstream_common::plan::{PlanSchema, Port};
use millstream_common::preview::Tap;

use super::prune::add_names;
use super::{Error, encode};
use crate::plan::catalog::{Catalog, Relation};
use crate::plan::graph::{DraftColumn, DraftHead, DraftStage, Graph, Step};
use crate::plan::lower::{Stream, StreamPort};

/// A relation, and where its rows are.
#[derive(Clone, Debug, PartialEq)]
pub struct RelationTaps {
    /// Its name.
    pub relation: String,
    /// The taps, or why there are none.
    pub rows: Result<Tapped, String>,
}

/// Where the rows of a relation are.
#[derive(Clone, Debug, PartialEq)]
pub struct Tapped {
    /// All with the same columns; each of its own stream.
    pub taps: Vec<Tap>,
    /// Rows take the place of others or delete them.
    pub is_changelog: bool,
    /// Columns that no task keeps.
    pub left_out: Vec<String>,
}

/// Finds taps in a pruned graph.
pub(super) struct Tapping<'a> {
    pub(super) graph: &'a Graph,
    /// Of the stages as streams know them, the number in the graph; `None` where it is gone.
    pub(super) numbers: &'a [Option<usize>],
    pub(super) sink_count: usize,
}

/// A stream over what is left of its port's columns.
struct Narrowed<'a> {
    stream: &'a Stream,
    number: usize,
    port: Port,
    fields: Vec<Field>,
    steps: Vec<Step>,
    /// Names of the columns that can be computed.
    names: BTreeSet<&'a str>,
}

impl Tapping<'_> {
    /// Every relation of the job, in order of the statements.
    pub(super) fn relations(&self, catalog: &Catalog) -> Vec<RelationTaps> {
        let relations = catalog.relations();
        let tapped = relations.map(|(name, relation)| RelationTaps {
            relation: name.to_owned(),
            rows: self.tapped(relation),
        });
        tapped.collect()
    }

    fn tapped(&self, relation: &Relation) -> Result<Tapped, String> {
        let is_changelog = is_changelog(&relation.streams);
        let mut narrowed = Vec::new();
        for stream in &relation.streams {
            // Dead letters of a view are those of all its stages, some of which may not run.
            if let Some(number) = self.numbers[stream.stage] {
                narrowed.push(self.narrowed(stream, number, is_changelog)?);
            }
        }
        if narrowed.is_empty() {
            return Err("no sink reads it, so no task computes it".to_owned());
        }
        let is_kept = |name: &str| narrowed.iter().all(|each| each.names.contains(name));
        let (kept, left_out): (Vec<_>, Vec<_>) = (relation.schema.fields().iter())
            .map(|field| field.as_ref().clone())
            .partition(|field| is_kept(field.name()));
        if kept.is_empty() {
            return Err("no task keeps any of its columns".to_owned());
        }
        let schema = PlanSchema::from_fields(kept);
        let taps = narrowed.iter().map(|each| self.tap(each, &schema));
        let taps: Result<Vec<Tap>, Error> = taps.collect();
        Ok(Tapped {
            taps: taps.map_err(|error| error.to_string())?,
            is_changelog,
            left_out: left_out.iter().map(|field| field.name().clone()).collect(),
        })
    }

    fn narrowed<'a>(
        &self,
        stream: &'a Stream,
        number: usize,
        is_changelog: bool,
    ) -> Result<Narrowed<'a>, String> {
        let stage: &DraftStage = &self.graph.stages[number];
        if let DraftHead::Sink(_) = stage.head {
            let text = "its rows are made by the sink, where no task is: `millstream dead-letters` lists them";
            return Err(text.to_owned());
        }
        let port = match stream.port {
            StreamPort::Rows => Port::Rows,
            StreamPort::DeadLetters => Port::DeadLetters,
            StreamPort::Groups { .. } if is_changelog => Port::Changes,
            StreamPort::Groups { .. } => Port::Final,
        };
        let fields = encode::port_fields(stage, port);
        let mut known: BTreeSet<String> = fields.iter().map(|field| field.name().clone()).collect();
        let mut steps = Vec::new();
        for step in &stream.steps {
            match step {
                Step::Filter(condition) => {
                    let mut read = BTreeSet::new();
                    add_names(condition, &mut read);
                    if let Some(missing) = read.difference(&known).next() {
                        return Err(format!(
                            "it is filtered by {missing}, which no task keeps, because no sink reads it"
                        ));
                    }
                    steps.push(step.clone());
                }
                Step::Project(columns) => {
                    let kept = computable(columns, &known);
                    known = kept.iter().map(|each| each.field.name().clone()).collect();
                    steps.push(Step::Project(kept.into_iter().cloned().collect()));
                }
            }
        }
        let names = computable(&stream.columns, &known).into_iter();
        Ok(Narrowed {
            names: names.map(|each| each.field.name().as_str()).collect(),
            stream,
            number,
            port,
            fields,
            steps,
        })
    }

    fn tap(&self, narrowed: &Narrowed<'_>, schema: &PlanSchema) -> Result<Tap, Error> {
        let columns: Vec<DraftColumn> = columns_of(narrowed.stream, &schema.0);
        let stage = match self.graph.stages[narrowed.number].head {
            DraftHead::Keyed { .. } => narrowed.number - self.sink_count,
            DraftHead::Source(_) | DraftHead::Sink(_) => narrowed.number,
        };
        Ok(Tap {
            stage: StageIndex(stage as u32),
            port: narrowed.port,
            transforms: encode::transforms(&narrowed.fields, &narrowed.steps, &columns)?,
            schema: schema.clone(),
        })
    }
}

/// Groups show how they change; where several groupings are put together, the changes could not be told apart by their keys.
fn is_changelog(streams: &[Stream]) -> bool {
    matches!(streams, [stream] if matches!(stream.port, StreamPort::Groups { .. }))
}

fn computable<'a>(columns: &'a [DraftColumn], known: &BTreeSet<String>) -> Vec<&'a DraftColumn> {
    let is_computable = |column: &&DraftColumn| {
        let mut read = BTreeSet::new();
        add_names(&column.expression, &mut read);
        read.is_subset(known)
    };
    columns.iter().filter(is_computable).collect()
}

/// Those of the stream's columns that are in the schema.
fn columns_of(stream: &Stream, schema: &Schema) -> Vec<DraftColumn> {
    let columns = stream.columns.iter();
    let kept = columns.filter(|column| schema.index_of(column.field.name()).is_ok());
    kept.cloned().collect()
}
