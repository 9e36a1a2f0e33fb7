//! Finds the end of JSON values, checking them on the way exactly as serde_json does.
//!
//! Called by `walk.rs`. The input is UTF-8 already. Failure: [`Broken`] says only that the text is not
//! JSON; the caller asks serde_json for the words.

use super::escape::hex;
use super::text_end::special;
use crate::decode::token::{Token, TokenKind};
use crate::decode::words::{last_word, not_digits};

/// The text is no well-formed JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::decode) struct Broken;

/// Objects and arrays inside each other, the record's own object included; one more is refused.
const DEPTH_MAX: u32 = 127;

/// Numbers with fewer digits and no exponent are in the range of a double.
const DIGITS_IN_RANGE: usize = 300;

/// The first byte at or behind `at` that is no white space.
#[inline]
pub(super) fn skip_blanks(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at += 1;
    }
    at
}

/// The value that begins at `at`, and the place behind it.
#[inline]
pub(super) fn value(bytes: &[u8], at: usize) -> Result<(Token, usize), Broken> {
    match bytes.get(at) {
        Some(b'"') => {
            let (end, escaped) = string(bytes, at + 1)?;
            let kind = match escaped {
                false => TokenKind::String,
                true => TokenKind::Escaped,
            };
            Ok((Token::new(kind, at + 1, end), end + 1))
        }
        Some(b'-' | b'0'..=b'9') => {
            let end = number(bytes, at)?;
            Ok((Token::new(TokenKind::Number, at, end), end))
        }
        Some(b'{' | b'[') => {
            let end = nested(bytes, at)?;
            Ok((Token::new(TokenKind::Nested, at, end), end))
        }
        Some(b't') => constant(bytes, at, b"true", TokenKind::True),
        Some(b'f') => constant(bytes, at, b"false", TokenKind::False),
        Some(b'n') => constant(bytes, at, b"null", TokenKind::Null),
        _ => Err(Broken),
    }
}

fn constant(
    bytes: &[u8],
    at: usize,
    expected: &[u8],
    kind: TokenKind,
) -> Result<(Token, usize), Broken> {
    if !bytes[at..].starts_with(expected) {
        return Err(Broken);
    }
    let end = at + expected.len();
    Ok((Token::new(kind, at, end), end))
}

/// Where the string that begins at `at` (behind its quote) ends (before its quote), and whether it has escapes.
#[inline]
pub(super) fn string(bytes: &[u8], at: usize) -> Result<(usize, bool), Broken> {
    let mut at = special(bytes, at);
    if let Some(b'"') = bytes.get(at) {
        return Ok((at, false));
    }
    loop {
        match bytes.get(at) {
            Some(b'"') => return Ok((at, true)),
            Some(b'\\') => at = special(bytes, escape(bytes, at + 1)?),
            _ => return Err(Broken),
        }
    }
}

/// The place behind the escape whose letter is at `at`.
fn escape(bytes: &[u8], at: usize) -> Result<usize, Broken> {
    match bytes.get(at) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 1),
        Some(b'u') => {
            let first = hex(bytes.get(at + 1..at + 5)).ok_or(Broken)?;
            match first {
                0xdc00..=0xdfff => Err(Broken),
                0xd800..=0xdbff => low_surrogate(bytes, at + 5),
                _ => Ok(at + 5),
            }
        }
        _ => Err(Broken),
    }
}

/// The place behind the second half of a pair, which must be at `at`.
fn low_surrogate(bytes: &[u8], at: usize) -> Result<usize, Broken> {
    if !bytes[at..].starts_with(b"\\u") {
        return Err(Broken);
    }
    match hex(bytes.get(at + 2..at + 6)) {
        Some(0xdc00..=0xdfff) => Ok(at + 6),
        _ => Err(Broken),
    }
}

/// The place behind the number that begins at `at`.
#[inline]
fn number(bytes: &[u8], start: usize) -> Result<usize, Broken> {
    let mut at = start + usize::from(bytes[start] == b'-');
    at = match bytes.get(at) {
        Some(b'0') => at + 1,
        _ => digits(bytes, at)?,
    };
    if let Some(b'.') = bytes.get(at) {
        at = digits(bytes, at + 1)?;
    }
    let exponent = matches!(bytes.get(at), Some(b'e' | b'E'));
    if exponent {
        let sign = matches!(bytes.get(at + 1), Some(b'+' | b'-'));
        at = digits(bytes, at + 1 + usize::from(sign))?;
    }
    if matches!(bytes.get(at), Some(b'0'..=b'9')) {
        return Err(Broken);
    }
    if exponent || at - start > DIGITS_IN_RANGE {
        serde_json::from_slice::<f64>(&bytes[start..at]).map_err(|_| Broken)?;
    }
    Ok(at)
}

/// The place behind one or more digits at `at`.
#[inline]
fn digits(bytes: &[u8], start: usize) -> Result<usize, Broken> {
    let mut rest = bytes.get(start..).unwrap_or_default();
    let others = loop {
        match rest.split_first_chunk::<8>() {
            Some((chunk, behind)) => {
                let others = not_digits(u64::from_le_bytes(*chunk));
                if others != 0 {
                    break others;
                }
                rest = behind;
            }
            None => break not_digits(last_word(bytes, bytes.len() - rest.len())),
        }
    };
    let at = bytes.len() - rest.len() + (others.trailing_zeros() / 8) as usize;
    match at > start {
        true => Ok(at),
        false => Err(Broken),
    }
}

/// The place behind the object or array that begins at `start`.
fn nested(bytes: &[u8], start: usize) -> Result<usize, Broken> {
    let mut levels = Levels::default();
    let mut at = start;
    loop {
        match bytes.get(at) {
            Some(&bracket @ (b'{' | b'[')) => {
                levels.push(bracket == b'{')?;
                at = skip_blanks(bytes, at + 1);
                if !levels.closes(bytes.get(at)) {
                    at = levels.element(bytes, at)?;
                    continue;
                }
                levels.pop();
                at += 1;
            }
            _ => at = value(bytes, at)?.1,
        }
        // A value has ended before `at`: close levels until another element follows.
        loop {
            if levels.depth == 0 {
                return Ok(at);
            }
            at = skip_blanks(bytes, at);
            match bytes.get(at) {
                Some(b',') => {
                    at = levels.element(bytes, skip_blanks(bytes, at + 1))?;
                    break;
                }
                byte if levels.closes(byte) => {
                    levels.pop();
                    at += 1;
                }
                _ => return Err(Broken),
            }
        }
    }
}

/// The open objects and arrays around a place.
#[derive(Default)]
struct Levels {
    /// A bit for each, the innermost last: set for an object.
    objects: u128,
    depth: u32,
}

impl Levels {
    fn push(&mut self, is_object: bool) -> Result<(), Broken> {
        self.depth += 1;
        if self.depth + 1 > DEPTH_MAX {
            return Err(Broken);
        }
        self.objects = self.objects << 1 | u128::from(is_object);
        Ok(())
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.objects >>= 1;
    }

    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }

    fn closes(&self, byte: Option<&u8>) -> bool {
        byte == Some(if self.in_object() { &b'}' } else { &b']' })
    }

    /// Where the value of the element at `at` begins: behind the key of an object.
    fn element(&self, bytes: &[u8], at: usize) -> Result<usize, Broken> {
        match self.in_object() {
            true => key(bytes, at).map(|key| key.value),
            false => Ok(at),
        }
    }
}

/// A key of an object, and where its value begins.
pub(super) struct Key {
    /// Inside the quotes.
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) escaped: bool,
    pub(super) value: usize,
}

/// The key at `at`, which must be its quote.
pub(super) fn key(bytes: &[u8], at: usize) -> Result<Key, Broken> {
    if bytes.get(at) != Some(&b'"') {
        return Err(Broken);
    }
    let (end, escaped) = string(bytes, at + 1)?;
    let colon = skip_blanks(bytes, end + 1);
    if bytes.get(colon) != Some(&b':') {
        return Err(Broken);
    }
    Ok(Key {
        start: at + 1,
        end,
        escaped,
        value: skip_blanks(bytes, colon + 1),
    })
}
