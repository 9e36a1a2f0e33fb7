//! Dead letters: the rows of `<source>.dead_letters` for the refused records of a batch.
//!
//! Called by `decoder.rs` at the end of a batch. The payload is kept exactly, as text where it is text and as bytes
//! beside it where it is not; only of records that are too long a beginning is kept.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    BinaryBuilder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::error::ArrowError;
use millstream_common::dead_letter::{Code, schema};

use super::input::{Payload, Records};
use super::refusals::Refusal;
use super::splits::Splits;

/// What a dead letter keeps of a record over `record_bytes_max`.
const TOO_LONG_BYTES_KEPT: usize = 64 << 10;

/// The dead letters of `refusals`, in order.
pub(super) fn batch(
    source: &str,
    refusals: &[Refusal],
    records: &impl Records,
    splits: &Splits,
    received_at: i64,
) -> Result<RecordBatch, ArrowError> {
    let mut sources = StringBuilder::new();
    let mut origins = StringBuilder::new();
    let mut positions = Int64Builder::new();
    let mut payloads = PayloadBuilder::default();
    let mut codes = StringBuilder::new();
    let mut reasons = StringBuilder::new();
    let mut event_times = TimestampMicrosecondBuilder::new();
    let mut received = TimestampMicrosecondBuilder::new().with_timezone("UTC");
    for refusal in refusals {
        let record = refusal.record;
        sources.append_value(source);
        origins.append_value(&splits.get(records.slot(record)).origin);
        positions.append_value(records.position(record));
        payloads.append(records.payload(record), refusal.code);
        codes.append_value(refusal.code.as_str());
        reasons.append_value(&refusal.reason);
        event_times.append_option(refusal.event_time);
        received.append_value(received_at);
    }
    RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(sources.finish()),
            Arc::new(origins.finish()),
            Arc::new(positions.finish()),
            Arc::new(payloads.text.finish()),
            Arc::new(payloads.bytes.finish()),
            Arc::new(codes.finish()),
            Arc::new(reasons.finish()),
            Arc::new(event_times.finish()),
            Arc::new(received.finish()),
        ],
    )
}

#[derive(Default)]
struct PayloadBuilder {
    text: StringBuilder,
    bytes: BinaryBuilder,
}

impl PayloadBuilder {
    fn append(&mut self, payload: Payload<'_>, code: Code) {
        let bytes = match payload {
            Payload::Null => {
                self.text.append_null();
                return self.bytes.append_null();
            }
            Payload::Text(text) => {
                self.text.append_value(text);
                return self.bytes.append_null();
            }
            Payload::Bytes(bytes) if code == Code::TooLong => beginning(bytes),
            Payload::Bytes(bytes) => bytes,
        };
        match std::str::from_utf8(bytes) {
            Ok(text) => {
                self.text.append_value(text);
                self.bytes.append_null();
            }
            Err(_) => {
                self.text.append_value(shown_bytes(bytes));
                self.bytes.append_value(bytes);
            }
        }
    }
}

/// The first bytes of a long record, not cut inside a character.
fn beginning(bytes: &[u8]) -> &[u8] {
    let kept = &bytes[..bytes.len().min(TOO_LONG_BYTES_KEPT)];
    match kept.utf8_chunks().last() {
        Some(last) if last.invalid().len() < 4 && kept.len() < bytes.len() => {
            &kept[..kept.len() - last.invalid().len()]
        }
        _ => kept,
    }
}

/// Text where it is text, `\xNN` for every other byte.
fn shown_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_shown_one_by_one() {
        assert_eq!(shown_bytes(b"a\xff\xfeb\xc3\xa4"), "a\\xFF\\xFEbä");
    }

    #[test]
    fn the_beginning_of_a_long_record_does_not_end_inside_a_character() {
        let text = "ä".repeat(TOO_LONG_BYTES_KEPT);
        let shifted = format!("a{text}");
        let kept = beginning(shifted.as_bytes());
        assert_eq!(kept.len(), TOO_LONG_BYTES_KEPT - 1);
        assert!(std::str::from_utf8(kept).is_ok());
        assert_eq!(beginning(b"short"), b"short");
    }
}
