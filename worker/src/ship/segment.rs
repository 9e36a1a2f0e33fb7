//! Segments: their names, and reading them back for sinks.
//!
//! Sinks read through [`SegmentReader`]: from memory if the segment was shipped here and is still kept, else from storage. What is kept
//! is bounded ([`KEPT_BYTES_MAX`]); the oldest goes first, for storage has it (INV-9).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_common::ids::{Epoch, Generation, Incarnation, OutputIndex, WorkerId};
use millstream_common::report::Segment;
use millstream_common::store::StoreRef;
use millstream_sinks::segment_rows::SegmentSource;
use millstream_sinks::sink::SinkError;

use crate::ipc;

/// Memory for segments that sinks have not read yet, for all jobs of a worker.
pub const KEPT_BYTES_MAX: usize = 64 << 20;

/// The storage key of a segment: its place in the log's order, then who wrote it.
pub fn path(
    incarnation: Incarnation,
    output: OutputIndex,
    epoch: Epoch,
    generation: Generation,
    worker: &WorkerId,
) -> String {
    format!(
        "segments/{incarnation}/{output}/{:012}-{generation}-{worker}-{}.arrow",
        epoch.0,
        ipc::attempt()
    )
}

/// Segments of this process that are still in memory.
#[derive(Debug, Default)]
pub struct SegmentCache {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    segments: VecDeque<(String, Arc<Vec<RecordBatch>>)>,
    bytes: usize,
}

impl SegmentCache {
    /// Keeps a segment for a while.
    pub fn keep(&self, path: String, batches: Vec<RecordBatch>) {
        let bytes_of = |batches: &[RecordBatch]| -> usize {
            batches.iter().map(RecordBatch::get_array_memory_size).sum()
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += bytes_of(&batches);
        kept.segments.push_back((path, Arc::new(batches)));
        while kept.bytes > KEPT_BYTES_MAX {
            let Some((_, oldest)) = kept.segments.pop_front() else {
                break;
            };
            kept.bytes -= bytes_of(&oldest);
        }
    }

    fn find(&self, path: &str) -> Option<Arc<Vec<RecordBatch>>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.segments.iter().rev().find(|(known, _)| known == path);
        found.map(|(_, batches)| batches.clone())
    }
}

/// Reads segments for sinks.
pub struct SegmentReader {
    /// Where all segments are.
    pub store: StoreRef,
    /// Where recent ones of this process are.
    pub cache: Arc<SegmentCache>,
}

#[async_trait]
impl SegmentSource for SegmentReader {
    async fn read(&self, segment: &Segment) -> Result<Vec<RecordBatch>, SinkError> {
        if let Some(batches) = self.cache.find(&segment.path) {
            return Ok(batches.as_ref().clone());
        }
        let loaded = ipc::load(&self.store, &segment.path, segment.checksum).await;
        loaded.map_err(|error| {
            let what = "read segment".to_owned();
            let cause = millstream_common::error::chain(&error);
            match error.kind().is_retryable() {
                true => SinkError::Unavailable { what, cause },
                false => SinkError::Refused { what, cause },
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn batch(rows: i64) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        RecordBatch::try_new(
            schema,
            vec![Arc::new(Int64Array::from_iter_values(0..rows))],
        )
        .expect("batch")
    }

    #[test]
    fn the_oldest_segments_leave_memory_when_the_bound_is_reached() {
        let cache = SegmentCache::default();
        let rows = (KEPT_BYTES_MAX / 8 / 3) as i64;
        for name in ["a", "b", "c", "d"] {
            cache.keep(name.to_owned(), vec![batch(rows)]);
        }
        assert!(cache.find("a").is_none());
        assert!(cache.find("d").is_some());
    }
}
