//! Splits the bytes of a CSV file into records and fields.
//!
//! Owned by [`super::CsvFile`]. Holds what was found in the last window. csv-core says what a record is; nearly all are found by
//! `plain.rs` already, a few times as fast, and it sees only the others: with quotes inside fields, too long, not ended in the window.
//! Where a record ends must not depend on where a window ends, because positions count records (INV-5): every record is parsed from its
//! first byte, within a window that is longer than a record may be, or up to the end of the file.

use std::ops::Range;

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::marks::Marks;
use super::plain::Plain;

/// A byte order mark, left out where a record begins with it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How often a file is read again behind a line whose quote is not closed: bounds the work of a file made of such lines.
const RESTARTS_MAX: u32 = 64;

/// Finds records.
#[derive(Debug)]
pub(super) struct Splitter {
    core: Reader,
    /// `None` for a delimiter that means something else too.
    plain: Option<Plain>,
    record_bytes_max: usize,
    /// Inside a record that is too long: nothing counts before the next newline.
    is_skipping: bool,
    restarts_left: u32,
    /// The fields of the records that csv-core has split, quotes removed.
    text: Vec<u8>,
    /// Where each field of one of these ends, counted from the record's first.
    ends: Vec<usize>,
    /// The fields of all records.
    fields: Vec<Field>,
    /// What was found in the last window.
    pub(super) records: Vec<Record>,
}

/// A record in a window.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// In the window, without its line end.
    pub(super) raw: Range<usize>,
    /// In [`Splitter::text`]; `None` if its fields are read where they stand.
    text: Option<Range<usize>>,
    /// In [`Splitter::fields`].
    pub(super) fields: Range<usize>,
    pub(super) outcome: Outcome,
}

/// A field in the text of its record, which is shorter than 4 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) start: u32,
    /// Behind its last byte.
    pub(super) end: u32,
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

/// A record that csv-core is at.
struct Parsing {
    /// What it has read of the window.
    raw: Range<usize>,
    /// What it has written to [`Splitter::text`].
    text: Range<usize>,
    /// How many entries of [`Splitter::ends`].
    field_count: usize,
}

impl Record {
    /// Its fields stand in the window as they are.
    pub(super) fn is_plain(&self) -> bool {
        self.text.is_none()
    }
}

impl Splitter {
    pub(super) fn new(delimiter: u8, record_bytes_max: usize) -> Self {
        Self {
            core: ReaderBuilder::new().delimiter(delimiter).build(),
            plain: Plain::new(delimiter, record_bytes_max),
            record_bytes_max,
            is_skipping: false,
            restarts_left: RESTARTS_MAX,
            text: Vec::new(),
            ends: Vec::new(),
            fields: Vec::new(),
            records: Vec::new(),
        }
    }

    /// Finds up to `records_max` whole records; how many bytes they and what lies between them take.
    pub(super) fn split(&mut self, window: &[u8], is_last: bool, records_max: usize) -> usize {
        self.records.clear();
        self.fields.clear();
        let plain = self.plain;
        let mut marks = plain.map(|plain| plain.marks(window));
        let mut at = 0;
        let mut text_end = 0;
        while self.records.len() < records_max {
            at = self.skip(window, at);
            if at == window.len() {
                break;
            }
            if let (Some(plain), Some(marks)) = (plain, &mut marks)
                && let Some(end) = self.split_plain(plain, marks, at)
            {
                at = end + 1;
                continue;
            }
            match self.split_any(window, is_last, at, &mut text_end) {
                Some(next) => at = next,
                None => break,
            }
            if let Some(marks) = &mut marks {
                marks.restart(at);
            }
        }
        at
    }

    /// Takes the record at `at` if it is a plain one; where its line end stands.
    #[inline]
    fn split_plain(&mut self, plain: Plain, marks: &mut Marks<'_>, at: usize) -> Option<usize> {
        let first_field = self.fields.len();
        let Some(end) = plain.split(marks, at, &mut self.fields) else {
            self.fields.truncate(first_field);
            return None;
        };
        self.records.push(Record {
            raw: at..end,
            text: None,
            fields: first_field..self.fields.len(),
            outcome: Outcome::Whole,
        });
        Some(end)
    }

    /// Takes the record at `at`, whatever it is, and says where to go on; `None` if it does not end in the window.
    fn split_any(
        &mut self,
        window: &[u8],
        is_last: bool,
        at: usize,
        text_end: &mut usize,
    ) -> Option<usize> {
        // The text of all records is no longer than the window; csv-core wants a byte to spare.
        if self.text.len() < window.len() + 8 {
            self.text.resize(window.len() + 8, 0);
        }
        let limit = window
            .len()
            .min(at.saturating_add(self.record_bytes_max).saturating_add(1));
        let mut parsing = Parsing {
            raw: at..at,
            text: *text_end..*text_end,
            field_count: 0,
        };
        self.core.reset();
        let parsed = self.parse(&window[..limit], &mut parsing);
        let mut next = parsing.raw.end;
        let is_long = next - at > self.record_bytes_max;
        let mut outcome = Outcome::Whole;
        match parsed {
            Parsed::Record => parsing.raw.end -= 1,
            Parsed::Unfinished if is_long => {
                outcome = Outcome::TooLong;
                self.is_skipping = window[next - 1] != b'\n';
            }
            Parsed::Unfinished if !is_last => return None,
            Parsed::Unfinished => (next, outcome) = self.finish(window, &mut parsing),
        }
        *text_end = parsing.text.end;
        let first_field = self.fields.len();
        let mut start = 0;
        for end in &self.ends[..parsing.field_count] {
            self.fields.push(Field::new(start, *end));
            start = *end;
        }
        self.records.push(Record {
            raw: parsing.raw,
            text: Some(parsing.text),
            fields: first_field..self.fields.len(),
            outcome,
        });
        Some(next)
    }

    /// The text of a record of the last window.
    pub(super) fn text<'a>(&'a self, window: &'a [u8], record: &Record) -> &'a [u8] {
        match &record.text {
            Some(text) => &self.text[text.clone()],
            None => &window[record.raw.clone()],
        }
    }

    /// Where each field stands in [`Self::text`].
    pub(super) fn fields(&self, record: &Record) -> &[Field] {
        &self.fields[record.fields.clone()]
    }

    /// Whether every field is UTF-8 by itself. The text of csv-core stands without its delimiters: bytes that are none in two fields may be a
    /// character in one.
    pub(super) fn is_utf8(&self, window: &[u8], record: &Record) -> bool {
        let text = simdutf8::basic::from_utf8(self.text(window, record));
        let is_whole = |text: &str, field: &Field| {
            let ends = [field.start, field.end];
            ends.iter().all(|end| text.is_char_boundary(*end as usize))
        };
        text.is_ok_and(|text| {
            self.fields(record)
                .iter()
                .all(|field| is_whole(text, field))
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

    /// Parses on at the end of what was read, up to the end of `input`.
    fn parse(&mut self, input: &[u8], parsing: &mut Parsing) -> Parsed {
        while parsing.raw.end < input.len() {
            if self.ends.len() == parsing.field_count {
                self.ends.resize(2 * self.ends.len() + 64, 0);
            }
            let (result, read, written, ended) = self.core.read_record(
                &input[parsing.raw.end..],
                &mut self.text[parsing.text.end..],
                &mut self.ends[parsing.field_count..],
            );
            parsing.raw.end += read;
            parsing.text.end += written;
            parsing.field_count += ended;
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
    fn finish(&mut self, window: &[u8], parsing: &mut Parsing) -> (usize, Outcome) {
        if self.ends.len() == parsing.field_count {
            self.ends.resize(2 * self.ends.len() + 64, 0);
        }
        let (result, _, written, ended) = self.core.read_record(
            b"\n",
            &mut self.text[parsing.text.end..],
            &mut self.ends[parsing.field_count..],
        );
        if result == ReadRecordResult::Record {
            parsing.text.end += written;
            parsing.field_count += ended;
            return (window.len(), Outcome::Whole);
        }
        // The lines behind its first are read again: their text must find its room again.
        parsing.text.end = parsing.text.start;
        parsing.field_count = 0;
        let line = memchr::memchr(b'\n', &window[parsing.raw.clone()]);
        let next = match line {
            Some(length) if self.restarts_left > 0 => {
                self.restarts_left -= 1;
                parsing.raw.end = parsing.raw.start + length;
                parsing.raw.end + 1
            }
            _ => window.len(),
        };
        (next, Outcome::Unclosed)
    }
}

impl Field {
    #[inline]
    pub(super) fn new(start: usize, end: usize) -> Self {
        Self {
            start: start as u32,
            end: end as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        assert_eq!(last.fields.len(), 2);
        assert_eq!(
            splitter.text(file.as_bytes(), last),
            format!("99,{}", "n".repeat(40)).as_bytes()
        );
    }

    type Seen = (Range<usize>, Outcome, bool, Vec<Vec<u8>>);

    /// The records of a file read through windows, and where each window ended.
    fn seen(mut splitter: Splitter, file: &[u8], window_bytes: usize) -> (Vec<Seen>, Vec<usize>) {
        let (mut seen, mut ends, mut at) = (Vec::new(), Vec::new(), 0);
        loop {
            let end = file.len().min(at + window_bytes);
            let window = &file[at..end];
            let read = splitter.split(window, end == file.len(), 5);
            for record in &splitter.records {
                let text = splitter.text(window, record);
                let inside =
                    |field: &Field| text[field.start as usize..field.end as usize].to_vec();
                let fields = splitter.fields(record).iter().map(inside);
                seen.push((
                    at + record.raw.start..at + record.raw.end,
                    record.outcome,
                    record.outcome == Outcome::Whole && splitter.is_utf8(window, record),
                    fields.collect(),
                ));
            }
            at += read;
            ends.push(at);
            if end == file.len() && splitter.records.is_empty() {
                return (seen, ends);
            }
            assert!(read > 0 || end == at + window_bytes, "no progress");
        }
    }

    const RECORD_BYTES_MAX: usize = 40;

    fn assert_alike(file: &[u8], delimiter: u8, window_bytes: usize) {
        let with_plain = Splitter::new(delimiter, RECORD_BYTES_MAX);
        let mut by_core = Splitter::new(delimiter, RECORD_BYTES_MAX);
        by_core.plain = None;
        let expected = seen(by_core, file, window_bytes);
        assert_eq!(seen(with_plain, file, window_bytes), expected, "{file:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn what_is_split_the_short_way_is_what_csv_core_splits(
            file in "([a1,;\"\n\r\u{feff}é\0]|,a\n|1,a\r\n|,\"|\",|\"\n|\"\"|\"a,b\"|\"\",){0,120}",
            delimiter in prop::sample::select(b",;\0\"\n\xc3".to_vec()),
            window_bytes in RECORD_BYTES_MAX + 1..200,
        ) {
            assert_alike(file.as_bytes(), delimiter, window_bytes);
        }

        #[test]
        fn rows_with_a_few_other_bytes_in_them_are_split_as_csv_core_does(
            rows in prop::collection::vec("[a-z]{1,6},(\"[a-z ,\n]{0,9}\"|[a-z ]{0,9}),[0-9]{0,5}", 1..40),
            edits in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![prop::sample::select(b"\",\n\r".to_vec()), any::<u8>()]), 0..6),
            window_bytes in RECORD_BYTES_MAX + 1..2_000,
        ) {
            let mut file = rows.join("\n").into_bytes();
            for (index, byte) in edits {
                let index = index.index(file.len());
                file[index] = byte;
            }
            assert_alike(&file, b',', window_bytes);
        }
    }
}
