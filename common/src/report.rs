//! What a worker tells the master of a finished barrier, and what both sides call a split's progress.
//!
//! Filled by readers, operators and ship actors, gathered by the pipeline actor into one
//! [`PipelineReport`] an epoch, folded by `master/src/checkpoint` into the log's `Epoch` entry. Plain data,
//! stored in the log as JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{
    Epoch, OperatorId, OutputIndex, SinkIndex, SourceIndex, SplitId, StageIndex, WorkerId,
};
use crate::time::EventTime;

/// How far a split has been read. Positions are half-open: everything before `position` is inside
/// the epochs so far or one of the `gaps`, nothing from it on (INV-5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitProgress {
    /// The next Kafka offset, or the number of records read from the file.
    pub position: i64,
    /// Where the split ends (exclusive), if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<i64>,
    /// No row older than this will come from the split; never goes back (INV-6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<EventTime>,
    /// Whether more rows may come.
    pub status: SplitStatus,
    /// Size and mtime of a file when it was claimed; with another one later nothing more of it is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// What was gone before it was read, and was passed over because the source says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gaps: Option<SplitGaps>,
}

/// Positions of a split that its source did not hold any more when they were to be read: steps of their own between the positions of
/// epochs, taken only where a person has allowed it (`on_gap = 'skip'`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitGaps {
    /// How many there were.
    pub count: u64,
    /// Positions in all of them.
    pub positions: u64,
    /// The last one begins with this position,
    pub from: i64,
    /// and ends before this one.
    pub to: i64,
}

impl SplitGaps {
    /// After `before`, another one.
    pub fn and(before: Option<Self>, from: i64, to: i64) -> Self {
        let positions = u64::try_from(to.saturating_sub(from)).unwrap_or_default();
        Self {
            count: before.map_or(0, |before| before.count) + 1,
            positions: before.map_or(0, |before| before.positions) + positions,
            from,
            to,
        }
    }
}

/// Whether more rows may come from a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitStatus {
    /// One of those that a bounded source consists of, and its turn has not come: no reader has it.
    Expected,
    /// Being read.
    Active,
    /// Read to its end and silent for the source's idle timeout: holds nobody's watermark back.
    Idle,
    /// Read to its end for ever.
    Ended,
}

/// A split to read, and from where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitStart {
    /// Its source.
    pub source: SourceIndex,
    /// The split.
    pub split: SplitId,
    /// From where: `position` is the first to read; `watermark` is what no accepted row may be below.
    pub progress: SplitProgress,
}

/// An object with the state of one operator's keys: Arrow IPC stream; the first columns are `_vnode` (UInt8).
/// Later parts override earlier ones, key by key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatePart {
    /// Its key in storage.
    pub path: String,
    /// The epoch it was written in.
    pub epoch: Epoch,
    /// Size in storage.
    pub bytes: u64,
    /// CRC-32C of the object (INV-8).
    pub checksum: u32,
    /// Rows in it.
    pub row_count: u64,
}

/// An object with one worker's rows of one output for one epoch: Arrow IPC stream, `_op` as last column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The output.
    pub output: OutputIndex,
    /// Its key in storage.
    pub path: String,
    /// Size in storage.
    pub bytes: u64,
    /// CRC-32C of the object (INV-8).
    pub checksum: u32,
    /// Rows in it.
    pub row_count: u64,
}

/// Rows that a sink refused. From the Epoch that names them on they are left out of every run of the sink, whoever delivers
/// it, and are dead letters of that Epoch: each row is in the sink or in the dead letters, never in both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRows {
    /// The sink.
    pub sink: SinkIndex,
    /// Unique to the try that found them.
    pub attempt: String,
    /// By epoch, their places among the epoch's rows of the sink's output: from 0, ascending.
    pub rows: BTreeMap<Epoch, Vec<u64>>,
}

impl RefusedRows {
    /// Whether a sink that holds `marker` has still to leave any of them out.
    pub fn is_needed_behind(&self, marker: Epoch) -> bool {
        self.rows.keys().any(|epoch| *epoch > marker)
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.rows.values().map(|rows| rows.len() as u64).sum()
    }
}

/// What a deliverer says of rows that its sink refused, before anything is visible of the run that leaves them out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The rows.
    pub refused: RefusedRows,
    /// They as dead letters, in storage: one for each output that reads them.
    pub segments: Vec<Segment>,
}

/// What became of the rows of one source within an epoch; the counters close the sum (INV-10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCounters {
    /// Records read.
    pub read: u64,
    /// Rows handed on.
    pub accepted: u64,
    /// Rows in dead letters.
    pub rejected: u64,
    /// Rows dropped by `on_violation = 'drop'`.
    pub dropped: u64,
    /// Bytes of payload read.
    pub bytes: u64,
}

impl RowCounters {
    /// Adds another count to this one.
    pub fn add(&mut self, other: &Self) {
        self.read += other.read;
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.dropped += other.dropped;
        self.bytes += other.bytes;
    }
}

/// What became of the rows of one stage within an epoch; with [`RowCounters`] these close the sum (INV-10).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageFlow {
    /// Rows its head took: decoded and handed on, or received from other stages.
    pub received: u64,
    /// Of them, the late ones that some path wants nevertheless; they are dead letters too.
    pub late: u64,
    /// Rows whose key had been seen (DISTINCT).
    pub duplicates: u64,
    /// Rows that are part of a group's state.
    pub folded: u64,
    /// Rows on which an expression failed and that are dead letters.
    pub failed: u64,
    /// Rows on which an expression failed, dropped by `on_violation = 'drop'`.
    pub dropped: u64,
    /// By branch, in the order of the plan.
    pub branches: Vec<BranchFlow>,
}

/// What became of the rows of one branch: `given` is the sum of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BranchFlow {
    /// Rows of its port.
    pub given: u64,
    /// Left out because they are late.
    pub late: u64,
    /// Dropped by a filter.
    pub filtered: u64,
    /// An expression failed on them.
    pub failed: u64,
    /// Handed to the branch's target.
    pub sent: u64,
}

impl StageFlow {
    /// Adds another count to this one.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.late += other.late;
        self.duplicates += other.duplicates;
        self.folded += other.folded;
        self.failed += other.failed;
        self.dropped += other.dropped;
        let missing = other.branches.len().max(self.branches.len());
        self.branches.resize(missing, BranchFlow::default());
        for (own, other) in self.branches.iter_mut().zip(&other.branches) {
            own.given += other.given;
            own.late += other.late;
            own.filtered += other.filtered;
            own.failed += other.failed;
            own.sent += other.sent;
        }
    }

    /// Whether no row has moved.
    pub fn is_empty(&self) -> bool {
        let idle = BranchFlow::default();
        self.received == 0 && self.branches.iter().all(|branch| *branch == idle)
    }
}

/// Everything one worker did for one epoch, once all of it is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineReport {
    /// The epoch.
    pub epoch: Epoch,
    /// Who reports.
    pub worker: WorkerId,
    /// The splits read here, as of the barrier.
    pub splits: BTreeMap<SourceIndex, BTreeMap<SplitId, SplitProgress>>,
    /// By operator, all parts that this worker's tasks need from now on, old and new.
    pub parts: BTreeMap<OperatorId, Vec<StatePart>>,
    /// The segments of this epoch, in order.
    pub segments: Vec<Segment>,
    /// By source, what became of the rows since the last barrier.
    pub counters: BTreeMap<SourceIndex, RowCounters>,
    /// By stage, what became of the rows since the last barrier.
    #[serde(default)]
    pub flows: BTreeMap<StageIndex, StageFlow>,
    /// By source, what hinders its clients at present and is being retried.
    pub troubles: BTreeMap<SourceIndex, String>,
    /// Only to be shown.
    #[serde(default)]
    pub figures: ReportFigures,
}

/// What a worker tells of an epoch that is in no log: for metrics and for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportFigures {
    /// By stage, how long its tasks worked and waited.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub times: BTreeMap<StageIndex, StageTimes>,
    /// Records between the position and the end of each split, where that is known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub split_lags: BTreeMap<SourceIndex, BTreeMap<SplitId, u64>>,
    /// By source, the rows that its decoder rejected, by code.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rejects: BTreeMap<SourceIndex, BTreeMap<String, u64>>,
}

/// How long the tasks of a stage worked and waited, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageTimes {
    /// Worked, in microseconds.
    pub busy_us: u64,
    /// Waited for credit, in microseconds.
    pub blocked_us: u64,
}

impl StageTimes {
    /// Adds other times to these.
    pub fn add(&mut self, other: &Self) {
        self.busy_us += other.busy_us;
        self.blocked_us += other.blocked_us;
    }
}

/// What the tasks of a generation begin with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePoint {
    /// The last committed epoch; 0 is none. Sinks apply nothing that does not follow it.
    pub epoch: Epoch,
    /// The splits of all tasks, with where to begin.
    pub splits: Vec<AssignedSplit>,
    /// The sources' watermarks on which operators acted at the barrier of [`Self::epoch`]: their state forgets what
    /// these had closed, and nothing more (INV-7).
    pub acted_watermarks: BTreeMap<SourceIndex, EventTime>,
    /// Live state parts, oldest first.
    pub parts: BTreeMap<OperatorId, Vec<StatePart>>,
    /// Epochs that some sink may not hold yet, older than [`Self::undelivered`], in order.
    pub backlog: Vec<crate::log::backlog::BacklogPart>,
    /// Rows that epochs of the backlog name as refused.
    pub left_out: Vec<RefusedRows>,
    /// The newest epochs that some sink may not hold yet, in order.
    pub undelivered: Vec<crate::log::entry::CommittedEpoch>,
    /// The epochs behind which sinks begin that were not there from the life's first epoch on.
    #[serde(default)]
    pub sink_starts: BTreeMap<SinkIndex, Epoch>,
    /// How far sinks are known to be: where those go on that keep no marker.
    #[serde(default)]
    pub sink_markers: BTreeMap<SinkIndex, Epoch>,
    /// Sinks that are to move their markers back before they go on.
    #[serde(default)]
    pub sink_rewinds: BTreeMap<SinkIndex, crate::log::rewind::SinkRewind>,
    /// Sinks that deliver nothing until a person says so.
    #[serde(default)]
    pub paused_sinks: BTreeSet<SinkIndex>,
    /// Operators that emit all their live groups in the next epoch.
    #[serde(default)]
    pub snapshots: BTreeSet<OperatorId>,
}

/// A split and its reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedSplit {
    /// Which task of the source's stage reads it.
    pub task_index: u32,
    /// The split, and from where.
    pub start: SplitStart,
}
