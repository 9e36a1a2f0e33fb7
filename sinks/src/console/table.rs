//! Rows as lines with aligned columns.
//!
//! Used by the console sink. Owns the widths, which only grow, so that a stream of small batches stays readable; the
//! header is shown once. Control characters are shown escaped: a row must not steer a terminal.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::split_op;

/// How wide the columns have become.
#[derive(Debug, Default)]
pub(super) struct Table {
    widths: Vec<usize>,
}

impl Table {
    /// Appends the rows of `batch`, whose last column is `_op`.
    pub(super) fn append(
        &mut self,
        batch: &RecordBatch,
        text: &mut Vec<u8>,
    ) -> Result<(), ArrowError> {
        let (rows, deletes) = split_op(batch)?;
        let cells = cells(&rows)?;
        let is_first = self.widths.is_empty();
        let names: Vec<String> = rows
            .schema()
            .fields()
            .iter()
            .map(|field| escape(field.name()))
            .collect();
        self.widths.resize(names.len(), 0);
        for line in cells.iter().chain(is_first.then_some(&names)) {
            for (width, cell) in self.widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let numeric: Vec<bool> = rows
            .schema()
            .fields()
            .iter()
            .map(|field| field.data_type().is_numeric())
            .collect();
        if is_first {
            self.line(' ', &names, &numeric, text);
        }
        for (line, is_delete) in cells.iter().zip(deletes) {
            let sign = if is_delete { '-' } else { '+' };
            self.line(sign, line, &numeric, text);
        }
        Ok(())
    }

    fn line(&self, sign: char, cells: &[String], numeric: &[bool], text: &mut Vec<u8>) {
        let mut line = String::from(sign);
        for ((cell, width), is_numeric) in cells.iter().zip(&self.widths).zip(numeric) {
            let padding = " ".repeat(width - cell.chars().count());
            line.push_str("  ");
            if *is_numeric {
                line.push_str(&padding);
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.push_str(&padding);
            }
        }
        text.extend_from_slice(line.trim_end().as_bytes());
        text.push(b'\n');
    }
}

fn cells(rows: &RecordBatch) -> Result<Vec<Vec<String>>, ArrowError> {
    let options = FormatOptions::new().with_null("NULL");
    let formatters: Vec<ArrayFormatter<'_>> = rows
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options))
        .collect::<Result<_, _>>()?;
    let line = |row: usize| {
        let cells = formatters
            .iter()
            .map(|formatter| escape(&formatter.value(row).to_string()));
        cells.collect()
    };
    Ok((0..rows.num_rows()).map(line).collect())
}

fn escape(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}
