//! The inputs of a batch: borrowed records, the records of a CSV window, typed rows.
//!
//! Read by every step that must know which record a row was: for metadata columns, for the late walk and for dead
//! letters. Nothing is copied unless a record is refused.

use std::ffi::CString;

use arrow::array::RecordBatch;
use arrow::json::writer::{LineDelimited, WriterBuilder};
use millstream_common::plan::Metadata;

use super::splits::Splits;
use super::token::Value;
use super::{RecordRef, SplitSlot};

/// The records of a batch.
pub(super) trait Records {
    /// How many records there are.
    fn count(&self) -> usize;
    /// The sum of their payloads.
    fn bytes(&self) -> u64;
    /// The split of a record.
    fn slot(&self, record: usize) -> SplitSlot;
    /// The position of a record.
    fn position(&self, record: usize) -> i64;
    /// What the record was.
    fn payload(&self, record: usize) -> Payload<'_>;
    /// What came with the record, beside its payload; `Err` says why it cannot be read.
    fn metadata<'a>(
        &'a self,
        record: usize,
        beside: &Beside,
        splits: &'a Splits,
    ) -> Result<Value<'a>, &'static str> {
        let split = splits.get(self.slot(record));
        Ok(match &beside.metadata {
            Metadata::Offset => Value::Integer(self.position(record)),
            Metadata::File => Value::Text(&split.origin),
            Metadata::Partition => match split.partition {
                Some(partition) => Value::Integer(i64::from(partition)),
                None => Value::Null,
            },
            Metadata::Key | Metadata::Timestamp | Metadata::Header(_) => Value::Null,
        })
    }
}

/// What fills a column from beside the payload.
#[derive(Debug)]
pub(super) struct Beside {
    metadata: Metadata,
    /// The name of a header as clients look it up, made once and not for each record. One with a zero byte there cannot be.
    header: Option<CString>,
}

impl From<&Metadata> for Beside {
    fn from(metadata: &Metadata) -> Self {
        Self {
            metadata: metadata.clone(),
            header: match metadata {
                Metadata::Header(name) => CString::new(name.as_str()).ok(),
                _ => None,
            },
        }
    }
}

/// What a record was.
pub(super) enum Payload<'a> {
    /// A null Kafka value.
    Null,
    Bytes(&'a [u8]),
    /// A typed row, written as JSON.
    Text(String),
}

/// Records as a client lends them.
pub(super) struct Lent<'a>(pub(super) &'a [RecordRef<'a>]);

impl Records for Lent<'_> {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn bytes(&self) -> u64 {
        self.0
            .iter()
            .filter_map(|record| record.payload)
            .map(|payload| payload.len() as u64)
            .sum()
    }

    #[inline]
    fn slot(&self, record: usize) -> SplitSlot {
        self.0[record].slot
    }

    fn position(&self, record: usize) -> i64 {
        self.0[record].position
    }

    fn payload(&self, record: usize) -> Payload<'_> {
        match self.0[record].payload {
            Some(bytes) => Payload::Bytes(bytes),
            None => Payload::Null,
        }
    }

    fn metadata<'a>(
        &'a self,
        record: usize,
        beside: &Beside,
        splits: &'a Splits,
    ) -> Result<Value<'a>, &'static str> {
        let lent = &self.0[record];
        let split = splits.get(lent.slot);
        Ok(match &beside.metadata {
            Metadata::Key => text(lent.key, "the record's key is not UTF-8")?,
            Metadata::Header(_) => {
                let name = beside.header.as_deref();
                let header = lent.headers.zip(name);
                let header = header.and_then(|(headers, name)| headers.last(name));
                text(header, "the record's header is not UTF-8")?
            }
            Metadata::Timestamp => match lent.timestamp_ms {
                Some(millis) => Value::Instant(millis.saturating_mul(1_000)),
                None => Value::Null,
            },
            Metadata::Offset => Value::Integer(lent.position),
            Metadata::File => Value::Text(&split.origin),
            Metadata::Partition => match split.partition {
                Some(partition) => Value::Integer(i64::from(partition)),
                None => Value::Null,
            },
        })
    }
}

fn text<'a>(bytes: Option<&'a [u8]>, problem: &'static str) -> Result<Value<'a>, &'static str> {
    match bytes.map(simdutf8::basic::from_utf8) {
        Some(Ok(text)) => Ok(Value::Text(text)),
        Some(Err(_)) => Err(problem),
        None => Ok(Value::Null),
    }
}

/// Rows that are typed already.
pub(super) struct Typed<'a> {
    pub(super) slot: SplitSlot,
    pub(super) first_position: i64,
    pub(super) batch: &'a RecordBatch,
}

impl Records for Typed<'_> {
    fn count(&self) -> usize {
        self.batch.num_rows()
    }

    fn bytes(&self) -> u64 {
        // A slice counts for its share of the buffers it has in common with others.
        let sizes = self
            .batch
            .columns()
            .iter()
            .map(|column| column.to_data().get_slice_memory_size());
        sizes.map(|size| size.unwrap_or(0) as u64).sum()
    }

    fn slot(&self, _: usize) -> SplitSlot {
        self.slot
    }

    fn position(&self, record: usize) -> i64 {
        self.first_position + record as i64
    }

    fn payload(&self, record: usize) -> Payload<'_> {
        let row = self.batch.slice(record, 1);
        let mut line = Vec::new();
        let mut writer = WriterBuilder::new()
            .with_explicit_nulls(true)
            .build::<_, LineDelimited>(&mut line);
        let written = writer.write(&row).and_then(|()| writer.finish());
        drop(writer);
        match written {
            Ok(()) => Payload::Text(String::from_utf8_lossy(line.trim_ascii_end()).into_owned()),
            Err(_) => Payload::Text(format!("{row:?}")),
        }
    }
}

/// One record that is refused as a whole.
pub(super) struct Single<'a> {
    pub(super) slot: SplitSlot,
    pub(super) position: i64,
    pub(super) payload: Option<&'a [u8]>,
}

impl Records for Single<'_> {
    fn count(&self) -> usize {
        1
    }

    fn bytes(&self) -> u64 {
        self.payload.map_or(0, |payload| payload.len() as u64)
    }

    fn slot(&self, _: usize) -> SplitSlot {
        self.slot
    }

    fn position(&self, _: usize) -> i64 {
        self.position
    }

    fn payload(&self, _: usize) -> Payload<'_> {
        self.payload.map_or(Payload::Null, Payload::Bytes)
    }
}
