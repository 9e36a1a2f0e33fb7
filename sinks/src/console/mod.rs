//! Rows on standard output of the worker: a table for people, JSON lines for programs.
//!
//! `+` is a row that is to be there, `-` one that is to be gone; in JSON only what is to be gone says so, as
//! `"_op":"delete"`. Each run is written in one piece. The marker is in memory only: a restarted worker may
//! show rows again. Failure: an output that takes no more is [`SinkError::Unavailable`].

mod table;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::partition;
use arrow::datatypes::{DataType, Field, Int8Type, Schema};
use arrow::error::ArrowError;
use async_trait::async_trait;
use futures::StreamExt;
use millstream_common::blocking::{self, BlockingRef};
use millstream_common::plan::OP_DELETE;
use millstream_common::plan::connector::ConsoleSinkSpec;

use self::table::Table;
use crate::row_json::line_writer;
use crate::sink::{Applied, Cadence, EpochRun, Held, Rejects, RunRows, Sink, SinkError};
use crate::volatile::VolatileMarker;

/// Where lines go; standard output, or a test's buffer.
pub type ConsoleOutput = Arc<Mutex<dyn Write + Send>>;

/// Rows as lines.
pub struct ConsoleSink {
    marker: VolatileMarker,
    format: Format,
    output: ConsoleOutput,
    blocking: BlockingRef,
}

enum Format {
    Table(Table),
    Json,
}

impl ConsoleSink {
    /// A sink that writes to `output`.
    pub fn new(spec: &ConsoleSinkSpec, output: ConsoleOutput, blocking: BlockingRef) -> Self {
        Self {
            marker: VolatileMarker::default(),
            format: if spec.json {
                Format::Json
            } else {
                Format::Table(Table::default())
            },
            output,
            blocking,
        }
    }

    async fn write(&self, text: Vec<u8>) -> Result<(), SinkError> {
        const WHAT: &str = "write to the console";
        let output = self.output.clone();
        let written = blocking::run(&self.blocking, move || {
            // A holder that panicked left a line half written at worst.
            let mut output = output
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            output.write_all(&text)?;
            output.flush()
        });
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(SinkError::unavailable(WHAT, error)),
            Err(panicked) => Err(SinkError::unavailable(WHAT, panicked)),
        }
    }
}

/// Standard output of this process.
pub fn standard_output() -> ConsoleOutput {
    Arc::new(Mutex::new(std::io::stdout()))
}

#[async_trait]
impl Sink for ConsoleSink {
    fn cadence(&self) -> Cadence {
        Cadence {
            run_bytes_max: 1 << 20,
            run_epochs_max: 64,
            gather: Duration::ZERO,
        }
    }

    async fn fence(&mut self) -> Result<Held, SinkError> {
        Ok(self.marker.held())
    }

    async fn apply(
        &mut self,
        run: &EpochRun,
        rows: &dyn RunRows,
        _: &dyn Rejects,
    ) -> Result<Applied, SinkError> {
        if !self.marker.is_open(run)? {
            return Ok(Applied::default());
        }
        let mut applied = Applied::default();
        let mut text = Vec::new();
        let mut batches = rows.batches();
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            applied.row_count += batch.num_rows() as u64;
            let formatted = match &mut self.format {
                Format::Table(table) => table.append(&batch, &mut text),
                Format::Json => append_json(&batch, &mut text),
            };
            formatted.map_err(|error| SinkError::refused("show rows on the console", error))?;
        }
        if !text.is_empty() {
            self.write(text).await?;
        }
        self.marker.advance(run);
        Ok(applied)
    }
}

/// The columns of the output, and for each row whether it is a delete.
fn split_op(batch: &RecordBatch) -> Result<(RecordBatch, Vec<bool>), ArrowError> {
    let last = batch.num_columns() - 1;
    let ops = batch.column(last).as_primitive::<Int8Type>();
    let deletes = ops.values().iter().map(|op| *op == OP_DELETE).collect();
    let own: Vec<usize> = (0..last).collect();
    Ok((batch.project(&own)?, deletes))
}

fn append_json(batch: &RecordBatch, text: &mut Vec<u8>) -> Result<(), ArrowError> {
    let (rows, deletes) = split_op(batch)?;
    let ops = batch.column(batch.num_columns() - 1).clone();
    for range in partition(&[ops])?.ranges() {
        let slice = rows.slice(range.start, range.len());
        let mut writer = line_writer(&mut *text);
        if deletes[range.start] {
            writer.write(&with_op(&slice)?)?;
        } else {
            writer.write(&slice)?;
        }
        writer.finish()?;
    }
    Ok(())
}

fn with_op(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let op = Field::new("_op", DataType::Utf8, false);
    let mut fields: Vec<Arc<Field>> = rows.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(op));
    let mut columns = rows.columns().to_vec();
    let values = StringArray::from(vec!["delete"; rows.num_rows()]);
    columns.push(Arc::new(values) as ArrayRef);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

#[cfg(test)]
mod tests {
    use millstream_common::blocking::ThreadPool;

    use super::*;
    use crate::conformance::{Change, apply};

    async fn shown(json: bool, runs: &[&[Change]]) -> String {
        let output = Arc::new(Mutex::new(Vec::new()));
        let spec = ConsoleSinkSpec { json };
        let mut sink = ConsoleSink::new(&spec, output.clone(), Arc::new(ThreadPool));
        sink.fence().await.expect("fence");
        for (index, rows) in runs.iter().enumerate() {
            let guard = index as u64;
            for _ in 0..2 {
                apply(&mut sink, guard, guard + 1, &[rows])
                    .await
                    .expect("applied");
            }
        }
        let bytes = output.lock().expect("no holder panics").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[tokio::test]
    async fn a_table_is_aligned_and_marks_deletes() {
        let runs: [&[Change]; 2] = [
            &[Change::Put(1, "a\n\u{1b}b"), Change::PutNull(20)],
            &[Change::Delete(1_000)],
        ];
        let wanted = "   id  name\n+   1  a\\n\\u{1b}b\n+  20  NULL\n-  1000  NULL\n";
        assert_eq!(shown(false, &runs).await, wanted);
    }

    #[tokio::test]
    async fn json_lines_are_whole_rows_and_say_what_is_gone() {
        let runs: [&[Change]; 1] = [&[Change::Put(1, "a"), Change::Delete(2), Change::PutNull(3)]];
        let wanted = "{\"id\":1,\"name\":\"a\"}\n\
                      {\"id\":2,\"name\":null,\"_op\":\"delete\"}\n\
                      {\"id\":3,\"name\":null}\n";
        assert_eq!(shown(true, &runs).await, wanted);
    }
}
