//! How far time has come in a job, and who holds it back: the answer to "why has my window not fired?".
//!
//! Filled by the master, shown by the command line. Pure data.

use serde::Serialize;

use super::JobState;
use super::view::event_time;
use crate::ids::{JobName, SplitId, WorkerId};
use crate::time::EventTime;

/// The watermarks of a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WatermarksView {
    /// The job.
    pub job: JobName,
    /// Where it stands.
    pub state: JobState,
    /// In the order of the file.
    pub sources: Vec<SourceWatermarkView>,
    /// What keeps rows from coming out, in words; empty while nothing does.
    pub why: Vec<String>,
}

/// The watermark of a source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceWatermarkView {
    /// Its name in the file.
    pub name: String,
    /// `kafka`, `files`, `datagen`.
    pub connector: String,
    /// It has none where the file gives it none.
    pub keeps_time: bool,
    /// No older row will come; `None` before the first.
    #[serde(serialize_with = "event_time")]
    pub watermark: Option<EventTime>,
    /// How far it is behind the wall clock.
    pub delay_ms: Option<i64>,
    /// The split that holds it back.
    pub held_by: Option<SplitId>,
    /// The splits that are not ended, those that are furthest behind first.
    pub splits: Vec<SplitWatermarkView>,
    /// Splits that are ended, and hold nobody back.
    pub splits_ended: u64,
    /// Records behind the positions of its splits; `None` until all that are being read have told their ends, and where they have none.
    pub lag_records: Option<u64>,
}

/// The watermark of a split.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitWatermarkView {
    /// Its name.
    pub split: SplitId,
    /// It is read to its end and silent: it holds nobody back.
    pub is_idle: bool,
    /// `None` before its first row.
    #[serde(serialize_with = "event_time")]
    pub watermark: Option<EventTime>,
    /// The next record to read.
    pub position: i64,
    /// Records behind the position, where that is known.
    pub lag_records: Option<u64>,
    /// Who reads it; `None` while the job does not run.
    pub worker: Option<WorkerId>,
    /// Since the last row of it came; `None` if none came since this master began.
    pub silent_ms: Option<u64>,
    /// Since it has been idle, or this master has known it to be.
    pub idle_ms: Option<u64>,
}
