//! DISTINCT ON: keeps the first row of each key and hands it on at once.
//!
//! Made by `operator::build`, driven by the keyed actor. A key is a 128-bit fingerprint; NULLs are equal. It is
//! forgotten at the barrier whose watermark has passed the event time of its first row; a first row without event time
//! is never forgotten. Owns the fingerprints (`seen.rs`) and knows which state parts still hold live ones.
//! Keeps INV-7: what a key's first row is depends on the order of rows and on barriers only.
//! Failure: rows or a state part of another shape end the pipeline.

mod parts;
mod seen;

use std::collections::BTreeSet;
use std::mem::replace;

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::error::ArrowError;
use millstream_common::ids::{Epoch, OperatorId, Vnode};
use millstream_common::plan::{KeyedPlan, Port};
use millstream_common::time::EventTime;

use self::parts::{KeyPart, Parts};
use self::seen::{FOREVER, SeenKeys};
use super::event_time::{is_time, micros};
use super::key_hash::KeyHasher;
use super::{
    BarrierOutcome, BarrierRequest, Emitted, KeyedOperator, OperatorError, StateWrite, build_error,
    run_error,
};
use crate::exchange::message::OwnedRows;

/// The operator of one task.
#[derive(Debug)]
pub(super) struct Distinct {
    operator: OperatorId,
    hasher: KeyHasher,
    time_column: Option<usize>,
    seen: SeenKeys,
    /// Keys first seen in the running epoch.
    fresh: KeyPart,
    parts: Parts,
}

impl Distinct {
    /// For the plan of a DISTINCT.
    pub(super) fn new(plan: &KeyedPlan, time_column: Option<usize>) -> Result<Self, OperatorError> {
        let schema = &plan.input.0;
        let hasher = KeyHasher::new(schema, &plan.key_columns)
            .map_err(|error| build_error(&plan.operator, error))?;
        if let Some(index) = time_column {
            let data_type = schema.fields().get(index).map(|field| field.data_type());
            if !data_type.is_some_and(is_time) {
                let cause = format!("column {index} is no timestamp to forget keys by");
                return Err(build_error(&plan.operator, cause));
            }
        }
        Ok(Self {
            operator: plan.operator.clone(),
            hasher,
            time_column,
            seen: SeenKeys::default(),
            fresh: KeyPart::default(),
            parts: Parts::default(),
        })
    }

    /// The rows that are the first of their key.
    fn first_rows(&mut self, rows: &OwnedRows) -> Result<Option<RecordBatch>, ArrowError> {
        let batch = rows.batch();
        let times = match self.time_column {
            Some(column) => Some(micros(batch.column(column))?),
            None => None,
        };
        let time_of = |row: u32| match &times {
            Some(times) if times.is_valid(row as usize) => times.value(row as usize),
            _ => FOREVER,
        };
        let mut kept: Vec<u32> = Vec::with_capacity(rows.count());
        let mut keep = |row: u32, fingerprint: u128| {
            let time = time_of(row);
            if self.seen.insert(fingerprint, time) {
                self.fresh.push(fingerprint, time);
                kept.push(row);
            }
        };
        match rows.choice() {
            Some((rows, fingerprints)) => {
                let rows = rows.iter().zip(fingerprints);
                rows.for_each(|(row, fingerprint)| keep(*row, *fingerprint));
            }
            None => {
                let fingerprints = self.hasher.fingerprints(batch);
                let rows = (0..).zip(fingerprints);
                rows.for_each(|(row, fingerprint)| keep(row, *fingerprint));
            }
        }
        if kept.is_empty() {
            return Ok(None);
        }
        if kept.len() == batch.num_rows() {
            return Ok(Some(batch.clone()));
        }
        take_record_batch(batch, &UInt32Array::from(kept)).map(Some)
    }

    fn end_epoch(&mut self, request: &BarrierRequest) -> Result<BarrierOutcome, ArrowError> {
        let next = KeyPart::with_room_for(self.fresh.len());
        let mut fresh = replace(&mut self.fresh, next);
        let mut forget = BTreeSet::new();
        if let Some(EventTime(watermark)) = request.watermark {
            self.seen.forget(watermark);
            fresh.forget(watermark);
            forget = self.parts.forget(watermark);
        }
        let write = if self.parts.is_rewrite_due(fresh.len()) {
            let live: KeyPart = self.seen.iter().collect();
            self.parts.replace(request.epoch, &live);
            forget.clear();
            StateWrite::Full(live.encode()?)
        } else if fresh.len() > 0 {
            self.parts.add(request.epoch, &fresh);
            StateWrite::Delta(fresh.encode()?)
        } else {
            StateWrite::Nothing
        };
        Ok(BarrierOutcome {
            emitted: Vec::new(),
            write,
            forget,
        })
    }
}

impl KeyedOperator for Distinct {
    fn fold(&mut self, rows: OwnedRows) -> Result<Vec<Emitted>, OperatorError> {
        let first_rows = self
            .first_rows(&rows)
            .map_err(|error| run_error(&self.operator, error))?;
        let emitted = first_rows.map(|batch| Emitted {
            port: Port::Rows,
            batch,
        });
        Ok(emitted.into_iter().collect())
    }

    fn barrier(&mut self, request: &BarrierRequest) -> Result<BarrierOutcome, OperatorError> {
        self.end_epoch(request)
            .map_err(|error| run_error(&self.operator, error))
    }

    fn restore(
        &mut self,
        part_epoch: Epoch,
        part: &RecordBatch,
        owns: &dyn Fn(Vnode) -> bool,
        watermark: Option<EventTime>,
    ) -> Result<(), OperatorError> {
        let mut keys =
            KeyPart::decode(part, owns).map_err(|error| run_error(&self.operator, error))?;
        if let Some(EventTime(watermark)) = watermark {
            self.seen.forget(watermark);
            keys.forget(watermark);
        }
        for (fingerprint, time) in keys.iter() {
            self.seen.insert(fingerprint, time);
        }
        self.parts.add(part_epoch, &keys);
        Ok(())
    }

    /// It holds what tells rows apart, and no rows.
    fn mark_all_changed(&mut self) {}

    fn state_bytes(&self) -> usize {
        self.seen.bytes() + self.fresh.bytes()
    }

    fn key_count(&self) -> usize {
        self.seen.iter().count()
    }
}
