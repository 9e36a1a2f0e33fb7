//! Eight bytes at a time: what scanning a record and converting its values have in common.
//!
//! Called by `json/` and `convert/`. The first byte of a text is the lowest of its word. Pure; in safe code, and the same on
//! every machine.

/// 1 in each byte.
pub(super) const ONES: u64 = 0x0101_0101_0101_0101;

/// The highest bit of each byte; where text has none of them it is ASCII.
pub(super) const HIGHS: u64 = ONES << 7;

/// What carries into the highest bit of a byte over 9.
const ABOVE_NINE: u64 = ONES * 0x76;

/// The eight bytes at `at`, if there are so many.
#[inline]
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let chunk = bytes.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_le_bytes(*chunk))
}

/// The bytes from `at` to the end, zeros behind them: for places near the end, where there are fewer than eight.
#[inline]
pub(super) fn last_word(bytes: &[u8], at: usize) -> u64 {
    let left = bytes.len() - at;
    if let Some(chunk) = bytes.last_chunk::<8>()
        && (1..8).contains(&left)
    {
        return u64::from_le_bytes(*chunk) >> (8 * (8 - left));
    }
    let fold = |word: u64, byte: &u8| word << 8 | u64::from(*byte);
    bytes[at..].iter().take(8).rev().fold(0, fold)
}

/// Marks bytes that are no digits; only the lowest mark is exact.
#[inline]
pub(super) fn not_digits(word: u64) -> u64 {
    let values = word ^ (ONES * u64::from(b'0'));
    (values.wrapping_add(ABOVE_NINE) | values) & HIGHS
}

/// In each byte the number of two digits, that one and the next; the values of digits are in the bytes of `values`.
#[inline]
pub(super) fn pairs(values: u64) -> u64 {
    values.wrapping_mul(10).wrapping_add(values >> 8)
}

/// The number that eight digits are.
#[inline]
pub(super) fn eight_digits(digits: u64) -> u64 {
    let pairs = pairs(digits ^ (ONES * u64::from(b'0'))) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    (fours * 10_000 + (fours >> 32)) & 0xffff_ffff
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_word_is_what_is_left() {
        let bytes = b"0123456789";
        for at in 3..=bytes.len() {
            for begin in [0, at.saturating_sub(2)] {
                let (bytes, at) = (&bytes[begin..], at - begin);
                let mut expected = [0; 8];
                expected[..bytes.len() - at].copy_from_slice(&bytes[at..]);
                assert_eq!(last_word(bytes, at), u64::from_le_bytes(expected), "{at}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_first_byte_that_is_no_digit_is_marked(bytes in prop::array::uniform8(prop_oneof![3 => b'0'..=b'9', 1 => any::<u8>()])) {
            let marks = not_digits(u64::from_le_bytes(bytes));
            let found = bytes.iter().position(|byte| !byte.is_ascii_digit());
            prop_assert_eq!((marks.trailing_zeros() / 8) as usize, found.unwrap_or(8));
        }

        #[test]
        fn eight_digits_are_the_number_they_show(number in 0..100_000_000_u64) {
            let text = format!("{number:08}");
            prop_assert_eq!(word(text.as_bytes(), 0).map(eight_digits), Some(number));
        }
    }
}
