//! The SQL front end: the text of a job becomes its plan, or a list of problems.
//!
//! Called by the control API at submit and by `check`, `explain` and `run`. The way is `parse` (text to statements), `options`
//! and `source` (typed), `rules` and `session` (views planned by DataFusion), `lower` (streams and keyed stages), `sink` (outputs),
//! `dead_letters` (of sources, views and sinks), `stages` (pruned and encoded). Nothing outside is asked here; that is [`check`], which hears what to ask
//! even where the plan fails. Failure: all problems at once, each with its place and what to write instead.

mod catalog;
pub mod check;
mod dead_letters;
mod explain;
mod faults;
mod graph;
mod intervals;
mod lower;
mod options;
mod parse;
pub mod problem;
mod rules;
mod session;
pub(crate) mod shown;
mod sink;
mod source;
mod sql_error;
mod stages;
mod sums;
#[cfg(test)]
mod tests;
mod text;
mod tumble;
pub(crate) mod types;
mod value;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;

use millstream_common::plan::{JobPlan, JobSettings, SinkPlan, SourcePlan};
use millstream_common::secret::Lookup;

pub use check::{ExternalProbe, Outside, check_job, check_outside};
pub use explain::explain;
pub use problem::{Place, Problem, render};
pub use stages::taps::{RelationTaps, Tapped};

use catalog::{Catalog, Entry, Relation};
use check::OutsideSink;
use graph::{DraftHead, DraftStage, Graph, Lineage, ScopeColumn};
use lower::{Stream, StreamPort};
use parse::{SinkStatement, SourceStatement, Statement, ViewStatement};
use session::Session;

/// A job that can run.
#[derive(Clone, Debug)]
pub struct PlannedJob {
    /// For the log and for workers.
    pub plan: JobPlan,
    /// What is allowed, but may not be meant.
    pub warnings: Vec<Problem>,
    /// Where the rows of each of its relations are, for whoever wants to see them; no part of the plan that is stored.
    pub relations: Vec<RelationTaps>,
}

/// What became of a job's text.
#[derive(Debug)]
pub struct DraftedJob {
    /// The job, or every problem of the text, in order of place.
    pub planned: Result<PlannedJob, Vec<Problem>>,
    /// What its sound statements name outside, whatever the others are.
    pub outside: Outside,
}

/// Where a statement and its parts stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatementPlaces {
    /// Its name.
    pub name: Place,
    /// The values of its options.
    pub options: BTreeMap<String, Place>,
    /// The names of its columns, in order; empty for sinks.
    pub columns: Vec<Place>,
}

impl StatementPlaces {
    /// The value of an option, or the statement's name where it is not given.
    pub fn option(&self, name: &str) -> Place {
        self.options.get(name).copied().unwrap_or(self.name)
    }
}

/// Plans the job in `sql`; options that are no text are resolved by `lookup`.
///
/// # Errors
/// Every problem of the text, in order of place.
pub fn plan_job(sql: &str, lookup: &dyn Lookup) -> Result<PlannedJob, Vec<Problem>> {
    draft_job(sql, lookup).planned
}

/// Plans the job in `sql` as [`plan_job`] does, and gathers what its sound statements name outside.
pub fn draft_job(sql: &str, lookup: &dyn Lookup) -> DraftedJob {
    let parsed = parse::parse(sql);
    let mut planner = Planner {
        lookup,
        session: Session::new(),
        catalog: Catalog::default(),
        graph: Graph::default(),
        sources: Vec::new(),
        sinks: Vec::new(),
        view_letters: Vec::new(),
        sink_places: Vec::new(),
        outside: Outside::default(),
        problems: parsed.problems,
        warnings: Vec::new(),
    };
    for name in &parsed.broken {
        // A name that is broken twice is broken.
        let _ = planner
            .catalog
            .insert(&name.text, name.place, Entry::Broken);
        planner.add_broken_letters(&name.text);
    }
    let planned = planner.plan(parsed.statements);
    DraftedJob {
        planned,
        outside: planner.outside,
    }
}

struct Planner<'a> {
    lookup: &'a dyn Lookup,
    session: Session,
    catalog: Catalog,
    graph: Graph,
    sources: Vec<SourcePlan>,
    sinks: Vec<SinkPlan>,
    /// The dead letters of views.
    view_letters: Vec<(String, Relation)>,
    sink_places: Vec<StatementPlaces>,
    outside: Outside,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Planner<'_> {
    fn plan(&mut self, statements: Vec<Statement>) -> Result<PlannedJob, Vec<Problem>> {
        let mut sets = Vec::new();
        let mut sources = Vec::new();
        let mut views = Vec::new();
        let mut sinks = Vec::new();
        for statement in statements {
            match statement {
                Statement::Set(set) => sets.push(set),
                Statement::Source(source) => sources.push(*source),
                Statement::View(view) => views.push(view),
                Statement::Sink(sink) => sinks.push(sink),
            }
        }
        let (settings, problems) = options::read_settings(&sets, self.lookup);
        self.problems.extend(problems);
        for source in &sources {
            self.add_source(source);
        }
        self.add_source_letters();
        self.add_sink_letters(&sinks);
        for view in &views {
            self.add_view(view);
        }
        for sink in &sinks {
            self.add_sink(sink);
        }
        self.keep_view_letters();
        self.keep_sink_letters();
        if sinks.is_empty() && self.problems.is_empty() {
            let problem = Problem::at(Place::default(), "the job has no sink, so it does nothing");
            let hint = "add CREATE SINK name FROM relation WITH (connector = 'console')";
            self.problems.push(problem.hint(hint));
        }
        self.warn_of_unread(&sources, &views);
        self.finish(settings)
    }

    fn add_source(&mut self, statement: &SourceStatement) {
        let name = &statement.name;
        let read = source::read(statement, &self.session, self.lookup);
        self.problems.extend(read.problems);
        self.warnings.extend(read.warnings);
        let entry = match read.relation {
            Some(relation) => Entry::Known(self.source_relation(&name.text, relation)),
            None => Entry::Broken,
        };
        if matches!(entry, Entry::Broken) {
            self.add_broken_letters(&name.text);
        }
        if let Err(problem) = self.catalog.insert(&name.text, name.place, entry) {
            self.problems.push(problem);
        }
        if let Some((spec, _)) = read.options.spec.filter(|_| !read.options.has_problems) {
            let places = StatementPlaces {
                name: name.place,
                options: read.options.places,
                columns: read.columns,
            };
            self.outside.sources.push((spec, places));
        }
        self.sources.extend(read.plan);
    }

    /// The stage of a source, and the relation of its rows.
    fn source_relation(&mut self, name: &str, source: source::SourceRelation) -> Relation {
        let index = self.graph.stages.len();
        let columns: Vec<ScopeColumn> = source
            .fields
            .iter()
            .enumerate()
            .map(|(position, field)| ScopeColumn {
                field: field.clone(),
                lineage: Lineage {
                    event_time: source.time == Some(position),
                    ..Lineage::default()
                },
            })
            .collect();
        self.graph.stages.push(DraftStage {
            name: name.to_owned(),
            head: DraftHead::Source(index),
            columns: columns.clone(),
            sources: BTreeSet::from([index]),
            unbounded: !source.bounded,
            branches: Vec::new(),
        });
        Relation {
            schema: std::sync::Arc::new(arrow::datatypes::Schema::new(source.fields)),
            streams: vec![Stream::of_port(
                index,
                StreamPort::Rows,
                columns,
                source.time,
            )],
        }
    }

    fn add_view(&mut self, statement: &ViewStatement) {
        let first_stage = self.graph.stages.len();
        let read = view::read(
            statement,
            &self.session,
            &self.catalog,
            &mut self.graph,
            &mut self.warnings,
        );
        let entry = match read {
            Ok(relation) => Entry::Known(relation),
            Err(problems) => {
                self.problems.extend(problems);
                Entry::Broken
            }
        };
        let name = &statement.name;
        if matches!(entry, Entry::Broken) {
            self.add_broken_letters(&name.text);
        }
        if let Err(problem) = self.catalog.insert(&name.text, name.place, entry) {
            self.problems.push(problem);
        }
        self.add_view_letters(&name.text, first_stage);
    }

    fn add_sink(&mut self, statement: &SinkStatement) {
        let mut read = options::read_sink(statement, self.lookup);
        let has_sound_options = read.problems.is_empty();
        self.problems.append(&mut read.problems);
        let taken = self
            .sinks
            .iter()
            .any(|sink| sink.name == statement.name.text)
            || self.catalog.get(&statement.name.text).is_some();
        if taken {
            let message = format!("the name {} is taken", statement.name.text);
            self.problems
                .push(Problem::at(statement.name.place, message));
        }
        let sink = sink::read(
            statement,
            &read,
            &self.catalog,
            &mut self.graph,
            &mut self.warnings,
        );
        let places = StatementPlaces {
            name: statement.name.place,
            options: read.places,
            columns: Vec::new(),
        };
        if let Some(spec) = read.spec.filter(|_| has_sound_options) {
            let relation = match self.catalog.get(&statement.relation.text) {
                Some(Entry::Known(relation)) if sink.is_ok() => Some(relation),
                _ => None,
            };
            self.outside.sinks.push(OutsideSink {
                spec,
                schema: relation.map(|relation| relation.schema.clone()),
                places: places.clone(),
            });
        }
        match sink {
            Ok(sink) => self.sinks.push(sink),
            Err(problems) => self.problems.extend(problems),
        }
        self.sink_places.push(places);
    }

    /// A source or view that reaches no sink is probably not meant.
    fn warn_of_unread(&mut self, sources: &[SourceStatement], views: &[ViewStatement]) {
        if !self.problems.is_empty() {
            return;
        }
        let read = views
            .iter()
            .flat_map(|view| view::relations_read(&view.query));
        let outputs = self
            .graph
            .outputs
            .iter()
            .map(|output| output.relation.clone());
        let read: BTreeSet<String> = read.chain(outputs).collect();
        let source_names = sources.iter().map(|source| ("source", &source.name));
        let view_names = views.iter().map(|view| ("view", &view.name));
        for (kind, name) in source_names.chain(view_names) {
            if !read.contains(&name.text) {
                let message = format!("{kind} {} is read by no view and no sink", name.text);
                self.warnings.push(Problem::at(name.place, message));
            }
        }
    }

    fn finish(&mut self, settings: JobSettings) -> Result<PlannedJob, Vec<Problem>> {
        if !self.problems.is_empty() {
            let mut problems = take(&mut self.problems);
            problems.sort_by_key(Problem::place);
            problems.dedup();
            return Err(problems);
        }
        let (sources, sinks) = (take(&mut self.sources), take(&mut self.sinks));
        let graph = take(&mut self.graph);
        let finished = stages::finish(settings, sources, graph, sinks, &self.catalog);
        let (plan, relations) =
            finished.map_err(|error| vec![Problem::at(Place::default(), error.to_string())])?;
        let mut warnings = take(&mut self.warnings);
        warnings.extend(intervals::shared(&plan, &self.sink_places));
        warnings.sort_by_key(Problem::place);
        Ok(PlannedJob {
            plan,
            warnings,
            relations,
        })
    }
}
