//! One file being written: Parquet, CSV or JSON lines.
//!
//! Used by `writer.rs`, inside blocking work. Rows reach the format's writer in batches of a fixed number, however
//! they came, so that the same rows always make the same bytes. Failure: of the file system or of the format.

use std::path::Path;

use arrow::array::RecordBatch;
use arrow::compute::BatchCoalescer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::json::writer::LineDelimited;
use millstream_common::plan::connector::FileFormat;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::csv::CsvWriter;
use super::disk::CheckedFile;
use crate::row_json::line_writer;

/// Rows a batch, as the format's writer sees them.
const BATCH_ROWS: usize = 8_192;
/// Rows a Parquet row group: bounds what is in memory of one file.
const ROW_GROUP_ROWS: usize = 262_144;

/// A file being written.
pub(super) struct FormatWriter {
    rows: BatchCoalescer,
    encoder: Encoder,
}

enum Encoder {
    Parquet(Box<ArrowWriter<CheckedFile>>),
    Csv(CsvWriter<CheckedFile>),
    Json(arrow::json::writer::Writer<CheckedFile, LineDelimited>),
}

impl FormatWriter {
    /// Begins a file of rows of `schema`.
    pub(super) fn create(
        path: &Path,
        schema: SchemaRef,
        format: FileFormat,
    ) -> Result<Self, ArrowError> {
        let file = CheckedFile::create(path)?;
        let encoder = match format {
            FileFormat::Parquet => {
                let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties()));
                Encoder::Parquet(Box::new(writer.map_err(arrow_error)?))
            }
            FileFormat::Csv => Encoder::Csv(CsvWriter::new(file)),
            FileFormat::Json => Encoder::Json(line_writer(file)),
        };
        Ok(Self {
            rows: BatchCoalescer::new(schema, BATCH_ROWS),
            encoder,
        })
    }

    /// Appends rows.
    pub(super) fn write(&mut self, rows: RecordBatch) -> Result<(), ArrowError> {
        self.rows.push_batch(rows)?;
        self.encode_complete()
    }

    fn encode_complete(&mut self) -> Result<(), ArrowError> {
        while let Some(batch) = self.rows.next_completed_batch() {
            match &mut self.encoder {
                Encoder::Parquet(writer) => writer.write(&batch).map_err(arrow_error)?,
                Encoder::Csv(writer) => writer.write(&batch)?,
                Encoder::Json(writer) => writer.write(&batch)?,
            }
        }
        Ok(())
    }

    /// Ends the file and waits until it is on disk; its size and checksum.
    pub(super) fn finish(mut self) -> Result<(u64, u32), ArrowError> {
        self.rows.finish_buffered_batch()?;
        self.encode_complete()?;
        let file = match self.encoder {
            Encoder::Parquet(writer) => writer.into_inner().map_err(arrow_error)?,
            Encoder::Csv(writer) => writer.into_inner(),
            Encoder::Json(mut writer) => {
                writer.finish()?;
                writer.into_inner()
            }
        };
        file.sync()?;
        Ok((file.bytes, file.checksum))
    }
}

fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .build()
}

/// Keeps what the file system said, which the library's own conversion turns into text.
fn arrow_error(error: ParquetError) -> ArrowError {
    match error {
        ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
            Ok(cause) => ArrowError::from(*cause),
            Err(cause) => ArrowError::ExternalError(cause),
        },
        error => ArrowError::from(error),
    }
}
