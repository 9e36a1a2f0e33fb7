//! Marks in the bytes of a record: where its texts may end.
//!
//! Owned by a walk over one record (`layout.rs`). Looks at 64 bytes at once and keeps what it found, so that the end of most texts is read from
//! bits that are there already, without a loop whose length would have to be guessed anew for each text. Pure.

/// Bytes that are looked at together.
const BLOCK: usize = 64;

/// The marks of the bytes from some place on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    /// One bit a byte, the first lowest: set where the byte is a quote, a backslash, a control character or not ASCII.
    bits: u64,
    /// The first byte that has no bit.
    end: usize,
}

impl Marks {
    /// Of a record that nobody has looked at.
    pub(super) const NONE: Self = Self { bits: 0, end: 0 };

    /// The closing quote of the text whose opening quote is at `begin`, if both are there and it is ASCII without escapes.
    #[inline]
    pub(super) fn plain_text(&mut self, bytes: &[u8], begin: usize) -> Option<usize> {
        if bytes.get(begin) != Some(&b'"') {
            return None;
        }
        let end = self.next(bytes, begin + 1);
        (bytes.get(end) == Some(&b'"')).then_some(end)
    }

    /// The first marked byte at or behind `at`, or the end.
    #[inline]
    fn next(&mut self, bytes: &[u8], at: usize) -> usize {
        let mut at = at;
        // Wraps to something large where `at` is behind the block.
        let before_end = self.end.wrapping_sub(at);
        if (1..=BLOCK).contains(&before_end) {
            let bits = self.bits >> (BLOCK - before_end);
            if bits != 0 {
                return at + bits.trailing_zeros() as usize;
            }
            at = self.end;
        }
        while at < bytes.len() {
            self.bits = marks_from(bytes, at);
            self.end = at + BLOCK;
            if self.bits != 0 {
                return at + self.bits.trailing_zeros() as usize;
            }
            at = self.end;
        }
        bytes.len()
    }
}

/// The marks of the bytes from `at` on, which is inside; behind the end nothing is marked, or everything.
#[inline(never)]
fn marks_from(bytes: &[u8], at: usize) -> u64 {
    let rest = &bytes[at..];
    match (rest.first_chunk(), bytes.last_chunk()) {
        (Some(block), _) => of_block(block),
        (None, Some(block)) => of_block(block) >> (BLOCK - rest.len()),
        (None, None) => of_short(rest),
    }
}

/// The marks of fewer bytes than a block.
#[cold]
fn of_short(bytes: &[u8]) -> u64 {
    let mut block = [0; BLOCK];
    block[..bytes.len()].copy_from_slice(bytes);
    of_block(&block)
}

/// The marks of a block, 16 bytes at once.
#[cfg(target_arch = "x86_64")]
#[inline]
#[allow(unsafe_code, reason = "the processor's instructions")]
fn of_block(block: &[u8; BLOCK]) -> u64 {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_cmplt_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128,
        _mm_set1_epi8,
    };
    let (pieces, _) = block.as_chunks::<16>();
    let mut bits = 0;
    for (index, piece) in pieces.iter().enumerate() {
        // SAFETY: every x86-64 processor has SSE2, and a piece is as long as what is loaded.
        let marked = unsafe {
            let bytes = _mm_loadu_si128(piece.as_ptr().cast());
            let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
            let backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
            // As signed numbers, bytes that are not ASCII are below zero.
            let control_or_high = _mm_cmplt_epi8(bytes, _mm_set1_epi8(0x20));
            _mm_movemask_epi8(_mm_or_si128(
                _mm_or_si128(quote, backslash),
                control_or_high,
            ))
        };
        bits |= u64::from(marked as u16) << (16 * index);
    }
    bits
}

/// The same with words of eight bytes, for other processors.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[inline]
fn of_block_by_words(block: &[u8; BLOCK]) -> u64 {
    let (words, _) = block.as_chunks::<8>();
    let bits = words
        .iter()
        .rev()
        .map(|word| of_word(u64::from_le_bytes(*word)));
    bits.fold(0, |all, bits| all << 8 | bits)
}

#[cfg(not(target_arch = "x86_64"))]
use of_block_by_words as of_block;

/// The marks of eight bytes, each exact: nothing is carried from one byte into the next.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn of_word(word: u64) -> u64 {
    use crate::decode::words::{HIGHS, ONES};

    let is_zero = |word: u64| !(((word & !HIGHS) + !HIGHS) | word);
    let quote = is_zero(word ^ (ONES * u64::from(b'"')));
    let backslash = is_zero(word ^ (ONES * u64::from(b'\\')));
    let control = is_zero(word & (ONES * 0xe0));
    let marked = (quote | backslash | control | word) & HIGHS;
    // Each byte's highest bit is moved to its place in the highest byte.
    (marked >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_bytes(count: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(
            prop_oneof![8 => 0x1f..0x82_u8, 1 => any::<u8>()],
            count..=2 * count,
        )
    }

    fn is_marked(byte: u8) -> bool {
        byte < 0x20 || byte == b'"' || byte == b'\\' || !byte.is_ascii()
    }

    proptest! {
        #[test]
        fn the_next_mark_is_the_first_byte_that_may_end_a_text(
            bytes in prop_oneof![any_bytes(0), any_bytes(20), any_bytes(100)],
            places in prop::collection::vec(any::<prop::sample::Index>(), 1..8),
        ) {
            let mut marks = Marks::NONE;
            for at in places {
                let at = at.index(bytes.len() + 1);
                let found = bytes[at..].iter().position(|byte| is_marked(*byte));
                let expected = found.map_or(bytes.len(), |index| at + index);
                // Behind the end there is no byte that could be taken for one.
                prop_assert_eq!(marks.next(&bytes, at).min(bytes.len()), expected);
            }
        }

        #[test]
        fn words_and_the_instructions_of_the_processor_mark_the_same(bytes in any_bytes(BLOCK)) {
            let block = bytes.first_chunk().expect("there are as many bytes");
            let marked = (0..BLOCK).filter(|index| is_marked(block[*index]));
            let expected = marked.fold(0, |bits, index| bits | 1 << index);
            prop_assert_eq!(of_block_by_words(block), expected);
            prop_assert_eq!(of_block(block), expected);
        }
    }
}
