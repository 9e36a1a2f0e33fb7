//! What an aggregate does with groups on disk: finds the earlier rows of groups that changed, appends some again, and emits those that leave.
//!
//! Methods of the operator in `mod.rs`, called at a barrier and behind it. What groups on disk emit is made in pieces, for all of it may have no room.
//! Failure: the disk's, or an expression that fails.

use std::iter::once;

use arrow::array::RecordBatch;
use datafusion::common::DataFusionError;
use millstream_common::plan::Port;

use super::super::{BarrierRequest, Emitted};
use super::keys::GroupKeys;
use super::slots::SlotIndex;
use super::spilled::Place;
use super::{Aggregate, Appended};

/// What groups on disk have to emit behind a barrier, and where the next of them are.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    /// The barrier's watermark.
    closing: Option<i64>,
    changes: bool,
    from: Option<Place>,
}

impl Aggregate {
    /// Groups on disk emit theirs when they are asked for it.
    pub(super) fn note_unsent(&mut self, request: &BarrierRequest) {
        if !self.store.has_spilled() {
            self.spilled_pending = false;
            return;
        }
        let watermark = request.watermark.filter(|_| self.window.is_some());
        self.unsent = Unsent {
            closing: watermark.map(|watermark| watermark.0),
            changes: request.emit_changes && self.spilled_pending,
            from: None,
        };
    }

    /// Appends groups again that were on disk, if that makes storage smaller. Not while all on disk have changes to emit: none is left out.
    pub(super) fn sweep(
        &mut self,
        request: &BarrierRequest,
        changed_count: usize,
    ) -> Result<Option<Appended>, DataFusionError> {
        let Some(codec) = self.codec.as_ref().filter(|_| !self.spilled_pending) else {
            return Ok(None);
        };
        let watermark = request.watermark.filter(|_| self.window.is_some());
        let rows =
            self.store
                .sweep(watermark.map(|watermark| watermark.0), changed_count, codec)?;
        let Some(rows) = rows else {
            return Ok(None);
        };
        let known = vec![None; rows.num_rows()];
        let rows = self.new_rows(rows)?;
        Ok(Some(self.append(request.epoch, rows, &known)))
    }

    /// What the last barrier still has to emit; empty if that was all.
    pub(super) fn emit_unsent(&mut self) -> Result<Vec<Emitted>, DataFusionError> {
        let Some(codec) = &self.codec else {
            return Ok(Vec::new());
        };
        if let Some(watermark) = self.unsent.closing {
            let from = self.unsent.from.take();
            if let Some(leaving) = self.store.close_spilled(watermark, from, codec)? {
                self.unsent.from = leaving.next;
                self.unsent.closing = leaving.next.map(|_| watermark);
                return self.emit_closed(&leaving.rows);
            }
            self.unsent.closing = None;
        }
        if !self.unsent.changes {
            return Ok(Vec::new());
        }
        let from = self.unsent.from.take();
        let shown = self.store.show_spilled(from, codec)?;
        self.unsent.from = shown.as_ref().and_then(|shown| shown.next);
        if self.unsent.from.is_none() {
            self.unsent.changes = false;
            self.spilled_pending = false;
        }
        match shown {
            Some(shown) => Ok(vec![self.changed(&self.evaluate(&shown.rows)?)?]),
            None => Ok(Vec::new()),
        }
    }

    /// Groups that leave from disk.
    fn emit_closed(&self, rows: &RecordBatch) -> Result<Vec<Emitted>, DataFusionError> {
        let batch = self.evaluate(&self.ordered(rows)?)?;
        let change = match self.spilled_pending {
            true => Some(self.changed(&batch)?),
            false => None,
        };
        let closed = Emitted {
            port: Port::Final,
            batch,
        };
        Ok(once(closed).chain(change).collect())
    }

    /// The earlier rows of groups, from memory and from disk, and which of the keys each is of.
    pub(super) fn earlier(
        &mut self,
        keys: &GroupKeys,
        ends: &[i64],
        known: &[Option<SlotIndex>],
    ) -> Result<(Vec<RecordBatch>, Vec<usize>), DataFusionError> {
        let slots: Vec<SlotIndex> = known.iter().flatten().copied().collect();
        let places = (0..known.len()).filter(|place| known[*place].is_some());
        let mut places: Vec<usize> = places.collect();
        let mut earlier = Vec::new();
        if !slots.is_empty() {
            earlier.push(self.store.gather(&slots)?);
        }
        if let Some(codec) = &self.codec
            && let Some(recalled) = self.store.recall(keys, ends, known, codec)?
        {
            earlier.push(recalled.rows);
            places.extend(recalled.places);
        }
        Ok((earlier, places))
    }
}
