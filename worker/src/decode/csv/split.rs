//! Splits the bytes of a CSV file into records and fields, by csv-core.
//!
//! Owned by [`super::CsvFile`]. Holds what was found in the last window. Where a record ends must not depend on where
//! a window ends, because positions count records (INV-5): every record is parsed from its first byte, within a
//! window that is longer than a record may be, or up to the end of the file.

use std::ops::Range;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

/// A byte order mark, left out where a record begins with it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How often a file is read again behind a line whose quote is not closed: bounds the work of a file made of such lines.
const RESTARTS_MAX: u32 = 64;

/// Finds records.
#[derive(Debug)]
pub(super) struct Splitter {
    core: Reader,
    record_bytes_max: usize,
    /// Inside a record that is too long: nothing counts before the next newline.
    is_skipping: bool,
    restarts_left: u32,
    /// The fields of all records, quotes removed.
    text: Vec<u8>,
    /// Where each field ends, counted from its record's first.
    ends: Vec<usize>,
    /// What was found in the last window.
    pub(super) records: Vec<Record>,
}

/// A record in a window.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// In the window, without its line end.
    pub(super) raw: Range<usize>,
    /// In [`Splitter::text`].
    text: Range<usize>,
    /// In [`Splitter::ends`].
    pub(super) fields: Range<usize>,
    pub(super) outcome: Outcome,
}

/// Whether a record could be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Whole,
    /// Over `record_bytes_max`.
    TooLong,
    /// Its quote is open to the end of the file.
    Unclosed,
}

/// How parsing ended.
enum Parsed {
    /// At a line end.
    Record,
    /// The input ended first.
    Unfinished,
}

impl Splitter {
    pub(super) fn new(delimiter: u8, record_bytes_max: usize) -> Self {
        Self {
            core: ReaderBuilder::new().delimiter(delimiter).build(),
            record_bytes_max,
            is_skipping: false,
            restarts_left: RESTARTS_MAX,
            text: Vec::new(),
            ends: Vec::new(),
            records: Vec::new(),
        }
    }

    /// Finds up to `records_max` whole records; how many bytes they and what lies between them take.
    pub(super) fn split(&mut self, window: &[u8], is_last: bool, records_max: usize) -> usize {
        self.records.clear();
        // The text of all records is no longer than the window; csv-core wants a byte to spare.
        self.text.resize(window.len() + 8, 0);
        let mut at = 0;
        let mut text_end = 0;
        let mut ends_end = 0;
        while self.records.len() < records_max {
            at = self.skip(window, at);
            if at == window.len() {
                break;
            }
            let limit = window
                .len()
                .min(at.saturating_add(self.record_bytes_max).saturating_add(1));
            let mut record = Record {
                raw: at..at,
                text: text_end..text_end,
                fields: ends_end..ends_end,
                outcome: Outcome::Whole,
            };
            self.core.reset();
            let parsed = self.parse(&window[..limit], &mut record);
            let next = record.raw.end;
            let is_long = next - at > self.record_bytes_max;
            match parsed {
                Parsed::Record => record.raw.end -= 1,
                Parsed::Unfinished if is_long => {
                    record.outcome = Outcome::TooLong;
                    self.is_skipping = window[next - 1] != b'\n';
                }
                Parsed::Unfinished if !is_last => break,
                Parsed::Unfinished => {
                    let end = self.finish(window, &mut record);
                    at = end;
                    text_end = record.text.end;
                    ends_end = record.fields.end;
                    self.records.push(record);
                    continue;
                }
            }
            at = next;
            text_end = record.text.end;
            ends_end = record.fields.end;
            self.records.push(record);
        }
        at
    }

    /// The fields of a record, one after another.
    pub(super) fn text(&self, record: &Record) -> &[u8] {
        &self.text[record.text.clone()]
    }

    /// Where each field stands in [`Self::text`].
    pub(super) fn fields(&self, record: &Record) -> impl Iterator<Item = Range<usize>> {
        let mut start = 0;
        self.ends[record.fields.clone()].iter().map(move |end| {
            let field = start..*end;
            start = *end;
            field
        })
    }

    /// Over the rest of a record that is too long, line ends and byte order marks.
    fn skip(&mut self, window: &[u8], mut at: usize) -> usize {
        if self.is_skipping {
            match memchr::memchr(b'\n', &window[at..]) {
                Some(length) => at += length + 1,
                None => return window.len(),
            }
            self.is_skipping = false;
        }
        loop {
            let rest = &window[at..];
            match rest.first() {
                Some(b'\n' | b'\r') => at += 1,
                _ if rest.starts_with(BYTE_ORDER_MARK) => at += BYTE_ORDER_MARK.len(),
                _ => return at,
            }
        }
    }

    /// Parses on at the end of `record`, up to the end of `input`.
    fn parse(&mut self, input: &[u8], record: &mut Record) -> Parsed {
        while record.raw.end < input.len() {
            if self.ends.len() == record.fields.end {
                self.ends.resize(2 * self.ends.len() + 64, 0);
            }
            let (result, read, written, ended) = self.core.read_record(
                &input[record.raw.end..],
                &mut self.text[record.text.end..],
                &mut self.ends[record.fields.end..],
            );
            record.raw.end += read;
            record.text.end += written;
            record.fields.end += ended;
            match result {
                ReadRecordResult::Record => return Parsed::Record,
                ReadRecordResult::OutputFull => self.text.resize(2 * self.text.len(), 0),
                _ => {}
            }
        }
        Parsed::Unfinished
    }

    /// Ends the last record of the file, which no line end follows; where to go on. A newline tells whether a quote is
    /// open: inside quotes it is part of the field.
    fn finish(&mut self, window: &[u8], record: &mut Record) -> usize {
        if self.ends.len() == record.fields.end {
            self.ends.resize(2 * self.ends.len() + 64, 0);
        }
        let (result, _, written, ended) = self.core.read_record(
            b"\n",
            &mut self.text[record.text.end..],
            &mut self.ends[record.fields.end..],
        );
        if result == ReadRecordResult::Record {
            record.text.end += written;
            record.fields.end += ended;
            return window.len();
        }
        record.outcome = Outcome::Unclosed;
        // The lines behind its first are read again: their text must find its room again.
        record.text.end = record.text.start;
        record.fields.end = record.fields.start;
        let line = memchr::memchr(b'\n', &window[record.raw.clone()]);
        match line {
            Some(length) if self.restarts_left > 0 => {
                self.restarts_left -= 1;
                record.raw.end = record.raw.start + length;
                record.raw.end + 1
            }
            _ => window.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_lines_behind_an_unclosed_quote_are_split_in_one_window() {
        let row = |id: usize| format!("{id},{}\n", "n".repeat(40));
        let rows: String = (2..100).map(row).collect();
        let file = format!("1,\"a\n{rows}");
        let mut splitter = Splitter::new(b',', 1 << 20);
        let read = splitter.split(file.as_bytes(), true, 1_000);
        assert_eq!((read, splitter.records.len()), (file.len(), 99));
        assert_eq!(splitter.records[0].outcome, Outcome::Unclosed);
        let last = &splitter.records[98];
        assert_eq!(
            splitter.text(last),
            format!("99{}", "n".repeat(40)).as_bytes()
        );
    }
}
