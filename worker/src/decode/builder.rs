//! Builders of the columns that records fill, one for each type, and how any value at all is appended to them.
//!
//! Owned by `columns.rs`, which refuses what does not convert. The values that a column is made for take the short way in `expected.rs`;
//! here is the general one. Failure: a value that does not convert is appended as NULL and reported.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder,
    Float64Builder, Int16Builder, Int32Builder, Int64Builder, PrimitiveBuilder,
    Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{ArrowPrimitiveType, DataType, TimeUnit};
use millstream_common::plan::connector::TimestampFormat;

use super::convert::{self, Converted};
use super::texts::Texts;
use super::token::Value;

/// What an append has added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Appended {
    Value,
    Null,
}

/// A builder for each type that records can fill.
#[derive(Debug)]
pub(super) enum Builder {
    Boolean(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder, u8, i8),
    Text(Texts),
    Json(Texts),
    Bytes(BinaryBuilder, Vec<u8>),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder, TimestampFormat),
}

impl Builder {
    /// `Err` names a type that records cannot fill.
    pub(super) fn new(
        data_type: &DataType,
        is_json: bool,
        format: TimestampFormat,
    ) -> Result<Self, String> {
        Ok(match data_type {
            DataType::Boolean => Self::Boolean(BooleanBuilder::new()),
            DataType::Int16 => Self::Int16(Int16Builder::new()),
            DataType::Int32 => Self::Int32(Int32Builder::new()),
            DataType::Int64 => Self::Int64(Int64Builder::new()),
            DataType::Float32 => Self::Float32(Float32Builder::new()),
            DataType::Float64 => Self::Float64(Float64Builder::new()),
            DataType::Decimal128(precision, scale) => {
                Self::Decimal(with_room(data_type, 0), *precision, *scale)
            }
            DataType::Utf8 if is_json => Self::Json(Texts::default()),
            DataType::Utf8 => Self::Text(Texts::default()),
            DataType::Binary => Self::Bytes(BinaryBuilder::new(), Vec::new()),
            DataType::Date32 => Self::Date(Date32Builder::new()),
            DataType::Time64(TimeUnit::Microsecond) => Self::Time(Time64MicrosecondBuilder::new()),
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Self::Timestamp(with_room(data_type, 0), format)
            }
            other => return Err(format!("records cannot fill a column of type {other}")),
        })
    }

    /// Begins a column of `data_type`, the type it was made for, with room for `count` rows.
    pub(super) fn begin(&mut self, data_type: &DataType, count: usize) {
        match self {
            Self::Boolean(builder) => *builder = BooleanBuilder::with_capacity(count),
            Self::Int16(builder) => *builder = with_room(data_type, count),
            Self::Int32(builder) => *builder = with_room(data_type, count),
            Self::Int64(builder) => *builder = with_room(data_type, count),
            Self::Float32(builder) => *builder = with_room(data_type, count),
            Self::Float64(builder) => *builder = with_room(data_type, count),
            Self::Decimal(builder, _, _) => *builder = with_room(data_type, count),
            Self::Text(texts) | Self::Json(texts) => texts.begin(count),
            Self::Bytes(builder, _) => *builder = BinaryBuilder::new(),
            Self::Date(builder) => *builder = with_room(data_type, count),
            Self::Time(builder) => *builder = with_room(data_type, count),
            Self::Timestamp(builder, _) => *builder = with_room(data_type, count),
        }
    }

    /// Appends exactly one entry: NULL also where the value does not convert.
    pub(super) fn append(&mut self, value: Value<'_>) -> Converted<Appended> {
        if matches!(value, Value::Null) {
            self.append_null();
            return Ok(Appended::Null);
        }
        match self {
            Self::Boolean(builder) => {
                let converted = convert::boolean(value);
                builder.append_option(converted.ok());
                converted.map(|_| Appended::Value)
            }
            Self::Int16(builder) => push(builder, convert::integer(value)),
            Self::Int32(builder) => push(builder, convert::integer(value)),
            Self::Int64(builder) => push(builder, convert::integer(value)),
            Self::Float32(builder) => push(builder, convert::real(value)),
            Self::Float64(builder) => push(builder, convert::double(value)),
            Self::Decimal(builder, precision, scale) => {
                push(builder, convert::decimal(value, *precision, *scale))
            }
            Self::Text(texts) => push_text(texts, convert::text(value)),
            Self::Json(texts) => push_text(texts, convert::json(value)),
            Self::Bytes(builder, scratch) => {
                let converted = convert::bytes(value, scratch);
                builder.append_option(converted.is_ok().then_some(&*scratch));
                converted.map(|()| Appended::Value)
            }
            Self::Date(builder) => push(builder, convert::date(value)),
            Self::Time(builder) => push(builder, convert::time_of_day(value)),
            Self::Timestamp(builder, format) => push(builder, convert::timestamp(value, *format)),
        }
    }

    pub(super) fn append_null(&mut self) {
        match self {
            Self::Boolean(builder) => builder.append_null(),
            Self::Int16(builder) => builder.append_null(),
            Self::Int32(builder) => builder.append_null(),
            Self::Int64(builder) => builder.append_null(),
            Self::Float32(builder) => builder.append_null(),
            Self::Float64(builder) => builder.append_null(),
            Self::Decimal(builder, _, _) => builder.append_null(),
            Self::Text(texts) | Self::Json(texts) => texts.push_null(),
            Self::Bytes(builder, _) => builder.append_null(),
            Self::Date(builder) => builder.append_null(),
            Self::Time(builder) => builder.append_null(),
            Self::Timestamp(builder, _) => builder.append_null(),
        }
    }

    /// The column of everything appended.
    pub(super) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::Int16(builder) => Arc::new(builder.finish()),
            Self::Int32(builder) => Arc::new(builder.finish()),
            Self::Int64(builder) => Arc::new(builder.finish()),
            Self::Float32(builder) => Arc::new(builder.finish()),
            Self::Float64(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder, _, _) => Arc::new(builder.finish()),
            Self::Text(texts) | Self::Json(texts) => texts.finish(),
            Self::Bytes(builder, _) => Arc::new(builder.finish()),
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::Time(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder, _) => Arc::new(builder.finish()),
        }
    }
}

fn with_room<T: ArrowPrimitiveType>(data_type: &DataType, count: usize) -> PrimitiveBuilder<T> {
    PrimitiveBuilder::with_capacity(count).with_data_type(data_type.clone())
}

fn push<T: ArrowPrimitiveType>(
    builder: &mut PrimitiveBuilder<T>,
    converted: Converted<T::Native>,
) -> Converted<Appended> {
    match converted {
        Ok(value) => {
            builder.append_value(value);
            Ok(Appended::Value)
        }
        Err(mismatch) => {
            builder.append_null();
            Err(mismatch)
        }
    }
}

fn push_text(texts: &mut Texts, converted: Converted<&str>) -> Converted<Appended> {
    match converted {
        Ok(text) => {
            texts.push(text);
            Ok(Appended::Value)
        }
        Err(mismatch) => {
            texts.push_null();
            Err(mismatch)
        }
    }
}
