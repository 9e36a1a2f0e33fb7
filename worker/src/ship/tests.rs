//! What a ship actor stores, under which names and in which form, with a folder as storage.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use millstream_common::blocking::ThreadPool;
use millstream_common::ids::{Epoch, Generation, Incarnation, OutputIndex, StageIndex, TaskId};
use millstream_common::link::{BarrierCommand, BarrierKind};
use millstream_common::report::Segment;
use millstream_common::store::{FileStore, StoreRef};
use millstream_common::time::SystemClock;
use millstream_sinks::row_group;
use millstream_sinks::segment_rows::SegmentSource;
use millstream_sinks::sink::RunPart;
use ractor::{Actor, ActorRef};
use tokio::sync::mpsc;

use super::segment::{SegmentCache, SegmentReader};
use super::ship_actor::{SEGMENT_BYTES_MAX, ShipActor, ShipConfig, ShipMessage};
use crate::exchange::credit::EdgeCredits;
use crate::exchange::message::{EdgeBatch, EdgeId, OwnedRows, StreamMessage};
use crate::pipeline::pipeline_actor::PipelineMessage;
use crate::pipeline::report::TaskReport;
use crate::pipeline::told::Told;

const EDGE: EdgeId = EdgeId {
    from: TaskId {
        stage: StageIndex(0),
        index: 0,
    },
    to: TaskId {
        stage: StageIndex(1),
        index: 0,
    },
    branch: 0,
};

fn rows(row_count: usize) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, false)]);
    let column = Int64Array::from_value(7, row_count);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(column)]).expect("batch")
}

async fn batch(row_count: usize) -> StreamMessage {
    message(rows(row_count)).await
}

async fn message(rows: RecordBatch) -> StreamMessage {
    StreamMessage::Batch(EdgeBatch {
        rows: OwnedRows::whole(rows),
        permit: EdgeCredits::new(1).acquire(1).await.expect("open"),
    })
}

fn barrier(epoch: u64) -> StreamMessage {
    StreamMessage::Barrier(BarrierCommand {
        epoch: Epoch(epoch),
        kind: BarrierKind::Checkpoint,
        watermarks: Default::default(),
    })
}

/// The segments of the next epoch.
async fn shipped(told: &mut mpsc::Receiver<PipelineMessage>) -> Vec<Segment> {
    let Some(PipelineMessage::Reported(TaskReport::Shipped { segments, .. })) = told.recv().await
    else {
        panic!("not shipped");
    };
    segments
}

/// The epochs in the names of an epoch's segments.
fn epochs(segments: &[Segment]) -> Vec<u64> {
    let names = segments.iter().map(|segment| {
        let name = segment.path.rsplit('/').next().expect("a name");
        name.split('-').next().expect("an epoch").parse()
    });
    names.map(|epoch| epoch.expect("a number")).collect()
}

/// A ship actor behind epoch 5 and the pipeline it tells.
struct Running {
    ship: ActorRef<ShipMessage>,
    pipeline: ActorRef<PipelineMessage>,
    told: mpsc::Receiver<PipelineMessage>,
    reader: SegmentReader,
    _folder: tempfile::TempDir,
}

impl Running {
    async fn start(row_groups_taken: bool) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().display().to_string();
        let store = FileStore::open(&path, Arc::new(ThreadPool)).await;
        let store: StoreRef = Arc::new(store.expect("store"));
        let (sender, told) = mpsc::channel(10);
        let (pipeline, _) = Actor::spawn(None, Told(sender), ()).await.expect("spawn");
        let schema = Schema::new(vec![Field::new("n", DataType::Int64, false)]);
        let cache = Arc::new(SegmentCache::new([OutputIndex(0)]));
        let config = ShipConfig {
            incarnation: Incarnation::fresh(),
            generation: Generation(3),
            restored: Epoch(5),
            worker: "w".into(),
            output: OutputIndex(0),
            relation: "numbers".to_owned(),
            schema: Arc::new(schema),
            edges: vec![EDGE],
            row_groups_taken,
            store: store.clone(),
            cache: cache.clone(),
            blocking: Arc::new(ThreadPool),
            clock: Arc::new(SystemClock::new()),
            pipeline: pipeline.clone(),
        };
        let (ship, _) = Actor::spawn(None, ShipActor, config).await.expect("spawn");
        Self {
            ship,
            pipeline,
            told,
            reader: SegmentReader { store, cache },
            _folder: folder,
        }
    }

    fn send(&self, messages: impl IntoIterator<Item = StreamMessage>) {
        for message in messages {
            let edge = EDGE;
            let sent = self.ship.cast(ShipMessage::Stream { edge, message });
            sent.expect("it runs");
        }
    }

    fn end(self) {
        self.ship.kill();
        self.pipeline.kill();
    }
}

#[tokio::test]
async fn a_segment_that_is_full_before_its_barrier_is_named_by_the_first_epoch_it_can_belong_to() {
    let mut running = Running::start(false).await;
    let full = SEGMENT_BYTES_MAX / size_of::<i64>();
    for (epoch, expected) in [(9, [6, 9]), (12, [10, 12])] {
        running.send([batch(full).await, batch(1).await, barrier(epoch)]);
        let segments = shipped(&mut running.told).await;
        assert_eq!(epochs(&segments), expected, "behind epoch 5, then 9");
    }
    running.end();
}

#[tokio::test]
async fn slices_of_one_batch_share_segments_as_their_rows_take_room() {
    let mut running = Running::start(false).await;
    let row_count = SEGMENT_BYTES_MAX / size_of::<i64>();
    let (whole, tenth) = (rows(row_count), row_count / 10);
    for part in 0..10 {
        running.send([message(whole.slice(part * tenth, tenth)).await]);
    }
    running.send([barrier(6)]);
    let segments = shipped(&mut running.told).await;
    assert!(segments.len() <= 2, "{}", segments.len());
    let row_counts = segments.iter().map(|segment| segment.row_count);
    assert_eq!(row_counts.sum::<u64>(), 10 * tenth as u64);
    running.end();
}

#[tokio::test]
async fn rows_of_a_full_segment_count_as_kept_for_sinks_before_their_epoch_ends() {
    let running = Running::start(false).await;
    let full = SEGMENT_BYTES_MAX / size_of::<i64>();
    running.send([batch(full).await]);
    let store = &running.reader.store;
    let path = loop {
        let stored = store.list("segments").await.expect("listed");
        match stored.into_iter().next() {
            Some(path) => break path,
            None => tokio::task::yield_now().await,
        }
    };
    // So they come from memory, or not at all.
    store.delete(&path).await.expect("deleted");
    let segment = Segment {
        output: OutputIndex(0),
        path,
        bytes: 0,
        checksum: 0,
        row_count: full as u64,
    };
    let kept = loop {
        match running.reader.read(&segment).await {
            Ok(kept) => break kept,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let rows = kept.into_batches().expect("rows");
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), full);
    running.end();
}

#[tokio::test]
async fn many_rows_are_shipped_as_parquet_if_all_their_sinks_take_it() {
    for (row_groups_taken, count, ending) in [
        (true, row_group::ROWS_MIN, ".parquet"),
        (true, row_group::ROWS_MIN - 1, ".arrow"),
        (false, row_group::ROWS_MIN, ".arrow"),
    ] {
        let mut running = Running::start(row_groups_taken).await;
        running.send([batch(1).await, batch(count - 1).await, barrier(6)]);
        let segments = shipped(&mut running.told).await;
        assert_eq!((segments.len(), segments[0].row_count), (1, count as u64));
        assert!(segments[0].path.ends_with(ending), "{}", segments[0].path);
        let kept = running.reader.read(&segments[0]).await.expect("kept");
        // Its one sink here has read it: now it comes from storage.
        let stored = running.reader.read(&segments[0]).await.expect("stored");
        assert_eq!(kept, stored, "the same form");
        assert_eq!(matches!(kept, RunPart::RowGroup(_)), ending == ".parquet");
        let rows = kept.into_batches().expect("rows");
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), count);
        running.end();
    }
}
