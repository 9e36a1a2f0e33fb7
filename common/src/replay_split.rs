//! Rows that go through a job again: the object that holds them, and the split that reads it.
//!
//! Written by the master at a person's word (`millstream dead-letters ... --replay`), named by a `Replay` entry of the log, read by a
//! worker beside the splits of the source. The split is named after what it reads: a command said again finds it in the log
//! and has no effect; the object is one command's own. How far it is read stands in the Epochs, as for every split (INV-5).
//! Failure: an object that is not what the log says is refused by name (INV-8).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

use crate::ids::SplitId;
use crate::ipc::{self, EncodedObject, ObjectError};
use crate::report::{SplitProgress, SplitStatus};

/// No topic and no absolute path begins so.
const PREFIX: &str = "replay:";

/// An object with rows to be read again, as the log names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayObject {
    /// Its key in storage.
    pub path: String,
    /// Size in storage.
    pub bytes: u64,
    /// CRC-32C of the object (INV-8).
    pub checksum: u32,
    /// Rows in it.
    pub row_count: u64,
    /// The event time that each row is given in place of its own; fixed here, so that a row read twice is the same row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_time_us: Option<i64>,
    /// Wall clock of the master, microseconds since 1970 UTC.
    pub sent_at_us: i64,
}

impl ReplayObject {
    /// A split at its begin. Its watermark is for the caller to set.
    pub fn beginning(&self) -> SplitProgress {
        let identity = ReplayIdentity {
            path: self.path.clone(),
            checksum: self.checksum,
            event_time_us: self.event_time_us,
        };
        SplitProgress {
            position: 0,
            end: i64::try_from(self.row_count).ok(),
            watermark: None,
            status: SplitStatus::Active,
            identity: serde_json::to_string(&identity).ok(),
            gaps: None,
        }
    }
}

/// What a reader has to know of the object; [`SplitProgress::identity`] carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayIdentity {
    /// Its key in storage.
    pub path: String,
    /// CRC-32C of the object (INV-8).
    pub checksum: u32,
    /// The event time of each row, if not its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_time_us: Option<i64>,
}

impl ReplayIdentity {
    /// What the progress of a replay's split names.
    pub fn of(progress: &SplitProgress) -> Option<Self> {
        serde_json::from_str(progress.identity.as_deref()?).ok()
    }
}

/// The split of the replay of that name.
pub fn split_of(name: &str) -> SplitId {
    SplitId(format!("{PREFIX}{name}"))
}

/// Whether a split is a replay, and none of its source's own.
pub fn is_replay(split: &SplitId) -> bool {
    is_replay_origin(&split.0)
}

/// Whether a row of this origin was read from one.
pub fn is_replay_origin(origin: &str) -> bool {
    origin.starts_with(PREFIX)
}

/// Which dead letter a row was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterName {
    /// Its origin.
    pub origin: String,
    /// Its position there.
    pub position: i64,
    /// Its code: a record has one letter of each code at most.
    pub code: String,
}

/// A row to be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayRow {
    /// The record.
    pub payload: Vec<u8>,
    /// The dead letter that it was; `None` where a person has written it.
    pub letter: Option<LetterName>,
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("payload", DataType::Binary, false),
        Field::new("origin", DataType::Utf8, true),
        Field::new("position", DataType::Int64, true),
        Field::new("code", DataType::Utf8, true),
    ]))
}

/// The object that is to lie at `path`: the same rows make the same bytes.
pub fn encode(path: &str, rows: &[ReplayRow]) -> Result<EncodedObject, ObjectError> {
    let letters = || rows.iter().map(|row| row.letter.as_ref());
    let texts = |text: &dyn Fn(&LetterName) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter(
            letters().map(|letter| letter.map(text)),
        ))
    };
    let payloads = rows.iter().map(|row| row.payload.as_slice());
    let positions = letters().map(|letter| letter.map(|letter| letter.position));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BinaryArray::from_iter_values(payloads)),
        texts(&|letter| &letter.origin),
        Arc::new(Int64Array::from_iter(positions)),
        texts(&|letter| &letter.code),
    ];
    let batch = RecordBatch::try_new(schema(), columns).map_err(|error| arrow(path, error))?;
    ipc::encode(path, &schema(), &[batch])
}

/// The rows of the object at `path`.
pub fn rows(path: &str, batches: &[RecordBatch]) -> Result<Vec<ReplayRow>, ObjectError> {
    let mut rows = Vec::new();
    for batch in batches {
        if batch.schema_ref().fields() != schema().fields() {
            let cause = ArrowError::SchemaError("it holds no rows to be read again".to_owned());
            return Err(arrow(path, cause));
        }
        let payloads = batch.column(0).as_binary::<i32>();
        let origins = batch.column(1).as_string::<i32>();
        let positions = batch.column(2).as_primitive::<Int64Type>();
        let codes = batch.column(3).as_string::<i32>();
        for row in 0..batch.num_rows() {
            let letter = origins.is_valid(row).then(|| LetterName {
                origin: origins.value(row).to_owned(),
                position: positions.value(row),
                code: codes.value(row).to_owned(),
            });
            rows.push(ReplayRow {
                payload: payloads.value(row).to_vec(),
                letter,
            });
        }
    }
    Ok(rows)
}

fn arrow(path: &str, source: ArrowError) -> ObjectError {
    ObjectError::Arrow {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_rows_make_the_same_object_and_read_back_as_they_were() {
        let sent = [
            ReplayRow {
                payload: b"{\"a\": 1}".to_vec(),
                letter: Some(LetterName {
                    origin: "clicks-3".to_owned(),
                    position: 7,
                    code: "late".to_owned(),
                }),
            },
            ReplayRow {
                payload: b"\xff".to_vec(),
                letter: None,
            },
        ];
        let object = encode("a", &sent).expect("encode");
        let again = encode("a", &sent).expect("encode").bytes;
        assert_eq!(again.whole(), object.bytes.whole());
        let batches = ipc::decode("a", &object.bytes.whole(), object.checksum).expect("decode");
        assert_eq!(rows("a", &batches).expect("rows"), sent);
    }

    #[test]
    fn a_split_of_a_replay_says_what_it_reads_and_is_taken_for_no_other() {
        let object = ReplayObject {
            path: "replays/x.arrow".to_owned(),
            bytes: 9,
            checksum: 7,
            row_count: 2,
            event_time_us: Some(5),
            sent_at_us: 1,
        };
        let beginning = object.beginning();
        assert_eq!((beginning.position, beginning.end), (0, Some(2)));
        let identity = ReplayIdentity::of(&beginning).expect("an identity");
        assert_eq!((identity.checksum, identity.event_time_us), (7, Some(5)));
        assert!(is_replay(&split_of("a")));
        for own in ["replay-3", "/data/replay:a.csv", "datagen-0"] {
            assert!(!is_replay(&own.into()), "{own}");
        }
    }
}
