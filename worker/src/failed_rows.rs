//! Dead letters of rows that were decoded well, but on which an expression of a view fails.
//!
//! Called by `reader_task.rs`. The record itself is gone by then, so the payload is the row as JSON, and the position is
//! [`POSITION_UNKNOWN`]. Failure: Arrow cannot write the row, which is a defect.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt64Array,
};
use arrow::compute::take_record_batch;
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use millstream_common::dead_letter::{self, Code};

use crate::transform::FailedRow;

/// The `position` of a dead letter that is no longer a record.
pub(super) const POSITION_UNKNOWN: i64 = -1;

/// The dead letters of `failed` rows of `batch`; `source` is their source and origin.
pub(super) fn dead_letters(
    source: &str,
    batch: &RecordBatch,
    failed: &[FailedRow],
    received_at_us: i64,
) -> Result<RecordBatch, ArrowError> {
    let count = failed.len();
    let indices: UInt64Array = failed.iter().map(|row| row.row as u64).collect();
    let payloads = json_lines(&take_record_batch(batch, &indices)?)?;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![source; count])),
        Arc::new(StringArray::from(vec![source; count])),
        Arc::new(Int64Array::from(vec![POSITION_UNKNOWN; count])),
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

fn json_lines(batch: &RecordBatch) -> Result<String, ArrowError> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    String::from_utf8(writer.into_inner())
        .map_err(|error| ArrowError::ParseError(error.to_string()))
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    #[test]
    fn a_failed_row_is_kept_as_json_with_its_reason() {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let batch = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![7, 0]))])
            .expect("batch");
        let failed = [FailedRow {
            row: 1,
            reason: "1 / n: divide by zero".to_owned(),
        }];
        let letters = dead_letters("clicks", &batch, &failed, 5).expect("letters");
        assert_eq!(letters.num_rows(), 1);
        assert_eq!(letters["payload"].as_string::<i32>().value(0), r#"{"n":0}"#);
        assert_eq!(letters["code"].as_string::<i32>().value(0), "expression");
        assert_eq!(
            letters["reason"].as_string::<i32>().value(0),
            "1 / n: divide by zero"
        );
    }
}
