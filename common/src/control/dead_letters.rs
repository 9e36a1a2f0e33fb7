//! Dead letters as a client asks for them, sees them, and sends them through a job again.
//!
//! Answered by the master from the segments that it keeps; the views' JSON is what `--json` prints. Pure data.

use serde::{Serialize, Serializer};

use crate::ids::Epoch;

/// Which dead letters; `None` leaves none out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterFilter {
    /// Of this source, view or sink.
    pub owner: Option<String>,
    /// Of this code.
    pub code: Option<String>,
    /// Received then or later: microseconds since 1970 UTC.
    pub since_us: Option<i64>,
    /// Received before.
    pub until_us: Option<i64>,
    /// Of this topic's partition or file.
    pub origin: Option<String>,
}

/// What is to be listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LetterQuery {
    /// Which.
    pub filter: LetterFilter,
    /// The newest so many; 0 counts all and lists none.
    pub limit: u64,
}

/// A refused row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetterView {
    /// The source, view or sink that refused it.
    pub source: String,
    /// `topic-3`, a file's URL, `replay:...`, or a relation and its epoch.
    pub origin: String,
    /// Offset, or 1-based record number.
    pub position: i64,
    /// The record; bytes that are no text as `\xNN`.
    pub payload: Option<String>,
    /// The record, where `payload` is not exact; in JSON as `\x` and hexadecimal digits.
    #[serde(
        serialize_with = "hexadecimal",
        skip_serializing_if = "Option::is_none"
    )]
    pub payload_bytes: Option<Vec<u8>>,
    /// `type_mismatch`, `late`, ...
    pub code: String,
    /// Names column or rule.
    pub reason: String,
    /// Microseconds since 1970, as far as it was decoded.
    pub event_time_us: Option<i64>,
    /// Microseconds since 1970 UTC.
    pub received_at_us: i64,
    /// The epoch that it belongs to.
    pub epoch: Epoch,
    /// The payload is only the beginning.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
}

/// Letters by owner and code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LetterCount {
    /// The source, view or sink.
    pub owner: String,
    /// `type_mismatch`, `late`, ...
    pub code: String,
    /// How many.
    pub rows: u64,
}

/// What a listing came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LetterTotals {
    /// Of what was looked at.
    pub counts: Vec<LetterCount>,
    /// Rows that `dead_letter_retention` has dropped since the life began.
    pub dropped: u64,
}

/// A part of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterPage {
    /// Newest first.
    pub letters: Vec<DeadLetterView>,
    /// In the last part only.
    pub totals: Option<LetterTotals>,
}

/// Rows to be sent through a job again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayRequest {
    /// Whose rows, and which dead letters, unless `corrected` takes their place. The owner is a source.
    pub filter: LetterFilter,
    /// Rows that a person has written, one JSON object each.
    pub corrected: Option<Vec<Vec<u8>>>,
    /// Every row gets the time of the call as its event time.
    pub event_time_now: bool,
    /// Send also what has been sent before.
    pub again: bool,
}

/// What became of a [`ReplayRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// The split that reads the rows; `None` where nothing was to be sent.
    pub split: Option<String>,
    /// Rows that go through the job again.
    pub rows: u64,
    /// The same rows had been sent before: the call had no effect.
    pub known: bool,
    /// Letters that were left out.
    pub skipped: Vec<SkippedLetters>,
}

/// Letters that are not sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SkippedLetters {
    /// How many.
    pub rows: u64,
    /// Why, and what can be done about it.
    pub reason: String,
}

fn hexadecimal<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    let digits = |bytes: &Vec<u8>| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    match bytes {
        Some(bytes) => serializer.serialize_str(&format!("\\x{}", digits(bytes))),
        None => serializer.serialize_none(),
    }
}
