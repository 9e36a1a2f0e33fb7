//! The columns that come from records and their metadata: from tokens to Arrow arrays, a block of rows at a time.
//!
//! Owned by `decoder.rs`. Works column by column, so that the type is decided once a block and not once a value, and
//! the first failure of a record is the first by column order. A refused row keeps its place, with NULLs, until
//! `rows.rs` takes it out: builders only ever grow.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder,
    Float64Builder, Int16Builder, Int32Builder, Int64Builder, PrimitiveBuilder, StringBuilder,
    Time64MicrosecondBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{ArrowPrimitiveType, DataType, TimeUnit};
use millstream_common::dead_letter::Code;
use millstream_common::plan::SourceColumn;
use millstream_common::plan::connector::TimestampFormat;

use super::convert::{self, Converted, MISMATCH, Mismatch};
use super::refusals::{Refusals, shown};
use super::token::{Token, Value};

/// Tokens of some rows, and the texts they point into.
pub(super) struct Block<'a> {
    /// One a row.
    pub(super) texts: &'a [&'a str],
    /// Row by row, `width` each.
    pub(super) tokens: &'a [Token],
    /// Tokens in a row.
    pub(super) width: usize,
    /// The index in the input of the first row.
    pub(super) first_record: usize,
}

/// A column under construction.
#[derive(Debug)]
pub(super) struct Column {
    name: String,
    data_type: DataType,
    /// As the user declared it.
    type_name: String,
    nullable: bool,
    is_json: bool,
    builder: Builder,
    /// For strings with escapes.
    scratch: String,
}

impl Column {
    /// For a column of the plan; `Err` names a type that records cannot fill.
    pub(super) fn new(column: &SourceColumn, format: TimestampFormat) -> Result<Self, String> {
        let is_json = ["JSON", "JSONB"]
            .iter()
            .any(|name| column.type_name.eq_ignore_ascii_case(name));
        Ok(Self {
            name: column.field.name().clone(),
            data_type: column.field.data_type().clone(),
            type_name: column.type_name.clone(),
            nullable: column.field.is_nullable(),
            is_json,
            builder: Builder::new(column.field.data_type(), is_json, format)?,
            scratch: String::new(),
        })
    }

    /// Appends the values that stand in the tokens with number `token_index` of each row.
    pub(super) fn append_block(
        &mut self,
        block: &Block<'_>,
        token_index: usize,
        refusals: &mut Refusals,
    ) {
        for (row, text) in block.texts.iter().enumerate() {
            let token = block.tokens[row * block.width + token_index];
            let value = match self.is_json {
                false => token.value(text, &mut self.scratch),
                true => token.json_value(text),
            };
            let result = self.builder.append(value);
            if result == Ok(Appended::Value) || result == Ok(Appended::Null) && self.nullable {
                continue;
            }
            self.refuse(
                block.first_record + row,
                result,
                &token.shown(text),
                refusals,
            );
        }
    }

    /// Appends one value of `record`, which is no token.
    pub(super) fn append_value(
        &mut self,
        value: Value<'_>,
        record: usize,
        refusals: &mut Refusals,
    ) {
        let result = self.builder.append(value);
        if result == Ok(Appended::Value) || result == Ok(Appended::Null) && self.nullable {
            return;
        }
        let source = match value {
            Value::Text(text) => format!("\"{text}\""),
            Value::Number(text) | Value::Json(text) => text.to_owned(),
            other => format!("{other:?}"),
        };
        self.refuse(record, result, &source, refusals);
    }

    /// Appends what came with `record` beside its payload, or refuses it for what cannot be read.
    pub(super) fn append_metadata(
        &mut self,
        value: Result<Value<'_>, &'static str>,
        record: usize,
        refusals: &mut Refusals,
    ) {
        match value {
            Ok(value) => self.append_value(value, record, refusals),
            Err(problem) => {
                self.builder.append_null();
                let name = &self.name;
                refusals.refuse(record, Code::TypeMismatch, || {
                    format!("column \"{name}\": {problem}")
                });
            }
        }
    }

    /// Refuses `record` for a typed value that does not fit, or for a NULL that is not allowed.
    pub(super) fn refuse_typed(
        &self,
        record: usize,
        source: Option<&str>,
        refusals: &mut Refusals,
    ) {
        match source {
            None if self.nullable => (),
            None => self.refuse(record, Ok(Appended::Null), "", refusals),
            Some(source) => self.refuse(record, Err(MISMATCH), source, refusals),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn data_type(&self) -> &DataType {
        &self.data_type
    }

    #[cold]
    fn refuse(
        &self,
        record: usize,
        result: Converted<Appended>,
        source: &str,
        refusals: &mut Refusals,
    ) {
        match result {
            Ok(_) => refusals.refuse(record, Code::NullViolation, || null_reason(&self.name)),
            Err(mismatch) => refusals.refuse(record, Code::TypeMismatch, || {
                mismatch_reason(&self.name, &self.type_name, source, mismatch)
            }),
        }
    }

    /// The column of everything appended; begins anew.
    pub(super) fn finish(&mut self) -> ArrayRef {
        self.builder.finish()
    }
}

/// What a dead letter says of a NULL that is not allowed.
pub(super) fn null_reason(column: &str) -> String {
    format!("column \"{column}\": NULL in a NOT NULL column")
}

/// What a dead letter says of a value that does not convert.
pub(super) fn mismatch_reason(
    column: &str,
    type_name: &str,
    source: &str,
    mismatch: Mismatch,
) -> String {
    let value = shown(source);
    match mismatch.hint {
        None => format!("column \"{column}\": {value} is not a {type_name}"),
        Some(hint) => format!("column \"{column}\": {value} is not a {type_name}; {hint}"),
    }
}

/// What an append has added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Appended {
    Value,
    Null,
}

/// A builder for each type that records can fill.
#[derive(Debug)]
enum Builder {
    Boolean(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder, u8, i8),
    Text(StringBuilder),
    Json(StringBuilder),
    Bytes(BinaryBuilder, Vec<u8>),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder, TimestampFormat),
}

impl Builder {
    fn new(data_type: &DataType, is_json: bool, format: TimestampFormat) -> Result<Self, String> {
        Ok(match data_type {
            DataType::Boolean => Self::Boolean(BooleanBuilder::new()),
            DataType::Int16 => Self::Int16(Int16Builder::new()),
            DataType::Int32 => Self::Int32(Int32Builder::new()),
            DataType::Int64 => Self::Int64(Int64Builder::new()),
            DataType::Float32 => Self::Float32(Float32Builder::new()),
            DataType::Float64 => Self::Float64(Float64Builder::new()),
            DataType::Decimal128(precision, scale) => {
                let builder = Decimal128Builder::new().with_data_type(data_type.clone());
                Self::Decimal(builder, *precision, *scale)
            }
            DataType::Utf8 if is_json => Self::Json(StringBuilder::new()),
            DataType::Utf8 => Self::Text(StringBuilder::new()),
            DataType::Binary => Self::Bytes(BinaryBuilder::new(), Vec::new()),
            DataType::Date32 => Self::Date(Date32Builder::new()),
            DataType::Time64(TimeUnit::Microsecond) => Self::Time(Time64MicrosecondBuilder::new()),
            DataType::Timestamp(TimeUnit::Microsecond, zone) => {
                let builder = TimestampMicrosecondBuilder::new().with_timezone_opt(zone.clone());
                Self::Timestamp(builder, format)
            }
            other => return Err(format!("records cannot fill a column of type {other}")),
        })
    }

    /// Appends exactly one entry: NULL also where the value does not convert.
    #[inline]
    fn append(&mut self, value: Value<'_>) -> Converted<Appended> {
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
            Self::Text(builder) => push_text(builder, convert::text(value)),
            Self::Json(builder) => push_text(builder, convert::json(value)),
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

    fn append_null(&mut self) {
        match self {
            Self::Boolean(builder) => builder.append_null(),
            Self::Int16(builder) => builder.append_null(),
            Self::Int32(builder) => builder.append_null(),
            Self::Int64(builder) => builder.append_null(),
            Self::Float32(builder) => builder.append_null(),
            Self::Float64(builder) => builder.append_null(),
            Self::Decimal(builder, _, _) => builder.append_null(),
            Self::Text(builder) | Self::Json(builder) => builder.append_null(),
            Self::Bytes(builder, _) => builder.append_null(),
            Self::Date(builder) => builder.append_null(),
            Self::Time(builder) => builder.append_null(),
            Self::Timestamp(builder, _) => builder.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::Int16(builder) => Arc::new(builder.finish()),
            Self::Int32(builder) => Arc::new(builder.finish()),
            Self::Int64(builder) => Arc::new(builder.finish()),
            Self::Float32(builder) => Arc::new(builder.finish()),
            Self::Float64(builder) => Arc::new(builder.finish()),
            Self::Decimal(builder, _, _) => Arc::new(builder.finish()),
            Self::Text(builder) | Self::Json(builder) => Arc::new(builder.finish()),
            Self::Bytes(builder, _) => Arc::new(builder.finish()),
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::Time(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder, _) => Arc::new(builder.finish()),
        }
    }
}

#[inline]
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

#[inline]
fn push_text(builder: &mut StringBuilder, converted: Converted<&str>) -> Converted<Appended> {
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
