//! Rows as JSON lines: what refused rows, the console and JSON files are written as.
//!
//! Every column stands in every object, NULL as `null`. Failure: only for types that JSON has no form for.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::json::writer::{LineDelimited, Writer, WriterBuilder};

/// A writer of one JSON object a line.
pub(crate) fn line_writer<W: Write>(to: W) -> Writer<W, LineDelimited> {
    WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, LineDelimited>(to)
}

/// One row as a JSON object; a value without a JSON form makes it say so instead.
pub(crate) fn row_json(rows: &RecordBatch, row: usize) -> String {
    match try_row_json(rows, row) {
        Ok(text) => text,
        Err(error) => serde_json::json!({ "unprintable": error.to_string() }).to_string(),
    }
}

fn try_row_json(rows: &RecordBatch, row: usize) -> Result<String, ArrowError> {
    let mut bytes = Vec::new();
    let mut writer = line_writer(&mut bytes);
    writer.write(&rows.slice(row, 1))?;
    writer.finish()?;
    drop(writer);
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.trim_end().to_owned())
}
