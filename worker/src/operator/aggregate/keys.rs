//! Group keys in a form that compares fast: a hash and the key's bytes.
//!
//! Used by `store.rs` to find a group's state. The bytes come from Arrow's row format and live in memory only; what is
//! stored is the columns themselves and the vnode of the hash.
//! Failure: a group column whose type has no row format is refused when the plan is built.

use std::cmp::Ordering;

use arrow::array::{ArrayRef, RecordBatch, UInt8Array};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use millstream_common::ids::Vnode;

use super::super::key_hash::{KeyError, KeyHasher};

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
pub(super) struct GroupKeys {
    pub(super) hashes: Vec<u64>,
    rows: Option<Rows>,
}

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
        let Some(converter) = &self.converter else {
            return Ok(GroupKeys {
                hashes: vec![0; count],
                rows: None,
            });
        };
        let batch = RecordBatch::try_new(self.schema.clone(), groups.to_vec())?;
        Ok(GroupKeys {
            hashes: self.hasher.hash(&batch).to_vec(),
            rows: Some(converter.convert_columns(groups)?),
        })
    }
}

impl GroupKeys {
    /// The `_vnode` column of these groups.
    pub(super) fn vnodes(&self) -> UInt8Array {
        let vnodes = self.hashes.iter().map(|hash| Vnode::of_hash(*hash).0);
        UInt8Array::from_iter_values(vnodes)
    }

    pub(super) fn equal(&self, row: usize, other: &Self, other_row: usize) -> bool {
        self.hashes[row] == other.hashes[other_row]
            && self.compare(row, other, other_row) == Ordering::Equal
    }

    /// The order of the columns' values, NULLs first.
    pub(super) fn compare(&self, row: usize, other: &Self, other_row: usize) -> Ordering {
        match (&self.rows, &other.rows) {
            (Some(rows), Some(others)) => rows.row(row).cmp(&others.row(other_row)),
            _ => Ordering::Equal,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let rows = self.rows.as_ref().map_or(0, Rows::size);
        rows + self.hashes.capacity() * std::mem::size_of::<u64>()
    }
}
