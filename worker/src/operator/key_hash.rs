//! Hashes of keys: which vnode a row belongs to, and whether two rows have the same key.
//!
//! Called by the exchange, to find a row's owner, and by the operators, for their state. State is kept by vnode and by
//! fingerprint over restarts, so the bytes that are hashed are fixed here and come from no library: the
//! little-endian value or the text itself, column by column, with xxh3. NULLs are equal, as are -0.0 and 0.0, and
//! all NaNs.
//! Failure: a type that has no such bytes is refused when the hasher is made.

use std::sync::Arc;

use arrow::array::types::{Float32Type, Float64Type};
use arrow::array::{
    Array, ArrayRef, AsArray, RecordBatch, downcast_primitive_array, types::ByteArrayType,
    types::ByteViewType,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    BinaryType, BinaryViewType, DataType, LargeBinaryType, LargeUtf8Type, SchemaRef,
    StringViewType, ToByteSlice, Utf8Type,
};

use crate::exchange::route::RowHasher;
use xxhash_rust::xxh3::xxh3_128;

/// Stored state depends on the order of a number's bytes in memory.
const _: () = assert!(cfg!(target_endian = "little"));

/// What NULL hashes to; no value is likely to.
const NULL_FINGERPRINT: u128 = 0x8f14_e45f_ceea_167a_5a36_dedd_4bea_2543;

/// Sets the columns of a key apart: (a, b) is not (b, a). Odd, so that multiplying loses nothing.
const COLUMN_FACTOR: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

/// A column that cannot be part of a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The plan names a column that the rows lack.
    #[error("hash key: there is no column {index} among {count}")]
    Missing {
        /// What the plan says.
        index: usize,
        /// How many columns the rows have.
        count: usize,
    },
    /// Lists, structs and other types whose values have no single encoding.
    #[error("hash key: column {column} of type {data_type} cannot be part of a key")]
    Type {
        /// The column's name.
        column: String,
        /// Its type.
        data_type: DataType,
    },
}

/// Hashes the key columns of batches of one schema. Equal keys have equal hashes in every process.
#[derive(Debug)]
pub struct KeyHasher {
    columns: Vec<usize>,
    fingerprints: Vec<u128>,
    hashes: Vec<u64>,
}

impl KeyHasher {
    /// For batches of `schema`. Without key columns all rows have one key, of vnode 0.
    pub fn new(schema: &SchemaRef, key_columns: &[usize]) -> Result<Self, KeyError> {
        let count = schema.fields().len();
        for &index in key_columns {
            let Some(field) = schema.fields().get(index) else {
                return Err(KeyError::Missing { index, count });
            };
            if !is_supported(field.data_type()) {
                return Err(KeyError::Type {
                    column: field.name().clone(),
                    data_type: field.data_type().clone(),
                });
            }
        }
        Ok(Self {
            columns: key_columns.to_vec(),
            fingerprints: Vec::new(),
            hashes: Vec::new(),
        })
    }

    /// A hash for each row; [`Vnode::of_hash`](millstream_common::ids::Vnode::of_hash) makes its vnode.
    pub fn hash(&mut self, batch: &RecordBatch) -> &[u64] {
        self.fingerprints(batch);
        self.hashes.clear();
        let hashes = self.fingerprints.iter().map(|print| hash_of(*print));
        self.hashes.extend(hashes);
        &self.hashes
    }

    /// 128 bits for each row: two keys that share them are taken for the same.
    pub fn fingerprints(&mut self, batch: &RecordBatch) -> &[u128] {
        self.fingerprints.clear();
        self.fingerprints.resize(batch.num_rows(), 0);
        for (position, &column) in self.columns.iter().enumerate() {
            fold_column(batch.column(column), position == 0, &mut self.fingerprints);
        }
        &self.fingerprints
    }
}

impl RowHasher for KeyHasher {
    fn fingerprints(&mut self, batch: &RecordBatch) -> &[u128] {
        KeyHasher::fingerprints(self, batch)
    }
}

/// The hash that belongs to a fingerprint: its upper half.
pub fn hash_of(fingerprint: u128) -> u64 {
    (fingerprint >> 64) as u64
}

/// The column with one value for each class of values that are one key: 0.0 for -0.0, one NaN for all.
pub fn canonical(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float32 => {
            let values = column.as_primitive::<Float32Type>();
            Arc::new(values.unary::<_, Float32Type>(canonical_f32))
        }
        DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>();
            Arc::new(values.unary::<_, Float64Type>(canonical_f64))
        }
        _ => Arc::clone(column),
    }
}

fn canonical_f32(value: f32) -> f32 {
    if value.is_nan() {
        f32::NAN
    } else {
        value + 0.0
    }
}

fn canonical_f64(value: f64) -> f64 {
    if value.is_nan() {
        f64::NAN
    } else {
        value + 0.0
    }
}

fn is_supported(data_type: &DataType) -> bool {
    match data_type {
        DataType::Float16 => false,
        DataType::Null
        | DataType::Boolean
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => true,
        other => other.is_primitive(),
    }
}

/// Adds a column to the fingerprints; `first` overwrites what is there.
fn fold_column(column: &ArrayRef, first: bool, prints: &mut [u128]) {
    let canonical = canonical(column);
    let array = canonical.as_ref();
    downcast_primitive_array!(
        array => fold_primitives(array.values(), array.nulls(), first, prints),
        DataType::Null => fold(None, first, prints, |_| NULL_FINGERPRINT),
        DataType::Boolean => {
            let values = array.as_boolean();
            fold(values.nulls(), first, prints, |row| xxh3_128(&[u8::from(values.value(row))]));
        }
        DataType::Utf8 => fold_bytes::<Utf8Type>(array, first, prints),
        DataType::LargeUtf8 => fold_bytes::<LargeUtf8Type>(array, first, prints),
        DataType::Binary => fold_bytes::<BinaryType>(array, first, prints),
        DataType::LargeBinary => fold_bytes::<LargeBinaryType>(array, first, prints),
        DataType::Utf8View => fold_views::<StringViewType>(array, first, prints),
        DataType::BinaryView => fold_views::<BinaryViewType>(array, first, prints),
        DataType::FixedSizeBinary(_) => {
            let values = array.as_fixed_size_binary();
            fold(values.nulls(), first, prints, |row| xxh3_128(values.value(row)));
        }
        other => unreachable!("KeyHasher::new refuses keys of type {other}"),
    );
}

fn fold_primitives<N: ToByteSlice>(
    values: &[N],
    nulls: Option<&NullBuffer>,
    first: bool,
    prints: &mut [u128],
) {
    fold(nulls, first, prints, |row| {
        xxh3_128(values[row].to_byte_slice())
    });
}

fn fold_bytes<T: ByteArrayType>(array: &dyn Array, first: bool, prints: &mut [u128]) {
    let values = array.as_bytes::<T>();
    fold(values.nulls(), first, prints, |row| {
        xxh3_128(values.value(row).as_ref())
    });
}

fn fold_views<T: ByteViewType>(array: &dyn Array, first: bool, prints: &mut [u128]) {
    let values = array.as_byte_view::<T>();
    fold(values.nulls(), first, prints, |row| {
        xxh3_128(values.value(row).as_ref())
    });
}

fn fold(
    nulls: Option<&NullBuffer>,
    first: bool,
    prints: &mut [u128],
    value: impl Fn(usize) -> u128,
) {
    for (row, print) in prints.iter_mut().enumerate() {
        let next = match nulls {
            Some(nulls) if nulls.is_null(row) => NULL_FINGERPRINT,
            _ => value(row),
        };
        *print = if first {
            next
        } else {
            print.wrapping_mul(COLUMN_FACTOR) ^ next
        };
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{BooleanArray, Float64Array, Int64Array, StringArray, StringViewArray};
    use arrow::datatypes::{Field, Schema};
    use millstream_common::ids::Vnode;

    use super::*;

    fn hashes(columns: Vec<ArrayRef>) -> Vec<u64> {
        let fields: Vec<Field> = columns
            .iter()
            .map(|column| Field::new("key", column.data_type().clone(), true))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let keys: Vec<usize> = (0..columns.len()).collect();
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).expect("batch");
        let mut hasher = KeyHasher::new(&schema, &keys).expect("hasher");
        hasher.hash(&batch).to_vec()
    }

    /// State on disk was spread by these; a change of them needs a change of the state's fingerprint.
    #[test]
    fn a_key_has_the_same_hash_in_every_process() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("/home"), Some(""), None]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(-1), None]));
        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]));
        let found = [
            hashes(vec![Arc::clone(&texts)]),
            hashes(vec![Arc::clone(&numbers)]),
            hashes(vec![texts, numbers, flags]),
        ];
        let expected = [
            [
                0x9150_5075_f0d0_553f,
                0x99aa_06d3_0147_98d8,
                0x8f14_e45f_ceea_167a,
            ],
            [
                0xbdc9_4bce_2eda_264d,
                0xdc6b_20d2_0742_5aa5,
                0x8f14_e45f_ceea_167a,
            ],
            [
                0x5f61_9c1f_31cf_fc93,
                0x8bc5_b1e1_b409_2a9a,
                0x642c_e7bd_04fd_55db,
            ],
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn text_has_one_hash_in_every_layout() {
        let plain: ArrayRef =
            Arc::new(StringArray::from(vec!["short", "longer than a view holds"]));
        let views: ArrayRef = Arc::new(StringViewArray::from(vec![
            "short",
            "longer than a view holds",
        ]));
        assert_eq!(hashes(vec![plain]), hashes(vec![views]));
    }

    #[test]
    fn nulls_are_equal_and_differ_from_empty() {
        let texts: ArrayRef = Arc::new(StringArray::from(vec![None, Some(""), None]));
        let hashes = hashes(vec![texts]);
        assert_eq!(hashes[0], hashes[2]);
        assert_ne!(hashes[0], hashes[1]);
    }

    #[test]
    fn the_order_of_columns_matters() {
        let left: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let right: ArrayRef = Arc::new(Int64Array::from(vec![2]));
        let forth = hashes(vec![Arc::clone(&left), Arc::clone(&right)]);
        assert_ne!(forth, hashes(vec![right, left]));
    }

    #[test]
    fn equal_floats_are_one_key() {
        let other_nan = f64::from_bits(f64::NAN.to_bits() | 1);
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, other_nan]));
        let hashes = hashes(vec![floats]);
        assert_eq!(hashes[0], hashes[1]);
        assert_eq!(hashes[2], hashes[3]);
        assert_ne!(hashes[0], hashes[2]);
    }

    #[test]
    fn without_key_columns_all_rows_are_in_vnode_zero() {
        let schema = Arc::new(Schema::new(vec![Field::new(
            "value",
            DataType::Int64,
            false,
        )]));
        let batch = RecordBatch::try_new(
            Arc::clone(&schema),
            vec![Arc::new(Int64Array::from(vec![7, 8]))],
        )
        .expect("batch");
        let mut hasher = KeyHasher::new(&schema, &[]).expect("hasher");
        let vnodes: Vec<Vnode> = hasher
            .hash(&batch)
            .iter()
            .map(|hash| Vnode::of_hash(*hash))
            .collect();
        assert_eq!(vnodes, [Vnode(0), Vnode(0)]);
    }

    #[test]
    fn a_list_is_refused_as_a_key() {
        let field = Field::new_list("tags", Field::new_list_field(DataType::Utf8, true), true);
        let refused = KeyHasher::new(&Arc::new(Schema::new(vec![field])), &[0]);
        assert!(matches!(refused, Err(KeyError::Type { column, .. }) if column == "tags"));
    }
}
