//! Tokens: where a column's value stands inside the text of a record, before any conversion.
//!
//! Filled by the JSON walker and by the CSV splitter, one row of tokens a record, read column by column by
//! `columns.rs`. Tokens hold offsets, not text, so that their memory is used again for every block.
//! Cannot fail: a token is made only where the text has been checked.

use super::json::escape;

/// What stands in the text. As long as the other parts of a token: there are no gaps to be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum TokenKind {
    /// The record has no such field.
    Missing,
    /// JSON `null`, or a CSV field that means NULL.
    Null,
    /// JSON `true`.
    True,
    /// JSON `false`.
    False,
    /// A JSON number.
    Number,
    /// A JSON string without escapes; the range is inside the quotes.
    String,
    /// A JSON string with escapes; the range is inside the quotes.
    Escaped,
    /// A JSON object or array.
    Nested,
    /// A CSV field.
    Field,
}

/// A value's kind and its place in the text of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    /// First byte.
    pub(super) start: u32,
    /// Behind the last byte.
    pub(super) end: u32,
}

impl Token {
    /// No such field in the record.
    pub(super) const MISSING: Self = Self {
        kind: TokenKind::Missing,
        start: 0,
        end: 0,
    };

    /// A token of the bytes `start..end`; records are shorter than 4 GiB.
    #[inline]
    pub(super) fn new(kind: TokenKind, start: usize, end: usize) -> Self {
        Self {
            kind,
            start: start as u32,
            end: end as u32,
        }
    }

    /// Whether any characters may stand in it, and not only those of numbers and words.
    #[inline]
    pub(super) fn holds_text(self) -> bool {
        use TokenKind::{Escaped, Field, Nested, String};
        matches!(self.kind, String | Escaped | Nested | Field)
    }

    /// The value inside `text`; escapes are resolved into `scratch`.
    pub(super) fn value<'a>(self, text: &'a [u8], scratch: &'a mut String) -> Value<'a> {
        match self.kind {
            TokenKind::Missing | TokenKind::Null => Value::Null,
            TokenKind::True => Value::Boolean(true),
            TokenKind::False => Value::Boolean(false),
            TokenKind::Number => Value::Number(checked(self.inside(text))),
            TokenKind::String | TokenKind::Field => Value::Text(checked(self.inside(text))),
            TokenKind::Escaped => {
                escape::resolve(checked(self.inside(text)), scratch);
                Value::Text(scratch)
            }
            TokenKind::Nested => Value::Json(checked(self.inside(text))),
        }
    }

    /// The value as it is written, for a JSON column: strings keep their quotes.
    pub(super) fn json_value(self, text: &[u8]) -> Value<'_> {
        match self.kind {
            TokenKind::Missing | TokenKind::Null => Value::Null,
            TokenKind::Field => Value::Text(checked(self.inside(text))),
            _ => Value::Json(checked(self.written(text))),
        }
    }

    /// The value as it is written, for reasons; text has quotes.
    pub(super) fn shown(self, text: &[u8]) -> String {
        match self.json_value(text) {
            Value::Json(source) => source.to_owned(),
            Value::Text(field) => format!("\"{field}\""),
            _ => "NULL".to_owned(),
        }
    }

    /// Its bytes, without quotes.
    #[inline]
    pub(super) fn inside(self, text: &[u8]) -> &[u8] {
        &text[self.start as usize..self.end as usize]
    }

    /// Its bytes, with the quotes of a JSON string.
    #[inline]
    pub(super) fn written(self, text: &[u8]) -> &[u8] {
        let quotes = matches!(self.kind, TokenKind::String | TokenKind::Escaped);
        let quote = usize::from(quotes);
        &text[self.start as usize - quote..self.end as usize + quote]
    }
}

/// Records are refused before they have tokens unless they are UTF-8.
fn checked(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("a token stands in text that was checked, between characters")
}

/// A value on its way into a column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Boolean(bool),
    /// A number as it is written.
    Number(&'a str),
    /// A string, escapes resolved.
    Text(&'a str),
    /// Well-formed JSON as it is written.
    Json(&'a str),
    /// A number of ours: partition, offset.
    Integer(i64),
    /// A time of ours: microseconds since 1970 UTC.
    Instant(i64),
}
