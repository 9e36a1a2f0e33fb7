//! Tests of the decoder. Goal: each rule of DESIGN §2.1 for types, JSON, CSV, late rows and dead letters holds. Method:
//! plans made by hand, records in, and the decoded columns and dead letters compared as text.

mod conversions;
mod csv;
mod expected;
mod late;
mod records;
mod typed;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field, TimeUnit};
use arrow::util::display::array_value_to_string;
use datafusion::prelude::Expr;
use millstream_common::plan::connector::{KafkaSourceSpec, KafkaStart, TimestampFormat};
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{
    CheckPlan, ColumnOrigin, FormatSpec, OnViolation, PlanExpression, SourceColumn, SourcePlan,
    SourceSpec, WatermarkPlan,
};
use millstream_common::time::{Clock, EventSpan};

use super::*;
use crate::consume::DecodedRows;

/// 2024-03-05T00:00:00Z.
pub(crate) const RECEIVED_AT: i64 = 1_709_596_800_000_000;

/// A clock that stands still.
#[derive(Debug)]
pub(crate) struct StillClock;

impl Clock for StillClock {
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn unix_micros(&self) -> i64 {
        RECEIVED_AT
    }
}

/// A JSON source without columns; tests add to it.
pub(crate) fn source() -> SourcePlan {
    SourcePlan {
        name: "clicks".to_owned(),
        spec: SourceSpec::Kafka(KafkaSourceSpec {
            brokers: String::new(),
            topic: "clicks".to_owned(),
            start: KafkaStart::Earliest,
            end: None,
            group_id: None,
            properties: Default::default(),
            discovery_interval_ms: 0,
            on_gap: Default::default(),
        }),
        format: FormatSpec::Json {
            timestamp_format: TimestampFormat::Iso,
            record_bytes_max: 1 << 20,
        },
        columns: Vec::new(),
        checks: Vec::new(),
        on_violation: OnViolation::DeadLetter,
        watermark: None,
        keeps_time: true,
        idle_timeout_ms: None,
        bounded: false,
    }
}

pub(crate) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

pub(crate) fn column(name: &str, data_type: DataType, nullable: bool) -> SourceColumn {
    let type_name = match &data_type {
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::Utf8 => "TEXT".to_owned(),
        DataType::Timestamp(_, None) => "TIMESTAMP".to_owned(),
        other => other.to_string(),
    };
    SourceColumn {
        field: Field::new(name, data_type, nullable),
        origin: ColumnOrigin::Record,
        type_name,
    }
}

pub(crate) fn expression(expression: Expr, text: &str) -> PlanExpression {
    PlanExpression::encode(&expression, text).expect("expression")
}

fn check(name: Option<&str>, condition: Expr, text: &str) -> CheckPlan {
    CheckPlan {
        name: name.map(str::to_owned),
        condition: expression(condition, text),
    }
}

/// Five seconds of delay on the column with this index.
pub(crate) fn watermark(column: usize) -> Option<WatermarkPlan> {
    Some(WatermarkPlan {
        column,
        delay: EventSpan(5_000_000),
    })
}

pub(crate) fn decoder(plan: &SourcePlan) -> SourceDecoder {
    SourceDecoder::new(plan, &Functions::new(), Arc::new(StillClock), false).expect("decoder")
}

fn open(decoder: &mut SourceDecoder) -> SplitSlot {
    decoder.open_split(OpenSplit {
        origin: "clicks-0".to_owned(),
        partition: Some(0),
        watermark: None,
        moves: WatermarkMoves::WithRows,
    })
}

fn record(slot: SplitSlot, position: i64, payload: &[u8]) -> RecordRef<'_> {
    RecordRef {
        slot,
        position,
        payload: Some(payload),
        key: None,
        timestamp_ms: None,
        headers: None,
    }
}

/// Decodes each payload as a record, from position 0.
fn decode(decoder: &mut SourceDecoder, slot: SplitSlot, payloads: &[&str]) -> DecodedRows {
    let records: Vec<RecordRef<'_>> = payloads
        .iter()
        .enumerate()
        .map(|(index, payload)| record(slot, index as i64, payload.as_bytes()))
        .collect();
    decoder.decode_records(&records).expect("decode")
}

/// One line a row, cells with `|` between them, NULL as `-`.
pub(crate) fn lines(batch: &RecordBatch) -> Vec<String> {
    (0..batch.num_rows())
        .map(|row| {
            let cells = batch
                .columns()
                .iter()
                .map(|column| match column.is_null(row) {
                    true => "-".to_owned(),
                    false => array_value_to_string(column, row).expect("a cell"),
                });
            cells.collect::<Vec<String>>().join("|")
        })
        .collect()
}

/// Position, code and reason of each dead letter.
pub(crate) fn reasons(rows: &DecodedRows) -> Vec<String> {
    match &rows.rejects {
        None => Vec::new(),
        Some(rejects) => lines(&rejects.project(&[2, 5, 6]).expect("columns")),
    }
}
