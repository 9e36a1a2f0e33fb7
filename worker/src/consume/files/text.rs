//! Files of JSON lines and of CSV: from windows of bytes to rows.
//!
//! Called by `reading.rs`. Where a record ends never depends on where a window ends, so that a position counts the same
//! records after a restart (INV-5).

use std::ops::Range;

use millstream_common::dead_letter::Code;
use millstream_common::plan::FormatSpec;

use super::input::{Input, Rest, Window};
use super::{FileError, Part, Place};
use crate::decode::csv::{CsvFile, CsvWindow};
use crate::decode::{DecodeError, RecordRef, SourceDecoder};

/// What a dead letter keeps of the bytes before a file breaks off.
const BROKEN_BYTES_KEPT: usize = 64 << 10;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A text file being read.
pub(super) struct TextFile {
    input: Input,
    records: Splitting,
}

enum Splitting {
    Lines(Lines),
    Csv(Box<CsvFile>),
}

impl TextFile {
    /// Begins a file of the decoder's source.
    pub(super) fn new(
        input: Input,
        format: &FormatSpec,
        decoder: &SourceDecoder,
    ) -> Result<Self, DecodeError> {
        let records = match format {
            FormatSpec::Json {
                record_bytes_max, ..
            } => Splitting::Lines(Lines::new(*record_bytes_max)),
            _ => Splitting::Csv(Box::new(CsvFile::new(decoder)?)),
        };
        Ok(Self { input, records })
    }

    /// The next records, up to `place.records_max`.
    pub(super) fn next(
        &mut self,
        window: &mut Window,
        decoder: &mut SourceDecoder,
        place: Place,
    ) -> Result<Part, FileError> {
        loop {
            let mut part = match &mut self.records {
                Splitting::Lines(lines) => lines.next(window, decoder, place)?,
                Splitting::Csv(csv) => next_csv(csv, window, decoder, place)?,
            };
            let is_exhausted = window.bytes().is_empty() && matches!(window.rest(), Rest::End);
            part.is_last |= is_exhausted;
            if part.rows.is_some() || part.is_last {
                return Ok(part);
            }
            if let Rest::Broken(cause) = window.rest() {
                return broken(window.bytes(), cause, decoder, place);
            }
            window.fill(&mut self.input)?;
        }
    }
}

/// The dead letter of a file that breaks off.
fn broken(
    rest: &[u8],
    cause: &str,
    decoder: &mut SourceDecoder,
    place: Place,
) -> Result<Part, FileError> {
    let payload = &rest[..rest.len().min(BROKEN_BYTES_KEPT)];
    let reason = format!("the file cannot be decompressed from here on: {cause}");
    let rows = decoder.refuse(
        place.slot,
        place.position + 1,
        Some(payload),
        Code::Malformed,
        reason,
    )?;
    Ok(Part {
        record_count: 1,
        rows: Some(rows),
        is_last: true,
    })
}

fn next_csv(
    csv: &mut CsvFile,
    window: &mut Window,
    decoder: &mut SourceDecoder,
    place: Place,
) -> Result<Part, FileError> {
    let step = csv.decode(
        decoder,
        CsvWindow {
            slot: place.slot,
            first_position: place.position + 1,
            bytes: window.bytes(),
            is_last: matches!(window.rest(), Rest::End),
            records_max: place.records_max,
        },
    )?;
    window.consume(step.consumed);
    let record_count = match (&step.rows, step.is_refused) {
        (Some(rows), false) => rows.counters.read as i64,
        _ => 0,
    };
    Ok(Part {
        record_count,
        rows: step.rows,
        is_last: step.is_refused,
    })
}

/// Splits a window at newlines; lines without a value are no records.
struct Lines {
    record_bytes_max: usize,
    /// Inside a line that is too long: nothing counts before the next newline.
    is_skipping: bool,
    is_begun: bool,
    found: Vec<Range<usize>>,
}

impl Lines {
    fn new(record_bytes_max: usize) -> Self {
        Self {
            record_bytes_max,
            is_skipping: false,
            is_begun: false,
            found: Vec::new(),
        }
    }

    fn next(
        &mut self,
        window: &mut Window,
        decoder: &mut SourceDecoder,
        place: Place,
    ) -> Result<Part, FileError> {
        let is_last = matches!(window.rest(), Rest::End);
        let consumed = self.split(window.bytes(), is_last, place.records_max);
        let mut part = Part {
            record_count: self.found.len() as i64,
            rows: None,
            is_last: false,
        };
        if !self.found.is_empty() {
            let bytes = window.bytes();
            let record = |(index, line): (usize, &Range<usize>)| RecordRef {
                slot: place.slot,
                position: place.position + 1 + index as i64,
                payload: Some(&bytes[line.clone()]),
                key: None,
                timestamp_ms: None,
                headers: None,
            };
            let records: Vec<RecordRef<'_>> = self.found.iter().enumerate().map(record).collect();
            part.rows = Some(decoder.decode_records(&records)?);
        }
        window.consume(consumed);
        Ok(part)
    }

    /// Finds up to `lines_max` lines; how many bytes they and what lies between them take.
    fn split(&mut self, bytes: &[u8], is_last: bool, lines_max: usize) -> usize {
        self.found.clear();
        let mut at = 0;
        if !self.is_begun && bytes.starts_with(BYTE_ORDER_MARK) {
            at = BYTE_ORDER_MARK.len();
        }
        self.is_begun |= !bytes.is_empty();
        while self.found.len() < lines_max && at < bytes.len() {
            let newline = memchr::memchr(b'\n', &bytes[at..]).map(|length| at + length);
            if self.is_skipping {
                self.is_skipping = newline.is_none();
                at = newline.map_or(bytes.len(), |newline| newline + 1);
                continue;
            }
            let is_long = bytes.len() - at > self.record_bytes_max + 1;
            let end = match newline {
                Some(newline) => newline,
                None if is_last || is_long => bytes.len(),
                None => break,
            };
            self.is_skipping = newline.is_none() && !is_last;
            let line = &bytes[at..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            // Of a long line as much as shows that it is too long, wherever the window ends.
            let length = line.len().min(self.record_bytes_max + 1);
            if length > self.record_bytes_max || !line.trim_ascii().is_empty() {
                self.found.push(at..at + length);
            }
            at = newline.map_or(end, |newline| newline + 1);
        }
        at
    }
}
