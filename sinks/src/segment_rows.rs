//! The rows of a run, read from its segments one after another, without those that the sink refused before.
//!
//! Made by `sink_actor.rs` for each run, handed to the sink as [`RunRows`]. Segments that still are in
//! memory come from there, others from storage: the worker's [`SegmentSource`] decides. Holds one segment at a
//! time, read ahead by one. Failure: what the source says, as [`SinkError::Unavailable`].

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use millstream_common::log::backlog::BacklogPart;
use millstream_common::log::entry::CommittedEpoch;
use millstream_common::report::Segment;
use millstream_common::trace::TraceContext;

use crate::left_out::RunSegment;
use crate::sink::{RunRows, SinkError};

/// Where segments are read: the worker's memory, or storage.
#[async_trait]
pub trait SegmentSource: Send + Sync {
    /// All batches of the segment, in order, with `_op` as last column; its checksum holds (INV-8).
    async fn read(&self, segment: &Segment) -> Result<Vec<RecordBatch>, SinkError>;
    /// The epochs of a part of the backlog, in order; its checksum holds (INV-8).
    async fn read_backlog(&self, part: &BacklogPart) -> Result<Vec<CommittedEpoch>, SinkError>;
}

/// The rows of some segments.
pub struct SegmentRows {
    schema: SchemaRef,
    segments: Vec<RunSegment>,
    source: Arc<dyn SegmentSource>,
    trace: Option<TraceContext>,
}

impl SegmentRows {
    /// The rows of `segments` in their order; `schema` ends in `_op`.
    pub fn new(
        schema: SchemaRef,
        mut segments: Vec<RunSegment>,
        source: Arc<dyn SegmentSource>,
    ) -> Self {
        segments.retain(|segment| segment.row_count() > 0);
        Self {
            schema,
            segments,
            source,
            trace: None,
        }
    }

    /// Delivered under this context.
    #[must_use]
    pub fn traced(mut self, trace: Option<TraceContext>) -> Self {
        self.trace = trace;
        self
    }
}

impl SegmentRows {
    async fn read(&self, part: &RunSegment) -> Result<Vec<RecordBatch>, SinkError> {
        let batches = self.source.read(&part.segment).await?;
        part.without_left_out(batches)
            .map_err(|error| SinkError::refused("leave out refused rows", error))
    }
}

impl RunRows for SegmentRows {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn trace(&self) -> Option<TraceContext> {
        self.trace
    }

    fn batches(&self) -> BoxStream<'_, Result<RecordBatch, SinkError>> {
        stream::iter(&self.segments)
            .map(|part| self.read(part))
            .buffered(2)
            .map_ok(|batches| stream::iter(batches.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }
}
