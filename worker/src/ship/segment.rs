//! Segments: their names, and reading them back for sinks.
//!
//! Sinks read through [`SegmentReader`]: from memory if the segment was shipped here and is still kept, else from storage. A segment is
//! kept until as many reads have taken it as sinks of this worker read its output. What is kept
//! is bounded ([`KEPT_BYTES_MAX`]); the oldest goes first, for storage has it (INV-9).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_common::ids::{Epoch, Generation, Incarnation, OutputIndex, WorkerId};
use millstream_common::log::backlog::{self, BacklogPart};
use millstream_common::log::entry::CommittedEpoch;
use millstream_common::report::Segment;
use millstream_common::store::StoreRef;
use millstream_sinks::segment_rows::SegmentSource;
use millstream_sinks::sink::SinkError;

use millstream_common::ipc;

/// Memory for segments that sinks have not read yet, of one pipeline.
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
#[derive(Debug)]
pub struct SegmentCache {
    /// Sinks of this worker by the output that they read.
    readers: BTreeMap<OutputIndex, usize>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    segments: VecDeque<KeptSegment>,
    bytes: usize,
}

#[derive(Debug)]
struct KeptSegment {
    path: String,
    batches: Vec<RecordBatch>,
    bytes: usize,
    reads_left: usize,
}

impl SegmentCache {
    /// For a worker whose sinks read the outputs in `read`, an output once for each sink.
    pub fn new(read: impl IntoIterator<Item = OutputIndex>) -> Self {
        let mut readers = BTreeMap::new();
        for output in read {
            *readers.entry(output).or_default() += 1;
        }
        Self {
            readers,
            kept: Mutex::default(),
        }
    }

    /// Keeps a segment for a while, if somebody here is to read it.
    pub fn keep(&self, segment: &Segment, batches: Vec<RecordBatch>) {
        let Some(&reads_left) = self.readers.get(&segment.output) else {
            return;
        };
        let bytes = batches.iter().map(RecordBatch::get_array_memory_size).sum();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += bytes;
        kept.segments.push_back(KeptSegment {
            path: segment.path.clone(),
            batches,
            bytes,
            reads_left,
        });
        while kept.bytes > KEPT_BYTES_MAX {
            let Some(oldest) = kept.segments.pop_front() else {
                break;
            };
            kept.bytes -= oldest.bytes;
        }
    }

    /// The rows of a segment that is kept; its last read takes it out. Whoever reads it once more gets it from storage.
    fn read(&self, path: &str) -> Option<Vec<RecordBatch>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let index = kept.segments.iter().position(|known| known.path == path)?;
        let found = &mut kept.segments[index];
        found.reads_left -= 1;
        if found.reads_left > 0 {
            return Some(found.batches.clone());
        }
        let read = kept.segments.remove(index)?;
        kept.bytes -= read.bytes;
        Some(read.batches)
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
        if let Some(batches) = self.cache.read(&segment.path) {
            return Ok(batches);
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

    async fn read_backlog(&self, part: &BacklogPart) -> Result<Vec<CommittedEpoch>, SinkError> {
        let loaded = backlog::load(&self.store, part).await;
        loaded.map_err(|error| {
            let cause = millstream_common::error::chain(&error);
            match error {
                backlog::Error::Store(_) => SinkError::unavailable("read backlog", cause),
                backlog::Error::Broken { .. } => SinkError::refused("read backlog", cause),
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

    fn segment(path: &str, output: u32) -> Segment {
        Segment {
            output: OutputIndex(output),
            path: path.to_owned(),
            bytes: 0,
            checksum: 0,
            row_count: 0,
        }
    }

    fn kept_bytes(cache: &SegmentCache) -> usize {
        cache.kept.lock().expect("no panic").bytes
    }

    #[test]
    fn the_oldest_segments_leave_memory_when_the_bound_is_reached() {
        let cache = SegmentCache::new([OutputIndex(0)]);
        let rows = (KEPT_BYTES_MAX / 8 / 3) as i64;
        for name in ["a", "b", "c", "d"] {
            cache.keep(&segment(name, 0), vec![batch(rows)]);
        }
        assert!(cache.read("a").is_none());
        assert!(cache.read("d").is_some());
    }

    #[test]
    fn a_segment_leaves_memory_once_every_sink_here_has_read_it() {
        let cache = SegmentCache::new([OutputIndex(1), OutputIndex(1)]);
        cache.keep(&segment("nobody reads it", 0), vec![batch(10)]);
        assert_eq!(kept_bytes(&cache), 0);
        cache.keep(&segment("two read it", 1), vec![batch(10)]);
        assert!(kept_bytes(&cache) > 0);
        assert_eq!(cache.read("two read it"), Some(vec![batch(10)]));
        assert_eq!(cache.read("two read it"), Some(vec![batch(10)]));
        assert_eq!(cache.read("two read it"), None);
        assert_eq!(kept_bytes(&cache), 0);
    }
}
