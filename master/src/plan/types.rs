//! SQL types and the Arrow types that carry them.
//!
//! Called for the columns of sources, for casts inside expressions ([`MillstreamTypes`] is DataFusion's type planner)
//! and for error texts. Times are microseconds; an instant is in UTC; text is Utf8. Failure: a type
//! without a meaning here is named, with the nearest that has one.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::error::Result;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::{DataType as SqlType, ExactNumberInfo, TimezoneInfo};

use super::problem::{Place, Problem};

/// TIMESTAMP: microseconds, no zone.
pub(super) const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// TIMESTAMPTZ: an instant, in UTC.
pub(super) fn timestamptz() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// NUMERIC without precision, and the sum of BIGINT.
pub(super) const SUM_NUMERIC: DataType = DataType::Decimal128(38, 0);

const NAMES: [&str; 13] = [
    "TEXT",
    "BIGINT",
    "INTEGER",
    "SMALLINT",
    "DOUBLE PRECISION",
    "REAL",
    "NUMERIC",
    "BOOLEAN",
    "DATE",
    "TIMESTAMP",
    "TIMESTAMPTZ",
    "BYTEA",
    "JSON",
];

/// Makes casts inside expressions mean the same types as columns.
#[derive(Debug)]
pub(super) struct MillstreamTypes;

impl TypePlanner for MillstreamTypes {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        Ok(arrow_type(sql_type).map(|data_type| Arc::new(Field::new("", data_type, true))))
    }
}

/// The Arrow type of a declared column.
pub(super) fn column_type(sql_type: &SqlType, place: Place) -> Result<DataType, Problem> {
    if let Some(data_type) = arrow_type(sql_type) {
        return Ok(data_type);
    }
    let text = sql_type.to_string();
    let problem = Problem::at(place, format!("unknown type {text}"));
    let name = text.split('(').next().unwrap_or(&text);
    Err(match millstream_common::suggest::nearest(name, NAMES) {
        Some(nearest) => problem.hint(format!("did you mean {nearest}?")),
        None => problem.hint(format!("types are {}", NAMES.join(", "))),
    })
}

fn arrow_type(sql_type: &SqlType) -> Option<DataType> {
    Some(match sql_type {
        SqlType::Text
        | SqlType::String(None)
        | SqlType::Varchar(_)
        | SqlType::CharacterVarying(_)
        | SqlType::CharVarying(_)
        | SqlType::Uuid
        | SqlType::JSON
        | SqlType::JSONB => DataType::Utf8,
        SqlType::BigInt(_) | SqlType::Int8(_) | SqlType::Int64 => DataType::Int64,
        SqlType::Integer(_) | SqlType::Int(_) | SqlType::Int4(_) | SqlType::Int32 => {
            DataType::Int32
        }
        SqlType::SmallInt(_) | SqlType::Int2(_) | SqlType::Int16 => DataType::Int16,
        SqlType::DoublePrecision
        | SqlType::Double(ExactNumberInfo::None)
        | SqlType::Float8
        | SqlType::Float64
        | SqlType::Float(ExactNumberInfo::None) => DataType::Float64,
        SqlType::Real | SqlType::Float4 | SqlType::Float32 => DataType::Float32,
        SqlType::Numeric(info) | SqlType::Decimal(info) | SqlType::Dec(info) => numeric(info)?,
        SqlType::Boolean | SqlType::Bool => DataType::Boolean,
        SqlType::Date => DataType::Date32,
        SqlType::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => TIMESTAMP,
        SqlType::Timestamp(_, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone) => timestamptz(),
        SqlType::Bytea => DataType::Binary,
        _ => return None,
    })
}

fn numeric(info: &ExactNumberInfo) -> Option<DataType> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => (38, 10),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    let precision = u8::try_from(precision)
        .ok()
        .filter(|p| (1..=38).contains(p))?;
    let scale = i8::try_from(scale)
        .ok()
        .filter(|s| *s >= 0 && *s <= precision as i8)?;
    Some(DataType::Decimal128(precision, scale))
}

/// The SQL name of an Arrow type, for people.
pub(crate) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => "TEXT".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::Int32 => "INTEGER".to_owned(),
        DataType::Int16 => "SMALLINT".to_owned(),
        DataType::Float64 => "DOUBLE PRECISION".to_owned(),
        DataType::Float32 => "REAL".to_owned(),
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Timestamp(_, None) => "TIMESTAMP".to_owned(),
        DataType::Timestamp(_, Some(_)) => "TIMESTAMPTZ".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTEA".to_owned(),
        DataType::Decimal128(precision, scale) => format!("NUMERIC({precision},{scale})"),
        DataType::Time64(_) | DataType::Time32(_) => "TIME".to_owned(),
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL".to_owned(),
        other => other.to_string().to_uppercase(),
    }
}

/// The type that relations carry where an expression has `data_type`; `None` if rows cannot carry it.
pub(super) fn carried_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Int8 | DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Timestamp(_, None) => TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => timestamptz(),
        DataType::Dictionary(_, value) => carried_type(value)?,
        DataType::Utf8
        | DataType::Binary
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Boolean
        | DataType::Date32
        | DataType::Decimal128(..) => data_type.clone(),
        _ => return None,
    })
}

/// Whether the type is TIMESTAMP or TIMESTAMPTZ.
pub(super) fn is_time(data_type: &DataType) -> bool {
    *data_type == TIMESTAMP || *data_type == timestamptz()
}
