//! Gathers one output's rows from all tasks of this worker, and stores them as segments at each barrier.
//!
//! Child of the pipeline, one an output. Receives batches and barriers of local tasks; reports [`TaskReport::Shipped`] once the epoch's segments
//! are durable. Owns the rows of the running epoch, up to [`SEGMENT_BYTES_MAX`] in memory: beyond that a segment is closed early (INV-9).
//! Keeps INV-2: segments are stored before they are reported. Failure: storage that does not answer ends the
//! pipeline, and the master rewinds the job.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int8Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream_common::error::{Failure, Kind};
use millstream_common::ids::{Epoch, Generation, Incarnation, OutputIndex, WorkerId};
use millstream_common::plan::{OP_COLUMN, OP_UPSERT};
use millstream_common::report::Segment;
use millstream_common::store::StoreRef;
use millstream_common::time::ClockRef;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::task::JoinSet;

use super::segment::{SegmentCache, path};
use crate::exchange::align::{Alignment, Outcome};
use crate::exchange::message::{EdgeId, StreamMessage};
use crate::pipeline::pipeline_actor::PipelineMessage;
use crate::pipeline::report::TaskReport;
use crate::work::{Step, Stretch, TaskWork};
use millstream_common::ipc::{self, ObjectError};
use millstream_common::task;

/// A segment is closed when it holds this much.
pub const SEGMENT_BYTES_MAX: usize = 32 << 20;

/// What a ship actor takes.
pub enum ShipMessage {
    /// The next message of an edge.
    Stream {
        /// Which edge.
        edge: EdgeId,
        /// What came.
        message: StreamMessage,
    },
}

/// What a ship actor starts with.
pub struct ShipConfig {
    /// Which life of the job's state.
    pub incarnation: Incarnation,
    /// The running generation.
    pub generation: Generation,
    /// The epoch that the generation begins behind.
    pub restored: Epoch,
    /// This worker.
    pub worker: WorkerId,
    /// The output.
    pub output: OutputIndex,
    /// For texts: the output's relation.
    pub relation: String,
    /// The output's columns, without `_op`.
    pub schema: SchemaRef,
    /// The edges of all local tasks that feed it.
    pub edges: Vec<EdgeId>,
    /// Where segments go.
    pub store: StoreRef,
    /// Where they wait for sinks of this process.
    pub cache: Arc<SegmentCache>,
    /// Time.
    pub clock: ClockRef,
    /// Who is told.
    pub pipeline: ActorRef<PipelineMessage>,
}

/// Full segments on their way to storage at once; with one more the actor waits, and its senders with it.
const UPLOADS_MAX: usize = 2;

/// The state of a ship actor.
pub struct ShipState {
    config: ShipConfig,
    alignment: Alignment,
    /// With `_op` as last column.
    segment_schema: SchemaRef,
    gathered: Vec<RecordBatch>,
    gathered_bytes: usize,
    /// Of the last barrier, or the one the generation begins behind.
    passed: Epoch,
    epoch: EpochUploads,
    /// Waits for the uploads of an epoch, and reports it.
    finishing: JoinSet<()>,
}

/// The segments of the running epoch that were closed before its barrier.
#[derive(Default)]
struct EpochUploads {
    under_way: JoinSet<Result<Uploaded, ObjectError>>,
    done: Vec<Uploaded>,
    closed_count: usize,
    /// When its first rows came, monotonic.
    begun: Option<Duration>,
}

/// A stored segment, and its rows for the sinks of this process.
struct Uploaded {
    index: usize,
    segment: Segment,
    batches: Vec<RecordBatch>,
}

/// The actor.
pub struct ShipActor;

impl Actor for ShipActor {
    type Msg = ShipMessage;
    type State = ShipState;
    type Arguments = ShipConfig;

    async fn pre_start(
        &self,
        _: ActorRef<ShipMessage>,
        config: ShipConfig,
    ) -> Result<ShipState, ActorProcessingErr> {
        Ok(ShipState {
            alignment: Alignment::new(config.edges.iter().copied()),
            segment_schema: segment_schema(&config.schema),
            gathered: Vec::new(),
            gathered_bytes: 0,
            passed: config.restored,
            epoch: EpochUploads::default(),
            finishing: JoinSet::new(),
            config,
        })
    }

    async fn handle(
        &self,
        _: ActorRef<ShipMessage>,
        message: ShipMessage,
        state: &mut ShipState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ShipMessage::Stream { edge, message } => state.accept(edge, message).await,
        }
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<ShipMessage>,
        event: SupervisionEvent,
        _: &mut ShipState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => Ok(()),
            SupervisionEvent::ActorTerminated(child, _, _)
            | SupervisionEvent::ActorFailed(child, _) => {
                Err(format!("a ship actor has no children, but {} ended", child.get_id()).into())
            }
        }
    }
}

/// The output's columns, then `_op`.
pub fn segment_schema(schema: &SchemaRef) -> SchemaRef {
    let op = Arc::new(Field::new(OP_COLUMN, DataType::Int8, false));
    let fields = schema.fields().iter().cloned().chain([op]);
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

impl ShipState {
    async fn accept(
        &mut self,
        edge: EdgeId,
        message: StreamMessage,
    ) -> Result<(), ActorProcessingErr> {
        for outcome in self.alignment.accept(edge, message)? {
            match outcome {
                Outcome::Fold { batch, .. } => self.gather(batch.rows.into_batch()?).await?,
                Outcome::Snapshot(barrier) => self.ship(barrier.epoch),
            }
        }
        Ok(())
    }

    async fn gather(&mut self, batch: RecordBatch) -> Result<(), ActorProcessingErr> {
        if self.epoch.begun.is_none() {
            self.epoch.begun = Some(self.config.clock.monotonic());
        }
        let batch = self.with_op(batch)?;
        self.gathered_bytes += batch.get_array_memory_size();
        self.gathered.push(batch);
        if self.gathered_bytes >= SEGMENT_BYTES_MAX {
            self.close(self.passed.next());
            self.epoch.wait_below(UPLOADS_MAX).await?;
        }
        Ok(())
    }

    /// Appends `_op` = upsert to rows that do not carry it.
    fn with_op(&self, batch: RecordBatch) -> Result<RecordBatch, ActorProcessingErr> {
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        if columns.len() < self.segment_schema.fields().len() {
            columns.push(Arc::new(Int8Array::from_value(OP_UPSERT, batch.num_rows())));
        }
        Ok(RecordBatch::try_new(self.segment_schema.clone(), columns)?)
    }

    /// Sends what is gathered on its way, under the name of `epoch`. A segment closed before its barrier is named
    /// by the first epoch that it can belong to: no epoch lies between that one and its own, so whoever deletes
    /// segments by the epoch of their names takes none that is still to be delivered (INV-8).
    fn close(&mut self, epoch: Epoch) {
        self.gathered_bytes = 0;
        let config = &self.config;
        let upload = Upload {
            index: self.epoch.closed_count,
            path: path(
                config.incarnation,
                config.output,
                epoch,
                config.generation,
                &config.worker,
            ),
            output: config.output,
            schema: self.segment_schema.clone(),
            batches: std::mem::take(&mut self.gathered),
        };
        self.epoch.closed_count += 1;
        self.epoch
            .under_way
            .spawn(upload.store(config.store.clone()));
    }

    fn ship(&mut self, epoch: Epoch) {
        while self.finishing.try_join_next().is_some() {}
        if !self.gathered.is_empty() {
            self.close(epoch);
        }
        self.passed = epoch;
        let uploads = std::mem::take(&mut self.epoch);
        let pipeline = self.config.pipeline.clone();
        let cache = self.config.cache.clone();
        let relation = self.config.relation.clone();
        let output = self.config.output;
        let (begun, clock) = (uploads.begun, self.config.clock.clone());
        self.finishing.spawn(async move {
            let origin = format!("ship {relation}");
            let message = match task::caught(uploads.finish(&cache)).await {
                Ok(Ok(segments)) => PipelineMessage::Reported(TaskReport::Shipped {
                    output,
                    epoch,
                    work: shipped(begun, clock.monotonic(), &segments),
                    segments,
                }),
                Ok(Err(error)) => {
                    PipelineMessage::Failed(Failure::new(error.kind(), origin, &error))
                }
                Err(panicked) => {
                    PipelineMessage::Failed(Failure::new(Kind::Internal, origin, &panicked))
                }
            };
            // A pipeline that has ended needs no report.
            let _ = pipeline.cast(message);
        });
    }
}

/// The first row of an epoch came at `begun`, its last segment was stored at `ended`.
fn shipped(begun: Option<Duration>, ended: Duration, segments: &[Segment]) -> TaskWork {
    let mut stretch = Stretch::default();
    for segment in segments {
        stretch.rows += segment.row_count;
        stretch.bytes += segment.bytes;
    }
    if let Some(begun) = begun {
        stretch.add(begun, ended);
    }
    let mut work = TaskWork::default();
    work.step(Step::Ship, stretch);
    work
}

impl EpochUploads {
    /// Waits until fewer than `count` uploads are under way.
    async fn wait_below(&mut self, count: usize) -> Result<(), ShipError> {
        while self.under_way.len() >= count {
            if let Some(joined) = self.under_way.join_next().await {
                self.done.push(joined??);
            }
        }
        Ok(())
    }

    /// Waits for all uploads; the segments in the order they were closed.
    async fn finish(mut self, cache: &SegmentCache) -> Result<Vec<Segment>, ShipError> {
        self.wait_below(1).await?;
        self.done.sort_by_key(|uploaded| uploaded.index);
        let segments = self.done.into_iter().map(|uploaded| {
            cache.keep(&uploaded.segment, uploaded.batches);
            uploaded.segment
        });
        Ok(segments.collect())
    }
}

/// Why an epoch's segments could not be stored.
#[derive(Debug, thiserror::Error)]
enum ShipError {
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error("store segment: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

impl ShipError {
    fn kind(&self) -> Kind {
        match self {
            Self::Object(error) => error.kind(),
            Self::Panicked(_) => Kind::Internal,
        }
    }
}

/// A closed segment on its way to storage.
struct Upload {
    index: usize,
    path: String,
    output: OutputIndex,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl Upload {
    async fn store(self, store: StoreRef) -> Result<Uploaded, ObjectError> {
        let object = ipc::encode(&self.path, &self.schema, &self.batches)?;
        ipc::create(&store, &self.path, &object).await?;
        let segment = Segment {
            output: self.output,
            path: self.path,
            bytes: object.bytes.len() as u64,
            checksum: object.checksum,
            row_count: self
                .batches
                .iter()
                .map(|batch| batch.num_rows() as u64)
                .sum(),
        };
        Ok(Uploaded {
            index: self.index,
            segment,
            batches: self.batches,
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use millstream_common::blocking::ThreadPool;
    use millstream_common::ids::{StageIndex, TaskId};
    use millstream_common::link::{BarrierCommand, BarrierKind};
    use millstream_common::store::FileStore;
    use tokio::sync::mpsc;

    use super::*;
    use crate::exchange::credit::EdgeCredits;
    use crate::exchange::message::{EdgeBatch, OwnedRows};
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

    async fn batch(row_count: usize) -> StreamMessage {
        let schema = Schema::new(vec![Field::new("n", DataType::Int64, false)]);
        let column = Int64Array::from_value(7, row_count);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(column)]);
        StreamMessage::Batch(EdgeBatch {
            rows: OwnedRows::whole(batch.expect("batch")),
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

    /// The epochs in the names of an epoch's segments.
    async fn shipped(told: &mut mpsc::Receiver<PipelineMessage>) -> Vec<u64> {
        let Some(PipelineMessage::Reported(TaskReport::Shipped { segments, .. })) =
            told.recv().await
        else {
            panic!("not shipped");
        };
        let names = segments.iter().map(|segment| {
            let name = segment.path.rsplit('/').next().expect("a name");
            name.split('-').next().expect("an epoch").parse()
        });
        names.map(|epoch| epoch.expect("a number")).collect()
    }

    #[tokio::test]
    async fn a_segment_that_is_full_before_its_barrier_is_named_by_the_first_epoch_it_can_belong_to()
     {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().display().to_string();
        let store = FileStore::open(&path, Arc::new(ThreadPool)).await;
        let (sender, mut told) = mpsc::channel(10);
        let (pipeline, _) = Actor::spawn(None, Told(sender), ()).await.expect("spawn");
        let schema = Schema::new(vec![Field::new("n", DataType::Int64, false)]);
        let config = ShipConfig {
            incarnation: Incarnation::fresh(),
            generation: Generation(3),
            restored: Epoch(5),
            worker: "w".into(),
            output: OutputIndex(0),
            relation: "numbers".to_owned(),
            schema: Arc::new(schema),
            edges: vec![EDGE],
            store: Arc::new(store.expect("store")),
            cache: Arc::new(SegmentCache::new([])),
            clock: Arc::new(millstream_common::time::SystemClock::new()),
            pipeline: pipeline.clone(),
        };
        let (ship, _) = Actor::spawn(None, ShipActor, config).await.expect("spawn");
        let full = SEGMENT_BYTES_MAX / size_of::<i64>();
        for (message, epoch) in [(full, 9), (full, 12)] {
            for message in [batch(message).await, batch(1).await, barrier(epoch)] {
                let edge = EDGE;
                ship.cast(ShipMessage::Stream { edge, message })
                    .expect("it runs");
            }
        }
        assert_eq!(shipped(&mut told).await, [6, 9], "behind epoch 5");
        assert_eq!(shipped(&mut told).await, [10, 12], "behind epoch 9");
        ship.kill();
        pipeline.kill();
    }
}
