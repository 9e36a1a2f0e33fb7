//! The columns that come from records and their metadata: from tokens to Arrow arrays, a block of rows at a time.
//!
//! Owned by `decoder.rs`. Works column by column, so that the type is decided once a block and not once a value, and
//! the first failure of a record is the first by column order. A refused row keeps its place, with NULLs, until
//! `rows.rs` takes it out: builders only ever grow.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use millstream_common::dead_letter::Code;
use millstream_common::plan::SourceColumn;
use millstream_common::plan::connector::TimestampFormat;

use super::builder::{Appended, Builder};
use super::convert::{Converted, MISMATCH, Mismatch};
use super::refusals::{Refusals, shown};
use super::token::{Token, Value};

/// Tokens of some rows, and the texts they point into.
pub(super) struct Block<'a> {
    /// One a row, UTF-8.
    pub(super) texts: &'a [&'a [u8]],
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

    /// Begins a batch of `count` records.
    pub(super) fn begin(&mut self, count: usize) {
        self.builder.begin(&self.data_type, count);
    }

    /// Appends the values that stand in the tokens with number `token_index` of each row.
    pub(super) fn append_block(
        &mut self,
        block: &Block<'_>,
        token_index: usize,
        refusals: &mut Refusals,
    ) {
        let mut row = 0;
        loop {
            let builder = &mut self.builder;
            row += builder.append_expected(block, token_index, row, self.nullable);
            if row >= block.texts.len() {
                return;
            }
            self.append_unexpected(block, token_index, row, refusals);
            row += 1;
        }
    }

    /// Appends the value of a row the general way, or refuses it.
    fn append_unexpected(
        &mut self,
        block: &Block<'_>,
        token_index: usize,
        row: usize,
        refusals: &mut Refusals,
    ) {
        let text = block.texts[row];
        let token = block.tokens[row * block.width + token_index];
        let value = match self.is_json {
            false => token.value(text, &mut self.scratch),
            true => token.json_value(text),
        };
        let result = self.builder.append(value);
        if result == Ok(Appended::Value) || result == Ok(Appended::Null) && self.nullable {
            return;
        }
        let record = block.first_record + row;
        self.refuse(record, result, || token.shown(text), refusals);
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
        let source = || match value {
            Value::Text(text) => format!("\"{text}\""),
            Value::Number(text) | Value::Json(text) => text.to_owned(),
            other => format!("{other:?}"),
        };
        self.refuse(record, result, source, refusals);
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
            None => self.refuse(record, Ok(Appended::Null), String::new, refusals),
            Some(source) => self.refuse(record, Err(MISMATCH), || source.to_owned(), refusals),
        }
    }

    /// Every text is a value of it, as it is.
    pub(super) fn takes_any_text(&self) -> bool {
        matches!(self.builder, Builder::Text(_))
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
        source: impl FnOnce() -> String,
        refusals: &mut Refusals,
    ) {
        match result {
            Ok(_) => refusals.refuse(record, Code::NullViolation, || null_reason(&self.name)),
            Err(mismatch) => refusals.refuse(record, Code::TypeMismatch, || {
                mismatch_reason(&self.name, &self.type_name, &source(), mismatch)
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
