//! Dates and times from ISO 8601 text.
//!
//! `YYYY-MM-DD`, then optionally `T` or a blank and `HH:MM[:SS[.1 to 9 digits]]`, then optionally `Z`, `+HH`, `+HHMM` or `+HH:MM`.
//! Digits beyond microseconds are cut; without an offset the time is UTC. Failure: `None`.

use super::form::{CLOCK, DAY_MINUTE, DAY_MINUTE_BLANK, YEAR_MONTH};
use crate::decode::words::{pairs, word};

const MICROS_A_SECOND: i64 = 1_000_000;
const SECONDS_A_DAY: i64 = 86_400;

/// Days since 1970, from `YYYY-MM-DD` and nothing else.
pub(super) fn date(text: &str) -> Option<i32> {
    days(text.as_bytes())
}

/// The same of bytes.
pub(in crate::decode) fn days(text: &[u8]) -> Option<i32> {
    let (days, rest) = take_date(text)?;
    rest.is_empty().then_some(days as i32)
}

/// Microseconds since midnight, from `HH:MM[:SS[.digits]]` and nothing else.
pub(super) fn time_of_day(text: &str) -> Option<i64> {
    let (micros, rest) = take_time(text.as_bytes())?;
    rest.is_empty().then_some(micros)
}

/// Microseconds since 1970 UTC.
#[inline]
pub(super) fn timestamp(text: &str) -> Option<i64> {
    instant(text.as_bytes())
}

/// The same of bytes.
#[inline]
pub(in crate::decode) fn instant(text: &[u8]) -> Option<i64> {
    let (micros, rest) = match take_seconds(text) {
        Some(found) => found,
        None => return any_instant(text),
    };
    let millis = match rest {
        [] | [b'Z'] => Some(0),
        [b'.', d1, d2, d3] | [b'.', d1, d2, d3, b'Z'] => two_digits(*d1, *d2)
            .zip(two_digits(b'0', *d3))
            .map(|(tens, ones)| tens * 10 + ones),
        _ => None,
    };
    match millis {
        Some(millis) => Some(micros + millis * 1_000),
        None => any_instant(text),
    }
}

/// Microseconds since 1970 UTC, from any of the forms.
fn any_instant(text: &[u8]) -> Option<i64> {
    let (days, rest) = take_date(text)?;
    let midnight = days * SECONDS_A_DAY * MICROS_A_SECOND;
    let rest = match rest {
        [] => return Some(midnight),
        [b'T' | b' ', rest @ ..] => rest,
        _ => return None,
    };
    let (micros, rest) = take_time(rest)?;
    let offset = match rest {
        [] => 0,
        rest => offset_seconds(rest)?,
    };
    Some(midnight + micros - offset * MICROS_A_SECOND)
}

/// `YYYY-MM-DDTHH:MM:SS` as microseconds since 1970, and what follows it: three words, of which one is half of another, because all but
/// a few times begin so.
#[inline]
fn take_seconds(text: &[u8]) -> Option<(i64, &[u8])> {
    let (begin, rest) = text.split_first_chunk::<19>()?;
    let date = YEAR_MONTH.values(word(begin, 0)?)?;
    let day = match begin[10] {
        b' ' => DAY_MINUTE_BLANK,
        _ => DAY_MINUTE,
    };
    let day = day.values(word(begin, 8)?)?;
    let clock = CLOCK.values(word(begin, 11)?)?;
    let byte = |word: u64, index: u32| (word >> (8 * index)) as u8;
    let (date, day, clock) = (pairs(date), byte(pairs(day), 0), pairs(clock));
    let year = u32::from(byte(date, 0)) * 100 + u32::from(byte(date, 2));
    let month = u32::from(byte(date, 5));
    let day = u32::from(day);
    let (hour, minute, second) = (byte(clock, 0), byte(clock, 3), byte(clock, 6));
    if hour > 23 || minute > 59 || second > 59 || !is_day(year, month, day) {
        return None;
    }
    let days = days_since_1970(year, month, day);
    let seconds = (u32::from(hour) * 60 + u32::from(minute)) * 60 + u32::from(second);
    let seconds = days * SECONDS_A_DAY + i64::from(seconds);
    Some((seconds * MICROS_A_SECOND, rest))
}

/// The number that two digits are.
#[inline]
fn two_digits(tens: u8, ones: u8) -> Option<i64> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then_some(i64::from(tens) * 10 + i64::from(ones))
}

/// Days since 1970, and what follows the date.
#[inline]
fn take_date(text: &[u8]) -> Option<(i64, &[u8])> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, rest @ ..] = text else {
        return None;
    };
    let year = two_digits(*y1, *y2)? * 100 + two_digits(*y3, *y4)?;
    let month = two_digits(*m1, *m2)?;
    let day = two_digits(*d1, *d2)?;
    let (year, month, day) = (year as u32, month as u32, day as u32);
    is_day(year, month, day).then(|| (days_since_1970(year, month, day), rest))
}

#[inline]
fn is_day(year: u32, month: u32, day: u32) -> bool {
    (1..=12).contains(&month) && day >= 1 && (day <= 28 || day <= month_length(year, month))
}

fn month_length(year: u32, month: u32) -> u32 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Counts in years that begin in March, so that the leap day is the last of its year, and from 400 years before year 0, so that
/// nothing is negative.
#[inline]
fn days_since_1970(year: u32, month: u32, day: u32) -> i64 {
    /// From 400 years before 0000-03-01 to 1970-01-01.
    const DAYS_BEFORE_1970: i64 = 719_468 + 146_097;
    let march_year = year + 400 - u32::from(month <= 2);
    let march_month = if month <= 2 { month + 9 } else { month - 3 };
    let leap_days = march_year / 4 - march_year / 100 + march_year / 400;
    let days_before_month = (153 * march_month + 2) / 5;
    let days = march_year * 365 + leap_days + days_before_month + day - 1;
    i64::from(days) - DAYS_BEFORE_1970
}

/// Microseconds since midnight, and what follows the time.
#[inline]
fn take_time(text: &[u8]) -> Option<(i64, &[u8])> {
    let [h1, h2, b':', m1, m2, rest @ ..] = text else {
        return None;
    };
    let hour = two_digits(*h1, *h2)?;
    let minute = two_digits(*m1, *m2)?;
    let (second, rest) = match rest {
        [b':', s1, s2, rest @ ..] => (two_digits(*s1, *s2)?, rest),
        [b':', ..] => return None,
        rest => (0, rest),
    };
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (fraction, rest) = match rest {
        [b'.', digits @ ..] => take_fraction(digits)?,
        rest => (0, rest),
    };
    Some((
        (hour * 60 + minute) * 60 * MICROS_A_SECOND + second * MICROS_A_SECOND + fraction,
        rest,
    ))
}

/// Microseconds from one to nine digits, and what follows them.
#[inline]
fn take_fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&count) {
        return None;
    }
    let mut micros = 0;
    for byte in &text[..count.min(6)] {
        micros = micros * 10 + i64::from(byte - b'0');
    }
    for _ in count..6 {
        micros *= 10;
    }
    Some((micros, &text[count..]))
}

/// Seconds that local time is ahead of UTC.
fn offset_seconds(text: &[u8]) -> Option<i64> {
    let (sign, hour, minute) = match *text {
        [b'Z' | b'z'] => return Some(0),
        [sign, h1, h2] => (sign, two_digits(h1, h2)?, 0),
        [sign, h1, h2, m1, m2] => (sign, two_digits(h1, h2)?, two_digits(m1, m2)?),
        [sign, h1, h2, b':', m1, m2] => (sign, two_digits(h1, h2)?, two_digits(m1, m2)?),
        _ => return None,
    };
    let seconds = (hour * 60 + minute) * 60;
    match sign {
        b'+' if hour <= 23 && minute <= 59 => Some(seconds),
        b'-' if hour <= 23 && minute <= 59 => Some(-seconds),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, NaiveDate};
    use proptest::prelude::*;

    use super::*;

    fn instant(text: &str) -> Option<i64> {
        let time = DateTime::parse_from_rfc3339(text).expect("a test names a time");
        Some(time.timestamp_micros())
    }

    #[test]
    fn iso_times_are_read_in_every_spelling() {
        let expected = instant("2024-03-05T06:07:08.123456Z");
        for text in [
            "2024-03-05T06:07:08.123456",
            "2024-03-05 06:07:08.123456",
            "2024-03-05T06:07:08.123456789",
            "2024-03-05T06:07:08.123456Z",
            "2024-03-05T08:07:08.123456+02:00",
            "2024-03-05T08:07:08.123456+0200",
            "2024-03-05T08:07:08.123456+02",
            "2024-03-04T23:37:08.123456-06:30",
        ] {
            assert_eq!(timestamp(text), expected, "{text}");
        }
        assert_eq!(timestamp("2024-03-05"), instant("2024-03-05T00:00:00Z"));
        assert_eq!(
            timestamp("2024-03-05T06:07"),
            instant("2024-03-05T06:07:00Z")
        );
        assert_eq!(timestamp("1969-12-31T23:59:59.9999999"), Some(-1));
    }

    #[test]
    fn two_digits_and_a_z_are_not_three_digits() {
        let expected = instant("2024-03-05T06:07:08.5Z");
        assert_eq!(timestamp("2024-03-05T06:07:08.50Z"), expected);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2024-3-5",
            "2024-02-30",
            "2023-02-29",
            "2024-13-01",
            "2024-03-05T",
            "2024-03-05T24:00:00",
            "2024-03-05T06:60:00",
            "2024-03-05T06:07:60",
            "2024-03-05T06:07:08.",
            "2024-03-05T06:07:08.1234567890",
            "2024-03-05T06:07:08,5",
            "2024-03-05t06:07:08",
            "2024-03-05T06:07:08 Z",
            "2024-03-05T06:07:08+24:00",
            "2024-03-05T06:07:08UTC",
            "1700000000",
            "2024/03/05 06:07:08",
            "２024-03-05",
        ] {
            assert_eq!(timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn dates_and_times_of_day_stand_alone() {
        assert_eq!(date("1970-01-02"), Some(1));
        assert_eq!(date("0000-03-01"), Some(-719_468));
        assert_eq!(date("1970-01-02T00:00:00"), None);
        assert_eq!(time_of_day("01:02:03.5"), Some(3_723_500_000));
        assert_eq!(time_of_day("01:02:03Z"), None);
    }

    proptest! {
        #[test]
        fn three_words_are_the_time_that_single_digits_are(
            text in "[0-9]{4}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,10})?(Z|z|[+-]0[0-9]:[0-9]{2})?",
            edit in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut text = text.into_bytes();
            prop_assert_eq!(super::instant(&text), any_instant(&text));
            if let Some((index, byte)) = edit {
                let index = index.index(text.len());
                text[index] = byte;
                prop_assert_eq!(super::instant(&text), any_instant(&text));
            }
        }

        #[test]
        fn days_agree_with_the_calendar_of_chrono(days in -719_162_i32..2_932_896) {
            let calendar = NaiveDate::from_epoch_days(days).expect("a day of the years 1 to 9999");
            prop_assert_eq!(date(&calendar.format("%Y-%m-%d").to_string()), Some(days));
        }
    }
}
