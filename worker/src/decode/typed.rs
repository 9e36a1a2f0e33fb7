//! Casts of typed columns to the types of a source's columns, without loss.
//!
//! Called by `base.rs` for Parquet and generated rows. The same conversions are allowed as from JSON: text goes through the
//! conversions of `convert`, numbers to numbers and times to times are cast here and compared with what they were.
//! A value that does not fit becomes NULL, which the caller tells from a NULL that was there before.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray, new_null_array};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, cast, cast_with_options, nullif};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;

/// The column without dictionary, and text in its plain form.
pub(super) fn plain(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    match array.data_type() {
        DataType::Dictionary(_, value) => plain(&cast(array, value)?),
        DataType::RunEndEncoded(_, value) => plain(&cast(array, value.data_type())?),
        DataType::LargeUtf8 | DataType::Utf8View => cast(array, &DataType::Utf8),
        _ => Ok(array.clone()),
    }
}

/// Whether this is the plain form of text.
pub(super) fn is_text(array: &ArrayRef) -> bool {
    array.data_type() == &DataType::Utf8
}

/// The values of a column for which [`is_text`] holds.
pub(super) fn texts(array: &ArrayRef) -> impl Iterator<Item = Option<&str>> {
    let array: &StringArray = array.as_string();
    array.iter()
}

/// A value for people.
pub(super) fn shown(array: &ArrayRef, row: usize) -> String {
    array_value_to_string(array, row).unwrap_or_default()
}

/// `array` as `target`; NULL where a value does not fit without loss.
pub(super) fn cast_lossless(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, ArrowError> {
    let source = array.data_type();
    if source == target {
        return Ok(array.clone());
    }
    match (source, target) {
        (DataType::Timestamp(_, Some(_)), DataType::Timestamp(_, None)) => {
            // Arrow would give the local time of the zone; what is meant is the instant.
            let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()));
            try_cast(&try_cast(array, &utc)?, target)
        }
        (DataType::Timestamp(..), DataType::Timestamp(..)) => try_cast(array, target),
        _ if is_exact_pair(source, target) => {
            let there = try_cast(array, target)?;
            let back = try_cast(&there, source)?;
            let same = not_distinct(&back, array)?;
            let lost: BooleanArray = same.iter().map(|same| same.map(|same| !same)).collect();
            nullif(&there, &lost)
        }
        _ if is_rounding_pair(source, target) => try_cast(array, target),
        _ => Ok(new_null_array(target, array.len())),
    }
}

/// Casts that are right where casting back gives the same.
fn is_exact_pair(source: &DataType, target: &DataType) -> bool {
    let is_exact_number = target.is_integer() || matches!(target, DataType::Decimal128(..));
    source.is_numeric() && is_exact_number
        || matches!(
            (source, target),
            (
                DataType::Date32 | DataType::Date64,
                DataType::Timestamp(..) | DataType::Date32
            ) | (DataType::Timestamp(..), DataType::Date32)
                | (
                    DataType::Time32(_) | DataType::Time64(_),
                    DataType::Time64(_)
                )
        )
}

/// Casts to the nearest double, and to text.
fn is_rounding_pair(source: &DataType, target: &DataType) -> bool {
    let is_binary = matches!(
        source,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_)
    );
    match target {
        DataType::Float32 | DataType::Float64 => source.is_numeric(),
        DataType::Utf8 => {
            source.is_numeric() || source.is_temporal() || source == &DataType::Boolean
        }
        DataType::Binary => is_binary,
        _ => false,
    }
}

fn try_cast(array: &ArrayRef, target: &DataType) -> Result<ArrayRef, ArrowError> {
    let options = CastOptions {
        safe: true,
        ..CastOptions::default()
    };
    cast_with_options(array, target, &options)
}
