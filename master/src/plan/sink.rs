//! `CREATE SINK`: which rows of its relation it gets, and whether its key fits them.
//!
//! Called by `plan_job` for each sink. Sinks of one relation with one emit mode read the same output, which is computed and
//! shipped once. Failure: each rule is its own problem.

use arrow::datatypes::Schema;
use millstream_common::ids::OutputIndex;
use millstream_common::plan::{Emit, Port, SinkPlan, SinkSpec, SinkStart};

use super::catalog::{Catalog, Entry, Relation};
use super::graph::{DraftBranch, DraftHead, DraftKind, DraftOutput, DraftTarget, Graph, Lineage};
use super::lower::{Stream, StreamPort};
use super::options::{EmitOption, SinkOptions};
use super::parse::SinkStatement;
use super::problem::{Place, Problem};
use super::view::skipped;

/// The sink, or what is wrong with it.
pub(super) fn read(
    statement: &SinkStatement,
    options: &SinkOptions,
    catalog: &Catalog,
    graph: &mut Graph,
    warnings: &mut Vec<Problem>,
) -> Result<SinkPlan, Vec<Problem>> {
    let name = &statement.relation;
    let relation = match catalog.get(&name.text) {
        Some(Entry::Known(relation)) => relation,
        Some(Entry::Broken) => {
            return Err(vec![skipped(
                "sink",
                &statement.name.text,
                &name.text,
                name.place,
            )]);
        }
        None => return Err(vec![catalog.unknown(&name.text, name.place)]),
    };
    let Some(spec) = &options.spec else {
        return Err(Vec::new());
    };
    let mut checker = Checker {
        statement,
        options,
        spec,
        relation,
        graph,
        problems: Vec::new(),
    };
    let emit = checker.emit(warnings);
    checker.check_emit(emit);
    checker.check_start(emit);
    checker.check_key(emit);
    checker.check_partition_by();
    checker.check_record();
    if !checker.problems.is_empty() {
        return Err(checker.problems);
    }
    let mut ports = relation.streams.iter().map(|stream| stream.port);
    let reads_dead_letters = ports.any(|port| port == StreamPort::DeadLetters);
    let output = output_of(&name.text, relation, emit, graph);
    Ok(SinkPlan {
        name: statement.name.text.clone(),
        output: OutputIndex(output as u32),
        spec: spec.clone(),
        on_violation: options.on_violation,
        reads_dead_letters,
        dead_letters: Vec::new(),
        quota: options.quota,
        start: options.start,
    })
}

struct Checker<'a> {
    statement: &'a SinkStatement,
    options: &'a SinkOptions,
    spec: &'a SinkSpec,
    relation: &'a Relation,
    graph: &'a Graph,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn place_of(&self, option: &str) -> Place {
        let places = &self.options.places;
        places
            .get(option)
            .copied()
            .unwrap_or(self.statement.name.place)
    }

    fn refuse(&mut self, option: &str, message: impl Into<String>, hint: impl Into<String>) {
        let problem = Problem::at(self.place_of(option), message).hint(hint);
        self.problems.push(problem);
    }

    fn primary_key(&self) -> &[String] {
        match self.spec {
            SinkSpec::Postgres(postgres) => &postgres.primary_key,
            SinkSpec::Kafka(kafka) if kafka.upsert => &kafka.key,
            SinkSpec::Kafka(_)
            | SinkSpec::Files(_)
            | SinkSpec::Console(_)
            | SinkSpec::Blackhole => &[],
        }
    }

    /// Whether the sink has to be told by which columns rows change.
    fn needs_key(&self) -> bool {
        let by_key = matches!(self.spec, SinkSpec::Postgres(_) | SinkSpec::Kafka(_));
        by_key && self.primary_key().is_empty()
    }

    fn aggregates(&self) -> bool {
        let mut ports = self.relation.streams.iter().map(|stream| stream.port);
        ports.any(|port| matches!(port, StreamPort::Groups { .. }))
    }

    fn changes_only(&self) -> bool {
        let mut ports = self.relation.streams.iter().map(|stream| stream.port);
        ports.any(|port| port == StreamPort::Groups { windowed: false })
    }

    /// As given, or `changes` for a keyed sink of groups, else `final`.
    fn emit(&self, warnings: &mut Vec<Problem>) -> Emit {
        match self.options.emit {
            EmitOption::Given(Emit::Changes { .. }) if !self.aggregates() => {
                let message = "emit = 'changes' does nothing here: these rows never change";
                let place = self.place_of("emit");
                warnings.push(Problem::at(place, message).hint("leave emit out"));
                Emit::Final
            }
            EmitOption::Given(emit) => emit,
            EmitOption::Default if self.aggregates() && !self.primary_key().is_empty() => {
                Emit::Changes { interval_ms: 0 }
            }
            EmitOption::Default => Emit::Final,
        }
    }

    fn check_emit(&mut self, emit: Emit) {
        let is_files = matches!(self.spec, SinkSpec::Files(_));
        let window = "give the GROUP BY a window: \
                      FROM TUMBLE(relation, time, INTERVAL '1 minute') GROUP BY window_start, window_end, ...";
        let key = self.suggested_key();
        let needs_key = self.needs_key();
        match emit {
            Emit::Final if self.changes_only() => {
                let hint = if is_files {
                    window.to_owned()
                } else if needs_key {
                    format!("add primary_key = '{key}', emit = 'changes'\nor {window}")
                } else {
                    format!("write emit = 'changes'\nor {window}")
                };
                let message =
                    "groups without a window never close, so emit = 'final' would never fire";
                self.refuse("emit", message, hint);
            }
            Emit::Changes { .. } if is_files => {
                let hint = if self.changes_only() {
                    window.to_owned()
                } else {
                    "write emit = 'final': each group once, when its window has closed".to_owned()
                };
                self.refuse("emit", "files cannot take changed rows back", hint);
            }
            Emit::Changes { .. } if needs_key => {
                let message = match self.spec {
                    SinkSpec::Kafka(_) => {
                        "changes need a primary_key, to know which record changes"
                    }
                    _ => "changes need a key, to know which row of the table changes",
                };
                self.refuse("emit", message, format!("add primary_key = '{key}'"));
            }
            Emit::Changes { .. } if self.relation.streams.len() > 1 => {
                let message =
                    "changes of several groupings put together by UNION ALL are not supported yet";
                self.refuse("emit", message, "write emit = 'final'");
            }
            Emit::Changes { .. } | Emit::Final => {}
        }
        if let (SinkSpec::Postgres(postgres), Emit::Changes { .. }) = (self.spec, emit)
            && postgres.on_conflict_ignore
        {
            let message = "on_conflict = 'ignore' keeps the first row, so changes would be lost";
            self.refuse(
                "on_conflict",
                message,
                "leave it out, or write emit = 'final'",
            );
        }
    }

    /// Only groups are held by an operator, and only rows that never change mean the same when they are shipped again.
    fn check_start(&mut self, emit: Emit) {
        match (self.options.start, emit) {
            (SinkStart::Snapshot, Emit::Final) => {
                let message = "start = 'snapshot' needs rows that change: these are shipped once, and nothing holds them";
                self.refuse("start", message, "write start = 'retained' or 'now'");
            }
            (SinkStart::Retained, Emit::Changes { .. }) => {
                let message = "start = 'retained' needs rows that never change: of these only the newest counts";
                self.refuse("start", message, "write start = 'snapshot' or 'now'");
            }
            (
                SinkStart::Default | SinkStart::Now | SinkStart::Retained | SinkStart::Snapshot,
                _,
            ) => {}
        }
    }

    fn check_key(&mut self, emit: Emit) {
        let schema = &self.relation.schema;
        let key = self.primary_key().to_vec();
        let mut known = true;
        for name in &key {
            let Ok(field) = schema.field_with_name(name) else {
                known = false;
                let problem = unknown_column(name, schema, self.place_of("primary_key"));
                self.problems.push(problem);
                continue;
            };
            if field.is_nullable() {
                let message = format!("primary_key column {name} may be NULL");
                let hint = format!(
                    "declare it NOT NULL in its source, or select COALESCE({name}, ...) AS {name}"
                );
                self.refuse("primary_key", message, hint);
            }
        }
        if key.is_empty() || !known {
            return;
        }
        let streams = self.relation.streams.clone();
        for stream in &streams {
            if let StreamPort::Groups { .. } = stream.port {
                self.check_group_key(stream, &key, emit);
            }
        }
    }

    /// Two groups must never share a key; and no column of the key may change within a group.
    fn check_group_key(&mut self, stream: &Stream, key: &[String], emit: Emit) {
        let groups = group_lineages(self.graph, stream);
        let in_key: Vec<Option<usize>> = stream
            .columns
            .iter()
            .filter(|column| key.contains(column.field.name()))
            .map(|column| column.lineage.group)
            .collect();
        let suggested = self.suggested_key();
        let hint = format!("write primary_key = '{suggested}'");
        for (index, (name, lineage)) in groups.iter().enumerate() {
            let same_window = |other: &Option<usize>| {
                other.is_some_and(|other| {
                    let sizes = (lineage.window, groups[other].1.window);
                    matches!(sizes, (Some(own), Some(other)) if own.size_micros == other.size_micros)
                })
            };
            if !in_key.contains(&Some(index)) && !in_key.iter().any(same_window) {
                let message =
                    format!("primary_key lacks {name}: several groups would share one key");
                self.refuse("primary_key", message, hint);
                return;
            }
        }
        if matches!(emit, Emit::Changes { .. }) && in_key.contains(&None) {
            let message = "primary_key has a column that is no group column, so it could change";
            self.refuse("primary_key", message, hint);
        }
    }

    /// The selected group columns; of a window its start is enough.
    fn suggested_key(&self) -> String {
        let Some(stream) = self.relation.streams.first() else {
            return String::new();
        };
        let groups: Vec<_> = stream
            .columns
            .iter()
            .filter(|column| column.lineage.group.is_some())
            .collect();
        let has_start = groups
            .iter()
            .any(|column| column.lineage.window.is_some_and(|window| !window.is_end));
        let names: Vec<&str> = groups
            .iter()
            .filter(|column| {
                !(has_start && column.lineage.window.is_some_and(|window| window.is_end))
            })
            .map(|column| column.field.name().as_str())
            .collect();
        if names.is_empty() {
            "column,...".to_owned()
        } else {
            names.join(",")
        }
    }

    /// The columns of a Kafka record's key and headers are there, and its value has some left.
    fn check_record(&mut self) {
        let SinkSpec::Kafka(kafka) = self.spec else {
            return;
        };
        let schema = &self.relation.schema;
        let key: &[String] = if kafka.upsert { &[] } else { &kafka.key };
        for (option, names) in [("key", key), ("headers", &kafka.headers)] {
            for name in names {
                if schema.field_with_name(name).is_err() {
                    let problem = unknown_column(name, schema, self.place_of(option));
                    self.problems.push(problem);
                }
            }
        }
        let is_header = |name: &String| kafka.headers.contains(name);
        if schema.fields().iter().all(|field| is_header(field.name())) {
            let message = "every column is a header, so records would have no value";
            self.refuse(
                "headers",
                message,
                "leave out the columns that are the value",
            );
        }
    }

    fn check_partition_by(&mut self) {
        if let SinkSpec::Files(files) = self.spec {
            for name in &files.partition_by {
                if self.relation.schema.field_with_name(name).is_err() {
                    let place = self.place_of("partition_by");
                    let problem = unknown_column(name, &self.relation.schema, place);
                    self.problems.push(problem);
                }
            }
            let is_partition = |name: &String| files.partition_by.contains(name);
            let mut fields = self.relation.schema.fields().iter();
            if fields.all(|field| is_partition(field.name())) {
                let message = "every column names a folder, so nothing is left for the files";
                self.refuse("partition_by", message, "leave out those that are rows");
            }
        }
    }
}

/// The names and lineage of the group columns of the stage in front of `stream`.
fn group_lineages(graph: &Graph, stream: &Stream) -> Vec<(String, Lineage)> {
    let stage = &graph.stages[stream.stage];
    let DraftHead::Keyed {
        kind: DraftKind::Aggregate { group_count, .. },
        ..
    } = &stage.head
    else {
        return Vec::new();
    };
    stage.columns[..*group_count]
        .iter()
        .map(|column| (column.field.name().clone(), column.lineage.clone()))
        .collect()
}

fn unknown_column(name: &str, schema: &Schema, place: Place) -> Problem {
    let names: Vec<&str> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    let problem = Problem::at(place, format!("unknown column {name}"));
    match millstream_common::suggest::nearest(name, names.iter().copied()) {
        Some(nearest) => problem.hint(format!("did you mean {nearest}?")),
        None => problem.hint(format!("columns are {}", names.join(", "))),
    }
}

/// The output of this relation and emit mode, made if it is new.
pub(super) fn output_of(name: &str, relation: &Relation, emit: Emit, graph: &mut Graph) -> usize {
    let known = graph
        .outputs
        .iter()
        .position(|output| output.relation == name && output.emit == emit);
    if let Some(output) = known {
        return output;
    }
    let output = graph.outputs.len();
    let fields = relation
        .schema
        .fields()
        .iter()
        .map(|field| field.as_ref().clone());
    graph.outputs.push(DraftOutput {
        relation: name.to_owned(),
        emit,
        fields: fields.collect(),
    });
    for stream in &relation.streams {
        let port = match (stream.port, emit) {
            (StreamPort::Rows, _) => Port::Rows,
            (StreamPort::DeadLetters, _) => Port::DeadLetters,
            (StreamPort::Groups { .. }, Emit::Final) => Port::Final,
            (StreamPort::Groups { .. }, Emit::Changes { .. }) => Port::Changes,
        };
        graph.stages[stream.stage].branches.push(DraftBranch {
            port,
            steps: stream.steps.clone(),
            columns: stream.columns.clone(),
            target: DraftTarget::Output(output),
        });
    }
    output
}
