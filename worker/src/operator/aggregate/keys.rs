//! Group keys: what a group is found by, and the order in which groups leave.
//!
//! Used by the operator in `mod.rs`. A group is found by 128 bits of its key, as in DISTINCT: two keys that share them are taken for the same.
//! The order is that of Arrow's row format, which is made of the groups that leave and kept no longer.
//! Failure: a group column whose type has no row format is refused when the plan is built.

use arrow::array::{ArrayRef, RecordBatch, UInt8Array};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use millstream_common::ids::Vnode;

use super::super::key_hash::{KeyError, KeyHasher};
use super::slots::Fingerprint;

/// Makes [`GroupKeys`] of group columns.
#[derive(Debug)]
pub(super) struct KeyEncoder {
    schema: SchemaRef,
    hasher: KeyHasher,
    /// `None` without group columns: all keys are equal.
    converter: Option<RowConverter>,
}

/// The keys of some groups, by row.
#[derive(Debug)]
pub(super) struct GroupKeys(Vec<u128>);

/// A plan whose group columns cannot be keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyEncoderError {
    #[error(transparent)]
    Hash(#[from] KeyError),
    #[error(transparent)]
    Rows(#[from] ArrowError),
}

impl KeyEncoder {
    pub(super) fn new(schema: SchemaRef) -> Result<Self, KeyEncoderError> {
        let columns: Vec<usize> = (0..schema.fields().len()).collect();
        let hasher = KeyHasher::new(&schema, &columns)?;
        let fields = schema.fields().iter();
        let fields: Vec<SortField> = fields
            .map(|field| SortField::new(field.data_type().clone()))
            .collect();
        let converter = if fields.is_empty() {
            None
        } else {
            Some(RowConverter::new(fields)?)
        };
        Ok(Self {
            schema,
            hasher,
            converter,
        })
    }

    /// The keys of `count` groups.
    pub(super) fn encode(
        &mut self,
        groups: &[ArrayRef],
        count: usize,
    ) -> Result<GroupKeys, ArrowError> {
        if self.converter.is_none() {
            return Ok(GroupKeys(vec![0; count]));
        }
        let batch = RecordBatch::try_new(self.schema.clone(), groups.to_vec())?;
        Ok(GroupKeys(self.hasher.fingerprints(&batch).to_vec()))
    }

    /// The rows of these groups, ordered by `ends` (if there are any) and the columns' values, NULLs first.
    pub(super) fn order(
        &self,
        groups: &[ArrayRef],
        ends: &[i64],
        count: usize,
    ) -> Result<Vec<u32>, ArrowError> {
        let mut order: Vec<u32> = (0..count as u32).collect();
        if let Some(converter) = &self.converter {
            let keys = converter.convert_columns(groups)?;
            order.sort_unstable_by_key(|row| {
                let row = *row as usize;
                (ends.get(row).copied(), keys.row(row))
            });
        }
        Ok(order)
    }
}

impl GroupKeys {
    /// The `_vnode` column of these groups.
    pub(super) fn vnodes(&self) -> UInt8Array {
        let keys = self.0.iter();
        UInt8Array::from_iter_values(keys.map(|key| Vnode::of_fingerprint(*key).0))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Fingerprint> {
        self.0.iter().map(|key| Fingerprint::new(*key))
    }
}
