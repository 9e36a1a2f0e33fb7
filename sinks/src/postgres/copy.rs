//! Arrow columns as the rows of a binary COPY.
//!
//! Used by `apply.rs` for a chunk of rows at a time. Values are converted column by column to what the
//! table's columns take (`types.rs`), then written row by row into one buffer: no allocation a value. Failure: a
//! value that Postgres has no form for (a text that is no UUID) names its row.

use std::ops::Range;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array,
    Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
    Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use bytes::{BufMut, Bytes, BytesMut};

use super::numeric::put_numeric;
use super::types::{Encoding, Wire};

/// Days from 1970 to 2000, where Postgres begins to count.
const EPOCH_DAYS: i32 = 10_957;
/// The same in microseconds.
const EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// A buffer is sent when it holds this much: large enough to be cheap, small enough to overlap
/// with what the server does.
const BUFFER_BYTES: usize = 256 * 1024;

/// A row that cannot be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unencodable {
    /// Its index in the chunk.
    pub row: usize,
    /// Why, naming the column.
    pub reason: String,
}

/// The rows of a chunk in the order and types of a COPY's columns.
pub(super) struct CopyRows {
    columns: Vec<(String, Column)>,
}

/// A column to be written: which of the chunk's columns, under which name, how.
#[derive(Clone, Debug)]
pub(super) struct CopyColumn {
    /// The table's name for it.
    pub name: String,
    /// Its index in the chunk.
    pub index: usize,
    /// How its values are written.
    pub encoding: Encoding,
}

enum Column {
    Bool(BooleanArray),
    Int2(Int16Array),
    Int4(Int32Array),
    Int8(Int64Array),
    Float4(Float32Array),
    Float8(Float64Array),
    Numeric(Decimal128Array),
    Text(StringArray),
    Jsonb(StringArray),
    Uuid(StringArray),
    Bytea(BinaryArray),
    Date(Date32Array),
    Time(Time64MicrosecondArray),
    Timestamp(TimestampMicrosecondArray),
}

impl CopyRows {
    /// Converts the columns of `chunk`.
    pub(super) fn new(chunk: &RecordBatch, columns: &[CopyColumn]) -> Result<Self, ArrowError> {
        let columns = columns.iter().map(|column| {
            let values = cast(chunk.column(column.index), &column.encoding.cast)?;
            let typed = Column::new(column.encoding.wire, &values);
            Ok((column.name.clone(), typed))
        });
        Ok(Self {
            columns: columns.collect::<Result<_, ArrowError>>()?,
        })
    }

    /// The rows of `range` as buffers of a whole COPY, header and trailer included.
    pub(super) fn encode(&self, range: Range<usize>) -> Result<Vec<Bytes>, Unencodable> {
        let mut buffers = Vec::new();
        let mut out = BytesMut::with_capacity(BUFFER_BYTES + BUFFER_BYTES / 8);
        out.put_slice(SIGNATURE);
        out.put_i32(0);
        out.put_i32(0);
        for row in range {
            self.put_row(row, &mut out)?;
            if out.len() >= BUFFER_BYTES {
                buffers.push(out.split().freeze());
            }
        }
        out.put_i16(-1);
        buffers.push(out.freeze());
        Ok(buffers)
    }

    fn put_row(&self, row: usize, out: &mut BytesMut) -> Result<(), Unencodable> {
        out.put_i16(self.columns.len() as i16);
        for (name, column) in &self.columns {
            let put = column.put(row, out);
            put.map_err(|cause| Unencodable {
                row,
                reason: format!("column {name}: {cause}"),
            })?;
        }
        Ok(())
    }
}

impl Column {
    /// `values` are of the type that goes with `wire`: [`super::types::encoding`] pairs them.
    fn new(wire: Wire, values: &ArrayRef) -> Self {
        match wire {
            Wire::Bool => Self::Bool(values.as_boolean().clone()),
            Wire::Int2 => Self::Int2(values.as_primitive::<Int16Type>().clone()),
            Wire::Int4 => Self::Int4(values.as_primitive::<Int32Type>().clone()),
            Wire::Int8 => Self::Int8(values.as_primitive::<Int64Type>().clone()),
            Wire::Float4 => Self::Float4(values.as_primitive::<Float32Type>().clone()),
            Wire::Float8 => Self::Float8(values.as_primitive::<Float64Type>().clone()),
            Wire::Numeric => Self::Numeric(values.as_primitive::<Decimal128Type>().clone()),
            Wire::Text => Self::Text(values.as_string::<i32>().clone()),
            Wire::Jsonb => Self::Jsonb(values.as_string::<i32>().clone()),
            Wire::Uuid => Self::Uuid(values.as_string::<i32>().clone()),
            Wire::Bytea => Self::Bytea(values.as_binary::<i32>().clone()),
            Wire::Date => Self::Date(values.as_primitive::<Date32Type>().clone()),
            Wire::Time => Self::Time(values.as_primitive::<Time64MicrosecondType>().clone()),
            Wire::Timestamp => {
                Self::Timestamp(values.as_primitive::<TimestampMicrosecondType>().clone())
            }
        }
    }

    fn values(&self) -> &dyn Array {
        match self {
            Self::Bool(values) => values,
            Self::Int2(values) => values,
            Self::Int4(values) => values,
            Self::Int8(values) => values,
            Self::Float4(values) => values,
            Self::Float8(values) => values,
            Self::Numeric(values) => values,
            Self::Text(values) | Self::Jsonb(values) | Self::Uuid(values) => values,
            Self::Bytea(values) => values,
            Self::Date(values) => values,
            Self::Time(values) => values,
            Self::Timestamp(values) => values,
        }
    }

    fn put(&self, row: usize, out: &mut BytesMut) -> Result<(), String> {
        if self.values().is_null(row) {
            out.put_i32(-1);
            return Ok(());
        }
        match self {
            Self::Bool(values) => put_fixed(out, [u8::from(values.value(row))]),
            Self::Int2(values) => put_fixed(out, values.value(row).to_be_bytes()),
            Self::Int4(values) => put_fixed(out, values.value(row).to_be_bytes()),
            Self::Int8(values) => put_fixed(out, values.value(row).to_be_bytes()),
            Self::Float4(values) => put_fixed(out, values.value(row).to_be_bytes()),
            Self::Float8(values) => put_fixed(out, values.value(row).to_be_bytes()),
            Self::Numeric(values) => put_numeric(values.value(row), values.scale(), out),
            Self::Text(values) => put_bytes(out, &[], values.value(row).as_bytes())?,
            Self::Jsonb(values) => {
                const VERSION: &[u8] = &[1];
                put_bytes(out, VERSION, values.value(row).as_bytes())?;
            }
            Self::Uuid(values) => {
                let text = values.value(row);
                let parsed = uuid::Uuid::try_parse(text);
                put_fixed(
                    out,
                    parsed
                        .map_err(|_| format!("{text:?} is no UUID"))?
                        .into_bytes(),
                );
            }
            Self::Bytea(values) => put_bytes(out, &[], values.value(row))?,
            Self::Date(values) => {
                let days = values.value(row).checked_sub(EPOCH_DAYS);
                put_fixed(out, days.ok_or("date out of range")?.to_be_bytes());
            }
            Self::Time(values) => put_fixed(out, values.value(row).to_be_bytes()),
            Self::Timestamp(values) => {
                let count = values.value(row).checked_sub(EPOCH_MICROSECONDS);
                put_fixed(out, count.ok_or("timestamp out of range")?.to_be_bytes());
            }
        }
        Ok(())
    }
}

fn put_fixed<const LENGTH: usize>(out: &mut BytesMut, bytes: [u8; LENGTH]) {
    out.put_i32(LENGTH as i32);
    out.put_slice(&bytes);
}

fn put_bytes(out: &mut BytesMut, prefix: &[u8], bytes: &[u8]) -> Result<(), String> {
    let length = i32::try_from(prefix.len() + bytes.len());
    out.put_i32(length.map_err(|_| "value of more than 2 GiB")?);
    out.put_slice(prefix);
    out.put_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn rows(values: ArrayRef, wire: Wire, cast_to: DataType) -> CopyRows {
        let field = Field::new("c", values.data_type().clone(), true);
        let schema = Arc::new(Schema::new(vec![field]));
        let chunk = RecordBatch::try_new(schema, vec![values]).expect("a batch");
        let column = CopyColumn {
            name: "c".to_owned(),
            index: 0,
            encoding: Encoding {
                wire,
                cast: cast_to,
            },
        };
        CopyRows::new(&chunk, &[column]).expect("castable")
    }

    #[test]
    fn a_copy_is_header_rows_and_trailer() {
        let values = Arc::new(Int32Array::from(vec![Some(5), None]));
        let rows = rows(values, Wire::Int8, DataType::Int64);
        let buffers = rows.encode(0..2).expect("encodable");
        let mut expected = SIGNATURE.to_vec();
        expected.extend([0; 8]);
        expected.extend([0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 5]);
        expected.extend([0, 1, 0xff, 0xff, 0xff, 0xff]);
        expected.extend([0xff, 0xff]);
        assert_eq!(buffers.concat(), expected);
    }

    #[test]
    fn a_text_that_is_no_uuid_names_its_row_and_column() {
        let good = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
        let values = Arc::new(StringArray::from(vec![good, "nope"]));
        let rows = rows(values, Wire::Uuid, DataType::Utf8);
        assert!(rows.encode(0..1).is_ok());
        let refused = rows.encode(0..2).expect_err("no UUID");
        assert_eq!(refused.row, 1);
        assert_eq!(refused.reason, "column c: \"nope\" is no UUID");
    }

    #[test]
    fn times_are_counted_from_2000() {
        let values = Arc::new(TimestampMicrosecondArray::from(vec![
            EPOCH_MICROSECONDS + 1,
            i64::MIN,
        ]));
        let kind = values.data_type().clone();
        let rows = rows(values, Wire::Timestamp, kind);
        let buffers = rows.encode(0..1).expect("encodable").concat();
        assert_eq!(buffers[25..33], 1_i64.to_be_bytes());
        assert!(rows.encode(1..2).is_err());
    }
}
