//! CSV files: header, records, and what is wrong with them.
//!
//! Called by `consume/files`, one [`CsvFile`] a file, with a window of its bytes. Owns the order of the file's columns and
//! the splitter's state. Records are numbered from 1, the header not counted, and cut the same wherever the windows
//! end. Failure: whatever stands in the file becomes dead letters; a header that does not fit ends the file.

mod marks;
mod plain;
mod split;

use millstream_common::dead_letter::Code;
use millstream_common::plan::FormatSpec;

use self::split::{Field, Outcome, Record, Splitter};
use super::decoder::{SourceDecoder, too_long_reason};
use super::input::{Payload, Records};
use super::json::walk::utf8_reason;
use super::refusals::shown;
use super::token::{Token, TokenKind};
use super::{DecodeError, SplitSlot};
use crate::consume::DecodedRows;

/// A CSV file being read.
#[derive(Debug)]
pub struct CsvFile {
    splitter: Splitter,
    null_string: Option<String>,
    record_bytes_max: usize,
    /// The token that each field of the file fills; `None` until the header is read.
    columns: Option<Vec<usize>>,
}

/// What a window of the file brought.
#[derive(Debug)]
pub struct CsvStep {
    /// How many bytes of the window are done with; the others belong to a record that goes on.
    pub consumed: usize,
    /// The rows; `None` where the window holds no whole record.
    pub rows: Option<DecodedRows>,
    /// The header does not fit: nothing more is to be read.
    pub is_refused: bool,
}

/// A window of a file.
#[derive(Clone, Copy, Debug)]
pub struct CsvWindow<'a> {
    /// The file's split.
    pub slot: SplitSlot,
    /// The number of the first record in the window.
    pub first_position: i64,
    /// The file from where the last step ended. Longer than `record_bytes_max`, unless the file is shorter.
    pub bytes: &'a [u8],
    /// The file ends with the window.
    pub is_last: bool,
    /// Take no more records than this.
    pub records_max: usize,
}

impl CsvFile {
    /// Begins a file of the source that `decoder` is for.
    pub fn new(decoder: &SourceDecoder) -> Result<Self, DecodeError> {
        let FormatSpec::Csv {
            delimiter,
            header,
            null_string,
            record_bytes_max,
            ..
        } = decoder.format()
        else {
            return Err(decoder.broken("the source's format is not csv"));
        };
        let Ok(delimiter) = u8::try_from(*delimiter) else {
            return Err(decoder.broken(format!("the delimiter {delimiter} is more than a byte")));
        };
        let declared = (0..decoder.record_names().count()).collect();
        Ok(Self {
            splitter: Splitter::new(delimiter, *record_bytes_max),
            null_string: null_string.clone(),
            record_bytes_max: *record_bytes_max,
            columns: (!header).then_some(declared),
        })
    }

    /// Decodes the whole records of a window.
    pub fn decode(
        &mut self,
        decoder: &mut SourceDecoder,
        window: CsvWindow<'_>,
    ) -> Result<CsvStep, DecodeError> {
        let mut consumed = 0;
        if self.columns.is_none() {
            consumed = self.splitter.split(window.bytes, window.is_last, 1);
            let Some(header) = self.splitter.records.first().cloned() else {
                if window.is_last {
                    return self.refuse_empty(decoder, window);
                }
                return Ok(CsvStep {
                    consumed,
                    rows: None,
                    is_refused: false,
                });
            };
            match self.read_header(decoder, window.bytes, &header) {
                Ok(columns) => self.columns = Some(columns),
                Err(reason) => {
                    let payload = Some(&window.bytes[header.raw]);
                    let rows = decoder.refuse(window.slot, 0, payload, Code::Header, reason)?;
                    return Ok(CsvStep {
                        consumed,
                        rows: Some(rows),
                        is_refused: true,
                    });
                }
            }
        }
        let bytes = &window.bytes[consumed..];
        let split = self
            .splitter
            .split(bytes, window.is_last, window.records_max);
        consumed += split;
        let found = Found {
            window: bytes,
            is_utf8: simdutf8::basic::from_utf8(&bytes[..split]).is_ok(),
            slot: window.slot,
            first_position: window.first_position,
            records: &self.splitter.records,
            file: self,
        };
        let rows = match found.records.is_empty() {
            true => None,
            false => Some(decoder.decode_csv(&found)?),
        };
        Ok(CsvStep {
            consumed,
            rows,
            is_refused: false,
        })
    }

    /// A file that has no header because it has nothing: whoever wrote it broke off before the first line.
    fn refuse_empty(
        &self,
        decoder: &mut SourceDecoder,
        window: CsvWindow<'_>,
    ) -> Result<CsvStep, DecodeError> {
        let reason = "the file is empty, so it has no header".to_owned();
        // Of the blank lines that it may have, the window holds as many as it happens to.
        let payload: Option<&[u8]> = Some(&[]);
        let rows = decoder.refuse(window.slot, 0, payload, Code::Header, reason)?;
        Ok(CsvStep {
            consumed: window.bytes.len(),
            rows: Some(rows),
            is_refused: true,
        })
    }

    /// The token that each field fills, or why the header does not fit.
    fn read_header(
        &self,
        decoder: &SourceDecoder,
        window: &[u8],
        header: &Record,
    ) -> Result<Vec<usize>, String> {
        match header.outcome {
            Outcome::Whole => (),
            Outcome::TooLong => return Err(too_long_reason(self.record_bytes_max)),
            Outcome::Unclosed => return Err("a quote is not closed".to_owned()),
        }
        let text = self.splitter.text(window, header);
        let inside = |field: &Field| &text[field.start as usize..field.end as usize];
        let fields: Vec<&[u8]> = self.splitter.fields(header).iter().map(inside).collect();
        let joined = fields.concat();
        std::str::from_utf8(&joined).map_err(|_| utf8_reason(&joined))?;
        let mut columns = Vec::new();
        for name in fields {
            let Ok(name) = std::str::from_utf8(name) else {
                return Err("the name of a column is not UTF-8".to_owned());
            };
            let Some(column) = decoder.record_names().position(|column| column == name) else {
                return Err(format!(
                    "the header has a column \"{}\" that is not declared",
                    shown(name)
                ));
            };
            if columns.contains(&column) {
                return Err(format!("the header has the column \"{name}\" twice"));
            }
            columns.push(column);
        }
        let lacking = |(index, _): &(usize, &str)| !columns.contains(index);
        match decoder.record_names().enumerate().find(lacking) {
            Some((_, name)) => Err(format!("the header lacks the column \"{name}\"")),
            None => Ok(columns),
        }
    }
}

/// The records found in a window.
pub(super) struct Found<'a> {
    window: &'a [u8],
    /// All of its records are, so that none has to be looked at by itself.
    is_utf8: bool,
    slot: SplitSlot,
    first_position: i64,
    records: &'a [Record],
    file: &'a CsvFile,
}

impl<'a> Found<'a> {
    /// The text of a record and its tokens, or what is wrong with it.
    pub(super) fn read(
        &self,
        record: usize,
        row: &mut [Token],
    ) -> Result<&'a [u8], (Code, String)> {
        let found = &self.records[record];
        match found.outcome {
            Outcome::Whole => (),
            Outcome::TooLong => {
                return Err((Code::TooLong, too_long_reason(self.file.record_bytes_max)));
            }
            Outcome::Unclosed => {
                let reason =
                    "a quote is not closed before the end of the file; payload is the first line";
                return Err((Code::Malformed, reason.to_owned()));
            }
        }
        let splitter = &self.file.splitter;
        let is_utf8 = self.is_utf8 && found.is_plain() || splitter.is_utf8(self.window, found);
        if !is_utf8 {
            let raw = &self.window[found.raw.clone()];
            return Err((Code::Malformed, utf8_reason(raw)));
        }
        let text = splitter.text(self.window, found);
        let columns = self.file.columns.as_deref().unwrap_or_default();
        let field_count = found.fields.len();
        if field_count != columns.len() {
            let expected = columns.len();
            return Err((
                Code::Columns,
                format!("{field_count} fields where {expected} are expected"),
            ));
        }
        for (field, column) in splitter.fields(found).iter().zip(columns) {
            row[*column] = self.token(text, *field);
        }
        Ok(text)
    }

    #[inline]
    fn token(&self, text: &[u8], field: Field) -> Token {
        let is_null = match &self.file.null_string {
            None => field.start == field.end,
            Some(null_string) => {
                let inside = &text[field.start as usize..field.end as usize];
                inside == null_string.as_bytes()
            }
        };
        let kind = match is_null {
            true => TokenKind::Null,
            false => TokenKind::Field,
        };
        Token {
            kind,
            start: field.start,
            end: field.end,
        }
    }
}

impl Records for Found<'_> {
    fn count(&self) -> usize {
        self.records.len()
    }

    fn bytes(&self) -> u64 {
        self.records
            .iter()
            .map(|record| record.raw.len() as u64)
            .sum()
    }

    fn slot(&self, _: usize) -> SplitSlot {
        self.slot
    }

    fn position(&self, record: usize) -> i64 {
        self.first_position + record as i64
    }

    fn payload(&self, record: usize) -> Payload<'_> {
        Payload::Bytes(&self.window[self.records[record].raw.clone()])
    }
}
