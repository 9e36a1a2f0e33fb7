//! Where a text inside quotes may end, found eight bytes at a time.
//!
//! Called by `scan.rs` for any string; those that nearly all are, ASCII without escapes, `marks.rs` has ended before. Pure, cannot fail.

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
        fn a_text_may_end_at_the_first_special_byte(
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
        }
    }
}
