//! The decoder of one source task: records in, checked rows and dead letters out.
//!
//! Owned by a reader's thread; one for all splits of that reader.

use arrow::array::RecordBatch;
use millstream_common::error::Kind;
use millstream_common::plan::SourcePlan;
use millstream_common::plan::expression::Functions;
use millstream_common::time::{ClockRef, EventTime};

use super::{DecodeError, OpenSplit, RecordRef, SplitSlot};
use crate::consume::DecodedRows;

/// Decodes the records of one source.
#[derive(Debug)]
pub struct SourceDecoder {
    splits: Vec<OpenSplit>,
}

impl SourceDecoder {
    /// A decoder for `plan`. Late rows stay in the batches, flagged, iff `late_rows_needed`.
    pub fn new(
        plan: &SourcePlan,
        functions: &Functions,
        clock: ClockRef,
        late_rows_needed: bool,
    ) -> Result<Self, DecodeError> {
        let _ = (plan, functions, clock, late_rows_needed);
        Ok(Self { splits: Vec::new() })
    }

    /// Begins a split; its number is valid until [`Self::close_split`].
    pub fn open_split(&mut self, split: OpenSplit) -> SplitSlot {
        self.splits.push(split);
        SplitSlot(self.splits.len() - 1)
    }

    /// The split's watermark: no accepted row to come is older.
    pub fn watermark(&self, slot: SplitSlot) -> Option<EventTime> {
        self.splits[slot.0].watermark
    }

    /// From now on no accepted row of the split is older than `floor`: an idle split that wakes.
    pub fn raise_watermark(&mut self, slot: SplitSlot, floor: EventTime) {
        let watermark = &mut self.splits[slot.0].watermark;
        *watermark = (*watermark).max(Some(floor));
    }

    /// Ends a split and says its last watermark; the number may be given to another split.
    pub fn close_split(&mut self, slot: SplitSlot) -> Option<EventTime> {
        self.splits[slot.0].watermark
    }

    /// Decodes records of any splits, each split's in order of position.
    pub fn decode_records(
        &mut self,
        records: &[RecordRef<'_>],
    ) -> Result<DecodedRows, DecodeError> {
        let _ = records;
        Err(DecodeError::Batch {
            source_name: String::new(),
            cause: String::new(),
        })
    }

    /// Checks rows that are typed already: columns are matched by name and cast without loss; row
    /// `i` has position `first_position + i`.
    pub fn decode_typed(
        &mut self,
        slot: SplitSlot,
        first_position: i64,
        batch: &RecordBatch,
    ) -> Result<DecodedRows, DecodeError> {
        let _ = (slot, first_position, batch);
        Err(DecodeError::Batch {
            source_name: String::new(),
            cause: String::new(),
        })
    }
}

impl DecodeError {
    /// Who has to act.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Violation { .. } => Kind::User,
            Self::Build { .. } | Self::Batch { .. } => Kind::Internal,
        }
    }
}
