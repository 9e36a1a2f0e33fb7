//! Dates and times from ISO 8601 text.
//!
//! `YYYY-MM-DD`, then optionally `T` or a blank and `HH:MM[:SS[.1 to 9 digits]]`, then optionally `Z`, `+HH`, `+HHMM` or `+HH:MM`.
//! Digits beyond microseconds are cut; without an offset the time is UTC. Failure: `None`.

const MICROS_A_SECOND: i64 = 1_000_000;
const SECONDS_A_DAY: i64 = 86_400;

/// Days since 1970, from `YYYY-MM-DD` and nothing else.
pub(super) fn date(text: &str) -> Option<i32> {
    let (days, rest) = take_date(text.as_bytes())?;
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
    let (days, rest) = take_date(text.as_bytes())?;
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
    let is_day = (1..=12).contains(&month) && (1..=month_length(year, month)).contains(&day);
    is_day.then(|| (days_since_1970(year, month, day), rest))
}

fn month_length(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Counts in years that begin in March, so that the leap day is the last of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    /// From 0000-03-01 to 1970-01-01.
    const DAYS_BEFORE_1970: i64 = 719_468;
    let march_year = year - i64::from(month <= 2);
    let march_month = (month + 9) % 12;
    let leap_days =
        march_year.div_euclid(4) - march_year.div_euclid(100) + march_year.div_euclid(400);
    let days_before_month = (153 * march_month + 2) / 5;
    march_year * 365 + leap_days + days_before_month + day - 1 - DAYS_BEFORE_1970
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
        fn days_agree_with_the_calendar_of_chrono(days in -719_162_i32..2_932_896) {
            let calendar = NaiveDate::from_epoch_days(days).expect("a day of the years 1 to 9999");
            prop_assert_eq!(date(&calendar.format("%Y-%m-%d").to_string()), Some(days));
        }
    }
}
