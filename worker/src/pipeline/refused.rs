//! Rows that a sink refused, made into dead letters in storage.
//!
//! Built by `sinks.rs` for each sink that keeps what it refuses. The rows have the shape of every dead letter: origin is the
//! sink's relation and the epoch, position the row's number in it, from 1. They go through the plan's branches, one an
//! output that reads them, and are stored under a name of their own; the Epoch that names them makes them true (INV-10).
//! Failure: storage that does not answer, after which the sink tries its run again.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Int8Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::error::ArrowError;
use millstream_common::dead_letter::{self, Code};
use millstream_common::error::{Failure, Kind, chain};
use millstream_common::ids::{Epoch, Incarnation, OutputIndex, SinkIndex};
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{OP_UPSERT, SinkPlan, Target};
use millstream_common::report::{Refusal, RefusedRows, Segment};
use millstream_common::store::StoreRef;
use millstream_sinks::refused_rows::{PlacedRow, places};
use millstream_sinks::sink::SinkError;

use crate::ship::ship_actor::segment_schema;
use crate::transform::{BranchProgram, TransformError};
use millstream_common::ipc::{self, ObjectError};

/// Keeps what one sink refuses.
pub(super) struct RefusedStore {
    pub(super) incarnation: Incarnation,
    pub(super) sink: SinkIndex,
    /// For the column `source`.
    pub(super) name: String,
    /// What the sink reads.
    pub(super) relation: String,
    pub(super) outputs: Vec<(OutputIndex, BranchProgram)>,
    pub(super) store: StoreRef,
}

#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    Transform(#[from] TransformError),
    #[error(transparent)]
    Object(#[from] ObjectError),
}

/// The programs of the branches that a sink's refused rows take.
pub(super) fn programs(
    plan: &SinkPlan,
    functions: &Functions,
) -> Result<Vec<(OutputIndex, BranchProgram)>, Failure> {
    let broken = |error: &dyn std::error::Error| {
        Failure::new(Kind::Internal, format!("sink {}", plan.name), error)
    };
    let mut programs = Vec::new();
    for branch in &plan.dead_letters {
        let Target::Output(output) = branch.target else {
            continue;
        };
        let program = BranchProgram::build(branch, &dead_letter::schema(), functions)
            .map_err(|error| broken(&error))?;
        programs.push((output, program));
    }
    Ok(programs)
}

impl RefusedStore {
    /// Stores the refused rows of the run that ends with `last`.
    pub(super) async fn keep(
        &self,
        last: Epoch,
        rows: &[PlacedRow],
        now_us: i64,
    ) -> Result<Refusal, SinkError> {
        let kept = self.try_keep(last, rows, now_us).await;
        kept.map_err(|error| {
            let what = format!("keep the rows that sink {} refused", self.name);
            SinkError::unavailable(what, chain(&error))
        })
    }

    async fn try_keep(
        &self,
        last: Epoch,
        rows: &[PlacedRow],
        now_us: i64,
    ) -> Result<Refusal, KeepError> {
        let attempt = format!("{:012}-{}", last.0, ipc::attempt());
        let letters = self.dead_letters(rows, now_us)?;
        let mut segments = Vec::new();
        for (output, program) in &self.outputs {
            let Some(batch) = program.run(&letters, None)?.batch else {
                continue;
            };
            let (incarnation, sink) = (self.incarnation, self.sink);
            let path = format!("rejects/{incarnation}/{sink}/{attempt}-{output}.arrow");
            let segment = store(&self.store, *output, path, batch).await?;
            segments.push(segment);
        }
        Ok(Refusal {
            refused: RefusedRows {
                sink: self.sink,
                attempt,
                rows: places(rows),
            },
            segments,
        })
    }

    fn dead_letters(&self, rows: &[PlacedRow], now_us: i64) -> Result<RecordBatch, ArrowError> {
        let count = rows.len();
        let origin = |row: &PlacedRow| format!("{}/epoch-{}", self.relation, row.epoch);
        let texts = |text: &dyn Fn(&PlacedRow) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(rows.iter().map(text)))
        };
        let positions = rows.iter().map(|row| row.place as i64 + 1);
        let columns: Vec<ArrayRef> = vec![
            texts(&|_| self.name.clone()),
            texts(&origin),
            Arc::new(Int64Array::from_iter_values(positions)),
            texts(&|row| row.rejected.payload.clone()),
            Arc::new(BinaryArray::new_null(count)),
            texts(&|_| Code::SinkRejected.to_string()),
            texts(&|row| row.rejected.reason.clone()),
            Arc::new(TimestampMicrosecondArray::new_null(count)),
            Arc::new(TimestampMicrosecondArray::from(vec![now_us; count]).with_timezone("UTC")),
        ];
        RecordBatch::try_new(dead_letter::schema(), columns)
    }
}

async fn store(
    store: &StoreRef,
    output: OutputIndex,
    path: String,
    batch: RecordBatch,
) -> Result<Segment, KeepError> {
    let schema = segment_schema(batch.schema_ref());
    let row_count = batch.num_rows();
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(Int8Array::from_value(OP_UPSERT, row_count)));
    let batch = RecordBatch::try_new(schema.clone(), columns)?;
    let object = ipc::encode(&path, &schema, &[batch])?;
    ipc::create(store, &path, &object).await?;
    Ok(Segment {
        output,
        path,
        bytes: object.bytes.len() as u64,
        checksum: object.checksum,
        row_count: row_count as u64,
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use millstream_common::blocking::ThreadPool;
    use millstream_common::plan::{Branch, PlanSchema, Port};
    use millstream_common::store::FileStore;
    use millstream_sinks::sink::RejectedRow;

    use super::*;

    fn row(epoch: u64, place: u64, payload: &str) -> PlacedRow {
        PlacedRow {
            epoch: Epoch(epoch),
            place,
            rejected: RejectedRow {
                row: 0,
                payload: payload.to_owned(),
                reason: "violates check".to_owned(),
            },
        }
    }

    #[tokio::test]
    async fn tries_that_refuse_different_rows_keep_both_and_the_log_decides() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().display().to_string();
        let opened = FileStore::open(&path, Arc::new(ThreadPool)).await;
        let branch = Branch {
            port: Port::DeadLetters,
            keeps_time: false,
            transforms: Vec::new(),
            schema: PlanSchema(dead_letter::schema()),
            target: Target::Output(OutputIndex(4)),
        };
        let program = BranchProgram::build(&branch, &dead_letter::schema(), &Functions::default());
        let store = RefusedStore {
            incarnation: Incarnation::fresh(),
            sink: SinkIndex(1),
            name: "out".to_owned(),
            relation: "clicks".to_owned(),
            outputs: vec![(OutputIndex(4), program.expect("a program"))],
            store: Arc::new(opened.expect("store")),
        };
        let first = store.keep(Epoch(7), &[row(6, 2, "a")], 5).await;
        let second = store
            .keep(Epoch(7), &[row(6, 2, "a"), row(7, 0, "b")], 6)
            .await;
        let (first, second) = (first.expect("kept"), second.expect("kept"));
        assert_ne!(first.segments[0].path, second.segments[0].path);
        assert_eq!(first.refused.count(), 1);
        let segment = &second.segments[0];
        let loaded = ipc::load(&store.store, &segment.path, segment.checksum).await;
        let batch = &loaded.expect("a segment")[0];
        let origins: Vec<_> = batch["origin"]
            .as_string::<i32>()
            .iter()
            .flatten()
            .collect();
        assert_eq!(origins, ["clicks/epoch-6", "clicks/epoch-7"]);
        let positions = batch["position"].as_primitive::<Int64Type>();
        assert_eq!(positions.values(), &[3, 1]);
        assert_eq!(batch["code"].as_string::<i32>().value(0), "sink_rejected");
    }
}
