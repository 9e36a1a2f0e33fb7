//! The rows of a preview as they are shown: cells of a table, or a JSON object each.
//!
//! Called by clients with the Arrow stream of a message. A changelog says of each row what it does, in the words of Flink's
//! client; rows of other relations are only ever added. Failure: bytes that are no Arrow stream, or a type without a text.

use std::fmt;
use std::io::Cursor;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int8Type;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::json::writer::{LineDelimited, WriterBuilder};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::plan::OP_DELETE;

/// What a row does to the relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is added.
    Insert,
    /// It takes the place of the row with its key, if there is one.
    Upsert,
    /// The row with its key is gone.
    Delete,
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Insert => "+I",
            Self::Upsert => "+U",
            Self::Delete => "-D",
        })
    }
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewRow {
    /// What it does.
    pub operation: Operation,
    /// Its values as texts, in the order of the columns; control characters are escaped, so that no row steers a terminal.
    pub cells: Vec<String>,
    /// One object with every column; in a changelog `_op` is the first.
    pub json: String,
}

/// The rows in `stream`. Those of a changelog have their operation as last column.
///
/// # Errors
/// Where `stream` is no Arrow stream of such rows.
pub fn read(stream: &[u8], is_changelog: bool) -> Result<Vec<PreviewRow>, ArrowError> {
    let mut rows = Vec::new();
    if stream.is_empty() {
        return Ok(rows);
    }
    for batch in StreamReader::try_new(Cursor::new(stream), None)? {
        rows.extend(read_batch(batch?, is_changelog)?);
    }
    Ok(rows)
}

fn read_batch(mut batch: RecordBatch, is_changelog: bool) -> Result<Vec<PreviewRow>, ArrowError> {
    let row_count = batch.num_rows();
    let mut operations = vec![Operation::Insert; row_count];
    if is_changelog {
        let last = batch.num_columns().checked_sub(1);
        let last = last.ok_or_else(|| malformed("a changelog without operations"))?;
        let column = batch.remove_column(last);
        let column = column.as_primitive_opt::<Int8Type>();
        let column = column.ok_or_else(|| malformed("operations of a changelog are numbers"))?;
        let meaning = |op: &i8| match *op {
            OP_DELETE => Operation::Delete,
            _ => Operation::Upsert,
        };
        operations = column.values().iter().map(meaning).collect();
    }
    let cells = cells(&batch)?;
    let objects = objects(&batch)?;
    let rows = operations.into_iter().zip(cells).zip(objects);
    let shown = rows.map(|((operation, cells), object)| PreviewRow {
        json: match is_changelog {
            true => with_operation(operation, &object),
            false => object,
        },
        operation,
        cells,
    });
    Ok(shown.collect())
}

fn malformed(text: &str) -> ArrowError {
    ArrowError::ParseError(text.to_owned())
}

fn cells(batch: &RecordBatch) -> Result<Vec<Vec<String>>, ArrowError> {
    let options = FormatOptions::new().with_null("NULL");
    let columns = batch.columns().iter();
    let formatters: Vec<ArrayFormatter<'_>> = columns
        .map(|column| ArrayFormatter::try_new(column, &options))
        .collect::<Result<_, _>>()?;
    let line = |row: usize| {
        let values = formatters.iter().map(|formatter| formatter.value(row));
        values.map(|value| escape(&value.to_string())).collect()
    };
    Ok((0..batch.num_rows()).map(line).collect())
}

fn escape(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter.is_control() {
            true => shown.extend(letter.escape_default()),
            false => shown.push(letter),
        }
    }
    shown
}

fn objects(batch: &RecordBatch) -> Result<Vec<String>, ArrowError> {
    let mut writer = WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, LineDelimited>(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    let text = String::from_utf8(writer.into_inner());
    let text = text.map_err(|error| malformed(&error.to_string()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Puts the operation in front of the columns of an object.
fn with_operation(operation: Operation, object: &str) -> String {
    let columns = object.strip_prefix('{').unwrap_or(object);
    let comma = if columns == "}" { "" } else { "," };
    format!("{{\"_op\":\"{operation}\"{comma}{columns}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int8Array, Int64Array, StringArray};

    use super::*;
    use crate::ipc;

    fn stream(columns: Vec<(&str, arrow::array::ArrayRef)>) -> Vec<u8> {
        let batch = RecordBatch::try_from_iter(columns).expect("batch");
        let encoded = ipc::encode("preview", &batch.schema(), &[batch]).expect("encode");
        encoded.bytes.to_vec()
    }

    #[test]
    fn a_row_of_a_changelog_says_what_it_does() {
        let stream = stream(vec![
            ("url", Arc::new(StringArray::from(vec!["/a", "/b"])) as _),
            (
                "views",
                Arc::new(Int64Array::from(vec![Some(3), None])) as _,
            ),
            ("_op", Arc::new(Int8Array::from(vec![0, 1])) as _),
        ]);
        let rows = read(&stream, true).expect("rows");
        assert_eq!(rows[0].operation.to_string(), "+U");
        assert_eq!(rows[0].cells, ["/a", "3"]);
        assert_eq!(rows[0].json, r#"{"_op":"+U","url":"/a","views":3}"#);
        assert_eq!(rows[1].operation.to_string(), "-D");
        assert_eq!(rows[1].cells, ["/b", "NULL"]);
        assert_eq!(rows[1].json, r#"{"_op":"-D","url":"/b","views":null}"#);
    }

    #[test]
    fn other_rows_are_only_ever_added_and_do_not_steer_a_terminal() {
        let stream = stream(vec![(
            "url",
            Arc::new(StringArray::from(vec!["a\u{1b}[2J"])) as _,
        )]);
        let rows = read(&stream, false).expect("rows");
        assert_eq!(rows[0].operation.to_string(), "+I");
        assert_eq!(rows[0].cells, ["a\\u{1b}[2J"]);
        assert_eq!(rows[0].json, r#"{"url":"a\u001b[2J"}"#);
    }

    #[test]
    fn a_message_without_rows_is_no_row_and_nonsense_is_refused() {
        assert_eq!(read(&[], true).expect("nothing"), []);
        assert!(read(b"nonsense", false).is_err());
    }
}
