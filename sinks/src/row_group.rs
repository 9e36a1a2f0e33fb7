//! Rows of an output as Parquet, encoded once: by the worker that ships them, for sinks that put them into their files as they are.
//!
//! Made by the worker's ship actor where all sinks of an output take them, read by `files/parquet.rs`, and by any other sink through
//! [`RunPart`](crate::sink::RunPart). It is a whole Parquet file with `_op` as last column, mostly of one row group, written as `files` writes: so
//! a file of them is one that the sink would have written. Failure: of the format.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use bytes::Bytes;
use millstream_common::ids::OutputIndex;
use millstream_common::plan::{Emit, JobPlan, SinkSpec};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding, PageType, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, PageEncodingStats, ParquetMetaData};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use crate::files::takes_row_groups;

/// Fewer rows are not worth a row group of their own: files of many small ones are large and slow to read.
pub const ROWS_MIN: usize = 32_768;

/// Rows a row group: bounds what a writer of files holds of one file.
pub(crate) const ROWS_MAX: usize = 1 << 20;

/// Whether every sink that reads `output` takes its rows as row groups.
pub fn are_taken(plan: &JobPlan, output: OutputIndex) -> bool {
    let is_final = plan
        .outputs
        .get(output.index())
        .is_some_and(|output| output.emit == Emit::Final);
    let mut readers = plan.sinks.iter().filter(|sink| sink.output == output);
    let takes = |spec: &SinkSpec| match spec {
        SinkSpec::Files(files) => takes_row_groups(files),
        SinkSpec::Postgres(_) | SinkSpec::Kafka(_) | SinkSpec::Console(_) | SinkSpec::Blackhole => {
            false
        }
    };
    let is_read = readers.clone().next().is_some();
    // Whoever looks for dead letters in storage knows them in one form only.
    is_final && is_read && readers.all(|sink| takes(&sink.spec) && !sink.reads_dead_letters)
}

/// Encodes the rows of one output, several parts at once if need be. Learns from each part which columns have values that hardly repeat:
/// for these no dictionary is begun, because it costs more than all else and is given up in the end.
#[derive(Debug, Default)]
pub struct Encoder(Mutex<Learned>);

#[derive(Debug, Default)]
struct Learned {
    /// Columns whose dictionary was given up.
    various: BTreeSet<String>,
    /// Parts since dictionaries were tried for all columns.
    since_tried: u32,
}

/// Values may begin to repeat: of so many parts one tries all dictionaries again.
const TRIED_EVERY: u32 = 16;

impl Encoder {
    /// Encodes rows; `schema` ends in `_op`.
    pub fn encode(&self, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Bytes, ArrowError> {
        let various = self.next_turn();
        let without_dictionary = |properties: WriterPropertiesBuilder, name: &String| {
            let path = ColumnPath::from(vec![name.clone()]);
            properties.set_column_dictionary_enabled(path, false)
        };
        let properties = various.iter().fold(properties(), without_dictionary);
        let mut file = Vec::new();
        let writer = ArrowWriter::try_new(&mut file, schema.clone(), Some(properties.build()));
        let mut writer = writer.map_err(arrow_error)?;
        for batch in batches {
            writer.write(batch).map_err(arrow_error)?;
        }
        let metadata = writer.close().map_err(arrow_error)?;
        self.learn(&metadata, various);
        Ok(Bytes::from(file))
    }

    /// The columns for which the next part begins no dictionary.
    fn next_turn(&self) -> BTreeSet<String> {
        let mut learned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        learned.since_tried += 1;
        if learned.since_tried >= TRIED_EVERY {
            learned.since_tried = 0;
            return BTreeSet::new();
        }
        learned.various.clone()
    }

    /// `various` had no dictionary in what was written.
    fn learn(&self, written: &ParquetMetaData, mut various: BTreeSet<String>) {
        let groups = written.row_groups().iter();
        let columns = groups.flat_map(|group| group.columns());
        for column in columns.filter(|column| has_given_up(column)) {
            various.insert(column.column_path().string());
        }
        let mut learned = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        learned.various = various;
    }
}

/// Whether a dictionary was begun, and then the rest written without it.
fn has_given_up(column: &ColumnChunkMetaData) -> bool {
    let is_plain = |pages: &PageEncodingStats| {
        let is_data = matches!(
            pages.page_type,
            PageType::DATA_PAGE | PageType::DATA_PAGE_V2
        );
        is_data && pages.encoding == Encoding::PLAIN
    };
    let pages = column.page_encoding_stats();
    column.dictionary_page_offset().is_some() && pages.is_some_and(|all| all.iter().any(is_plain))
}

/// The rows again.
pub fn decode(file: Bytes) -> Result<Vec<RecordBatch>, ArrowError> {
    const BATCH_ROWS: usize = 8_192;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(arrow_error)?;
    let reader = reader.with_batch_size(BATCH_ROWS).build();
    reader.map_err(arrow_error)?.collect()
}

/// How all Parquet is written.
pub(crate) fn properties() -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROWS_MAX))
}

/// Keeps what the file system said, which the library's own conversion turns into text.
pub(crate) fn arrow_error(error: ParquetError) -> ArrowError {
    match error {
        ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
            Ok(cause) => ArrowError::from(*cause),
            Err(cause) => ArrowError::ExternalError(cause),
        },
        error => ArrowError::from(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use parquet::file::metadata::ParquetMetaDataReader;

    use super::*;

    fn rows(is_various: bool) -> RecordBatch {
        let count = 100_000;
        let texts = (0..count).map(|row| format!("{:08}", if is_various { row } else { row % 9 }));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
        let few: ArrayRef = Arc::new(Int64Array::from_iter_values((0..count).map(|row| row % 7)));
        RecordBatch::try_from_iter([("text", texts), ("few", few)]).expect("a batch")
    }

    /// By column, whether it has a dictionary.
    fn dictionaries(encoder: &Encoder, rows: &RecordBatch) -> Vec<bool> {
        let file = encoder.encode(&rows.schema(), std::slice::from_ref(rows));
        let file = file.expect("encoded");
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&file);
        let metadata = metadata.expect("Parquet");
        let decoded = decode(file).expect("rows");
        let decoded = arrow::compute::concat_batches(&rows.schema(), &decoded);
        assert_eq!(decoded.expect("one schema").columns(), rows.columns());
        let columns = metadata.row_group(0).columns().iter();
        columns
            .map(|column| column.dictionary_page_offset().is_some())
            .collect()
    }

    #[test]
    fn a_dictionary_that_was_given_up_is_not_begun_again_for_a_while() {
        let encoder = Encoder::default();
        assert_eq!(dictionaries(&encoder, &rows(true)), [true, true]);
        for _ in 2..TRIED_EVERY {
            assert_eq!(dictionaries(&encoder, &rows(true)), [false, true]);
        }
        assert_eq!(dictionaries(&encoder, &rows(false)), [true, true], "tried");
        assert_eq!(
            dictionaries(&encoder, &rows(false)),
            [true, true],
            "worth it"
        );
    }
}
