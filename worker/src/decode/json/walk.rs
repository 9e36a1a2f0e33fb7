//! The walk over one JSON object: notes for each column where its value stands.
//!
//! Called by `decoder.rs`, once a record. Owns the map from field names to columns and the predicted
//! [`Layout`]. A field matches the column of exactly its name, others are checked and left, the last duplicate wins.
//! Failure: [`Broken`]; what the row holds then means nothing.

use hashbrown::HashMap;
use serde_json::Value;

use super::escape;
use super::layout::{Layout, Place, ends_with_brace};
use super::scan::{self, Broken, skip_blanks};
use crate::decode::token::Token;

/// Walks records of one source.
#[derive(Debug)]
pub(in crate::decode) struct ObjectWalker {
    columns: HashMap<Box<str>, usize>,
    layout: Layout,
    scratch: String,
}

impl ObjectWalker {
    /// A walker that fills column `i` from the field `names[i]`.
    pub(in crate::decode) fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        Self {
            columns: names
                .enumerate()
                .map(|(index, name)| (name.into(), index))
                .collect(),
            layout: Layout::default(),
            scratch: String::new(),
        }
    }

    /// Walks the one object that `bytes` must be; `row` has a token for each column, all missing.
    /// The bytes it points into, which are UTF-8; `Err` says what is wrong with them.
    #[inline]
    pub(in crate::decode) fn walk_bytes<'a>(
        &mut self,
        bytes: &'a [u8],
        row: &mut [Token],
    ) -> Result<&'a [u8], String> {
        let mut place = Place::BEGIN;
        self.layout.restart();
        self.layout.follow(bytes, &mut place, row);
        if !(place.ended && place.is_ascii) {
            self.walk_on(bytes, place, row)?;
        }
        Ok(bytes)
    }

    /// Walks the rest of a record that is not just what was expected.
    fn walk_on(&mut self, bytes: &[u8], place: Place, row: &mut [Token]) -> Result<(), String> {
        let Ok(text) = simdutf8::basic::from_utf8(bytes) else {
            return Err(utf8_reason(bytes));
        };
        self.walk(text, place, row).map_err(|Broken| reason(text))
    }

    fn walk(&mut self, text: &str, mut place: Place, row: &mut [Token]) -> Result<(), Broken> {
        let bytes = text.as_bytes();
        while !place.ended {
            let at = place.at;
            let (column, begin) = match self.layout.predict(bytes, at) {
                Some(predicted) => (predicted.column, at + predicted.length),
                None => match self.key(text, at)? {
                    Some(found) => found,
                    None => return Ok(()),
                },
            };
            let (token, end) = place.value(bytes, begin)?;
            if let Some(column) = column {
                row[column] = token;
            }
            place.at = end;
            place.ended = ends_with_brace(bytes, end);
            if !place.ended {
                self.layout.follow(bytes, &mut place, row);
            }
        }
        Ok(())
    }

    /// Reads what stands between values at `at`: the column of the next key and where its value begins, or `None`
    /// at the end of the record.
    fn key(&mut self, text: &str, at: usize) -> Result<Option<Found>, Broken> {
        let bytes = text.as_bytes();
        let opens = at == 0;
        let mark = skip_blanks(bytes, at);
        let quote = skip_blanks(bytes, mark + 1);
        match (bytes.get(mark), opens) {
            (Some(b'}'), false) => return ended(bytes, mark + 1),
            (Some(b'{'), true) if bytes.get(quote) == Some(&b'}') => {
                return ended(bytes, quote + 1);
            }
            (Some(b'{'), true) | (Some(b','), false) => (),
            _ => return Err(Broken),
        }
        let key = scan::key(bytes, quote)?;
        let name = &text[key.start..key.end];
        let column = if key.escaped {
            escape::resolve(name, &mut self.scratch);
            self.columns.get(self.scratch.as_str())
        } else {
            self.columns.get(name)
        };
        let column = column.copied();
        self.layout.learn(&bytes[at..key.value], column);
        Ok(Some((column, key.value)))
    }
}

/// The column of a key, if one reads it, and where its value begins.
type Found = (Option<usize>, usize);

/// Nothing but white space may follow a record.
fn ended(bytes: &[u8], at: usize) -> Result<Option<Found>, Broken> {
    match skip_blanks(bytes, at) == bytes.len() {
        true => Ok(None),
        false => Err(Broken),
    }
}

/// What a dead letter says of bytes that are no text.
pub(in crate::decode) fn utf8_reason(bytes: &[u8]) -> String {
    let valid = match std::str::from_utf8(bytes) {
        Ok(text) => text.len(),
        Err(error) => error.valid_up_to(),
    };
    format!("the byte at index {valid} is not UTF-8")
}

/// What is wrong with a record that is no object, in serde_json's words.
#[cold]
fn reason(text: &str) -> String {
    let found = match serde_json::from_str(text) {
        Err(error) => return format!("not JSON: {error}"),
        Ok(Value::Null) => "null",
        Ok(Value::Bool(_)) => "a boolean",
        Ok(Value::Number(_)) => "a number",
        Ok(Value::String(_)) => "a string",
        Ok(Value::Array(_)) => "an array",
        Ok(Value::Object(_)) => "an object that could not be read",
    };
    format!("a JSON object is expected, found {found}")
}
