//! One Parquet file being written: rows as they come, and row groups that somebody else has encoded.
//!
//! Used by `format.rs`, inside blocking work. A row group that comes whole is copied column by column, page indexes included, with nothing
//! decoded; what was gathered before becomes a row group first, so that rows keep their order. Failure: of the file system or of the
//! format.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use bytes::Bytes;
use millstream_common::plan::OP_UPSERT;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataOptions,
    ParquetMetaDataReader,
};
use parquet::file::statistics::Statistics;
use parquet::file::writer::SerializedFileWriter;

use super::disk::CheckedFile;
use crate::row_group::{self, ROWS_MAX, arrow_error};

/// A file being written.
pub(super) struct ParquetFile {
    file: SerializedFileWriter<CheckedFile>,
    factory: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    /// The row group under way; empty where none is.
    columns: Vec<ArrowColumnWriter>,
    /// In that row group.
    row_count: usize,
    /// Finished ones.
    group_count: usize,
}

/// Encoded rows, looked at.
pub(super) struct RowGroups {
    bytes: Bytes,
    metadata: ParquetMetaData,
}

impl RowGroups {
    /// What `bytes` hold, without decoding rows.
    pub(super) fn read(bytes: Bytes) -> Result<Self, ArrowError> {
        // What is not read is not written either.
        let options = ParquetMetaDataOptions::new().with_encoding_stats_as_mask(false);
        let reader = ParquetMetaDataReader::new()
            .with_page_index_policy(PageIndexPolicy::Optional)
            .with_metadata_options(Some(options));
        let metadata = reader.parse_and_finish(&bytes).map_err(arrow_error)?;
        Ok(Self { bytes, metadata })
    }

    /// How many rows there are.
    pub(super) fn row_count(&self) -> u64 {
        self.metadata.file_metadata().num_rows() as u64
    }

    /// Whether all rows are to be there, as the last column says.
    pub(super) fn are_upserts(&self) -> bool {
        let is_upsert = |operations: &ColumnChunkMetaData| match operations.statistics() {
            Some(Statistics::Int32(all)) => {
                let upsert = i32::from(OP_UPSERT);
                all.min_opt() == Some(&upsert) && all.max_opt() == Some(&upsert)
            }
            _ => false,
        };
        let groups = self.metadata.row_groups().iter();
        groups
            .map(|group| group.columns().last())
            .all(|last| last.is_some_and(is_upsert))
    }

    /// The rows, as batches of `schema`: without the columns behind it.
    pub(super) fn decode(self, schema: &SchemaRef) -> Result<Vec<RecordBatch>, ArrowError> {
        let count = schema.fields().len();
        let batches = row_group::decode(self.bytes)?;
        let rows = batches.iter().map(|batch| {
            let columns = batch.columns().iter().take(count).cloned();
            RecordBatch::try_new(schema.clone(), columns.collect())
        });
        rows.collect()
    }
}

impl ParquetFile {
    /// Begins a file of rows of `schema`.
    pub(super) fn new(file: CheckedFile, schema: SchemaRef) -> Result<Self, ArrowError> {
        let properties = row_group::properties().build();
        let parts = ArrowWriter::try_new(file, schema.clone(), Some(properties))
            .and_then(ArrowWriter::into_serialized_writer);
        let (file, factory) = parts.map_err(arrow_error)?;
        Ok(Self {
            file,
            factory,
            schema,
            columns: Vec::new(),
            row_count: 0,
            group_count: 0,
        })
    }

    /// Appends rows.
    pub(super) fn write(&mut self, mut rows: RecordBatch) -> Result<(), ArrowError> {
        while rows.num_rows() > 0 {
            let count = rows.num_rows().min(ROWS_MAX - self.row_count);
            self.encode(&rows.slice(0, count)).map_err(arrow_error)?;
            rows = rows.slice(count, rows.num_rows() - count);
            if self.row_count == ROWS_MAX {
                self.end_group()?;
            }
        }
        Ok(())
    }

    fn encode(&mut self, rows: &RecordBatch) -> Result<(), ParquetError> {
        if self.columns.is_empty() {
            self.columns = self.factory.create_column_writers(self.group_count)?;
        }
        let mut writers = self.columns.iter_mut();
        for (field, column) in self.schema.fields().iter().zip(rows.columns()) {
            for (leaf, writer) in compute_leaves(field, column)?.iter().zip(&mut writers) {
                writer.write(leaf)?;
            }
        }
        self.row_count += rows.num_rows();
        Ok(())
    }

    /// Ends the row group under way.
    fn end_group(&mut self) -> Result<(), ArrowError> {
        if self.columns.is_empty() {
            return Ok(());
        }
        self.row_count = 0;
        self.group_count += 1;
        let columns = std::mem::take(&mut self.columns);
        self.write_group(columns).map_err(arrow_error)
    }

    fn write_group(&mut self, columns: Vec<ArrowColumnWriter>) -> Result<(), ParquetError> {
        let mut group = self.file.next_row_group()?;
        for column in columns {
            column.close()?.append_to_row_group(&mut group)?;
        }
        group.close().map(drop)
    }

    /// Whether its columns are those of `groups` but the last: then they can be copied.
    pub(super) fn takes(&self, groups: &RowGroups) -> bool {
        let theirs = groups.metadata.file_metadata().schema_descr().columns();
        let own = self.file.schema_descr().columns();
        theirs.len() == own.len() + 1 && theirs.starts_with(own)
    }

    /// Appends row groups that it takes, without their last column.
    pub(super) fn append(&mut self, groups: &RowGroups) -> Result<(), ArrowError> {
        self.end_group()?;
        for index in 0..groups.metadata.num_row_groups() {
            self.copy(groups, index).map_err(arrow_error)?;
            self.group_count += 1;
        }
        Ok(())
    }

    fn copy(&mut self, groups: &RowGroups, index: usize) -> Result<(), ParquetError> {
        let RowGroups { bytes, metadata } = groups;
        let from = metadata.row_group(index);
        let column_count = self.file.schema_descr().num_columns();
        let mut to = self.file.next_row_group()?;
        for (column, chunk) in from.columns().iter().enumerate().take(column_count) {
            let closed = ColumnCloseResult {
                bytes_written: chunk.compressed_size() as u64,
                rows_written: from.num_rows() as u64,
                metadata: chunk.clone(),
                bloom_filter: None,
                column_index: metadata
                    .column_index()
                    .map(|all| all[index][column].clone()),
                offset_index: metadata
                    .offset_index()
                    .map(|all| all[index][column].clone()),
            };
            to.append_column(bytes, closed)?;
        }
        to.close().map(drop)
    }

    /// Ends the file.
    pub(super) fn finish(mut self) -> Result<CheckedFile, ArrowError> {
        self.end_group()?;
        self.file.into_inner().map_err(arrow_error)
    }
}
