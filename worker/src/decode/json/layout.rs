//! Layout prediction: producers write the keys of a topic's records in the same order with the same spacing.
//!
//! Owned by `walk.rs`. Remembers the bytes between values (`,"url": `) as seen before; where the next bytes are
//! the same, which one comparison tells, the key need not be read. A layout is only a list of such literals, each
//! parsed properly once in the same grammatical place, so that a wrong guess costs time and never the result.
//! Memory is bounded by [`LITERALS_MAX`] and [`LITERAL_BYTES_MAX`].

use super::literal::Literal;
use super::marks::Marks;
use super::scan::{self, Broken};
use crate::decode::token::{Token, TokenKind};

/// How many literals are remembered: some dozens of keys, or a few orders of a dozen.
const LITERALS_MAX: usize = 128;

/// Longer keys are read each time.
const LITERAL_BYTES_MAX: usize = 256;

/// How far ahead of the expected key to look: over optional fields that a record lacks.
const LOOK_AHEAD: usize = 8;

/// Learning stops while more than one key in four is a surprise.
const SURPRISES_ALLOWED: u32 = 1_024;

/// What came between values, in order.
#[derive(Debug, Default)]
pub(super) struct Layout {
    literals: Vec<Literal>,
    /// The literal expected next.
    next: usize,
    surprises: u32,
}

/// Where the walk over a record stands.
#[derive(Debug)]
pub(super) struct Place {
    /// Behind the last value; 0 where the record begins.
    pub(super) at: usize,
    /// The record is read to its end.
    pub(super) ended: bool,
    /// What was followed is ASCII, apart from literals: these are text since they were learned.
    pub(super) is_ascii: bool,
    marks: Marks,
}

impl Place {
    pub(super) const BEGIN: Self = Self {
        at: 0,
        ended: false,
        is_ascii: true,
        marks: Marks::NONE,
    };

    /// The value that begins at `begin`, behind [`Self::at`], and the place behind it.
    #[inline]
    pub(super) fn value(&mut self, bytes: &[u8], begin: usize) -> Result<(Token, usize), Broken> {
        match self.marks.plain_text(bytes, begin) {
            Some(end) => Ok((Token::new(TokenKind::String, begin + 1, end), end + 1)),
            None => self.scanned(bytes, begin),
        }
    }

    /// The same of one that is no plain text.
    fn scanned(&mut self, bytes: &[u8], begin: usize) -> Result<(Token, usize), Broken> {
        let (token, end) = scan::value(bytes, begin)?;
        self.is_ascii &= !token.holds_text() || bytes[begin..end].is_ascii();
        Ok((token, end))
    }
}

/// Whether nothing follows `end` but the brace that ends the record.
#[inline]
pub(super) fn ends_with_brace(bytes: &[u8], end: usize) -> bool {
    end + 1 == bytes.len() && bytes[end] == b'}'
}

/// A key known from its bytes alone.
pub(super) struct Predicted {
    pub(super) column: Option<usize>,
    /// How many bytes lead up to the value.
    pub(super) length: usize,
}

impl Layout {
    /// A record begins.
    #[inline]
    pub(super) fn restart(&mut self) {
        self.next = 0;
    }

    /// Reads on while keys come as expected: what nearly all records are from beginning to end. Bytes that are no text are not noticed
    /// here, see [`Place::is_ascii`].
    #[inline]
    pub(super) fn follow(&mut self, bytes: &[u8], place: &mut Place, row: &mut [Token]) {
        let Place {
            mut at, mut marks, ..
        } = *place;
        let mut followed = 0;
        for literal in &self.literals[self.next..] {
            if !literal.stands_at(bytes, at) {
                break;
            }
            let begin = at + literal.length();
            let (token, end) = match marks.plain_text(bytes, begin) {
                Some(end) => (Token::new(TokenKind::String, begin + 1, end), end + 1),
                None => match place.scanned(bytes, begin) {
                    Ok(found) => found,
                    Err(Broken) => break,
                },
            };
            if let Some(slot) = row.get_mut(literal.token_index()) {
                *slot = token;
            }
            followed += 1;
            at = end;
            if ends_with_brace(bytes, end) {
                place.ended = true;
                break;
            }
        }
        place.at = at;
        place.marks = marks;
        self.next += followed;
        self.surprises = self.surprises.saturating_sub(followed as u32);
    }

    /// The key at `at`, if it is among the next ones.
    #[inline]
    pub(super) fn predict(&mut self, bytes: &[u8], at: usize) -> Option<Predicted> {
        let ahead = self.literals[self.next..].iter().take(LOOK_AHEAD);
        for (skipped, literal) in ahead.enumerate() {
            // Of two literals that differ in the blanks behind the colon one is the beginning of the other.
            let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t' | b'\n' | b'\r'));
            if literal.stands_at(bytes, at) && !is_blank(bytes.get(at + literal.length())) {
                self.next += skipped + 1;
                self.surprises = self.surprises.saturating_sub(1);
                return Some(Predicted {
                    column: literal.column(),
                    length: literal.length(),
                });
            }
        }
        None
    }

    /// Remembers `bytes`, which are text and led up to a value of `column`, as what comes next here.
    pub(super) fn learn(&mut self, bytes: &[u8], column: Option<usize>) {
        self.surprises = self.surprises.saturating_add(4);
        if self.surprises > SURPRISES_ALLOWED || bytes.len() > LITERAL_BYTES_MAX {
            self.surprises = self.surprises.min(2 * SURPRISES_ALLOWED);
            return;
        }
        if self.literals.len() >= LITERALS_MAX {
            self.literals.clear();
            self.next = 0;
        }
        self.next = self.next.min(self.literals.len());
        self.literals.insert(self.next, Literal::new(bytes, column));
        self.next += 1;
    }
}
