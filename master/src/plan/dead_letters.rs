//! The dead letters of sources, views and sinks: relations like others, and outputs that are shipped, read or not.
//!
//! Called by `plan_job` between its statements. A view has dead letters if it has a keyed operator: rows behind it on which an
//! expression fails; rows before it are still the source's. What a sink refuses can be read without state: behind it there is
//! no task that could own a key. Failure: dead letters of a sink that makes none are read.

use std::collections::BTreeSet;

use millstream_common::dead_letter;
use millstream_common::plan::{Emit, OnViolation};

use super::catalog::{Entry, Relation};
use super::graph::{DraftHead, DraftStage, Lineage, ScopeColumn};
use super::lower::{Stream, StreamPort};
use super::parse::SinkStatement;
use super::problem::{Place, Problem};
use super::{Planner, sink};

impl Planner<'_> {
    /// Those of each source.
    pub(super) fn add_source_letters(&mut self) {
        for index in 0..self.graph.stages.len() {
            let name = name_of(&self.graph.stages[index].name);
            let relation = relation([index]);
            sink::output_of(&name, &relation, Emit::Final, &mut self.graph);
            // A source that stands twice is reported where it is added.
            let known = Entry::Known(relation);
            let _ = self.catalog.insert(&name, Place::default(), known);
        }
    }

    /// Those of a source or view with errors: what reads them is skipped.
    pub(super) fn add_broken_letters(&mut self, owner: &str) {
        // An owner that stands twice is reported where it is added.
        let _ = self
            .catalog
            .insert(&name_of(owner), Place::default(), Entry::Broken);
    }

    /// Those of each sink, before the views that may read them.
    pub(super) fn add_sink_letters(&mut self, statements: &[SinkStatement]) {
        for (index, statement) in statements.iter().enumerate() {
            let stage = self.graph.stages.len();
            self.graph.stages.push(DraftStage {
                name: statement.name.text.clone(),
                head: DraftHead::Sink(index),
                columns: Vec::new(),
                sources: BTreeSet::new(),
                unbounded: true,
                branches: Vec::new(),
            });
            let name = name_of(&statement.name.text);
            let known = Entry::Known(relation([stage]));
            // A name that is taken is reported where the sink is added.
            let _ = self.catalog.insert(&name, Place::default(), known);
        }
    }

    /// Those of a view whose stages begin at `first_stage`.
    pub(super) fn add_view_letters(&mut self, view: &str, first_stage: usize) {
        if first_stage == self.graph.stages.len() {
            return;
        }
        let name = name_of(view);
        let relation = relation(first_stage..self.graph.stages.len());
        let known = Entry::Known(relation.clone());
        if self.catalog.insert(&name, Place::default(), known).is_ok() {
            self.view_letters.push((name, relation));
        }
    }

    pub(super) fn keep_view_letters(&mut self) {
        for (name, relation) in std::mem::take(&mut self.view_letters) {
            sink::output_of(&name, &relation, Emit::Final, &mut self.graph);
        }
    }

    /// A sink that keeps what it refuses ships it; one that does not must not be read.
    pub(super) fn keep_sink_letters(&mut self) {
        if !self.problems.is_empty() {
            return;
        }
        let first = self.sources.len();
        for (index, sink) in self.sinks.iter().enumerate() {
            let stage = first + index;
            let reason = match sink.on_violation {
                _ if sink.reads_dead_letters => {
                    "it reads dead letters; a row that it refuses suspends it"
                }
                OnViolation::Drop => "its on_violation = 'drop' keeps nothing",
                OnViolation::Fail => "a row that it refuses suspends it (on_violation = 'fail')",
                OnViolation::DeadLetter => {
                    let name = name_of(&sink.name);
                    let letters = relation([stage]);
                    sink::output_of(&name, &letters, Emit::Final, &mut self.graph);
                    continue;
                }
            };
            if !self.graph.stages[stage].branches.is_empty() {
                let message = format!("{} is read, but there is none", name_of(&sink.name));
                let place = self.sink_places[index].name;
                self.problems.push(Problem::at(place, message).hint(reason));
            }
        }
    }
}

fn name_of(owner: &str) -> String {
    format!("{owner}.dead_letters")
}

/// The dead letters of these stages.
fn relation(stages: impl IntoIterator<Item = usize>) -> Relation {
    let schema = dead_letter::schema();
    let fields = schema.fields().iter();
    let columns: Vec<ScopeColumn> = fields
        .map(|field| ScopeColumn {
            field: field.as_ref().clone(),
            lineage: Lineage::default(),
        })
        .collect();
    let streams = stages
        .into_iter()
        .map(|stage| Stream::of_port(stage, StreamPort::DeadLetters, columns.clone(), None));
    Relation {
        streams: streams.collect(),
        schema,
    }
}
