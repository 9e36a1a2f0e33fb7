//! DISTINCT ON: keeps the first row of each key and hands it on at once.
//!
//! Made by `operator::build`, driven by the keyed actor. A key is a 128-bit fingerprint; NULLs are equal. It is
//! forgotten at the barrier whose watermark has passed the event time of its first row; a first row without event time
//! is never forgotten. Owns the fingerprints (`seen.rs`) and knows which state parts still hold live ones.
//! Keys that have no room in memory are on disk, and are found there.
//! Keeps INV-7: what a key's first row is depends on the order of rows and on barriers only.
//! Failure: rows or a state part of another shape, or a disk that fails, end the pipeline.

mod key;
mod key_part;
mod parts;
mod seen;
mod slice;
mod spilled;

use std::collections::BTreeSet;
use std::mem::replace;

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::error::ArrowError;
use millstream_common::ids::{Epoch, OperatorId, Vnode};
use millstream_common::plan::{KeyedPlan, Port};
use millstream_common::time::EventTime;

use self::key::FOREVER;
use self::key_part::KeyPart;
use self::parts::{Parts, REWRITTEN_MAX};
use self::seen::SeenKeys;
use super::event_time::{is_time, micros};
use super::key_hash::KeyHasher;
use super::spill::{SpillError, TaskSpill};
use super::{
    BarrierOutcome, BarrierRequest, Emitted, KeyedOperator, OperatorError, PartRows, StateWrite,
    build_error, run_error,
};
use crate::exchange::message::OwnedRows;

/// The operator of one task.
pub(super) struct Distinct {
    operator: OperatorId,
    hasher: KeyHasher,
    time_column: Option<usize>,
    seen: SeenKeys,
    /// Keys first seen in the running epoch.
    fresh: KeyPart,
    parts: Parts,
    /// [`REWRITTEN_MAX`].
    rewritten_max: usize,
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
            rewritten_max: REWRITTEN_MAX,
        })
    }

    /// The rows that are the first of their key.
    fn first_rows(&mut self, rows: &OwnedRows) -> Result<Option<RecordBatch>, OperatorError> {
        let batch = rows.batch();
        let times = match self.time_column {
            Some(column) => Some(micros(batch.column(column)).map_err(|error| self.broken(error))?),
            None => None,
        };
        let (chosen, fingerprints) = match rows.choice() {
            Some((rows, fingerprints)) => (Some(rows), fingerprints),
            None => (None, self.hasher.fingerprints(batch)),
        };
        let row_at = |place: usize| chosen.map_or(place as u32, |rows| rows[place]);
        let time_of = |place: usize| match &times {
            Some(times) if times.is_valid(row_at(place) as usize) => {
                times.value(row_at(place) as usize)
            }
            _ => FOREVER,
        };
        let mut kept: Vec<u32> = Vec::with_capacity(fingerprints.len());
        let fresh = &mut self.fresh;
        self.seen.insert_all(fingerprints, time_of, |place, time| {
            fresh.push(fingerprints[place], time);
            kept.push(row_at(place));
        })?;
        if kept.is_empty() {
            return Ok(None);
        }
        if kept.len() == batch.num_rows() {
            return Ok(Some(batch.clone()));
        }
        let rows = take_record_batch(batch, &UInt32Array::from(kept));
        rows.map(Some).map_err(|error| self.broken(error))
    }

    fn broken(&self, error: ArrowError) -> OperatorError {
        run_error(&self.operator, error)
    }

    fn end_epoch(&mut self, request: &BarrierRequest) -> Result<BarrierOutcome, SpillError> {
        let epoch = request.epoch;
        // The next epoch is about as long as this one; what it does not fill costs nothing.
        let next = KeyPart::with_room_for(self.fresh.len() / 2 * 3);
        let mut fresh = replace(&mut self.fresh, next);
        let mut forget = BTreeSet::new();
        if let Some(EventTime(watermark)) = request.watermark {
            self.seen.forget(watermark)?;
            fresh.forget(watermark);
            forget = self.parts.forget(watermark);
        }
        let held_count = self.seen.held_count();
        let first = self.seen.first_slice();
        let from = self
            .parts
            .rewrite_from(epoch, fresh.len(), held_count, first);
        let write = match from {
            Some(from) if from == first && held_count <= self.rewritten_max => {
                let mut live = KeyPart::default();
                self.seen.copy(first, usize::MAX, &mut live)?;
                self.parts.replace(epoch, &live);
                forget.clear();
                StateWrite::Full(rows_of(live))
            }
            from => {
                if let Some(from) = from {
                    let next = self.seen.copy(from, self.rewritten_max, &mut fresh)?;
                    forget.append(&mut self.parts.rewritten(next));
                }
                self.delta(epoch, fresh)
            }
        };
        Ok(BarrierOutcome {
            emitted: Vec::new(),
            write,
            forget,
        })
    }

    fn delta(&mut self, epoch: Epoch, keys: KeyPart) -> StateWrite {
        if keys.len() == 0 {
            return StateWrite::Nothing;
        }
        self.parts.add(epoch, &keys);
        StateWrite::Delta(rows_of(keys))
    }
}

/// Handed over as they are; a batch is made of them later.
fn rows_of(keys: KeyPart) -> PartRows {
    PartRows::later(keys.len(), move || keys.encode())
}

impl KeyedOperator for Distinct {
    fn fold(&mut self, rows: OwnedRows) -> Result<Vec<Emitted>, OperatorError> {
        let first_rows = self.first_rows(&rows)?;
        let emitted = first_rows.map(|batch| Emitted {
            port: Port::Rows,
            batch,
        });
        Ok(emitted.into_iter().collect())
    }

    fn barrier(&mut self, request: &BarrierRequest) -> Result<BarrierOutcome, OperatorError> {
        Ok(self.end_epoch(request)?)
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
            self.seen.forget(watermark)?;
            keys.forget(watermark);
        }
        for (fingerprint, time) in keys.iter() {
            self.seen.insert(fingerprint, time)?;
        }
        self.parts.add(part_epoch, &keys);
        Ok(())
    }

    /// What came in the running epoch is not stored yet, and stays.
    fn spill(&mut self, bytes: usize, spill: &TaskSpill) -> Result<bool, OperatorError> {
        self.seen.spill(bytes, spill)?;
        Ok(false)
    }

    fn waits_for_disk(&self) -> bool {
        self.seen.has_spilled()
    }

    /// It holds what tells rows apart, and no rows.
    fn mark_all_changed(&mut self) {}

    fn state_bytes(&self) -> usize {
        self.seen.bytes() + self.fresh.bytes()
    }

    fn disk_bytes(&self) -> u64 {
        self.seen.disk_bytes()
    }

    fn key_count(&self) -> usize {
        self.seen.live_count()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{Int64Array, TimestampMicrosecondArray};
    use arrow::datatypes::{DataType, Field, TimeUnit};
    use millstream_common::blocking::{BlockingRef, ThreadPool};
    use millstream_common::plan::{KeyedKind, PlanSchema};

    use super::super::spill::Spill;
    use super::super::spill::budget::StateBudget;
    use super::super::spill::disk::SpillFolder;
    use super::*;

    fn empty() -> Distinct {
        let plan = KeyedPlan {
            operator: "clicks/distinct/0".into(),
            fingerprint: "test".to_owned(),
            input: PlanSchema::from_fields(vec![
                Field::new("key", DataType::Int64, true),
                Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
            ]),
            key_columns: vec![0],
            kind: KeyedKind::Distinct {
                time_column: Some(1),
            },
        };
        let mut distinct = Distinct::new(&plan, Some(1)).expect("plan");
        distinct.rewritten_max = 64;
        distinct
    }

    fn rows(keys: std::ops::Range<i64>, time: i64) -> OwnedRows {
        let times = keys.clone().map(|_| time);
        let columns = [
            ("key", Arc::new(Int64Array::from_iter_values(keys)) as _),
            (
                "at",
                Arc::new(TimestampMicrosecondArray::from_iter_values(times)) as _,
            ),
        ];
        OwnedRows::whole(RecordBatch::try_from_iter(columns).expect("batch"))
    }

    /// What storage holds, by epoch.
    type Stored = BTreeMap<Epoch, RecordBatch>;

    fn store(stored: &mut Stored, epoch: Epoch, outcome: BarrierOutcome) {
        stored.retain(|epoch, _| !outcome.forget.contains(epoch));
        let rows = match outcome.write {
            StateWrite::Nothing => return,
            StateWrite::Delta(rows) => rows,
            StateWrite::Full(rows) => {
                stored.clear();
                rows
            }
        };
        stored.insert(epoch, rows.make().expect("a batch"));
    }

    fn restored(stored: &Stored, watermark: EventTime) -> Distinct {
        let mut distinct = empty();
        for (epoch, part) in stored {
            distinct
                .restore(*epoch, part, &|_| true, Some(watermark))
                .expect("restore");
        }
        distinct
    }

    #[test]
    fn keys_written_again_table_by_table_are_those_that_were_seen_at_every_epoch() {
        keys_written_again_are_those_that_were_seen(&Spill::without_limit().task("test"));
    }

    #[test]
    fn keys_written_again_from_disk_are_those_that_were_seen_at_every_epoch() {
        let folder = tempfile::tempdir().expect("a folder");
        let blocking: BlockingRef = Arc::new(ThreadPool);
        let spill = Spill {
            budget: StateBudget::new(0),
            disk: Arc::new(SpillFolder::new(
                folder.path().to_owned(),
                1 << 20,
                blocking,
            )),
        };
        keys_written_again_are_those_that_were_seen(&spill.task("test"));
    }

    fn spill_excess(distinct: &mut Distinct, spill: &TaskSpill) {
        let excess = spill.note_held(distinct.state_bytes());
        if excess > 0 {
            // A few tables, so that some are on disk and some are not.
            distinct.spill(excess / 8 + 1, spill).expect("spilled");
        }
    }

    fn keys_written_again_are_those_that_were_seen(spill: &TaskSpill) {
        const PER_EPOCH: i64 = 40;
        let mut distinct = empty();
        let (mut stored, mut most_parts) = (Stored::new(), 0);
        for number in 1..=900 {
            let epoch = Epoch(number);
            let first = number as i64 * PER_EPOCH;
            // One key an epoch is far ahead of its time, so that no part is forgotten whole.
            distinct
                .fold(rows(first..first + PER_EPOCH - 1, number as i64))
                .expect("fold");
            distinct
                .fold(rows(first + PER_EPOCH - 1..first + PER_EPOCH, 10_000))
                .expect("fold");
            let watermark = EventTime(number as i64 - 150);
            let request = BarrierRequest {
                epoch,
                watermark: Some(watermark),
                emit_changes: true,
            };
            let outcome = distinct.end_epoch(&request).expect("in memory");
            store(&mut stored, epoch, outcome);
            if number % 8 == 0 {
                spill_excess(&mut distinct, spill);
            }
            most_parts = most_parts.max(stored.len());
            if number % 30 != 0 {
                continue;
            }
            let mut again = restored(&stored, watermark);
            if !distinct.waits_for_disk() {
                assert_eq!(again.key_count(), distinct.key_count(), "epoch {number}");
            }
            spill_excess(&mut again, spill);
            let all = 0..first + PER_EPOCH * 2;
            for distinct in [&mut again, &mut restored(&stored, watermark)] {
                let emitted = distinct.fold(rows(all.clone(), 20_000)).expect("fold");
                let count: usize = emitted.iter().map(|rows| rows.batch.num_rows()).sum();
                let number = number as i64;
                let live = number.min(151) * (PER_EPOCH - 1) + number;
                assert_eq!(count as i64, all.end - live, "epoch {number}");
            }
        }
        assert!((100..400).contains(&most_parts), "{most_parts}");
    }
}
