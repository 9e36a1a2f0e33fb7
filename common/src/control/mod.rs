//! The words of the control API: what a client asks of a master and what it gets back.
//!
//! Used by the master's service, the client and the command line; `grpc` carries them over the wire.
//! Pure data. Failure: whatever a master refuses is a [`ControlError`].

mod dead_letters;
mod error;
mod plan;
mod preview;
mod savepoint;
mod view;
mod watermarks;

pub use dead_letters::{
    DeadLetterView, LetterCount, LetterFilter, LetterPage, LetterQuery, LetterTotals,
    ReplayRequest, Replayed, SkippedLetters,
};
pub use error::ControlError;
pub use plan::{PlanBranchView, PlanOutputView, PlanSinkView, PlanStageView, PlanView};
pub use preview::{PreviewColumn, PreviewHeader, PreviewPart, PreviewRows};
pub use savepoint::{FromCheckpoint, LATEST, SavepointView};
pub use view::{
    BranchView, CheckpointView, GapView, JobState, JobView, LastFailure, QUOTA_NEAR, QuotaView,
    SinkView, SourceView, StageView, StorageUse, WorkerState, WorkerView,
};
pub use watermarks::{SourceWatermarkView, SplitWatermarkView, WatermarksView};

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, JobName};
use crate::problem::Problem;

/// A job to plan, check and start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubmitRequest {
    /// Unique among running jobs.
    pub name: JobName,
    /// The SQL file's text; parameters outside strings are already replaced.
    pub sql: String,
    /// The file's name as the user knows it, for the texts of problems.
    pub file: String,
    /// Begin a new life of the job's state even if a stopped job of this name could go on.
    pub fresh: bool,
    /// What it goes on from; `None`: from the last epoch with the same SQL, or from nothing.
    pub from: Option<FromCheckpoint>,
    /// Made by the client, the same in each try: one that took effect and whose answer was lost is not made again.
    pub id: Option<String>,
}

/// An accepted job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Submitted {
    /// The job as it is now.
    pub job: JobView,
    /// The epoch it goes on from; `None` begins from nothing.
    pub resumed_from: Option<Epoch>,
    /// It ran already as it is submitted: nothing was changed.
    pub unchanged: bool,
    /// What is allowed, but may not be meant, in order of place.
    pub warnings: Vec<Problem>,
}

/// How a job is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// A last epoch, delivered; windows stay open; resumable.
    Stop,
    /// Sources end, the watermark goes to the end of time, windows fire, the job is finished.
    Drain,
}

/// What a person can ask of a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkCommand {
    /// Deliver nothing more; what is under way is finished.
    Pause,
    /// Deliver again; a try that is due later is due now.
    Resume,
}

/// How a sink is sent back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewindTerms {
    /// The epoch that it is to hold; `None` is the oldest that is kept.
    pub to: Option<Epoch>,
    /// Rows may be there twice.
    pub may_duplicate: bool,
}

/// A job that has ended, or whose last epoch is not yet everywhere.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stopped {
    /// The job when its last epoch was delivered, or when waiting for that was given up.
    pub job: JobView,
    /// Sinks that do not hold the last epoch yet; they get it when the job goes on.
    pub lagging_sinks: Vec<String>,
}
