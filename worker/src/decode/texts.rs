//! A column of text under construction.
//!
//! Owned by `builder.rs`. Texts are mostly a few bytes long, where the call that copies them costs more than the copy: short ones
//! are copied in pieces of a length that is known when this is compiled. They come as bytes; Arrow checks once, for the whole
//! column, that they are UTF-8. Failure: none, because records are refused before unless they are UTF-8; else a defect of ours.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBufferBuilder, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};

use super::json::escape;

/// Nearly all names and words.
const SHORT: usize = 16;
/// Paths, UUIDs, times.
const LONGER: usize = 48;

/// So much is reserved without asking whether it is needed.
const ROOM: usize = 64 << 10;

/// Texts and where each of them ends.
#[derive(Debug)]
pub(super) struct Texts {
    /// A zero, then the end of each text.
    ends: Vec<i32>,
    bytes: Vec<u8>,
    /// The rows that are NULL, in order.
    nulls: Vec<usize>,
    /// Of the last column that was finished: rows and bytes.
    last: (usize, usize),
}

impl Default for Texts {
    fn default() -> Self {
        Self {
            ends: vec![0],
            bytes: Vec::new(),
            nulls: Vec::new(),
            last: (0, 0),
        }
    }
}

impl Texts {
    /// Begins anew, with room for `count` texts as long as those of the last time, but for not much more bytes than these had in all:
    /// few long texts say little of many (INV-9).
    pub(super) fn begin(&mut self, count: usize) {
        let (last_count, last_bytes) = self.last;
        let expected = last_bytes.saturating_mul(count) / last_count.max(1);
        let expected = expected.min(last_bytes.saturating_mul(2).max(ROOM));
        self.ends = Vec::with_capacity(count + 1);
        self.ends.push(0);
        self.bytes = Vec::with_capacity(expected + expected / 16 + LONGER);
        self.nulls.clear();
    }

    /// Appends what stands in `text` from `start` to `end`.
    #[inline]
    pub(super) fn push_part(&mut self, text: &[u8], start: usize, end: usize) {
        let part = &text[start..end];
        let behind = &text[start..];
        let used = self.bytes.len();
        // Where more follows, more is copied, and cut off again.
        if part.len() <= SHORT {
            match behind.first_chunk::<SHORT>() {
                Some(chunk) => self.bytes.extend_from_slice(chunk),
                None => self.push_ends(part),
            }
        } else if part.len() <= LONGER {
            match behind.first_chunk::<LONGER>() {
                Some(chunk) => self.bytes.extend_from_slice(chunk),
                None => self.bytes.extend_from_slice(part),
            }
        } else {
            self.bytes.extend_from_slice(part);
        }
        self.bytes.truncate(used + part.len());
        self.push_end();
    }

    /// Copies a short text by its first and its last bytes, which may be the same.
    #[inline]
    fn push_ends(&mut self, part: &[u8]) {
        let used = self.bytes.len();
        if let (Some(first), Some(last)) = (part.first_chunk::<8>(), part.last_chunk::<8>()) {
            self.bytes.extend_from_slice(first);
            self.bytes.truncate(used + part.len() - last.len());
            self.bytes.extend_from_slice(last);
        } else if let (Some(first), Some(last)) = (part.first_chunk::<4>(), part.last_chunk::<4>())
        {
            self.bytes.extend_from_slice(first);
            self.bytes.truncate(used + part.len() - last.len());
            self.bytes.extend_from_slice(last);
        } else {
            self.bytes.extend_from_slice(part);
        }
    }

    /// Appends the text that the inside of a JSON string with escapes means.
    pub(super) fn push_escaped(&mut self, source: &[u8]) {
        escape::resolve_bytes(source, &mut self.bytes);
        self.push_end();
    }

    pub(super) fn push(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.push_end();
    }

    pub(super) fn push_null(&mut self) {
        self.nulls.push(self.ends.len() - 1);
        self.push_end();
    }

    #[inline]
    fn push_end(&mut self) {
        let end = i32::try_from(self.bytes.len());
        self.ends.push(end.expect("a batch holds less than 2 GiB"));
    }

    /// The column of everything appended; begins anew.
    pub(super) fn finish(&mut self) -> ArrayRef {
        let count = self.ends.len() - 1;
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() / 2 > bytes.len() + ROOM {
            bytes.shrink_to_fit();
        }
        self.last = (count, bytes.len());
        let nulls = match self.nulls.is_empty() {
            true => None,
            false => Some(nulls_at(&self.nulls, count)),
        };
        self.nulls.clear();
        let offsets = OffsetBuffer::new(ends.into());
        let array = StringArray::try_new(offsets, Buffer::from_vec(bytes), nulls);
        Arc::new(array.expect("records that are not UTF-8 were refused"))
    }
}

fn nulls_at(rows: &[usize], count: usize) -> NullBuffer {
    let mut valid = BooleanBufferBuilder::new(count);
    valid.append_n(count, true);
    for row in rows {
        valid.set_bit(*row, false);
    }
    NullBuffer::new(valid.finish())
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn long_texts_do_not_make_the_next_batch_large() {
        let mut texts = Texts::default();
        texts.begin(1);
        texts.push(&"x".repeat(1 << 20));
        assert_eq!(texts.finish().len(), 1);
        texts.begin(10_000);
        assert!(texts.bytes.capacity() <= 3 << 20);
        texts.push("y");
        assert!(texts.finish().get_array_memory_size() < 1 << 18);
    }

    proptest! {
        #[test]
        fn every_part_of_a_text_is_copied_as_it_is(
            text in "[a-z]{0,80}",
            cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..20),
        ) {
            let mut texts = Texts::default();
            for round in 0..2 {
                texts.begin(cuts.len() * round);
                let mut expected = Vec::new();
                for (one, other) in &cuts {
                    let (one, other) = (one.index(text.len() + 1), other.index(text.len() + 1));
                    let (start, end) = (one.min(other), one.max(other));
                    texts.push_part(text.as_bytes(), start, end);
                    texts.push_null();
                    expected.extend([Some(&text[start..end]), None]);
                }
                let column = texts.finish();
                prop_assert_eq!(column.as_string::<i32>().iter().collect::<Vec<_>>(), expected);
                prop_assert_eq!(column.null_count(), cuts.len());
            }
            prop_assert_eq!(texts.finish().len(), 0);
        }
    }
}
