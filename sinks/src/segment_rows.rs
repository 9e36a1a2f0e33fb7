//! The rows of a run, read from its segments one after another, without those that the sink refused before.
//!
//! Made by `sink_actor.rs` for each run, handed to the sink as [`RunRows`]. Segments that still are in
//! memory come from there, others from storage: the worker's [`SegmentSource`] decides. Holds one segment at a
//! time, read ahead by one. Failure: what the source says, as [`SinkError::Unavailable`].

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use millstream_common::log::backlog::BacklogPart;
use millstream_common::log::entry::CommittedEpoch;
use millstream_common::report::Segment;
use millstream_common::trace::TraceContext;

use crate::left_out::RunSegment;
use crate::sink::{RunPart, RunRows, SinkError, batches_of};

/// Where segments are read: the worker's memory, or storage.
#[async_trait]
pub trait SegmentSource: Send + Sync {
    /// The rows of the segment, in order, with `_op` as last column, in the form in which it is stored; its checksum holds (INV-8).
    async fn read(&self, segment: &Segment) -> Result<RunPart, SinkError>;
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
    async fn read(&self, segment: &RunSegment) -> Result<RunPart, SinkError> {
        let part = self.source.read(&segment.segment).await?;
        if segment.left_out.is_empty() {
            return Ok(part);
        }
        let kept = segment.without_left_out(part.into_batches()?);
        kept.map(RunPart::Batches)
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
        batches_of(self.parts())
    }

    fn parts(&self) -> BoxStream<'_, Result<RunPart, SinkError>> {
        stream::iter(&self.segments)
            .map(|segment| self.read(segment))
            .buffered(2)
            .boxed()
    }
}
