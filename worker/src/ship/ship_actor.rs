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
use arrow::error::ArrowError;
use millstream_common::blocking::{self, BlockingRef, Panicked};
use millstream_common::error::{Failure, Kind};
use millstream_common::ids::{Epoch, Generation, Incarnation, OutputIndex, WorkerId};
use millstream_common::plan::{OP_COLUMN, OP_UPSERT};
use millstream_common::report::Segment;
use millstream_common::row_bytes::row_bytes;
use millstream_common::store::StoreRef;
use millstream_common::time::ClockRef;
use millstream_sinks::row_group;
use millstream_sinks::sink::RunPart;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::task::JoinSet;

use super::segment::{Encoding, SegmentCache, path};
use crate::exchange::align::{Alignment, Outcome};
use crate::exchange::message::{EdgeId, StreamMessage};
use crate::pipeline::pipeline_actor::PipelineMessage;
use crate::pipeline::report::TaskReport;
use crate::work::{Step, Stretch, TaskWork};
use millstream_common::ipc::{self, EncodedObject, ObjectError};
use millstream_common::task;

/// A segment is closed when its rows take this much of memory.
pub const SEGMENT_BYTES_MAX: usize = 16 << 20;

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
    /// All who read it take row groups.
    pub row_groups_taken: bool,
    /// Where segments go.
    pub store: StoreRef,
    /// Where they wait for sinks of this process.
    pub cache: Arc<SegmentCache>,
    /// Where rows are encoded.
    pub blocking: BlockingRef,
    /// Time.
    pub clock: ClockRef,
    /// Who is told.
    pub pipeline: ActorRef<PipelineMessage>,
}

/// Full segments on their way to storage at which the actor waits, and its senders with it: while some are encoded others wait for a disk.
const UPLOADS_MAX: usize = 4;

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
    /// Of row groups.
    encoder: Arc<row_group::Encoder>,
    /// Waits for the uploads of an epoch, and reports it.
    finishing: JoinSet<()>,
}

/// The segments of the running epoch that were closed before its barrier.
#[derive(Default)]
struct EpochUploads {
    under_way: JoinSet<Result<Uploaded, ShipError>>,
    /// Their rows are where sinks find them, or in storage only: an epoch may have any number of segments.
    done: Vec<Uploaded>,
    closed_count: usize,
    /// When its first rows came, monotonic.
    begun: Option<Duration>,
}

/// A stored segment.
struct Uploaded {
    index: usize,
    segment: Segment,
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
            encoder: Arc::default(),
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
        self.gathered_bytes += row_bytes(&batch);
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
        let batches = std::mem::take(&mut self.gathered);
        let row_count = batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        let encoding = match config.row_groups_taken && row_count >= row_group::ROWS_MIN {
            true => Encoding::RowGroup,
            false => Encoding::Arrow,
        };
        let upload = Upload {
            index: self.epoch.closed_count,
            path: path(
                config.incarnation,
                config.output,
                epoch,
                config.generation,
                &config.worker,
                encoding,
            ),
            encoding,
            epoch,
            output: config.output,
            schema: self.segment_schema.clone(),
            batches,
            row_count: row_count as u64,
            encoder: self.encoder.clone(),
            cache: config.cache.clone(),
        };
        self.epoch.closed_count += 1;
        let (store, blocking) = (config.store.clone(), config.blocking.clone());
        self.epoch.under_way.spawn(upload.store(store, blocking));
    }

    fn ship(&mut self, epoch: Epoch) {
        while self.finishing.try_join_next().is_some() {}
        if !self.gathered.is_empty() {
            self.close(epoch);
        }
        self.passed = epoch;
        let uploads = std::mem::take(&mut self.epoch);
        let pipeline = self.config.pipeline.clone();
        let relation = self.config.relation.clone();
        let output = self.config.output;
        let (begun, clock) = (uploads.begun, self.config.clock.clone());
        self.finishing.spawn(async move {
            let origin = format!("ship {relation}");
            let message = match task::caught(uploads.finish()).await {
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
    async fn finish(mut self) -> Result<Vec<Segment>, ShipError> {
        self.wait_below(1).await?;
        self.done.sort_by_key(|uploaded| uploaded.index);
        let segments = self.done.into_iter().map(|uploaded| uploaded.segment);
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
    #[error("encode segment: {0}")]
    EncodingPanicked(#[from] Panicked),
    #[error("encode segment: {0}")]
    RowGroup(#[from] ArrowError),
}

impl ShipError {
    fn kind(&self) -> Kind {
        match self {
            Self::Object(error) => error.kind(),
            Self::Panicked(_) | Self::EncodingPanicked(_) | Self::RowGroup(_) => Kind::Internal,
        }
    }
}

/// A closed segment on its way to storage.
struct Upload {
    index: usize,
    path: String,
    encoding: Encoding,
    /// In its name.
    epoch: Epoch,
    output: OutputIndex,
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    row_count: u64,
    encoder: Arc<row_group::Encoder>,
    cache: Arc<SegmentCache>,
}

impl Upload {
    /// Stores it, and leaves its rows for the sinks of this process.
    async fn store(self, store: StoreRef, blocking: BlockingRef) -> Result<Uploaded, ShipError> {
        let (index, path) = (self.index, self.path.clone());
        let (output, row_count) = (self.output, self.row_count);
        let (epoch, cache) = (self.epoch, self.cache.clone());
        let (object, rows) = blocking::run(&blocking, move || self.encode()).await??;
        ipc::create(&store, &path, &object).await?;
        let segment = Segment {
            output,
            path,
            bytes: object.bytes.len() as u64,
            checksum: object.checksum,
            row_count,
        };
        cache.keep(epoch, &segment, rows);
        Ok(Uploaded { index, segment })
    }

    /// What is stored, and what the sinks of this process are given.
    fn encode(self) -> Result<(EncodedObject, RunPart), ShipError> {
        match self.encoding {
            Encoding::Arrow => {
                let object = ipc::encode(&self.path, &self.schema, &self.batches)?;
                Ok((object, RunPart::Batches(self.batches)))
            }
            Encoding::RowGroup => {
                let file = self.encoder.encode(&self.schema, &self.batches)?;
                Ok((file.clone().into(), RunPart::RowGroup(file)))
            }
        }
    }
}
