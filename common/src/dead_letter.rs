//! The shape of dead letters: the relation that sources, sinks and views with a keyed operator have beside their rows.
//!
//! Filled by `worker/src/decode`, by tasks on whose rows an expression fails, and by sinks that refuse rows; read by users as
//! `<source>.dead_letters`, `<view>.dead_letters`, `<sink>.dead_letters`.
//! One row a record, the first failure by column order. Columns: see [`schema`].

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// Why a record was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// Not well formed: broken JSON, an unclosed quote, bytes that are not UTF-8.
    Malformed,
    /// A Kafka record without a value.
    NullPayload,
    /// A value that does not convert to its column's type without loss.
    TypeMismatch,
    /// NULL in a NOT NULL column.
    NullViolation,
    /// A CHECK that is false.
    CheckViolation,
    /// A CSV header that lacks or adds a column; the file is done.
    Header,
    /// A CSV record with more or fewer fields than the header.
    Columns,
    /// A record over `record_bytes_max`.
    TooLong,
    /// Older than the watermark of its split.
    Late,
    /// An expression that fails on this row.
    Expression,
    /// Refused by a sink.
    SinkRejected,
}

impl Code {
    /// Every code, in the order in which a row meets them.
    pub const ALL: [Self; 11] = [
        Self::Malformed,
        Self::NullPayload,
        Self::TypeMismatch,
        Self::NullViolation,
        Self::CheckViolation,
        Self::Header,
        Self::Columns,
        Self::TooLong,
        Self::Late,
        Self::Expression,
        Self::SinkRejected,
    ];

    /// The code as it stands in the `code` column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NullPayload => "null_payload",
            Self::TypeMismatch => "type_mismatch",
            Self::NullViolation => "null_violation",
            Self::CheckViolation => "check_violation",
            Self::Header => "header",
            Self::Columns => "columns",
            Self::TooLong => "too_long",
            Self::Late => "late",
            Self::Expression => "expression",
            Self::SinkRejected => "sink_rejected",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Columns, in this order: source TEXT, origin TEXT (`topic-3` or file URL), position BIGINT (offset;
/// 1-based record number), payload TEXT (bytes that are no text shown as \xNN), payload_bytes BYTEA (only
/// where payload is not exact), code TEXT, reason TEXT (names column or rule), event_time TIMESTAMP,
/// received_at TIMESTAMPTZ.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("source", DataType::Utf8, false),
        Field::new("origin", DataType::Utf8, false),
        Field::new("position", DataType::Int64, false),
        Field::new("payload", DataType::Utf8, true),
        Field::new("payload_bytes", DataType::Binary, true),
        Field::new("code", DataType::Utf8, false),
        Field::new("reason", DataType::Utf8, false),
        Field::new(
            "event_time",
            DataType::Timestamp(TimeUnit::Microsecond, None),
            true,
        ),
        Field::new(
            "received_at",
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            false,
        ),
    ]))
}
