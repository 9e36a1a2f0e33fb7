//! Values of options: durations, sizes, moments, words.
//!
//! Called by `options`. Pure. Failure: a text that says what would have been understood.

use chrono::{DateTime, NaiveDate, NaiveDateTime};

/// `1 second`, `500 ms`, `5 minutes`, in microseconds.
pub(super) fn duration_micros(text: &str) -> Result<i64, String> {
    let (number, unit) = split_unit(text);
    let unit_micros: f64 = match unit.as_str() {
        "us" | "microsecond" | "microseconds" => 1.0,
        "ms" | "millisecond" | "milliseconds" => 1e3,
        "s" | "sec" | "second" | "seconds" => 1e6,
        "m" | "min" | "minute" | "minutes" => 60e6,
        "h" | "hour" | "hours" => 3_600e6,
        "d" | "day" | "days" => 86_400e6,
        "" => {
            return Err(format!(
                "{text:?} lacks its unit: write '{text} seconds' or '{text} ms'"
            ));
        }
        _ => return Err(not_a_duration(text)),
    };
    let number: f64 = number.parse().map_err(|_| not_a_duration(text))?;
    let micros = number * unit_micros;
    if !(0.0..9e18).contains(&micros) {
        return Err(not_a_duration(text));
    }
    Ok(micros.round() as i64)
}

fn not_a_duration(text: &str) -> String {
    format!("{text:?} is no duration: write it as '1 second', '500 ms' or '5 minutes'")
}

/// A duration in whole milliseconds.
pub(super) fn duration_millis(text: &str) -> Result<u64, String> {
    let micros = duration_micros(text)?;
    if micros > 0 && micros < 1_000 {
        return Err(format!("{text:?} is shorter than a millisecond"));
    }
    Ok(u64::try_from(micros / 1_000).unwrap_or(0))
}

/// `128 MiB`, `1 GB`, `4096`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let unit_bytes: f64 = match unit.as_str() {
        "" | "b" | "byte" | "bytes" => 1.0,
        "kb" => 1e3,
        "kib" => 1024.0,
        "mb" => 1e6,
        "mib" => 1024.0 * 1024.0,
        "gb" => 1e9,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(not_a_size(text)),
    };
    let number: f64 = number.parse().map_err(|_| not_a_size(text))?;
    let total = number * unit_bytes;
    if !(1.0..9e18).contains(&total) {
        return Err(not_a_size(text));
    }
    Ok(total.round() as u64)
}

fn not_a_size(text: &str) -> String {
    format!("{text:?} is no size: write it as '128 MiB' or '1 GiB'")
}

fn split_unit(text: &str) -> (String, String) {
    let text = text.trim();
    let end = text
        .find(|character: char| !(character.is_ascii_digit() || character == '.'))
        .unwrap_or(text.len());
    (text[..end].to_owned(), text[end..].trim().to_lowercase())
}

/// A moment in ISO 8601, in microseconds since 1970 UTC; without an offset it is UTC.
pub(super) fn moment_micros(text: &str) -> Result<i64, String> {
    if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
        return Ok(moment.timestamp_micros());
    }
    for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"] {
        if let Ok(moment) = NaiveDateTime::parse_from_str(text, format) {
            return Ok(moment.and_utc().timestamp_micros());
        }
    }
    if let Some(moment) = NaiveDate::parse_from_str(text, "%Y-%m-%d")
        .ok()
        .and_then(|date| date.and_hms_opt(0, 0, 0))
    {
        return Ok(moment.and_utc().timestamp_micros());
    }
    Err(format!(
        "{text:?} is no time: write it as '2026-01-17T10:15:00Z'"
    ))
}

/// A span of microseconds as people write it.
pub(super) fn show_micros(micros: i64) -> String {
    const UNITS: [(i64, &str); 6] = [
        (86_400_000_000, "day"),
        (3_600_000_000, "hour"),
        (60_000_000, "minute"),
        (1_000_000, "second"),
        (1_000, "ms"),
        (1, "us"),
    ];
    for (size, name) in UNITS {
        if micros != 0 && micros % size == 0 {
            let count = micros / size;
            let plural = if count == 1 || name.len() == 2 {
                ""
            } else {
                "s"
            };
            return format!("{count} {name}{plural}");
        }
    }
    "0 seconds".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration_millis("1 second"), Ok(1_000));
        assert_eq!(duration_millis("500 ms"), Ok(500));
        assert_eq!(duration_millis("1.5 s"), Ok(1_500));
        assert_eq!(duration_millis("5 minutes"), Ok(300_000));
        assert!(duration_millis("5").is_err_and(|text| text.contains("unit")));
        assert!(duration_millis("soon").is_err());
        assert!(duration_millis("-1 s").is_err());
    }

    #[test]
    fn sizes_know_both_kinds_of_units() {
        assert_eq!(bytes("128 MiB"), Ok(128 << 20));
        assert_eq!(bytes("1 GB"), Ok(1_000_000_000));
        assert_eq!(bytes("4096"), Ok(4096));
        assert!(bytes("big").is_err());
    }

    #[test]
    fn moments_are_utc_without_an_offset() {
        assert_eq!(moment_micros("1970-01-01T00:00:01Z"), Ok(1_000_000));
        assert_eq!(moment_micros("1970-01-01 00:00:01.5"), Ok(1_500_000));
        assert_eq!(moment_micros("1970-01-02"), Ok(86_400_000_000));
        assert_eq!(moment_micros("1970-01-01T01:00:00+01:00"), Ok(0));
        assert!(moment_micros("yesterday").is_err());
    }

    #[test]
    fn spans_are_shown_in_their_largest_whole_unit() {
        assert_eq!(show_micros(60_000_000), "1 minute");
        assert_eq!(show_micros(90_000_000), "90 seconds");
        assert_eq!(show_micros(1_500), "1500 us");
        assert_eq!(show_micros(500_000), "500 ms");
    }
}
