//! Where a text inside quotes may end, found eight bytes at a time.
//!
//! Called by `scan.rs` for any string and by `layout.rs` for those that nearly all are: ASCII without escapes. Pure, cannot fail.

use crate::decode::words::{HIGHS, ONES, last_word, word};

/// The first quote, backslash or control character at or behind `at`, or the end: eight bytes a step.
#[inline]
pub(super) fn special(bytes: &[u8], mut at: usize) -> usize {
    loop {
        // The zeros behind the end count as control characters, so that nothing is looked for there.
        let word = word(bytes, at).unwrap_or_else(|| last_word(bytes, at));
        let found = specials(word);
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
}

/// The closing quote of the text whose opening quote is at `at`, if both are there and it is ASCII without escapes.
#[inline]
pub(super) fn plain_text(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let end = plain_end(bytes, at + 1);
    (bytes.get(end) == Some(&b'"')).then_some(end)
}

/// The first byte at or behind `at` that is none of a plain ASCII text, or the end.
#[inline]
fn plain_end(bytes: &[u8], at: usize) -> usize {
    let mut rest = &bytes[at..];
    let found = loop {
        match rest.split_first_chunk::<8>() {
            Some((chunk, behind)) => {
                let found = not_plain(u64::from_le_bytes(*chunk));
                if found != 0 {
                    break found;
                }
                rest = behind;
            }
            None => break not_plain(last_word(bytes, bytes.len() - rest.len())),
        }
    };
    bytes.len() - rest.len() + (found.trailing_zeros() / 8) as usize
}

/// Marks what [`specials`] does, and bytes that are not ASCII. As these are marked in any case, they need not be told from the others,
/// which spares some steps.
#[inline]
fn not_plain(word: u64) -> u64 {
    let control = word.wrapping_sub(ONES * 0x20);
    let quote = (word ^ (ONES * u64::from(b'"'))).wrapping_sub(ONES);
    let backslash = (word ^ (ONES * u64::from(b'\\'))).wrapping_sub(ONES);
    (word | control | quote | backslash) & HIGHS
}

/// Marks quotes, backslashes and control characters; only the lowest mark is exact, because borrows run upwards.
#[inline]
fn specials(word: u64) -> u64 {
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
    let quote = zeros(word ^ (ONES * u64::from(b'"')));
    let backslash = zeros(word ^ (ONES * u64::from(b'\\')));
    control | quote | backslash
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn plain_text_ends_at_the_first_byte_that_is_not_plain(
            bytes in prop::collection::vec(prop_oneof![8 => 0x1f..0x82_u8, 1 => any::<u8>()], 0..40),
            at in any::<prop::sample::Index>(),
        ) {
            let at = at.index(bytes.len() + 1);
            let is_special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
            let end = |ends: &dyn Fn(u8) -> bool| {
                let found = bytes[at..].iter().position(|byte| ends(*byte));
                found.map_or(bytes.len(), |index| at + index)
            };
            prop_assert_eq!(special(&bytes, at), end(&is_special));
            let is_not_plain = |byte: u8| is_special(byte) || !byte.is_ascii();
            prop_assert_eq!(plain_end(&bytes, at), end(&is_not_plain));
        }
    }
}
