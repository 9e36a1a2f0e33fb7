//! Rows as records: keys, JSON values, headers.
//!
//! Used by `mod.rs` on each batch. One key column is its value as text (BYTEA as its bytes), several are a JSON object; the
//! value is a JSON object of every column that is no header; a deleted row has no value. Pure. Failure: a column
//! that the rows lack, or a type without a text, is refused when the sink is made or the batch is encoded.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int8Type, Schema};
use arrow::error::ArrowError;
use millstream_common::plan::connector::KafkaSinkSpec;
use millstream_common::plan::{OP_COLUMN, OP_DELETE};

use super::cluster::{Records, Slices};
use crate::row_json::line_writer;
use crate::sink::SinkError;

/// Which columns become what; positions in the output's schema.
pub(super) struct Layout {
    key: Vec<usize>,
    value: Vec<usize>,
    headers: Vec<(String, usize)>,
}

impl Layout {
    /// Of the sink's options, for rows of `schema` (without `_op`).
    pub(super) fn new(spec: &KafkaSinkSpec, schema: &Schema) -> Result<Self, SinkError> {
        let position = |name: &String| {
            schema.index_of(name).map_err(|_| {
                SinkError::refused(
                    "encode rows for kafka",
                    format!("there is no column {name}"),
                )
            })
        };
        let headers = spec.headers.iter();
        let headers: Vec<(String, usize)> = headers
            .map(|name| Ok((name.clone(), position(name)?)))
            .collect::<Result<_, SinkError>>()?;
        let is_value = |index: &usize| headers.iter().all(|(_, header)| header != index);
        Ok(Self {
            key: spec.key.iter().map(position).collect::<Result<_, _>>()?,
            value: (0..schema.fields().len()).filter(is_value).collect(),
            headers,
        })
    }

    /// Whether records have keys, so that a row can be deleted.
    pub(super) fn is_keyed(&self) -> bool {
        !self.key.is_empty()
    }

    /// A record for each row of `batch`, in order.
    pub(super) fn encode(&self, topic: &str, batch: &RecordBatch) -> Result<Records, ArrowError> {
        let mut values = lines(&batch.project(&self.value)?)?;
        for (index, op) in operations(batch).iter().enumerate() {
            if *op == OP_DELETE {
                values.clear(index);
            }
        }
        let headers = self.headers.iter();
        Ok(Records {
            topic: topic.to_owned(),
            partition: None,
            keys: self.keys(batch)?,
            values,
            headers: headers
                .map(|(name, index)| Ok((name.clone(), texts(batch.column(*index))?)))
                .collect::<Result<_, ArrowError>>()?,
        })
    }

    fn keys(&self, batch: &RecordBatch) -> Result<Slices, ArrowError> {
        match self.key.as_slice() {
            [] => Ok(Slices::absent(batch.num_rows())),
            [one] => texts(batch.column(*one)),
            several => lines(&batch.project(several)?),
        }
    }
}

/// Whether the batch deletes rows.
pub(super) fn has_deletes(batch: &RecordBatch) -> bool {
    operations(batch).contains(&OP_DELETE)
}

fn operations(batch: &RecordBatch) -> &[i8] {
    let column = batch.column_by_name(OP_COLUMN);
    let ops = column.and_then(|column| column.as_primitive_opt::<Int8Type>());
    ops.map_or(&[], |ops| ops.values())
}

/// A JSON object for each row.
fn lines(rows: &RecordBatch) -> Result<Slices, ArrowError> {
    let mut bytes = Vec::new();
    let mut writer = line_writer(&mut bytes);
    writer.write(rows)?;
    writer.finish()?;
    drop(writer);
    Ok(Slices::of_lines(bytes))
}

/// Each value as text, or as the bytes that it is; NULL is absent.
fn texts(column: &ArrayRef) -> Result<Slices, ArrowError> {
    let mut slices = Slices::default();
    match column.data_type() {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let bytes = cast(column, &DataType::LargeBinary)?;
            let bytes = bytes.as_binary::<i64>();
            bytes.iter().for_each(|value| slices.push(value));
        }
        _ => {
            let text = cast(column, &DataType::LargeUtf8)?;
            let text = text.as_string::<i64>();
            let values = text.iter();
            values.for_each(|value| slices.push(value.map(str::as_bytes)));
        }
    }
    Ok(slices)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BinaryArray, Int8Array, Int64Array, StringArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::Field;

    use super::*;
    use crate::kafka::tests::spec;

    fn batch() -> RecordBatch {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("url", Arc::new(StringArray::from(vec![Some("/a\n"), None]))),
            ("views", Arc::new(Int64Array::from(vec![1, 2]))),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![0, 1]))),
            ("raw", Arc::new(BinaryArray::from(vec![&b"\xff"[..], b""]))),
            ("trace", Arc::new(StringArray::from(vec![None, Some("t")]))),
            (OP_COLUMN, Arc::new(Int8Array::from(vec![0, OP_DELETE]))),
        ];
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, values)| Field::new(*name, values.data_type().clone(), true))
            .collect();
        let values = columns.into_iter().map(|(_, values)| values).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), values).expect("a batch")
    }

    fn encode(key: &[&str], headers: &[&str]) -> Records {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let spec = KafkaSinkSpec {
            key: names(key),
            headers: names(headers),
            ..spec("brokers", "rows")
        };
        let batch = batch();
        let own = batch.schema().project(&[0, 1, 2, 3, 4]).expect("columns");
        let layout = Layout::new(&spec, &own).expect("known columns");
        layout.encode("rows", &batch).expect("encoded")
    }

    fn text(slices: &Slices, index: usize) -> Option<String> {
        let slice = slices.get(index)?;
        Some(String::from_utf8_lossy(slice).into_owned())
    }

    #[test]
    fn a_row_is_an_object_and_a_deleted_row_has_no_value() {
        let records = encode(&["views"], &["trace", "raw"]);
        assert_eq!(records.count(), 2);
        let value = r#"{"url":"/a\n","views":1,"at":"1970-01-01T00:00:00"}"#;
        assert_eq!(text(&records.values, 0).as_deref(), Some(value));
        assert_eq!(text(&records.values, 1), None);
    }

    #[test]
    fn one_key_column_is_its_text_and_several_are_an_object() {
        let keys = |key: &[&str], index| text(&encode(key, &[]).keys, index);
        assert_eq!(keys(&["url"], 0).as_deref(), Some("/a\n"));
        assert_eq!(keys(&["url"], 1), None);
        assert_eq!(keys(&["views"], 1).as_deref(), Some("2"));
        let both = r#"{"views":2,"at":"1970-01-01T00:00:00.000001"}"#;
        assert_eq!(keys(&["views", "at"], 1).as_deref(), Some(both));
        assert_eq!(keys(&[], 0), None);
    }

    #[test]
    fn headers_are_text_or_bytes_and_null_is_no_header() {
        let records = encode(&[], &["trace", "raw"]);
        let (name, traces) = &records.headers[0];
        assert_eq!((name.as_str(), text(traces, 0)), ("trace", None));
        assert_eq!(text(traces, 1).as_deref(), Some("t"));
        assert_eq!(records.headers[1].1.get(0), Some(&b"\xff"[..]));
    }
}
