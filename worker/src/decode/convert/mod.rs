//! Conversions from a record's values to the types of columns: lossless, or none.
//!
//! Called by `columns.rs` for every value. Pure. The rules are those of DESIGN §2.1: text converts to numbers,
//! booleans and times; numbers and booleans convert to text as they are written; a number with a fraction is no
//! integer. Failure: [`Mismatch`], from which the caller makes a `type_mismatch`.

mod digits;
mod form;
pub(super) mod number;
pub(super) mod time;

use millstream_common::plan::connector::TimestampFormat;

use super::token::Value;

/// The value is none of the column's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    /// What to do about it, where that is known.
    pub(super) hint: Option<&'static str>,
}

/// A mismatch without advice.
pub(super) const MISMATCH: Mismatch = Mismatch { hint: None };

/// The result of a conversion.
pub(super) type Converted<T> = Result<T, Mismatch>;

/// BOOLEAN: `true`, `false`, and the words that Postgres knows, in any case.
pub(super) fn boolean(value: Value<'_>) -> Converted<bool> {
    const TRUE: [&str; 6] = ["true", "t", "yes", "y", "on", "1"];
    const FALSE: [&str; 6] = ["false", "f", "no", "n", "off", "0"];
    let is_among = |words: &[&str], text: &str| words.iter().any(|w| w.eq_ignore_ascii_case(text));
    match value {
        Value::Boolean(value) => Ok(value),
        Value::Text(text) if is_among(&TRUE, text.trim_ascii()) => Ok(true),
        Value::Text(text) if is_among(&FALSE, text.trim_ascii()) => Ok(false),
        _ => Err(MISMATCH),
    }
}

/// SMALLINT, INT, BIGINT: whole numbers, however they are written.
#[inline]
pub(super) fn integer<T: TryFrom<i64>>(value: Value<'_>) -> Converted<T> {
    let number = match value {
        Value::Number(text) => number::integer(text),
        Value::Text(text) => number::integer(text.trim_ascii()),
        Value::Integer(number) => Some(number),
        _ => None,
    };
    number
        .and_then(|number| T::try_from(number).ok())
        .ok_or(MISMATCH)
}

/// DOUBLE: the nearest; beyond the range is none.
pub(super) fn double(value: Value<'_>) -> Converted<f64> {
    number::double(number_text(value)?.as_bytes()).ok_or(MISMATCH)
}

/// REAL: the nearest; beyond the range is none.
pub(super) fn real(value: Value<'_>) -> Converted<f32> {
    number::real(number_text(value)?.as_bytes()).ok_or(MISMATCH)
}

/// NUMERIC(precision, scale): exactly.
pub(super) fn decimal(value: Value<'_>, precision: u8, scale: i8) -> Converted<i128> {
    let text = number_text(value)?;
    number::decimal(text, precision, scale).ok_or(MISMATCH)
}

fn number_text(value: Value<'_>) -> Converted<&str> {
    match value {
        Value::Number(text) => Ok(text),
        Value::Text(text) => Ok(text.trim_ascii()),
        _ => Err(MISMATCH),
    }
}

/// TEXT: numbers and booleans as they are written.
#[inline]
pub(super) fn text(value: Value<'_>) -> Converted<&str> {
    match value {
        Value::Text(text) | Value::Number(text) => Ok(text),
        Value::Boolean(true) => Ok("true"),
        Value::Boolean(false) => Ok("false"),
        Value::Json(_) => Err(Mismatch {
            hint: Some("declare the column as JSON to keep objects and arrays"),
        }),
        _ => Err(MISMATCH),
    }
}

/// JSON: any value as it is written; text that comes from elsewhere must be well formed.
pub(super) fn json(value: Value<'_>) -> Converted<&str> {
    match value {
        Value::Json(source) => Ok(source),
        Value::Text(text) => match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) => Ok(text),
            Err(_) => Err(MISMATCH),
        },
        _ => Err(MISMATCH),
    }
}

/// BYTEA: text in Postgres' form, `\x` and two hexadecimal digits a byte; written to `target`.
pub(super) fn bytes(value: Value<'_>, target: &mut Vec<u8>) -> Converted<()> {
    target.clear();
    let Value::Text(text) = value else {
        return Err(MISMATCH);
    };
    let digits = text.strip_prefix("\\x").ok_or(Mismatch {
        hint: Some("bytes are written as \\x and hexadecimal digits"),
    })?;
    if !digits.len().is_multiple_of(2) {
        return Err(MISMATCH);
    }
    for pair in digits.as_bytes().chunks(2) {
        let byte = super::json::escape::hex(Some(pair)).ok_or(MISMATCH)?;
        target.push(byte as u8);
    }
    Ok(())
}

/// DATE: days since 1970, from `YYYY-MM-DD`.
pub(super) fn date(value: Value<'_>) -> Converted<i32> {
    match value {
        Value::Text(text) => time::date(text.trim_ascii()).ok_or(MISMATCH),
        _ => Err(MISMATCH),
    }
}

/// TIME: microseconds since midnight.
pub(super) fn time_of_day(value: Value<'_>) -> Converted<i64> {
    match value {
        Value::Text(text) => time::time_of_day(text.trim_ascii()).ok_or(MISMATCH),
        _ => Err(MISMATCH),
    }
}

/// TIMESTAMP and TIMESTAMPTZ: microseconds since 1970 UTC. Text in ISO 8601; numbers and digits only if the source says
/// what they count.
#[inline]
pub(super) fn timestamp(value: Value<'_>, format: TimestampFormat) -> Converted<i64> {
    match value {
        Value::Instant(micros) => Ok(micros),
        Value::Text(text) => match time::timestamp(text) {
            Some(micros) => Ok(micros),
            None => {
                let trimmed = text.trim_ascii();
                time::timestamp(trimmed).map_or_else(|| number_timestamp(trimmed, format), Ok)
            }
        },
        Value::Number(text) => number_timestamp(text, format),
        _ => Err(MISMATCH),
    }
}

fn number_timestamp(text: &str, format: TimestampFormat) -> Converted<i64> {
    let digits = match format {
        TimestampFormat::Iso if number::integer(text).is_some() => {
            return Err(Mismatch {
                hint: Some(
                    "numbers are times only with timestamp_format = 'unix_s', 'unix_ms' or 'unix_us'",
                ),
            });
        }
        TimestampFormat::Iso => return Err(MISMATCH),
        TimestampFormat::UnixS => 6,
        TimestampFormat::UnixMs => 3,
        TimestampFormat::UnixUs => 0,
    };
    number::floor_scaled(text, digits).ok_or(MISMATCH)
}
