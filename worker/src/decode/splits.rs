//! The splits of a decoder, and what is late in them.
//!
//! Owned by `decoder.rs`. Late is decided here and nowhere else, row by row in order of position: a row is late if
//! its event time is less than its split's watermark, which is the greatest event time accepted before it less the
//! delay, and at least what the split began with. Equal is not late; where batches end does not matter.
//! Keeps INV-6: a split's watermark never goes back.

use std::sync::Arc;

use arrow::array::{Array, TimestampMicrosecondArray};
use millstream_common::dead_letter::Code;
use millstream_common::time::{EventSpan, EventTime};

use super::columns::null_reason;
use super::refusals::Refusals;
use super::rows::Rows;
use super::{OpenSplit, SplitSlot, WatermarkMoves};

/// The splits that are open.
#[derive(Debug, Default)]
pub(super) struct Splits {
    by_slot: Vec<Split>,
    free: Vec<SplitSlot>,
}

/// An open split.
#[derive(Debug)]
pub(super) struct Split {
    pub(super) origin: Arc<str>,
    pub(super) partition: Option<i32>,
    watermark: Option<EventTime>,
    moves: WatermarkMoves,
    /// Of the rows accepted, less the delay; becomes the watermark at the end.
    ahead: Option<EventTime>,
}

/// How the late are found.
#[derive(Clone, Debug)]
pub(super) struct TimeRule {
    /// The column with the event time.
    pub(super) column: usize,
    pub(super) column_name: String,
    pub(super) delay: EventSpan,
    /// Late rows, and rows without a time, are refused.
    pub(super) keeps_time: bool,
}

/// A row older than its split's watermark.
#[derive(Clone, Copy, Debug)]
pub(super) struct LateRow {
    pub(super) row: usize,
    pub(super) event_time: EventTime,
    pub(super) watermark: EventTime,
}

impl Splits {
    pub(super) fn open(&mut self, open: OpenSplit) -> SplitSlot {
        let split = Split {
            origin: open.origin.into(),
            partition: open.partition,
            watermark: open.watermark,
            moves: open.moves,
            ahead: None,
        };
        match self.free.pop() {
            Some(slot) => {
                self.by_slot[slot.0] = split;
                slot
            }
            None => {
                self.by_slot.push(split);
                SplitSlot(self.by_slot.len() - 1)
            }
        }
    }

    pub(super) fn get(&self, slot: SplitSlot) -> &Split {
        &self.by_slot[slot.0]
    }

    pub(super) fn watermark(&self, slot: SplitSlot) -> Option<EventTime> {
        self.by_slot[slot.0].watermark
    }

    pub(super) fn raise_watermark(&mut self, slot: SplitSlot, floor: EventTime) {
        let watermark = &mut self.by_slot[slot.0].watermark;
        *watermark = (*watermark).max(Some(floor));
    }

    pub(super) fn close(&mut self, slot: SplitSlot) -> Option<EventTime> {
        self.free.push(slot);
        let split = &self.by_slot[slot.0];
        split.watermark.max(split.ahead)
    }

    /// Walks the rows in order and moves the watermarks; the late rows, in order. `slot_of` tells the split of a record.
    pub(super) fn walk(
        &mut self,
        rule: &TimeRule,
        times: &TimestampMicrosecondArray,
        rows: &Rows,
        slot_of: impl Fn(usize) -> SplitSlot,
        refusals: &mut Refusals,
    ) -> Vec<LateRow> {
        let mut late = Vec::new();
        for row in 0..times.len() {
            if times.is_null(row) {
                if rule.keeps_time {
                    let reason = || null_reason(&rule.column_name);
                    refusals.refuse(rows.record(row), Code::NullViolation, reason);
                }
                continue;
            }
            let event_time = EventTime(times.value(row));
            let split = &mut self.by_slot[slot_of(rows.record(row)).0];
            match split.watermark {
                Some(watermark) if event_time < watermark => late.push(LateRow {
                    row,
                    event_time,
                    watermark,
                }),
                _ => split.advance(event_time - rule.delay),
            }
        }
        if !rule.keeps_time {
            late.clear();
        }
        late
    }
}

impl Split {
    #[inline]
    fn advance(&mut self, to: EventTime) {
        match self.moves {
            WatermarkMoves::WithRows => self.watermark = self.watermark.max(Some(to)),
            WatermarkMoves::AtEnd => self.ahead = self.ahead.max(Some(to)),
        }
    }
}
