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
    /// The texts, and behind them what may be written over.
    bytes: Vec<u8>,
    /// How many bytes are theirs.
    used: usize,
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
            used: 0,
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
        self.bytes = vec![0; expected + expected / 16 + LONGER];
        self.used = 0;
        self.nulls.clear();
    }

    /// Appends what stands in `text` from `start` to `end`.
    #[inline]
    pub(super) fn push_part(&mut self, text: &[u8], start: usize, end: usize) {
        let length = end - start;
        // Where more follows, more is copied, and written over again.
        if length <= SHORT
            && let Some(room) = self.bytes[self.used..].first_chunk_mut::<SHORT>()
            && let Some(chunk) = text[start..].first_chunk()
        {
            *room = *chunk;
            self.used += length;
        } else {
            self.put_part(text, start, end);
        }
        self.push_end();
    }

    /// The same of a text that is not short, stands at the end of a record, or has no room yet; it is not ended.
    #[inline(never)]
    fn put_part(&mut self, text: &[u8], start: usize, end: usize) {
        let part = &text[start..end];
        let room = &mut self.bytes[self.used..];
        if part.len() <= SHORT
            && let Some(room) = room.first_chunk_mut()
            && let Some(chunk) = text[..end].last_chunk()
        {
            *room = last_of(chunk, part.len());
            self.used += part.len();
        } else if part.len() <= LONGER
            && let Some(room) = room.first_chunk_mut::<LONGER>()
            && let Some(chunk) = text[start..].first_chunk()
        {
            *room = *chunk;
            self.used += part.len();
        } else {
            self.put(part);
        }
    }

    /// Adds to the text that is not ended yet, where there may be no room for it.
    fn put(&mut self, bytes: &[u8]) {
        self.make_room(bytes.len());
        let end = self.used + bytes.len();
        self.bytes[self.used..end].copy_from_slice(bytes);
        self.used = end;
    }

    /// So that there is room for so many bytes, and some more.
    fn make_room(&mut self, count: usize) {
        let wanted = self.used + count + LONGER;
        if wanted > self.bytes.len() {
            self.bytes.resize(wanted.max(2 * self.bytes.len()), 0);
        }
    }

    /// Appends the text that the inside of a JSON string with escapes means.
    pub(super) fn push_escaped(&mut self, source: &[u8]) {
        self.make_room(source.len());
        self.used += escape::resolve_bytes(source, &mut self.bytes[self.used..]);
        self.push_end();
    }

    pub(super) fn push(&mut self, text: &str) {
        self.put(text.as_bytes());
        self.push_end();
    }

    pub(super) fn push_null(&mut self) {
        self.nulls.push(self.ends.len() - 1);
        self.push_end();
    }

    #[inline]
    fn push_end(&mut self) {
        let end = i32::try_from(self.used);
        self.ends.push(end.expect("a batch holds less than 2 GiB"));
    }

    /// The column of everything appended; begins anew.
    pub(super) fn finish(&mut self) -> ArrayRef {
        let count = self.ends.len() - 1;
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.truncate(std::mem::take(&mut self.used));
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

/// The last so many bytes of a chunk, in front.
#[inline]
fn last_of(chunk: &[u8; SHORT], length: usize) -> [u8; SHORT] {
    let moved = u128::from_le_bytes(*chunk).checked_shr(8 * (SHORT - length) as u32);
    moved.unwrap_or(0).to_le_bytes()
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
