//! Jobs, sources, sinks, workers and checkpoints as a client sees them: snapshots.
//!
//! Filled by the master, shown by the command line; their JSON is what `--json` prints. Pure data.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::ids::{Epoch, Generation, JobName, WorkerId};
use crate::plan::SinkQuota;
use crate::time::EventTime;

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waits for workers.
    Waiting,
    /// Workers build its tasks and restore their state.
    Deploying,
    /// Reads, computes, delivers.
    Running,
    /// Waits out the backoff after a failure.
    Recovering,
    /// Takes its last epoch, or waits for sinks to hold it.
    Stopping,
    /// Ended where it can go on.
    Stopped,
    /// Its input ended, or it was drained: nothing is left to do.
    Finished,
    /// Gave up; the cause is in the view.
    Failed,
}

impl JobState {
    /// Whether nothing more happens by itself.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Stopped | Self::Finished | Self::Failed)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Waiting => "waiting",
            Self::Deploying => "deploying",
            Self::Running => "running",
            Self::Recovering => "recovering",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Finished => "finished",
            Self::Failed => "failed",
        })
    }
}

/// One job as it is now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct JobView {
    /// The name it was submitted under.
    pub name: JobName,
    /// Where it stands.
    pub state: JobState,
    /// New for each life of its state.
    pub incarnation: String,
    /// Grows at each failover or rescale.
    pub generation: Generation,
    /// The last committed epoch.
    pub epoch: Epoch,
    /// `None` before the first watermark.
    #[serde(serialize_with = "event_time")]
    pub watermark: Option<EventTime>,
    /// Rows read since the life began.
    pub rows_read: u64,
    /// Rows that its sources rejected since the life began; they are dead letters.
    pub rows_rejected: u64,
    /// Over the last epochs.
    pub rows_per_second: f64,
    /// Records between the positions and the ends of the splits, where that is known.
    pub lag_records: Option<u64>,
    /// In the order of the file.
    pub sources: Vec<SourceView>,
    /// In the order of the file.
    pub sinks: Vec<SinkView>,
    /// Why it waits, recovers or failed; `None` while all is well.
    pub cause: Option<String>,
    /// Failures since the life began.
    pub restarts: u32,
    /// Microseconds since 1970 UTC, by the master's clock.
    pub submitted_at_us: i64,
    /// From the last failure to the next committed epoch, or, where no row came in meanwhile, until all tasks had passed
    /// a barrier with nothing left behind; `None` before the first.
    pub last_recovery_ms: Option<u64>,
    /// The time between two barriers.
    pub checkpoint_interval_ms: u64,
    /// What storage holds for it; `None` until the master has looked.
    pub storage: Option<StorageUse>,
    /// What became of the rows behind the sources, stage by stage.
    pub stages: Vec<StageView>,
    /// Rows that are in none of the counters: zero, or rows were lost or doubled.
    pub rows_unaccounted: u64,
    /// Rows that were read behind the last committed epoch when tasks were ended, and that are read again; those that a killed
    /// worker had read are not known. Since this master began.
    pub rows_reread: u64,
}

impl JobView {
    /// Rows in dead letters since the life began, whoever made them: sources, expressions, sinks.
    pub fn dead_letter_count(&self) -> u64 {
        let failed: u64 = self.stages.iter().map(|stage| stage.failed).sum();
        let refused: u64 = self.sinks.iter().map(|sink| sink.rows_refused).sum();
        self.rows_rejected + failed + refused
    }

    /// Rows that `on_violation = 'drop'` of a source or sink took out since the life began.
    pub fn dropped_count(&self) -> u64 {
        let decoded: u64 = self.sources.iter().map(|source| source.rows_dropped).sum();
        let failed: u64 = self.stages.iter().map(|stage| stage.dropped).sum();
        let refused: u64 = self.sinks.iter().map(|sink| sink.rows_dropped).sum();
        decoded + failed + refused
    }
}

/// The rows of one stage since the life began; with those of the sources these counters close the sum.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StageView {
    /// The source, or the operator.
    pub name: String,
    /// Rows decoded and handed on, or received from other stages.
    pub received: u64,
    /// Of them, late ones that some path wants nevertheless; they are dead letters too.
    pub late: u64,
    /// Rows whose key had been seen.
    pub duplicates: u64,
    /// Rows that are part of a group.
    pub folded: u64,
    /// Rows in dead letters because an expression failed on them.
    pub failed: u64,
    /// Rows dropped because an expression failed on them.
    pub dropped: u64,
    /// Where they went.
    pub branches: Vec<BranchView>,
}

/// The rows of one way out of a stage: `given` is the sum of the others.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BranchView {
    /// The stage or the output's relation.
    pub to: String,
    /// Rows to begin with.
    pub given: u64,
    /// Left out because they are late.
    pub late: u64,
    /// Dropped by a filter.
    pub filtered: u64,
    /// An expression failed on them.
    pub failed: u64,
    /// Handed on.
    pub sent: u64,
}

/// What storage holds for a job, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StorageUse {
    /// The log and its boundaries; of all jobs together.
    pub log_bytes: u64,
    /// Its state parts.
    pub state_bytes: u64,
    /// Its segments, kept dead letters among them.
    pub segment_bytes: u64,
    /// Its kept dead letters.
    pub dead_letter_bytes: u64,
    /// Dead letters that `dead_letter_retention` has dropped since the life began.
    pub dead_letters_dropped: u64,
}

/// One source of a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceView {
    /// Its name in the file.
    pub name: String,
    /// `kafka`, `files`, `datagen`.
    pub connector: String,
    /// Splits known so far.
    pub splits: u32,
    /// Splits that are read to their fixed end.
    pub splits_ended: u32,
    /// Rows read since the life began: the sum of the next three.
    pub rows_read: u64,
    /// Rows handed on since the life began.
    pub rows_accepted: u64,
    /// Rows in dead letters since the life began.
    pub rows_rejected: u64,
    /// Rows dropped by `on_violation = 'drop'` since the life began.
    pub rows_dropped: u64,
    /// `None` before the first watermark.
    #[serde(serialize_with = "event_time")]
    pub watermark: Option<EventTime>,
    /// What was gone before it was read and was passed over, by split.
    pub gaps: Vec<GapView>,
}

/// Positions of a split that were passed over because its source did not hold them any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GapView {
    /// The split.
    pub split: String,
    /// How many gaps there were.
    pub count: u64,
    /// Positions in all of them.
    pub positions: u64,
    /// The last one begins with this position,
    pub from: i64,
    /// and ends before this one.
    pub to: i64,
}

/// One sink of a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SinkView {
    /// Its name in the file.
    pub name: String,
    /// `postgres`, `kafka`, `files`, `console`, `blackhole`.
    pub connector: String,
    /// The relation it delivers.
    pub relation: String,
    /// The epoch the sink holds.
    pub marker: Epoch,
    /// Epochs committed but not delivered.
    pub lag_epochs: u64,
    /// Rows committed but not delivered.
    pub lag_rows: u64,
    /// The size of their segments.
    pub lag_bytes: u64,
    /// Since the oldest of them was committed, or since this master began, if that is later.
    pub lag_age_ms: Option<u64>,
    /// The oldest epoch that it can be sent back to.
    pub retained_from: Epoch,
    /// It is delivered nothing until a person resumes it.
    pub paused: bool,
    /// It is paused because it has used up its quota.
    pub suspended: bool,
    /// `None`: it may be behind as far as storage reaches.
    pub quota: Option<QuotaView>,
    /// Rows it holds, since the life began.
    pub rows_delivered: u64,
    /// Rows it refused since the life began; they are in its dead letters.
    pub rows_refused: u64,
    /// Rows it refused since the life began and nobody keeps, by `on_violation = 'drop'`.
    pub rows_dropped: u64,
    /// Why it retries or is suspended; `None` while all is well.
    pub cause: Option<String>,
    /// The worker that runs it; `None` while the job does not run.
    pub worker: Option<WorkerId>,
}

/// How far behind a sink may be, and how much of that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct QuotaView {
    /// What it may be.
    #[serde(flatten)]
    pub quota: SinkQuota,
    /// The larger share of its bounds that is used up; 1 is all of it.
    pub used: f64,
}

/// Whether a worker is given tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// It is.
    Active,
    /// It is not, and what it has moves to others.
    Draining,
    /// It is not, and has none.
    Drained,
}

impl fmt::Display for WorkerState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Drained => "drained",
        })
    }
}

/// A worker that has joined.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerView {
    /// The name it gave itself.
    pub id: WorkerId,
    /// Whether it is given tasks.
    pub state: WorkerState,
    /// Where its Flight server is reached.
    pub flight_address: String,
    /// Tasks of each stage that it runs.
    pub slots: u32,
    /// Tasks it runs now.
    pub tasks: u32,
    /// Splits it reads now.
    pub splits: u32,
    /// The jobs it works for.
    pub jobs: Vec<JobName>,
    /// Since it joined.
    pub age_ms: u64,
    /// Since its last heartbeat.
    pub heartbeat_age_ms: u64,
    /// The version of its binary.
    pub version: String,
}

/// A committed epoch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckpointView {
    /// Its number.
    pub epoch: Epoch,
    /// The epoch before it.
    pub parent: Epoch,
    /// The assignment that made it.
    pub generation: Generation,
    /// `None` before the first watermark.
    #[serde(serialize_with = "event_time")]
    pub watermark: Option<EventTime>,
    /// Rows read in this epoch.
    pub rows_read: u64,
    /// Objects that hold its rows.
    pub segments: u64,
    /// Their size.
    pub segment_bytes: u64,
    /// Objects that hold its state.
    pub state_parts: u64,
    /// Their size.
    pub state_bytes: u64,
    /// From the barrier to the commit; `None` if committed before this master began.
    pub duration_ms: Option<u64>,
}

/// Times leave as text: a number would have to be explained.
pub(super) fn event_time<S: Serializer>(
    time: &Option<EventTime>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    time.map(|time| time.to_string()).serialize(serializer)
}
