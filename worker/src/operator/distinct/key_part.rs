//! Keys of a DISTINCT on their way to or from storage.
//!
//! Filled by the operator in `mod.rs` as keys come, handed over whole at the barrier, made into a batch off the path of rows. Laid out as in
//! storage, so that nothing is copied on the way. Failure: a part of another shape is an error.

use std::mem::size_of;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, FixedSizeBinaryArray, Int64Array, RecordBatch, UInt8Array};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt8Type};
use arrow::error::ArrowError;
use millstream_common::ids::Vnode;

use super::super::VNODE_COLUMN;
use super::key::FOREVER;

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

/// Fingerprints, each with the event time of its first row.
#[derive(Debug)]
pub(super) struct KeyPart {
    /// Their bytes, the most significant first.
    fingerprints: Vec<i128>,
    times: Vec<i64>,
    time_min: i64,
    time_max: i64,
}

impl Default for KeyPart {
    fn default() -> Self {
        Self::with_room_for(0)
    }
}

impl KeyPart {
    /// Empty, with room for so many. Memory that is not filled costs nothing.
    pub(super) fn with_room_for(count: usize) -> Self {
        Self {
            fingerprints: Vec::with_capacity(count),
            times: Vec::with_capacity(count),
            time_min: i64::MAX,
            time_max: i64::MIN,
        }
    }

    /// Room for so many more.
    pub(super) fn reserve(&mut self, count: usize) {
        self.fingerprints.reserve(count);
        self.times.reserve(count);
    }

    #[inline]
    pub(super) fn push(&mut self, fingerprint: u128, time: i64) {
        self.fingerprints.push(fingerprint.to_be() as i128);
        self.times.push(time);
        self.time_min = self.time_min.min(time);
        self.time_max = self.time_max.max(time);
    }

    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u128, i64)> {
        let times = self.times.iter().copied();
        let prints = self.fingerprints.iter();
        prints.map(|print| u128::from_be(*print as u128)).zip(times)
    }

    /// The greatest event time; `None` without keys.
    pub(super) fn time_max(&self) -> Option<i64> {
        (!self.times.is_empty()).then_some(self.time_max)
    }

    /// Leaves out the keys older than the watermark.
    pub(super) fn forget(&mut self, watermark: i64) {
        if !self.times.is_empty() && self.time_min < watermark {
            *self = self.iter().filter(|(_, time)| *time >= watermark).collect();
        }
    }

    /// Bytes of memory held, about.
    pub(super) fn bytes(&self) -> usize {
        self.len() * (size_of::<i128>() + size_of::<i64>())
    }

    pub(super) fn encode(self) -> Result<RecordBatch, ArrowError> {
        let vnodes = self.iter().map(|(print, _)| Vnode::of_fingerprint(print).0);
        let vnodes = UInt8Array::from_iter_values(vnodes);
        let has_forever = self.time_max() == Some(FOREVER);
        let prints = Buffer::from_vec(self.fingerprints);
        let prints = FixedSizeBinaryArray::try_new(FINGERPRINT_BYTES, prints, None)?;
        let kept = self.times.iter().map(|time| *time != FOREVER);
        let kept = has_forever.then(|| kept.collect());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(times: &[i64]) -> KeyPart {
        let keys = times.iter().enumerate();
        keys.map(|(index, time)| ((index as u128) << 120, *time))
            .collect()
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

    #[test]
    fn keys_older_than_the_watermark_are_left_out() {
        let mut part = keys(&[3, FOREVER, -7, 5]);
        part.forget(-7);
        assert_eq!(part.len(), 4);
        part.forget(4);
        let times: Vec<i64> = part.iter().map(|(_, time)| time).collect();
        assert_eq!(times, [FOREVER, 5]);
        assert_eq!(part.time_max(), Some(FOREVER));
        assert_eq!(keys(&[]).time_max(), None);
    }
}
