//! Rows as CSV the way psql's COPY writes it: NULL is an empty field, an empty text is `""`.
//!
//! Used by `format.rs`, inside blocking work. Fields are quoted only where they must be; a header comes first. A row of
//! one column that is NULL would be an empty line, which readers skip: it is written as `""`, so that it stays a row.
//! Failure: of the file, or of a value that has no text.

use std::io::Write;

use arrow::array::{Array, RecordBatch};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// Writes a header and one line a row.
pub(super) struct CsvWriter<W> {
    file: W,
    has_header: bool,
    /// The lines of a batch.
    lines: Vec<u8>,
    /// A field, before it is quoted.
    field: String,
}

impl<W: Write> CsvWriter<W> {
    /// Writes to `file`.
    pub(super) fn new(file: W) -> Self {
        Self {
            file,
            has_header: false,
            lines: Vec::new(),
            field: String::new(),
        }
    }

    /// Appends rows.
    pub(super) fn write(&mut self, rows: &RecordBatch) -> Result<(), ArrowError> {
        self.lines.clear();
        if !self.has_header {
            self.header(rows);
        }
        let options = FormatOptions::default().with_display_error(false);
        let columns = rows.columns().iter().map(|column| {
            let formatter = ArrayFormatter::try_new(column.as_ref(), &options)?;
            Ok((column.logical_nulls(), formatter))
        });
        let columns: Vec<_> = columns.collect::<Result<_, ArrowError>>()?;
        for row in 0..rows.num_rows() {
            for (index, (nulls, formatter)) in columns.iter().enumerate() {
                self.separate(index);
                let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
                if is_null && columns.len() > 1 {
                    continue;
                }
                self.field.clear();
                if !is_null {
                    formatter.value(row).write(&mut self.field)?;
                }
                append_field(&mut self.lines, &self.field);
            }
            self.lines.push(b'\n');
        }
        self.file.write_all(&self.lines)?;
        Ok(())
    }

    fn header(&mut self, rows: &RecordBatch) {
        for (index, field) in rows.schema().fields().iter().enumerate() {
            self.separate(index);
            append_field(&mut self.lines, field.name());
        }
        self.lines.push(b'\n');
        self.has_header = true;
    }

    fn separate(&mut self, index: usize) {
        if index > 0 {
            self.lines.push(b',');
        }
    }

    /// The file, with all rows in it.
    pub(super) fn into_inner(self) -> W {
        self.file
    }
}

/// `\.` alone would end what COPY reads.
fn append_field(lines: &mut Vec<u8>, text: &str) {
    let is_special = |letter: char| matches!(letter, ',' | '"' | '\n' | '\r');
    if !text.is_empty() && text != "\\." && !text.contains(is_special) {
        lines.extend_from_slice(text.as_bytes());
        return;
    }
    lines.push(b'"');
    for byte in text.bytes() {
        if byte == b'"' {
            lines.push(b'"');
        }
        lines.push(byte);
    }
    lines.push(b'"');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn written(columns: Vec<(&str, ArrayRef)>) -> String {
        let rows = RecordBatch::try_from_iter_with_nullable(
            columns
                .into_iter()
                .map(|(name, column)| (name, column, true)),
        );
        let mut writer = CsvWriter::new(Vec::new());
        writer.write(&rows.expect("rows")).expect("written");
        String::from_utf8(writer.into_inner()).expect("text")
    }

    #[test]
    fn null_is_an_empty_field_and_an_empty_text_is_quoted() {
        let names = vec![Some("a"), None, Some(""), Some("b,\"c\"\n"), Some("\\.")];
        let text = written(vec![
            ("n", Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5]))),
            ("a name", Arc::new(StringArray::from(names))),
        ]);
        assert_eq!(
            text,
            "n,a name\n1,a\n2,\n3,\"\"\n4,\"b,\"\"c\"\"\n\"\n5,\"\\.\"\n"
        );
    }

    #[test]
    fn a_row_that_is_one_null_is_no_empty_line() {
        let names = StringArray::from(vec![Some("a"), None]);
        assert_eq!(written(vec![("name", Arc::new(names))]), "name\na\n\"\"\n");
    }
}
