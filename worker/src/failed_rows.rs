//! Dead letters of rows that were decoded well, but on which an expression of a view fails.
//!
//! Called by the task that owns the row: a reader, whose source gets them with the place of the record, or a keyed task, whose
//! view gets them. The record itself is gone by then, so the payload is the row as JSON.
//! Failure: Arrow cannot write the row, which is a defect.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt64Array,
};
use arrow::compute::take_record_batch;
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use millstream_common::dead_letter::{self, Code};
use millstream_common::plan::OP_COLUMN;

use crate::transform::FailedRow;

/// The `position` of a row behind a keyed operator: it may have come of many records.
pub const NO_POSITION: i64 = -1;

/// The dead letters of `failed` rows of `batch`; `place_of` gives origin and position of a row.
pub fn dead_letters<'a>(
    source: &str,
    place_of: impl Fn(usize) -> (&'a str, i64),
    batch: &RecordBatch,
    failed: &[FailedRow],
    received_at_us: i64,
) -> Result<RecordBatch, ArrowError> {
    let count = failed.len();
    let indices: UInt64Array = failed.iter().map(|row| row.row as u64).collect();
    let payloads = json_lines(&take_record_batch(&own_columns(batch)?, &indices)?)?;
    let (origins, positions): (Vec<&str>, Vec<i64>) =
        failed.iter().map(|row| place_of(row.row)).unzip();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![source; count])),
        Arc::new(StringArray::from(origins)),
        Arc::new(Int64Array::from(positions)),
        Arc::new(StringArray::from(payloads.lines().collect::<Vec<_>>())),
        Arc::new(BinaryArray::new_null(count)),
        Arc::new(StringArray::from(vec![Code::Expression.as_str(); count])),
        Arc::new(StringArray::from_iter_values(
            failed.iter().map(|row| &row.reason),
        )),
        Arc::new(TimestampMicrosecondArray::new_null(count)),
        Arc::new(TimestampMicrosecondArray::from(vec![received_at_us; count]).with_timezone("UTC")),
    ];
    RecordBatch::try_new(dead_letter::schema(), columns)
}

/// The row as its user knows it: without `_op`.
fn own_columns(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    let own = (0..batch.num_columns()).filter(|index| schema.field(*index).name() != OP_COLUMN);
    batch.project(&own.collect::<Vec<_>>())
}

fn json_lines(batch: &RecordBatch) -> Result<String, ArrowError> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    String::from_utf8(writer.into_inner())
        .map_err(|error| ArrowError::ParseError(error.to_string()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int8Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;

    #[test]
    fn a_failed_row_is_kept_as_json_with_its_reason_and_its_place() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, false),
            Field::new(OP_COLUMN, DataType::Int8, false),
        ]));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![7, 0])),
            Arc::new(Int8Array::from(vec![0, 0])),
        ];
        let batch = RecordBatch::try_new(schema, columns).expect("batch");
        let failed = [FailedRow {
            row: 1,
            reason: "1 / n: divide by zero".to_owned(),
        }];
        let place_of = |row: usize| ("clicks-3", 40 + row as i64);
        let letters = dead_letters("clicks", place_of, &batch, &failed, 5).expect("letters");
        assert_eq!(letters.num_rows(), 1);
        assert_eq!(letters["payload"].as_string::<i32>().value(0), r#"{"n":0}"#);
        assert_eq!(letters["code"].as_string::<i32>().value(0), "expression");
        assert_eq!(letters["origin"].as_string::<i32>().value(0), "clicks-3");
        assert_eq!(letters["position"].as_primitive::<Int64Type>().value(0), 41);
        assert_eq!(
            letters["reason"].as_string::<i32>().value(0),
            "1 / n: divide by zero"
        );
    }
}
