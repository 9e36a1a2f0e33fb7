//! Parquet files: row groups to rows, of the columns that the source declares.
//!
//! Called by `reading.rs`. A file that is no Parquet, or breaks off, is one dead letter and done.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use bytes::Bytes;
use millstream_common::dead_letter::Code;
use millstream_common::plan::{ColumnOrigin, SourcePlan};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use super::input::DiskFault;
use super::source::FileHandle;
use super::{BATCH_BYTES_MAX, BATCH_ROWS_MAX, FileError, Part, Place};
use crate::decode::SourceDecoder;

/// A Parquet file being read.
pub(super) struct ParquetFile {
    /// `None` once the file is known to be broken.
    rows: Result<ParquetRecordBatchReader, String>,
    /// Read but not yet handed on, and how many rows of it make an event.
    pending: Option<(RecordBatch, usize)>,
    fault: DiskFault,
}

impl ParquetFile {
    /// Begins a file of `plan`'s source.
    pub(super) fn new(mut file: Box<dyn FileHandle>, plan: &SourcePlan) -> io::Result<Self> {
        let fault = DiskFault::default();
        let length = file.seek(SeekFrom::End(0))?;
        let chunks = Chunks {
            file: Arc::new(Mutex::new(file)),
            length,
            fault: fault.clone(),
        };
        let rows = open(chunks, plan).map_err(|error| error.to_string());
        match &rows {
            Err(cause) if fault.has_occurred() => Err(io::Error::other(cause.clone())),
            _ => Ok(Self {
                rows,
                pending: None,
                fault,
            }),
        }
    }

    /// The next rows, up to `place.records_max`.
    pub(super) fn next(
        &mut self,
        decoder: &mut SourceDecoder,
        place: Place,
    ) -> Result<Part, FileError> {
        let batch = match self.take(place.records_max) {
            Ok(Some(batch)) => batch,
            Ok(None) => {
                return Ok(Part {
                    record_count: 0,
                    rows: None,
                    is_last: true,
                });
            }
            Err(cause) if self.fault.has_occurred() => return Err(io::Error::other(cause).into()),
            Err(cause) => {
                let reason = format!("the file cannot be read as Parquet: {cause}");
                let position = place.position + 1;
                let rows = decoder.refuse(place.slot, position, None, Code::Malformed, reason)?;
                return Ok(Part {
                    record_count: 1,
                    rows: Some(rows),
                    is_last: true,
                });
            }
        };
        let rows = decoder.decode_typed(place.slot, place.position + 1, &batch)?;
        Ok(Part {
            record_count: batch.num_rows() as i64,
            rows: Some(rows),
            is_last: false,
        })
    }

    /// Up to `rows_max` rows, of about [`BATCH_BYTES_MAX`] bytes at most.
    fn take(&mut self, rows_max: usize) -> Result<Option<RecordBatch>, String> {
        let (pending, event_rows) = match self.pending.take() {
            Some(pending) => pending,
            None => match self.rows.as_mut().map_err(|cause| cause.clone())?.next() {
                None => return Ok(None),
                Some(Err(error)) => return Err(error.to_string()),
                Some(Ok(batch)) => {
                    let row_bytes = batch.get_array_memory_size() / batch.num_rows().max(1);
                    (batch, (BATCH_BYTES_MAX / row_bytes.max(1)).max(1))
                }
            },
        };
        let count = pending.num_rows();
        let taken = rows_max.min(event_rows).min(count);
        if taken < count {
            self.pending = Some((pending.slice(taken, count - taken), event_rows));
        }
        Ok(Some(pending.slice(0, taken)))
    }
}

fn open(chunks: Chunks, plan: &SourcePlan) -> Result<ParquetRecordBatchReader, ParquetError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(chunks)?;
    let is_declared = |name: &str| {
        let mut columns = plan.columns.iter();
        columns.any(|column| column.origin == ColumnOrigin::Record && column.field.name() == name)
    };
    let fields = builder.schema().fields().iter().enumerate();
    let declared: Vec<usize> = fields
        .filter(|(_, field)| is_declared(field.name()))
        .map(|(index, _)| index)
        .collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), declared);
    builder
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS_MAX)
        .build()
}

/// A file as the Parquet reader wants it: readable at any place.
struct Chunks {
    file: Arc<Mutex<Box<dyn FileHandle>>>,
    length: u64,
    fault: DiskFault,
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Chunks {
    type T = io::BufReader<Chunk>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(io::BufReader::new(Chunk {
            file: self.file.clone(),
            at: start,
            fault: self.fault.clone(),
        }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        if start.saturating_add(length as u64) > self.length {
            return Err(ParquetError::EOF(format!(
                "{length} bytes expected at {start}, the file has {}",
                self.length
            )));
        }
        let mut buffer = Vec::with_capacity(length);
        self.get_read(start)?
            .take(length as u64)
            .read_to_end(&mut buffer)?;
        if buffer.len() < length {
            return Err(ParquetError::EOF(format!(
                "{length} bytes expected at {start}"
            )));
        }
        Ok(buffer.into())
    }
}

/// A place in a file that is read in several places.
struct Chunk {
    file: Arc<Mutex<Box<dyn FileHandle>>>,
    at: u64,
    fault: DiskFault,
}

impl Read for Chunk {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Every read seeks first, so that a panic between the two leaves nothing behind.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let result = file
            .seek(SeekFrom::Start(self.at))
            .and_then(|_| file.read(buffer));
        let count = self.fault.note(result)?;
        self.at += count as u64;
        Ok(count)
    }
}
