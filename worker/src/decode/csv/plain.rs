//! Records whose fields stand in the window as they are: nothing in them has to be removed, and they end there.
//!
//! Called by `split.rs` before csv-core, which splits what is left. A field is plain if it has no quotes around it, or two and none between
//! them. What is found is what csv-core would find (a property test compares them). Pure; `None` is no failure.

use super::marks::Marks;
use super::split::Field;

/// Splits plain records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain {
    delimiter: u8,
    record_bytes_max: usize,
}

impl Plain {
    /// `None` where a delimiter is a part of a character, or a quote or a line end as well.
    pub(super) fn new(delimiter: u8, record_bytes_max: usize) -> Option<Self> {
        let is_clear = delimiter.is_ascii() && !b"\"\r\n".contains(&delimiter);
        is_clear.then_some(Self {
            delimiter,
            record_bytes_max,
        })
    }

    /// What ends fields and records in a window.
    pub(super) fn marks<'a>(&self, window: &'a [u8]) -> Marks<'a> {
        Marks::new(window, self.delimiter)
    }

    /// Appends the fields of the record at `at`, counted from there; where its line end stands. `None` if it is not a plain record, or does
    /// not end in the window or within the bytes that it may have: some of its fields may be there nevertheless.
    #[inline]
    pub(super) fn split(
        self,
        marks: &mut Marks<'_>,
        at: usize,
        fields: &mut Vec<Field>,
    ) -> Option<usize> {
        let last_end = at.saturating_add(self.record_bytes_max);
        marks.seek(at);
        let mut start = at;
        loop {
            let mut end = marks.next()?;
            let mut inside = start..end;
            if marks.byte(end) == b'"' {
                if end > last_end {
                    return None;
                }
                if end > start {
                    // A quote that does not begin its field is a character of it.
                    continue;
                }
                let close = self.close(marks, last_end)?;
                end = marks.next()?;
                if end != close + 1 || marks.byte(end) == b'"' {
                    return None;
                }
                inside = start + 1..close;
            }
            if end > last_end {
                return None;
            }
            fields.push(Field::new(inside.start - at, inside.end - at));
            if marks.byte(end) != self.delimiter {
                return Some(end);
            }
            start = end + 1;
        }
    }

    /// The next quote, if there is one up to `last`.
    fn close(self, marks: &mut Marks<'_>, last: usize) -> Option<usize> {
        loop {
            let next = marks.next().filter(|next| *next <= last)?;
            if marks.byte(next) == b'"' {
                return Some(next);
            }
        }
    }
}
