//! Names of folders and files that a files sink writes.
//!
//! Used by `writer.rs` and `journal.rs`. All names follow from the run and the rows alone, so that a repeated
//! run gives the same ones. Pure.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use millstream_common::ids::{Epoch, Seq};
use millstream_common::plan::connector::FileFormat;

use crate::sink::Deliverer;

/// What stands for NULL in a folder's name, as in Hive and Spark.
pub(super) const NULL_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";
/// File systems refuse longer names, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 255;

/// Tells the files of one life of one sink from those of others in the same folder, and from its own of before it was sent back.
pub(super) fn tag(deliverer: &Deliverer, rewound: Option<Seq>) -> u32 {
    let mut owner = format!("{}/{}", deliverer.incarnation, deliverer.sink);
    if let Some(at) = rewound {
        owner.push_str(&format!("/{at}"));
    }
    crc32c::crc32c(owner.as_bytes())
}

/// The file number `number` of the run that ends with `last`.
pub(super) fn file_name(last: Epoch, number: usize, tag: u32, format: FileFormat) -> String {
    let ending = match format {
        FileFormat::Parquet => "parquet",
        FileFormat::Csv => "csv",
        FileFormat::Json => "json",
    };
    format!("part-{:012}-{number:04}-{tag:08x}.{ending}", last.0)
}

/// The folder of each row: `url=%2Fa/day=2026-01-01`, without a slash at either end.
pub(super) struct FolderNames<'a> {
    columns: Vec<(String, &'a ArrayRef, ArrayFormatter<'a>)>,
}

impl<'a> FolderNames<'a> {
    /// For the values of `columns` of `rows`.
    pub(super) fn new(rows: &'a RecordBatch, columns: &[usize]) -> Result<Self, ArrowError> {
        let options = FormatOptions::new();
        let schema = rows.schema();
        let columns = columns.iter().map(|index| {
            let values = rows.column(*index);
            let name = encode(schema.field(*index).name());
            Ok((name, values, ArrayFormatter::try_new(values, &options)?))
        });
        Ok(Self {
            columns: columns.collect::<Result<_, ArrowError>>()?,
        })
    }

    /// The folder of row `row`, or the column whose value makes no name.
    pub(super) fn of(&self, row: usize) -> Result<String, String> {
        let mut folder = String::new();
        for (name, values, formatter) in &self.columns {
            let value = if values.is_null(row) {
                NULL_VALUE.to_owned()
            } else {
                encode(&formatter.value(row).to_string())
            };
            let part = format!("{name}={value}");
            if part.len() > NAME_BYTES_MAX {
                return Err(format!(
                    "column {name}: the value makes a folder name of more than {NAME_BYTES_MAX} bytes"
                ));
            }
            if !folder.is_empty() {
                folder.push('/');
            }
            folder.push_str(&part);
        }
        Ok(folder)
    }
}

/// Percent-encodes what file systems or readers of such folders take for something else.
fn encode(text: &str) -> String {
    const SPECIAL: &str = "\"#%&'*/:<=>?[\\]^{|}";
    let mut encoded = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii_control() || SPECIAL.contains(letter) {
            encoded.push_str(&format!("%{:02X}", u32::from(letter)));
        } else {
            encoded.push(letter);
        }
    }
    encoded
}

/// A sink's name as a folder of the journal: letters, digits, `_` and `-` as they are, other bytes as `=XX`.
pub(super) fn journal_folder(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("={byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

    use super::*;

    #[test]
    fn folders_are_named_by_column_and_encoded_value() {
        let at = DataType::Timestamp(TimeUnit::Microsecond, None);
        let schema = Schema::new(vec![
            Field::new("url", DataType::Utf8, true),
            Field::new("n", DataType::Int64, true),
            Field::new("at", at, true),
        ]);
        let long = "x".repeat(300);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![Some("/a b=ü"), None, Some(&long)])),
            Arc::new(Int64Array::from(vec![-1, 2, 3])),
            Arc::new(TimestampMicrosecondArray::from(vec![0, 1, 2])),
        ];
        let rows = RecordBatch::try_new(Arc::new(schema), columns).expect("a batch");
        let names = FolderNames::new(&rows, &[0, 1]).expect("formattable");
        assert_eq!(names.of(0).as_deref(), Ok("url=%2Fa b%3Dü/n=-1"));
        assert_eq!(names.of(1), Ok(format!("url={NULL_VALUE}/n=2")));
        assert!(names.of(2).is_err());
        let names = FolderNames::new(&rows, &[2]).expect("formattable");
        assert_eq!(names.of(0).as_deref(), Ok("at=1970-01-01T00%3A00%3A00"));
    }

    #[test]
    fn journal_folders_never_leave_their_place() {
        assert_eq!(journal_folder("views-1"), "views-1");
        assert_eq!(journal_folder("../x"), "=2E=2E=2Fx");
    }
}
