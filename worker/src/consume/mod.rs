//! Readers: pull splits from Kafka, files or a generator at given positions, and decode them.
//!
//! First step of the path. `reader_actor.rs` owns one [`SourceReader`] a source task and asks it for
//! the next event; what a reader hands on is decoded already, because payloads are borrowed from the client
//! and must not cross a thread. A reader never commits a position by itself: positions are what
//! [`SourceCut`] says at a barrier, and only the log's Epoch makes them true (INV-5).
//! Failure: an error ends the pipeline; the next generation reads again from the last epoch.

pub mod datagen;
pub mod files;
pub mod kafka;
pub mod reader_actor;
pub mod reader_task;
pub mod replay;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{BooleanArray, RecordBatch};
use async_trait::async_trait;
use millstream_common::blocking::BlockingRef;
use millstream_common::dead_letter::Code;
use millstream_common::error::Kind;
use millstream_common::ids::{Epoch, SplitId};
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{SourcePlan, SourceSpec};
use millstream_common::report::{RowCounters, SplitProgress, SplitStart};
use millstream_common::time::{ClockRef, EventTime};
use millstream_common::trace::TraceContext;

use crate::decode::RowPlaces;

/// What a reader can fail with.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {cause}")]
pub struct ConsumeError {
    /// Who has to act.
    pub kind: Kind,
    /// "verb noun" and the split, such as `read partition clicks_topic-3`.
    pub what: String,
    /// What the client says, and what to do next.
    pub cause: String,
}

/// What a reader hands on, in order.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "two of them wait at most, and nearly all are rows"
)]
pub enum SourceEvent {
    /// Rows of one or more splits, each split's in order of position.
    Rows(DecodedRows),
    /// The answer to [`SourceReader::cut`]: all rows before it are inside the epoch.
    Cut(SourceCut),
}

/// A decoded batch.
#[derive(Debug)]
pub struct DecodedRows {
    /// Columns of the source, in order; may be empty where all records were refused.
    pub batch: RecordBatch,
    /// Where its rows come from.
    pub places: RowPlaces,
    /// True where a row is late (and already among `rejects`); `None` where no row is.
    pub late: Option<BooleanArray>,
    /// Dead letters, in the shape of [`millstream_common::dead_letter::schema`].
    pub rejects: Option<RecordBatch>,
    /// What became of the records.
    pub counters: RowCounters,
    /// The rejected ones by code; empty where there are none.
    pub codes: Vec<(Code, u64)>,
    /// When it was decoded, monotonic.
    pub decoded: DecodeTime,
    /// A sample of the spans that its records say they come from.
    pub links: Vec<TraceContext>,
}

/// When a batch was decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodeTime {
    /// The client had handed its records over.
    pub begun: Duration,
    /// Its rows were there.
    pub ended: Duration,
}

/// Where a reader stands at a barrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceCut {
    /// The epoch that ends here.
    pub epoch: Epoch,
    /// Progress of every split of this reader that is not long ended; a split that ended since the
    /// last cut is among them once.
    pub splits: BTreeMap<SplitId, SplitProgress>,
}

/// What to do at a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutRequest {
    /// The epoch that ends here.
    pub epoch: Epoch,
    /// The source's watermark as owners act on it from this barrier on: rows of a split that was
    /// idle must not be older.
    pub watermark: Option<EventTime>,
    /// Hand on no row after the cut.
    pub stop: bool,
}

/// What a reader needs beside its plan.
#[derive(Clone)]
pub struct ReaderContext {
    /// The task's name: names threads and log lines.
    pub name: String,
    /// The consumer group a client has to name where the plan gives none; nothing is committed to it.
    pub group_id: String,
    /// What expressions may call.
    pub functions: Functions,
    /// Decides idleness and rates.
    pub clock: ClockRef,
    /// Where a client's thread comes from.
    pub blocking: BlockingRef,
    /// Some path of the job takes late rows: they stay in the batches, flagged.
    pub late_rows_needed: bool,
    /// Spans that records name are wanted, a sample of them.
    pub links_wanted: bool,
}

/// One client of one source task.
///
/// # Contract
/// Nothing is read before the first [`SourceReader::add_splits`]. `next` is cancel-safe and pends while there is
/// nothing to read; memory is bounded whatever the input rate, because a reader stops pulling while its
/// events are not taken. A cut is answered promptly (within tens of milliseconds once earlier events are
/// taken), also while nothing comes in. Dropping the reader ends its threads.
#[async_trait]
pub trait SourceReader: Send {
    /// The next event.
    async fn next(&mut self) -> Result<SourceEvent, ConsumeError>;
    /// Asks for a cut behind everything read so far; answered in [`SourceEvent::Cut`].
    fn cut(&mut self, request: CutRequest);
    /// Begins to read more splits.
    fn add_splits(&mut self, splits: Vec<SplitStart>);
    /// These positions are in the log: tell outside tools, if the source has a place for it.
    fn committed(&mut self, positions: &BTreeMap<SplitId, SplitProgress>);
    /// What hinders the client at present and is being retried, for people.
    fn trouble(&self) -> Option<String> {
        None
    }
    /// By split, records that the source holds and this reader has not read, as far as the client has seen.
    fn lags(&self) -> BTreeMap<SplitId, u64> {
        BTreeMap::new()
    }
}

/// Opens the reader of a source task; nothing is read before its first splits.
pub fn open(
    plan: &SourcePlan,
    context: ReaderContext,
) -> Result<Box<dyn SourceReader>, ConsumeError> {
    Ok(match &plan.spec {
        SourceSpec::Kafka(_) => Box::new(kafka::KafkaReader::start(plan, context)?),
        SourceSpec::Datagen(_) => Box::new(datagen::DatagenReader::start(plan, context)?),
        SourceSpec::Files(_) => Box::new(files::FilesReader::new(files::FilesReaderConfig {
            plan: plan.clone(),
            functions: context.functions,
            clock: context.clock,
            blocking: context.blocking,
            files: Arc::new(files::source::DiskFiles),
            late_rows_needed: context.late_rows_needed,
        })?),
    })
}
