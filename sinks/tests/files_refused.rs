//! Rows that the files sink refuses: too many of them suspend it, and are never all held in memory.
//!
//! Method: every row belongs into a folder that no file system takes; the test counts the batches that are read of them.

use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use futures::stream::BoxStream;
use millstream_common::ids::Epoch;
use millstream_common::plan::connector::FileFormat;
use millstream_sinks::conformance::{self, Change, MemoryRejects, MemoryRows};
use millstream_sinks::sink::{EpochRun, RunRows, Sink, SinkError};

/// Rows, and how many batches of them were asked for.
struct Counted {
    rows: MemoryRows,
    batch_count: AtomicUsize,
}

impl RunRows for Counted {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn batches(&self) -> BoxStream<'_, Result<RecordBatch, SinkError>> {
        let count = |_: &_| {
            self.batch_count.fetch_add(1, Ordering::Relaxed);
        };
        self.rows.batches().inspect(count).boxed()
    }
}

#[tokio::test]
async fn too_many_refused_rows_suspend_the_sink_before_all_of_them_are_gathered() {
    let folder = tempfile::tempdir().expect("folder");
    let mut sink = conformance::files_sink(folder.path(), FileFormat::Json, &["name"]).await;
    let long: &str = "x".repeat(300).leak();
    let rows: Vec<Change> = (0..400).map(|id| Change::Put(id, long)).collect();
    let rows = Counted {
        rows: MemoryRows::of(&[rows.as_slice(); 10]),
        batch_count: AtomicUsize::new(0),
    };
    let run = EpochRun {
        guard: Epoch(0),
        last: Epoch(1),
        row_count: rows.rows.row_count(),
    };
    let rejects = MemoryRejects::default();
    let refused = sink.apply(&run, &rows, &rejects).await;
    let refused = refused.expect_err("too many");
    assert!(matches!(refused, SinkError::Refused { .. }), "{refused:?}");
    let text = refused.to_string();
    assert!(text.contains("more than 1000 rows"), "{text}");
    assert_eq!(rows.batch_count.into_inner(), 3);
    assert_eq!(rejects.kept(), []);
}
