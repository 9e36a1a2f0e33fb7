//! Which values of ours go into which columns of Postgres, and how they are written there.
//!
//! Decided once a connection from the output's Arrow types and the table's real column types. What loses nothing is
//! converted (an INTEGER into a bigint column); what might is refused with the line to change, so that nothing is
//! ever rounded or cut silently. Pure.

use arrow::datatypes::{DataType, TimeUnit};

/// A column's type as the catalog has it; of a domain, its base type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TargetType {
    /// `pg_type.typname`: `int8`, `timestamptz`.
    pub name: String,
    /// As people write it: `numeric(10,2)`.
    pub shown: String,
    /// `pg_attribute.atttypmod`: -1 is none.
    pub modifier: i32,
    /// An enumeration: its binary form is its label.
    pub is_enum: bool,
}

/// How the values of one column are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Encoding {
    /// The binary format.
    pub wire: Wire,
    /// What the values are converted to before they are written; always without loss.
    pub cast: DataType,
}

/// Binary formats of Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Text,
    Jsonb,
    Uuid,
    Bytea,
    Date,
    Time,
    Timestamp,
}

const MICROSECONDS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// How values of type `source` are written into a column of type `target`; `None` if that could
/// lose something or makes no sense.
pub(super) fn encoding(source: &DataType, target: &TargetType) -> Option<Encoding> {
    use DataType as Arrow;
    let source = canonical(source);
    if source == Arrow::Null {
        return Some(plain(Wire::Text, Arrow::Utf8));
    }
    let wire = match (target.name.as_str(), &source) {
        ("bool", Arrow::Boolean) => Wire::Bool,
        ("int2", Arrow::Int16) => Wire::Int2,
        ("int4", Arrow::Int16 | Arrow::Int32) => return Some(plain(Wire::Int4, Arrow::Int32)),
        ("int8", Arrow::Int16 | Arrow::Int32 | Arrow::Int64) => {
            return Some(plain(Wire::Int8, Arrow::Int64));
        }
        ("float4", Arrow::Int16 | Arrow::Float32) => {
            return Some(plain(Wire::Float4, Arrow::Float32));
        }
        ("float8", Arrow::Int16 | Arrow::Int32 | Arrow::Float32 | Arrow::Float64) => {
            return Some(plain(Wire::Float8, Arrow::Float64));
        }
        ("numeric", _) => return numeric(&source, target.modifier),
        ("text" | "varchar" | "bpchar" | "citext" | "json" | "name", Arrow::Utf8) => Wire::Text,
        (_, Arrow::Utf8) if target.is_enum => Wire::Text,
        ("jsonb", Arrow::Utf8) => Wire::Jsonb,
        ("uuid", Arrow::Utf8) => Wire::Uuid,
        ("bytea", Arrow::Binary) => Wire::Bytea,
        ("date", Arrow::Date32) => Wire::Date,
        ("time", Arrow::Time64(_)) => Wire::Time,
        ("timestamp", Arrow::Timestamp(_, None) | Arrow::Date32)
        | ("timestamptz", Arrow::Timestamp(_, _)) => {
            // Without a zone means UTC, so an instant is the same count of microseconds.
            let is_date = source == Arrow::Date32;
            let cast = if is_date { MICROSECONDS } else { source };
            return Some(plain(Wire::Timestamp, cast));
        }
        _ => return None,
    };
    Some(plain(wire, source))
}

fn plain(wire: Wire, cast: DataType) -> Encoding {
    Encoding { wire, cast }
}

/// Postgres rounds to the column's scale without a word, so a smaller scale is refused; too many digits in front
/// of the point are an error of the row.
fn numeric(source: &DataType, modifier: i32) -> Option<Encoding> {
    let cast = match source {
        DataType::Int16 | DataType::Int32 | DataType::Int64 => DataType::Decimal128(19, 0),
        DataType::Decimal128(_, _) => source.clone(),
        _ => return None,
    };
    let DataType::Decimal128(_, scale) = cast else {
        return None;
    };
    let fits = numeric_scale(modifier).is_none_or(|kept| i32::from(scale) <= kept);
    fits.then(|| plain(Wire::Numeric, cast))
}

/// The scale in the modifier of a numeric column: 11 bits, signed.
fn numeric_scale(modifier: i32) -> Option<i32> {
    const HEADER: i32 = 4;
    (modifier >= HEADER).then(|| (((modifier - HEADER) & 0x7ff) ^ 1024) - 1024)
}

/// One Arrow type for each kind of value that we write.
pub(super) fn canonical(source: &DataType) -> DataType {
    use DataType as Arrow;
    match source {
        Arrow::Dictionary(_, values) => canonical(values),
        Arrow::Utf8View | Arrow::LargeUtf8 => Arrow::Utf8,
        Arrow::BinaryView | Arrow::LargeBinary | Arrow::FixedSizeBinary(_) => Arrow::Binary,
        Arrow::Int8 | Arrow::UInt8 => Arrow::Int16,
        Arrow::UInt16 => Arrow::Int32,
        Arrow::UInt32 => Arrow::Int64,
        Arrow::UInt64 => Arrow::Decimal128(20, 0),
        Arrow::Float16 => Arrow::Float32,
        Arrow::Decimal32(precision, scale) | Arrow::Decimal64(precision, scale) => {
            Arrow::Decimal128(*precision, *scale)
        }
        Arrow::Date64 => Arrow::Date32,
        Arrow::Time32(_) | Arrow::Time64(_) => Arrow::Time64(TimeUnit::Microsecond),
        Arrow::Timestamp(_, zone) => Arrow::Timestamp(TimeUnit::Microsecond, zone.clone()),
        other => other.clone(),
    }
}

/// The Postgres type that holds values of `source` best; `None` if none does.
pub(super) fn best_type(source: &DataType) -> Option<String> {
    use DataType as Arrow;
    /// A sum may have any number of digits: its precision is Arrow's limit, not a promise.
    const UNBOUNDED: u8 = 38;
    let name = match canonical(source) {
        Arrow::Boolean => "boolean",
        Arrow::Int16 => "smallint",
        Arrow::Int32 => "integer",
        Arrow::Int64 => "bigint",
        Arrow::Float32 => "real",
        Arrow::Float64 => "double precision",
        Arrow::Decimal128(precision, scale) if precision == UNBOUNDED || scale < 0 => "numeric",
        Arrow::Decimal128(precision, scale) => {
            return Some(format!("numeric({precision},{scale})"));
        }
        Arrow::Utf8 | Arrow::Null => "text",
        Arrow::Binary => "bytea",
        Arrow::Date32 => "date",
        Arrow::Time64(_) => "time",
        Arrow::Timestamp(_, None) => "timestamp",
        Arrow::Timestamp(_, Some(_)) => "timestamptz",
        _ => return None,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str, modifier: i32) -> TargetType {
        TargetType {
            name: name.to_owned(),
            shown: name.to_owned(),
            modifier,
            is_enum: false,
        }
    }

    fn wire(source: DataType, name: &str, modifier: i32) -> Option<Wire> {
        encoding(&source, &target(name, modifier)).map(|encoding| encoding.wire)
    }

    /// `numeric(precision, scale)` as `atttypmod`.
    fn modifier(precision: i32, scale: i32) -> i32 {
        ((precision << 16) | (scale & 0x7ff)) + 4
    }

    #[test]
    fn what_loses_nothing_is_converted() {
        assert_eq!(wire(DataType::Int32, "int8", -1), Some(Wire::Int8));
        assert_eq!(wire(DataType::Utf8View, "jsonb", -1), Some(Wire::Jsonb));
        assert_eq!(wire(DataType::Int64, "numeric", -1), Some(Wire::Numeric));
        assert_eq!(wire(DataType::Float32, "float8", -1), Some(Wire::Float8));
        assert_eq!(wire(MICROSECONDS, "timestamptz", -1), Some(Wire::Timestamp));
        assert_eq!(wire(DataType::Null, "inet", -1), Some(Wire::Text));
    }

    #[test]
    fn what_might_lose_something_is_refused() {
        assert_eq!(wire(DataType::Int64, "int4", -1), None);
        assert_eq!(wire(DataType::Int64, "float8", -1), None);
        assert_eq!(wire(DataType::Float64, "numeric", -1), None);
        assert_eq!(wire(DataType::Decimal128(38, 0), "int8", -1), None);
        let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        assert_eq!(wire(instant, "timestamp", -1), None);
        assert_eq!(wire(DataType::Utf8, "int4", -1), None);
    }

    #[test]
    fn a_numeric_column_must_keep_every_digit_behind_the_point() {
        let source = DataType::Decimal128(20, 4);
        assert_eq!(
            wire(source.clone(), "numeric", modifier(10, 4)),
            Some(Wire::Numeric)
        );
        assert_eq!(wire(source, "numeric", modifier(10, 2)), None);
        assert_eq!(wire(DataType::Int64, "numeric", modifier(5, -2)), None);
    }
}
