//! What a job wrote, as text: the files of a `files` sink, or the segments of an output.
//!
//! Called by `database.rs` after a job's end. Segments are those that the log's Epoch entries name, so a row that a
//! dead worker wrote beside them is not seen, and a row that was committed twice is seen twice. Failure: an error
//! that says what could not be read.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int8Type, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use millstream_common::ids::OutputIndex;
use millstream_common::ipc;
use millstream_common::log::{self, Entry};
use millstream_common::plan::{JobPlan, OP_COLUMN, OP_DELETE, SinkPlan, SinkSpec};
use millstream_common::report::Segment;
use millstream_common::store::StoreRef;
use serde_json::Value;
use sqllogictest::DefaultColumnType;

const NULL: &str = "NULL";

/// Rows of a sink, with the columns of its output.
pub(crate) struct Rows {
    pub(crate) schema: SchemaRef,
    pub(crate) rows: Vec<Row>,
}

/// A row in the order in which the sink got it.
pub(crate) struct Row {
    pub(crate) values: Vec<String>,
    pub(crate) deleted: bool,
}

impl Rows {
    pub(crate) fn column(&self, name: &str) -> anyhow::Result<usize> {
        let names: Vec<&str> = self
            .schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        let found = names.iter().position(|known| *known == name);
        found.with_context(|| format!("no column {name}; there are {}", names.join(", ")))
    }

    pub(crate) fn types(&self, columns: &[usize]) -> Vec<DefaultColumnType> {
        columns
            .iter()
            .map(|index| match self.schema.field(*index).data_type() {
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                    DefaultColumnType::Text
                }
                number if number.is_integer() => DefaultColumnType::Integer,
                number if number.is_floating() => DefaultColumnType::FloatingPoint,
                DataType::Dictionary(_, _) => DefaultColumnType::Text,
                _ => DefaultColumnType::Any,
            })
            .collect()
    }

    /// Of each key the last row, unless that takes it away: what a sink with a primary key holds.
    pub(crate) fn last_by(&mut self, key: &[usize]) {
        let mut last = BTreeMap::new();
        for row in self.rows.drain(..) {
            let values: Vec<String> = key.iter().map(|index| row.values[*index].clone()).collect();
            last.insert(values, row);
        }
        self.rows = last.into_values().filter(|row| !row.deleted).collect();
    }
}

/// What the job in `store` wrote for its sink `name`.
pub(crate) async fn read(store: &StoreRef, name: &str) -> anyhow::Result<Rows> {
    let objects = log::read_all(store).await?;
    let mut plan: Option<JobPlan> = None;
    let mut segments = Vec::new();
    for (_, entry) in log::canonical(&objects) {
        match entry {
            Entry::Job(job) => plan = Some(job.plan.clone()),
            Entry::Epoch(epoch) => segments.extend(epoch.segments.iter().cloned()),
            Entry::Fence { .. }
            | Entry::Assign(_)
            | Entry::SinkCommanded { .. }
            | Entry::SinkRewound { .. }
            | Entry::Forgotten { .. }
            | Entry::Backlog { .. }
            | Entry::Ended { .. }
            | Entry::Replay(_)
            | Entry::Resumed { .. }
            | Entry::Savepoint(_)
            | Entry::SavepointDropped { .. }
            | Entry::Carried(_) => {}
        }
    }
    let plan = plan.context("no job in the log")?;
    let sink = plan.sinks.iter().find(|sink| sink.name == name);
    let sink = sink.with_context(|| format!("no sink {name}"))?;
    let schema = plan.outputs[sink.output.0 as usize].schema.0.clone();
    let rows = match &sink.spec {
        SinkSpec::Files(files) => read_files(Path::new(&files.path), &schema)?,
        _ => read_segments(store, &segments, sink).await?,
    };
    Ok(Rows { schema, rows })
}

async fn read_segments(
    store: &StoreRef,
    segments: &[Segment],
    sink: &SinkPlan,
) -> anyhow::Result<Vec<Row>> {
    let is_of = |output: OutputIndex| output == sink.output;
    let mut rows = Vec::new();
    for segment in segments.iter().filter(|segment| is_of(segment.output)) {
        for batch in ipc::load(store, &segment.path, segment.checksum).await? {
            rows.extend(rows_of(&batch)?);
        }
    }
    Ok(rows)
}

fn rows_of(batch: &RecordBatch) -> anyhow::Result<Vec<Row>> {
    let schema = batch.schema();
    let op_index = schema.index_of(OP_COLUMN)?;
    let ops = batch.column(op_index).as_primitive::<Int8Type>();
    let options = FormatOptions::new().with_null(NULL);
    let columns = (0..batch.num_columns()).filter(|index| *index != op_index);
    let formatters = columns.map(|index| ArrayFormatter::try_new(batch.column(index), &options));
    let formatters: Vec<_> = formatters.collect::<Result<_, _>>()?;
    let rows = (0..batch.num_rows()).map(|row| Row {
        values: formatters
            .iter()
            .map(|column| shown(column.value(row).to_string()))
            .collect(),
        deleted: ops.value(row) == OP_DELETE,
    });
    Ok(rows.collect())
}

/// The files that the sink has published, of JSON lines; its journal lies beside them.
fn read_files(folder: &Path, schema: &SchemaRef) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut paths: Vec<_> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
    paths.sort();
    for path in paths {
        for line in std::fs::read_to_string(&path)?.lines() {
            let object: Value =
                serde_json::from_str(line).with_context(|| format!("in {path:?}"))?;
            let fields = schema.fields().iter();
            let values = fields.map(|field| {
                shown(match object.get(field.name()) {
                    None | Some(Value::Null) => NULL.to_owned(),
                    Some(Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                })
            });
            rows.push(Row {
                values: values.collect(),
                deleted: false,
            });
        }
    }
    Ok(rows)
}

/// A value without letters would be lost between two blanks.
fn shown(value: String) -> String {
    match value.is_empty() {
        true => "(empty)".to_owned(),
        false => value,
    }
}
