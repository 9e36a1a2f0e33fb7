//! Decode: bytes to Arrow, with every rule of the source enforced and every refused record kept.
//!
//! Called by readers on their own thread, while the client still holds the payloads. Order of work for a
//! batch of records: split into columns by format, convert types, compute columns, NOT NULL and CHECK, then late or
//! not, row by row in order of position. Nothing is lost: a record is in the batch, among the dead letters, or
//! counted as dropped (INV-10). Failure: only `on_violation = 'fail'` and our own defects are errors.

mod base;
mod builder;
mod columns;
mod convert;
pub mod csv;
mod dead_letters;
mod decoder;
mod expected;
mod input;
mod json;
mod judge;
mod places;
mod refusals;
mod rows;
mod rules;
mod splits;
mod texts;
mod token;
mod typed;
mod words;

use std::ffi::CStr;

use millstream_common::dead_letter::Code;
use millstream_common::time::EventTime;

pub use decoder::SourceDecoder;
pub use places::RowPlaces;

/// What decoding can fail with.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The plan's columns and expressions do not fit each other.
    #[error("build decoder of source {source_name}: {cause}")]
    Build {
        /// The source.
        source_name: String,
        /// What does not fit.
        cause: String,
    },
    /// A record breaks a rule and the source says `on_violation = 'fail'`.
    #[error(
        "decode record {position} of {origin}: {code}: {reason}; on_violation = 'fail' ends the job, 'dead_letter' keeps such records aside"
    )]
    Violation {
        /// `topic-3` or a file's path.
        origin: String,
        /// Kafka offset, or 1-based record number.
        position: i64,
        /// Which rule.
        code: Code,
        /// Column or rule, and the problem.
        reason: String,
    },
    /// A batch that cannot be put together: a defect.
    #[error("decode batch of source {source_name}: {cause}")]
    Batch {
        /// The source.
        source_name: String,
        /// What Arrow says.
        cause: String,
    },
}

/// One record as a client lends it.
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    /// Which split, as numbered by the decoder's `open_split`.
    pub slot: SplitSlot,
    /// Kafka offset, or 1-based record number.
    pub position: i64,
    /// `None` is a null Kafka value.
    pub payload: Option<&'a [u8]>,
    /// Kafka key.
    pub key: Option<&'a [u8]>,
    /// Kafka timestamp, milliseconds since 1970 UTC.
    pub timestamp_ms: Option<i64>,
    /// Kafka headers, looked up only for `INCLUDE header`.
    pub headers: Option<&'a dyn HeaderLookup>,
}

/// Headers of a record, read on demand.
pub trait HeaderLookup: std::fmt::Debug {
    /// The value of the last header of this name.
    fn last(&self, name: &CStr) -> Option<&[u8]>;
}

/// A split's number within one decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SplitSlot(pub usize);

/// When the watermark of a split moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatermarkMoves {
    /// With each accepted row (Kafka, datagen).
    WithRows,
    /// When the split ends (files): until then its rows are judged by what it began with.
    AtEnd,
}

/// What opens a split in a decoder.
#[derive(Clone, Debug)]
pub struct OpenSplit {
    /// As dead letters name it: `topic-3` or a file's path.
    pub origin: String,
    /// The Kafka partition, for `INCLUDE partition`.
    pub partition: Option<i32>,
    /// No accepted row may be older.
    pub watermark: Option<EventTime>,
    /// When its watermark moves.
    pub moves: WatermarkMoves,
}

#[cfg(test)]
pub(crate) mod tests;
