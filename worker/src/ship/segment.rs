//! Segments: their names, and reading them back for sinks.
//!
//! Sinks read through [`SegmentReader`]: from memory if the segment was shipped here and is still kept, else from storage. Its name says how
//! it is encoded, so that its rows come in the same form from either. A segment is kept until as many reads have taken it as sinks of this
//! worker read its output, and only while it is new ([`KEPT_EPOCHS`]): a sink that is cut off has its rows in storage and costs no memory
//! (INV-9). What is kept is bounded besides ([`KEPT_BYTES_MAX`]); the oldest goes first.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use millstream_common::ids::{Epoch, Generation, Incarnation, OutputIndex, WorkerId};
use millstream_common::log::backlog::{self, BacklogPart};
use millstream_common::log::entry::CommittedEpoch;
use millstream_common::report::Segment;
use millstream_common::store::StoreRef;
use millstream_sinks::segment_rows::SegmentSource;
use millstream_sinks::sink::{RunPart, SinkError};

use millstream_common::ipc;

/// Memory for segments that sinks have not read yet, of one pipeline.
pub const KEPT_BYTES_MAX: usize = 64 << 20;

/// Epochs whose segments are kept for sinks: one that lacks more reads from storage.
pub const KEPT_EPOCHS: u64 = 4;

/// How the rows of a segment are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As an Arrow stream.
    Arrow,
    /// As Parquet, for sinks that take it as it is.
    RowGroup,
}

impl Encoding {
    /// What names end with.
    fn ending(self) -> &'static str {
        match self {
            Self::Arrow => ".arrow",
            Self::RowGroup => ".parquet",
        }
    }

    fn of(path: &str) -> Self {
        match path.ends_with(Self::RowGroup.ending()) {
            true => Self::RowGroup,
            false => Self::Arrow,
        }
    }
}

/// The storage key of a segment: its place in the log's order, then who wrote it.
pub fn path(
    incarnation: Incarnation,
    output: OutputIndex,
    epoch: Epoch,
    generation: Generation,
    worker: &WorkerId,
    encoding: Encoding,
) -> String {
    format!(
        "segments/{incarnation}/{output}/{:012}-{generation}-{worker}-{}{}",
        epoch.0,
        ipc::attempt(),
        encoding.ending()
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
    epoch: Epoch,
    path: String,
    rows: RunPart,
    bytes: usize,
    reads_left: usize,
}

impl Kept {
    /// Lets go of what is old or too much, now that `newest` is being shipped.
    fn shrink(&mut self, newest: Epoch) {
        while let Some(oldest) = self.segments.front() {
            let is_old = oldest.epoch.0 + KEPT_EPOCHS <= newest.0;
            if !is_old && self.bytes <= KEPT_BYTES_MAX {
                return;
            }
            self.bytes -= oldest.bytes;
            self.segments.pop_front();
        }
    }
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

    /// Keeps a segment of `epoch` for a while, if somebody here is to read it.
    pub fn keep(&self, epoch: Epoch, segment: &Segment, rows: RunPart) {
        let Some(&reads_left) = self.readers.get(&segment.output) else {
            return;
        };
        let bytes = rows.memory_bytes();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += bytes;
        kept.segments.push_back(KeptSegment {
            epoch,
            path: segment.path.clone(),
            rows,
            bytes,
            reads_left,
        });
        kept.shrink(epoch);
    }

    /// The rows of a segment that is kept; its last read takes it out. Whoever reads it once more gets it from storage.
    fn read(&self, path: &str) -> Option<RunPart> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let index = kept.segments.iter().position(|known| known.path == path)?;
        let found = &mut kept.segments[index];
        found.reads_left -= 1;
        if found.reads_left > 0 {
            return Some(found.rows.clone());
        }
        let read = kept.segments.remove(index)?;
        kept.bytes -= read.bytes;
        Some(read.rows)
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
    async fn read(&self, segment: &Segment) -> Result<RunPart, SinkError> {
        let (path, checksum) = (&segment.path, segment.checksum);
        if let Some(rows) = self.cache.read(path) {
            return Ok(rows);
        }
        let loaded = match Encoding::of(path) {
            Encoding::Arrow => {
                let loaded = ipc::load(&self.store, path, checksum).await;
                loaded.map(RunPart::Batches)
            }
            Encoding::RowGroup => {
                let fetched = ipc::fetch(&self.store, path, checksum).await;
                fetched.map(RunPart::RowGroup)
            }
        };
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
    use arrow::array::{Int64Array, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema};
    use bytes::Bytes;
    use millstream_common::blocking::ThreadPool;
    use millstream_common::store::FileStore;

    use super::*;

    fn rows(count: i64) -> RunPart {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let column = Int64Array::from_iter_values(0..count);
        let batch = RecordBatch::try_new(schema, vec![Arc::new(column)]);
        RunPart::Batches(vec![batch.expect("batch")])
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

    #[tokio::test]
    async fn a_segment_that_is_missing_or_damaged_is_refused_by_its_name_and_never_taken_for_empty()
    {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().display().to_string();
        let store = FileStore::open(&path, Arc::new(ThreadPool)).await;
        let store: StoreRef = Arc::new(store.expect("store"));
        let cache = Arc::new(SegmentCache::new([]));
        let damaged = Bytes::from_static(b"not these bytes");
        for name in ["segments/damaged.arrow", "segments/damaged.parquet"] {
            let put = store.create(name, damaged.clone()).await;
            put.expect("stored");
        }
        let reader = SegmentReader { store, cache };
        for (path, said) in [
            ("segments/missing.arrow", "is missing"),
            ("segments/missing.parquet", "is missing"),
            ("segments/damaged.arrow", "is damaged"),
            ("segments/damaged.parquet", "is damaged"),
        ] {
            let read = reader.read(&segment(path, 0)).await;
            let refused = read.expect_err("refused");
            assert!(matches!(refused, SinkError::Refused { .. }), "{refused}");
            let text = refused.to_string();
            let wanted = [path, said, "restore the storage from a backup"];
            assert!(wanted.iter().all(|part| text.contains(part)), "{text}");
        }
    }

    #[test]
    fn the_oldest_segments_leave_memory_when_the_bound_is_reached() {
        let cache = SegmentCache::new([OutputIndex(0)]);
        let count = (KEPT_BYTES_MAX / 8 / 3) as i64;
        for name in ["a", "b", "c", "d"] {
            cache.keep(Epoch(1), &segment(name, 0), rows(count));
        }
        assert!(cache.read("a").is_none());
        assert!(cache.read("d").is_some());
    }

    #[test]
    fn a_sink_that_is_cut_off_keeps_no_more_in_memory_than_a_few_epochs() {
        let cache = SegmentCache::new([OutputIndex(0)]);
        let mut most = 0;
        for epoch in 1..=100 {
            cache.keep(Epoch(epoch), &segment(&epoch.to_string(), 0), rows(10));
            most = most.max(kept_bytes(&cache));
        }
        let one = rows(10).memory_bytes();
        assert_eq!(most, one * KEPT_EPOCHS as usize);
        assert!(cache.read("96").is_none());
        assert!(cache.read("97").is_some());
    }

    #[test]
    fn a_segment_leaves_memory_once_every_sink_here_has_read_it() {
        let cache = SegmentCache::new([OutputIndex(1), OutputIndex(1)]);
        cache.keep(Epoch(1), &segment("nobody reads it", 0), rows(10));
        assert_eq!(kept_bytes(&cache), 0);
        cache.keep(Epoch(1), &segment("two read it", 1), rows(10));
        assert!(kept_bytes(&cache) > 0);
        assert_eq!(cache.read("two read it"), Some(rows(10)));
        assert_eq!(cache.read("two read it"), Some(rows(10)));
        assert_eq!(cache.read("two read it"), None);
        assert_eq!(kept_bytes(&cache), 0);
    }
}
