//! Runs of digits as numbers, eight at a time.
//!
//! Called by `number.rs` for what most numbers are: a minus perhaps, not too many digits, perhaps a point among them. Pure.
//! Failure: `None`, for everything else.

use crate::decode::words::{ONES, eight_digits, not_digits};

/// Eight digits 0.
const ZEROS: u64 = ONES * b'0' as u64;

/// Powers of ten: of a NUMERIC's precision, and more than one has.
pub(super) const POWERS: [i128; 39] = {
    let mut powers = [1; 39];
    let mut exponent = 1;
    while exponent < powers.len() {
        powers[exponent] = powers[exponent - 1] * 10;
        exponent += 1;
    }
    powers
};

/// So many digits are less than 2^64.
pub(super) const WORD_DIGITS: usize = 19;

/// Whether there is a minus, and what follows it.
#[inline]
pub(super) fn sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        all => (false, all),
    }
}

/// The number that digits with a point among them would be without it, and how many of them stand behind it: at most
/// [`WORD_DIGITS`] in all, of which some are before the point, and behind it if there is one.
#[inline]
pub(super) fn decimal_digits(text: &[u8]) -> Option<(u64, usize)> {
    if text.is_empty() || text.len() > WORD_DIGITS {
        return None;
    }
    let Some(point) = text.iter().position(|byte| *byte == b'.') else {
        return Some((unsigned(text)?, 0));
    };
    let (whole, fraction) = (&text[..point], &text[point + 1..]);
    if whole.is_empty() || fraction.is_empty() {
        return None;
    }
    let shifted = unsigned(whole)? * POWERS[fraction.len()] as u64;
    Some((shifted + unsigned(fraction)?, fraction.len()))
}

/// The number that at most [`WORD_DIGITS`] digits are; none are 0.
#[inline]
pub(super) fn unsigned(digits: &[u8]) -> Option<u64> {
    let (first, rest) = digits.split_at(digits.len() % 8);
    let mut number = few_digits(first)?;
    for chunk in rest.as_chunks::<8>().0 {
        let word = u64::from_le_bytes(*chunk);
        if not_digits(word) != 0 {
            return None;
        }
        number = number * 100_000_000 + eight_digits(word);
    }
    Some(number)
}

/// The number that less than eight digits are.
#[inline]
fn few_digits(digits: &[u8]) -> Option<u64> {
    if let (Some(first), Some(last)) = (digits.first_chunk::<4>(), digits.last_chunk::<4>()) {
        // Both together are all digits; zeros before them make eight.
        let missing = 8 * (8 - digits.len());
        let zeros = ZEROS & ((1 << missing) - 1);
        let first = u64::from(u32::from_le_bytes(*first)) << missing;
        let last = u64::from(u32::from_le_bytes(*last)) << 32;
        let word = zeros | first | last;
        return (not_digits(word) == 0).then(|| eight_digits(word));
    }
    let mut number = 0;
    for digit in digits {
        number = number * 10 + u64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_run_of_digits_is_the_number_it_shows(text in "[0-9]{1,19}", edit in prop::option::of((any::<prop::sample::Index>(), any::<u8>()))) {
            prop_assert_eq!(unsigned(text.as_bytes()), text.parse().ok());
            let mut bytes = text.into_bytes();
            if let Some((index, byte)) = edit {
                let index = index.index(bytes.len());
                bytes[index] = byte;
                let number = std::str::from_utf8(&bytes).ok().filter(|text| !text.starts_with('+'));
                prop_assert_eq!(unsigned(&bytes), number.and_then(|text| text.parse().ok()));
            }
        }

        #[test]
        fn a_point_is_counted_from_behind(whole in "[0-9]{1,9}", fraction in "[0-9]{1,9}") {
            let digits = format!("{whole}{fraction}").parse().ok();
            let found = decimal_digits(format!("{whole}.{fraction}").as_bytes());
            prop_assert_eq!(found, digits.map(|digits: u64| (digits, fraction.len())));
        }
    }
}
