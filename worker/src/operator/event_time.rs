//! Event times out of columns.
//!
//! Called by the operators that keep time. Pure. Failure: a column of another type is refused by [`is_time`] when the
//! operator is built.

use arrow::array::types::TimestampMicrosecondType;
use arrow::array::{ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use arrow::error::ArrowError;

/// Whether values of this type are moments.
pub(super) fn is_time(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Timestamp(_, _) | DataType::Date32 | DataType::Date64
    )
}

/// The moments of a column in microseconds since 1970; NULL stays NULL.
pub(super) fn micros(
    column: &ArrayRef,
) -> Result<PrimitiveArray<TimestampMicrosecondType>, ArrowError> {
    let zone = match column.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    let micros = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, zone))?;
    Ok(micros.as_primitive().clone())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, TimestampMillisecondArray};

    use super::*;

    #[test]
    fn a_moment_counts_microseconds_in_utc() {
        let zoned = TimestampMillisecondArray::from(vec![Some(1), None]).with_timezone("+02:00");
        let zoned: ArrayRef = Arc::new(zoned);
        let found: Vec<Option<i64>> = micros(&zoned).expect("micros").iter().collect();
        assert_eq!(found, [Some(1_000), None]);
        let days: ArrayRef = Arc::new(Date32Array::from(vec![1]));
        let found: Vec<Option<i64>> = micros(&days).expect("micros").iter().collect();
        assert_eq!(found, [Some(86_400_000_000)]);
    }
}
