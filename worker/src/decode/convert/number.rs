//! Numbers from text, exactly.
//!
//! Reads `[+-] digits [. digits] [e [+-] digits]` with at least one digit. JSON's numbers are among these; the rest is what
//! people write in CSV. Failure: `None`, for text of another shape and for numbers that do not fit.

use super::digits::{POWERS, WORD_DIGITS, decimal_digits, sign, unsigned};

/// A number as `mantissa` × 10^`exponent`; the mantissa does not end in 0 unless it is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exact {
    mantissa: i128,
    exponent: i32,
}

/// Those that are doubles exactly and can stand below [`DOUBLE_DIGITS`] digits.
const DOUBLE_POWERS: [f64; DOUBLE_DIGITS + 1] = {
    let mut powers = [1.0; DOUBLE_DIGITS + 1];
    let mut exponent = 1;
    while exponent < powers.len() {
        powers[exponent] = powers[exponent - 1] * 10.0;
        exponent += 1;
    }
    powers
};

/// So many digits, and a power of ten with as many zeros, are doubles exactly, so that their quotient is rounded once, to the nearest.
const DOUBLE_DIGITS: usize = 15;

/// A whole number in the range of i64: `1.0` and `1e2` are, `1.5` is not.
#[inline]
pub(in crate::decode) fn integer(text: &str) -> Option<i64> {
    whole(text.as_bytes())
}

/// The same of bytes.
#[inline]
pub(in crate::decode) fn whole(text: &[u8]) -> Option<i64> {
    let (negative, digits) = sign(text);
    match (1..=WORD_DIGITS)
        .contains(&digits.len())
        .then(|| unsigned(digits))
    {
        Some(Some(number)) if negative => 0_i64.checked_sub_unsigned(number),
        Some(Some(number)) => i64::try_from(number).ok(),
        _ => exact(text)?.scaled(0)?.try_into().ok(),
    }
}

/// The nearest double; beyond the range is none.
#[inline]
pub(in crate::decode) fn double(text: &[u8]) -> Option<f64> {
    let (negative, digits) = sign(text);
    if digits.len() <= DOUBLE_DIGITS + 1
        && let Some((mantissa, fraction)) = decimal_digits(digits)
        && digits.len() <= DOUBLE_DIGITS + usize::from(fraction > 0)
    {
        let number = mantissa as f64 / DOUBLE_POWERS[fraction];
        return Some(if negative { -number } else { number });
    }
    let text = std::str::from_utf8(text).ok()?;
    let number: f64 = text.parse().ok()?;
    in_range(number.is_infinite(), text).then_some(number)
}

/// The nearest of half the precision; beyond the range is none.
pub(in crate::decode) fn real(text: &[u8]) -> Option<f32> {
    let text = std::str::from_utf8(text).ok()?;
    let number: f32 = text.parse().ok()?;
    in_range(number.is_infinite(), text).then_some(number)
}

/// The number × 10^`scale`, if that is whole and has at most `precision` digits.
pub(in crate::decode) fn scaled(text: &[u8], precision: u8, scale: i8) -> Option<i128> {
    let (negative, digits) = sign(text);
    let scaled = match decimal_digits(digits) {
        Some((mantissa, fraction))
            if usize::try_from(scale).is_ok_and(|scale| scale >= fraction) =>
        {
            // 19 digits, and 38 at most behind the point, may be too many.
            let power = POWERS.get(scale as usize - fraction)?;
            let scaled = i128::from(mantissa).checked_mul(*power)?;
            if negative { -scaled } else { scaled }
        }
        _ => exact(text)?.scaled(i32::from(scale))?,
    };
    let limit = POWERS.get(usize::from(precision))?;
    (scaled.unsigned_abs() < limit.unsigned_abs()).then_some(scaled)
}

/// The same of text.
pub(super) fn decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    scaled(text.as_bytes(), precision, scale)
}

/// The number × 10^`digits`, cut to the whole number below.
pub(super) fn floor_scaled(text: &str, digits: i32) -> Option<i64> {
    let number = exact(text.as_bytes())?;
    if let Some(scaled) = number.scaled(digits) {
        return scaled.try_into().ok();
    }
    let power = u32::try_from(-number.exponent.checked_add(digits)?).ok()?;
    match 10_i128.checked_pow(power) {
        Some(divisor) => number.mantissa.div_euclid(divisor).try_into().ok(),
        None => Some(if number.mantissa < 0 { -1 } else { 0 }),
    }
}

/// Infinity is in range only where the text says so in words.
fn in_range(is_infinite: bool, text: &str) -> bool {
    !is_infinite || !text.bytes().any(|byte| byte.is_ascii_digit())
}

impl Exact {
    /// × 10^`scale`, if that is whole and fits.
    fn scaled(self, scale: i32) -> Option<i128> {
        if self.mantissa == 0 {
            return Some(0);
        }
        let power = u32::try_from(self.exponent.checked_add(scale)?).ok()?;
        self.mantissa.checked_mul(10_i128.checked_pow(power)?)
    }
}

/// `None` also for more significant digits than i128 holds.
fn exact(text: &[u8]) -> Option<Exact> {
    let (sign, unsigned) = match text {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        all => (1, all),
    };
    let letter = unsigned.iter().position(|byte| matches!(byte, b'e' | b'E'));
    let (digits, written_exponent) = match letter {
        Some(index) => (
            &unsigned[..index],
            written_exponent(&unsigned[index + 1..])?,
        ),
        None => (unsigned, 0),
    };
    let mut mantissa: i128 = 0;
    let mut zeros = 0_u32;
    let mut fraction = 0_i32;
    let mut point = false;
    let mut digit_count = 0_usize;
    for &byte in digits {
        match byte {
            b'.' if !point => {
                point = true;
                continue;
            }
            b'0' if mantissa == 0 => (),
            b'0' => zeros += 1,
            b'1'..=b'9' => {
                let shifted = mantissa.checked_mul(10_i128.checked_pow(zeros + 1)?)?;
                mantissa = shifted.checked_add(i128::from(byte - b'0'))?;
                zeros = 0;
            }
            _ => return None,
        }
        digit_count += 1;
        fraction += i32::from(point);
    }
    if digit_count == 0 {
        return None;
    }
    let exponent = written_exponent
        .checked_add(i32::try_from(zeros).ok()?)?
        .checked_sub(fraction)?;
    Some(Exact {
        mantissa: sign * mantissa,
        exponent,
    })
}

/// The digits behind `e`; far beyond any use, any number will do.
fn written_exponent(text: &[u8]) -> Option<i32> {
    let (sign, digits) = match text {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        all => (1, all),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0_i32, |sum, digit| {
        sum.saturating_mul(10)
            .saturating_add(i32::from(digit - b'0'))
            .min(1_000_000)
    });
    Some(sign * number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Numbers as people and programs write them, of any length, and what nearly is one.
    fn written() -> impl Strategy<Value = String> {
        prop_oneof![
            "[+-]?[0-9]{0,20}",
            "[+-]?[0-9]{0,20}\\.?[0-9]{0,20}",
            "-?[0-9]{1,19}\\.[0-9]{1,10}([eE][+-]?[0-9]{1,3})?",
            "[0-9.+eE_ä:/-]{0,24}",
            any::<i64>().prop_map(|number| number.to_string()),
            any::<i128>().prop_map(|number| number.to_string()),
            any::<f64>().prop_map(|number| number.to_string()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn words_of_digits_make_the_number_that_single_digits_make(text in written(), scale in -2..38_i8) {
            let exact = exact(text.as_bytes());
            let whole = exact.and_then(|exact| exact.scaled(0)?.try_into().ok());
            prop_assert_eq!(integer(&text), whole);
            let scaled = exact.and_then(|exact| exact.scaled(i32::from(scale)));
            let limit = 10_u128.pow(38);
            let scaled = scaled.filter(|scaled| scaled.unsigned_abs() < limit);
            prop_assert_eq!(decimal(&text, 38, scale), scaled);
            let nearest = text.parse::<f64>().ok().filter(|number| in_range(number.is_infinite(), &text));
            prop_assert_eq!(double(text.as_bytes()).map(f64::to_bits), nearest.map(f64::to_bits));
        }
    }

    #[test]
    fn whole_numbers_are_integers_however_they_are_written() {
        for (text, number) in [
            ("0", 0),
            ("-0", 0),
            ("007", 7),
            ("+5", 5),
            ("1.0", 1),
            ("1.", 1),
            ("1e2", 100),
            ("1.50e1", 15),
            ("-120e-1", -12),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("0e999999999999", 0),
        ] {
            assert_eq!(integer(text), Some(number), "{text}");
        }
    }

    #[test]
    fn what_is_no_whole_number_in_range_is_no_integer() {
        for text in [
            "",
            "-",
            "+",
            ".",
            "e1",
            "1e",
            "1.5",
            "1e-1",
            "9223372036854775808",
            "1e400",
            "1_0",
            "0x1",
            " 1",
            "--1",
            "1.2.3",
            "abc",
            "1e9999999999",
            "12345678901234567890123456789012345678901",
        ] {
            assert_eq!(integer(text), None, "{text}");
        }
    }

    #[test]
    fn decimals_keep_every_digit_or_are_refused() {
        assert_eq!(decimal("12.34", 5, 2), Some(1234));
        assert_eq!(decimal("12.3400", 5, 2), Some(1234));
        assert_eq!(decimal("1e3", 5, 1), Some(10_000));
        assert_eq!(decimal("-.5", 5, 2), Some(-50));
        assert_eq!(decimal("12.345", 5, 2), None);
        assert_eq!(decimal("1000", 5, 2), None);
        let longest = "99999999999999999999999999999999999999";
        assert_eq!(decimal(longest, 38, 0), longest.parse().ok());
    }

    #[test]
    fn counted_times_are_cut_downwards() {
        assert_eq!(
            floor_scaled("1700000000.1234567", 6),
            Some(1_700_000_000_123_456)
        );
        assert_eq!(floor_scaled("-0.0000001", 6), Some(-1));
        assert_eq!(floor_scaled("1e-60", 6), Some(0));
        assert_eq!(floor_scaled("1e30", 6), None);
    }
}
