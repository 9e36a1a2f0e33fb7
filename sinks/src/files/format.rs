//! One file being written: Parquet, CSV or JSON lines.
//!
//! Used by `writer.rs`, inside blocking work. Rows reach the format's writer in batches of a fixed number, however
//! they came, so that the same rows always make the same bytes; row groups that come whole stay whole. Failure: of the file system or of the format.

use std::path::Path;

use arrow::array::RecordBatch;
use arrow::compute::BatchCoalescer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::json::writer::LineDelimited;
use millstream_common::plan::connector::FileFormat;

use super::csv::CsvWriter;
use super::disk::CheckedFile;
use super::parquet::{ParquetFile, RowGroups};
use crate::row_json::line_writer;

/// Rows a batch, as the format's writer sees them.
const BATCH_ROWS: usize = 8_192;

/// A file being written.
pub(super) struct FormatWriter {
    rows: BatchCoalescer,
    encoder: Encoder,
}

enum Encoder {
    Parquet(Box<ParquetFile>),
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
                Encoder::Parquet(Box::new(ParquetFile::new(file, schema.clone())?))
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

    /// Appends rows that are encoded already: as they are where the file is Parquet and has the same columns.
    pub(super) fn append(&mut self, groups: RowGroups) -> Result<(), ArrowError> {
        let is_taken = match &self.encoder {
            Encoder::Parquet(file) => file.takes(&groups),
            Encoder::Csv(_) | Encoder::Json(_) => false,
        };
        if !is_taken {
            let batches = groups.decode(&self.rows.schema())?;
            return batches.into_iter().try_for_each(|rows| self.write(rows));
        }
        self.rows.finish_buffered_batch()?;
        self.encode_complete()?;
        match &mut self.encoder {
            Encoder::Parquet(file) => file.append(&groups),
            Encoder::Csv(_) | Encoder::Json(_) => Ok(()),
        }
    }

    fn encode_complete(&mut self) -> Result<(), ArrowError> {
        while let Some(batch) = self.rows.next_completed_batch() {
            match &mut self.encoder {
                Encoder::Parquet(file) => file.write(batch)?,
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
            Encoder::Parquet(file) => file.finish()?,
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
