//! State parts of a DISTINCT: how keys are written down, and which parts are still needed.
//!
//! Used by the operator in `mod.rs`. A part holds the keys that were new in an epoch, or all live keys. Parts whose keys
//! are all forgotten are dropped whole. All live keys are rewritten when the parts since the last rewrite hold as
//! many keys as that one, so that each key is rewritten a bounded number of times, and never more than
//! [`PART_COUNT_MAX`] parts are read at a restore.
//! Failure: a part of another shape is an error.

use std::collections::BTreeSet;
use std::mem::size_of;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, FixedSizeBinaryArray, Int64Array, RecordBatch, UInt8Array};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt8Type};
use arrow::error::ArrowError;
use millstream_common::ids::{Epoch, Vnode};

use super::super::VNODE_COLUMN;
use super::seen::FOREVER;

/// Below this many parts a rewrite saves nothing worth its cost.
const PART_COUNT_MIN: usize = 16;
/// Reading one object a part at a restore stays a matter of seconds.
const PART_COUNT_MAX: usize = 256;

const FINGERPRINT_BYTES: i32 = 16;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new(VNODE_COLUMN, DataType::UInt8, false),
        Field::new(
            "fingerprint",
            DataType::FixedSizeBinary(FINGERPRINT_BYTES),
            false,
        ),
        Field::new("event_time", DataType::Int64, true),
    ]))
});

/// Keys on their way to or from storage, laid out as there, so that nothing is copied on the way.
#[derive(Debug, Default)]
pub(super) struct KeyPart {
    /// Their bytes, the most significant first.
    fingerprints: Vec<i128>,
    times: Vec<i64>,
}

impl KeyPart {
    /// Empty, with room for so many: an epoch has about as many as the one before.
    pub(super) fn with_room_for(count: usize) -> Self {
        Self {
            fingerprints: Vec::with_capacity(count),
            times: Vec::with_capacity(count),
        }
    }

    pub(super) fn push(&mut self, fingerprint: u128, time: i64) {
        self.fingerprints.push(fingerprint.to_be() as i128);
        self.times.push(time);
    }

    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u128, i64)> {
        let times = self.times.iter().copied();
        let prints = self.fingerprints.iter();
        prints.map(|print| u128::from_be(*print as u128)).zip(times)
    }

    /// Leaves out the keys older than the watermark.
    pub(super) fn forget(&mut self, watermark: i64) {
        if self.times.iter().any(|time| *time < watermark) {
            *self = self.iter().filter(|(_, time)| *time >= watermark).collect();
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.fingerprints.capacity() * size_of::<i128>() + self.times.capacity() * size_of::<i64>()
    }

    pub(super) fn encode(self) -> Result<RecordBatch, ArrowError> {
        let vnodes = self.iter().map(|(print, _)| Vnode::of_fingerprint(print).0);
        let vnodes = UInt8Array::from_iter_values(vnodes);
        let prints = Buffer::from_vec(self.fingerprints);
        let prints = FixedSizeBinaryArray::try_new(FINGERPRINT_BYTES, prints, None)?;
        let kept = self.times.iter().map(|time| *time != FOREVER);
        let kept = self.times.contains(&FOREVER).then(|| kept.collect());
        let times = Int64Array::try_new(self.times.into(), kept)?;
        RecordBatch::try_new(
            Arc::clone(&SCHEMA),
            vec![Arc::new(vnodes), Arc::new(prints), Arc::new(times)],
        )
    }

    pub(super) fn decode(
        part: &RecordBatch,
        owns: &dyn Fn(Vnode) -> bool,
    ) -> Result<Self, ArrowError> {
        let types = part
            .schema_ref()
            .fields()
            .iter()
            .map(|field| field.data_type());
        if !types.eq(SCHEMA.fields().iter().map(|field| field.data_type())) {
            let found = part.schema();
            return Err(ArrowError::SchemaError(format!(
                "a state part of other columns than a DISTINCT writes: {found}"
            )));
        }
        let vnodes = part.column(0).as_primitive::<UInt8Type>();
        let prints = part.column(1).as_fixed_size_binary();
        let times = part.column(2).as_primitive::<Int64Type>();
        let mut keys = Self::default();
        for row in 0..part.num_rows() {
            if !owns(Vnode(vnodes.value(row))) {
                continue;
            }
            let bytes = <[u8; FINGERPRINT_BYTES as usize]>::try_from(prints.value(row))
                .map_err(|error| ArrowError::SchemaError(error.to_string()))?;
            let time = if times.is_valid(row) {
                times.value(row)
            } else {
                FOREVER
            };
            keys.push(u128::from_be_bytes(bytes), time);
        }
        Ok(keys)
    }
}

impl FromIterator<(u128, i64)> for KeyPart {
    fn from_iter<I: IntoIterator<Item = (u128, i64)>>(keys: I) -> Self {
        let mut part = Self::default();
        for (fingerprint, time) in keys {
            part.push(fingerprint, time);
        }
        part
    }
}

/// A part that storage holds.
#[derive(Debug)]
struct PartNote {
    epoch: Epoch,
    key_count: usize,
    /// Of its keys, the greatest event time; `None` without keys.
    time_max: Option<i64>,
}

/// The parts that storage holds, oldest first. After a change of the number of tasks several are of one epoch.
#[derive(Debug, Default)]
pub(super) struct Parts(Vec<PartNote>);

impl Parts {
    pub(super) fn add(&mut self, epoch: Epoch, keys: &KeyPart) {
        self.0.push(PartNote {
            epoch,
            key_count: keys.len(),
            time_max: keys.times.iter().max().copied(),
        });
    }

    /// A part with all live keys takes the place of all.
    pub(super) fn replace(&mut self, epoch: Epoch, keys: &KeyPart) {
        self.0.clear();
        self.add(epoch, keys);
    }

    /// Drops the parts without live keys and names them.
    pub(super) fn forget(&mut self, watermark: i64) -> BTreeSet<Epoch> {
        let is_dead = |part: &PartNote| part.time_max.is_none_or(|time| time < watermark);
        let dead = self.0.extract_if(.., |part| is_dead(part));
        let mut epochs: BTreeSet<Epoch> = dead.map(|part| part.epoch).collect();
        for part in &self.0 {
            epochs.remove(&part.epoch);
        }
        epochs
    }

    /// Whether all live keys are to be written in place of `fresh_count` new ones.
    pub(super) fn is_rewrite_due(&self, fresh_count: usize) -> bool {
        let Some((first, later)) = self.0.split_first() else {
            return false;
        };
        let later_count = later.iter().map(|part| part.key_count).sum::<usize>() + fresh_count;
        let has_grown = self.0.len() >= PART_COUNT_MIN && later_count >= first.key_count;
        has_grown || self.0.len() >= PART_COUNT_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(times: &[i64]) -> KeyPart {
        let keys = times.iter().enumerate();
        keys.map(|(index, time)| ((index as u128) << 120, *time))
            .collect()
    }

    #[test]
    fn a_part_is_forgotten_when_all_its_keys_are() {
        let mut parts = Parts::default();
        parts.add(Epoch(1), &keys(&[1, 5]));
        parts.add(Epoch(2), &keys(&[2]));
        assert_eq!(parts.forget(5), BTreeSet::from([Epoch(2)]));
        assert_eq!(parts.forget(6), BTreeSet::from([Epoch(1)]));
        assert_eq!(parts.forget(7), BTreeSet::new());
    }

    #[test]
    fn an_epoch_is_forgotten_with_the_last_of_its_parts() {
        let mut parts = Parts::default();
        parts.add(Epoch(1), &keys(&[1]));
        parts.add(Epoch(1), &keys(&[5]));
        assert_eq!(parts.forget(3), BTreeSet::new());
        assert_eq!(parts.forget(6), BTreeSet::from([Epoch(1)]));
    }

    #[test]
    fn each_key_is_rewritten_a_bounded_number_of_times() {
        let mut parts = Parts::default();
        let mut written = 0;
        for epoch in 0..10_000 {
            let fresh = keys(&[0; 10]);
            if parts.is_rewrite_due(fresh.len()) {
                let live = keys(&vec![0; 10 * (epoch + 1)]);
                written += live.len();
                parts.replace(Epoch(epoch as u64), &live);
            } else {
                written += fresh.len();
                parts.add(Epoch(epoch as u64), &fresh);
            }
            assert!(parts.0.len() <= PART_COUNT_MAX);
        }
        assert!(written < 10_000 * 10 * 25, "{written}");
    }

    #[test]
    fn keys_survive_storage_by_vnode() {
        let written = keys(&[3, FOREVER, -7]);
        let part = keys(&[3, FOREVER, -7]).encode().expect("encode");
        let all = KeyPart::decode(&part, &|_| true).expect("decode");
        assert!(all.iter().eq(written.iter()));
        let some = KeyPart::decode(&part, &|vnode| vnode == Vnode(1)).expect("decode");
        assert_eq!(some.iter().collect::<Vec<_>>(), [(1 << 120, FOREVER)]);
    }
}
