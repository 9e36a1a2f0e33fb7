//! Log entries: everything that is durable about jobs besides state parts and segments.
//!
//! Written by the master's log actor, read by a starting master and by whoever explains a cluster's past.
//! Stored as JSON, one object a position, several entries an object. Plain data.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use super::assignment::{
    Assignment, Placement, PlacementCause, SinkPlacement, SplitPlacement, TaskPlacement,
};
use super::backlog::BacklogPart;
use super::rewind::SinkRewind;
use super::savepoint::{CarriedEntry, SavepointEntry};
use crate::control::SinkCommand;
use crate::error::Failure;
use crate::ids::{
    Epoch, Generation, Incarnation, JobName, OperatorId, OutputIndex, Seq, SinkIndex, SourceIndex,
    SplitId, StageIndex, Term, Token,
};
use crate::plan::JobPlan;
use crate::replay_split::ReplayObject;
use crate::report::{RefusedRows, RowCounters, Segment, SplitProgress, StageFlow, StatePart};
use crate::time::EventTime;

/// One object of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogObject {
    /// The reign of the master that wrote it (INV-4: below the newest Fence it has no effect).
    pub term: Term,
    /// Unique to this attempt: tells our own write from another's after an unknown result.
    pub nonce: String,
    /// What happened, in order.
    pub entries: Vec<Entry>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A master begins its reign.
    Fence {
        /// Higher than any before.
        term: Term,
        /// Its name, for people.
        master: String,
    },
    /// A job was submitted.
    Job(Box<JobEntry>),
    /// A job was given to workers.
    Assign(Box<AssignEntry>),
    /// The commit of an epoch: before it nothing happened, after it everything will.
    Epoch(Box<EpochEntry>),
    /// Epochs that some sink lacks are in an object of their own from now on.
    Backlog {
        /// The job.
        job: JobName,
        /// Which life of it.
        incarnation: Incarnation,
        /// The object.
        part: Box<BacklogPart>,
    },
    /// A job came to its end.
    Ended {
        /// The job.
        job: JobName,
        /// Which life of it.
        incarnation: Incarnation,
        /// How it ended.
        end: JobEnd,
    },
    /// Rows that are to go through a job again, as a split of their source. Said twice, it counts once.
    Replay(Box<ReplayEntry>),
    /// A job's newest epoch is kept by name.
    Savepoint(SavepointEntry),
    /// A savepoint is not kept any more.
    SavepointDropped {
        /// The job.
        job: JobName,
        /// The savepoint.
        name: String,
    },
    /// A job begins, or goes on, with what another plan or life had come to.
    Carried(Box<CarriedEntry>),
    /// A person has told a sink to wait, or to go on: it does, whoever reigns and runs it, until told otherwise.
    SinkCommanded {
        /// The job.
        job: JobName,
        /// Which life of it.
        incarnation: Incarnation,
        /// Which sink.
        sink: SinkIndex,
        /// What was said.
        command: SinkCommand,
        /// No person said it: the sink has used up its quota, or, where it was excused from that, has caught up.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        by_quota: bool,
    },
    /// A person has sent a sink back: what lies behind `to` is delivered to it again, under the next assignment's token.
    SinkRewound {
        /// The job.
        job: JobName,
        /// Which life of it.
        incarnation: Incarnation,
        /// Which sink.
        sink: SinkIndex,
        /// The epoch that it is to hold.
        to: Epoch,
    },
    /// Epochs that every sink has held for long are kept no longer: their segments go, and no sink goes back to before them.
    Forgotten {
        /// The job.
        job: JobName,
        /// Which life of it.
        incarnation: Incarnation,
        /// The last of them.
        through: Epoch,
    },
    /// A job that was stopped is to go on.
    Resumed {
        /// The job.
        job: JobName,
        /// Which life of it.
        incarnation: Incarnation,
    },
}

impl Entry {
    /// The job and the life that it counts in alone; `None` for what begins a life, or is of all of them.
    pub fn life(&self) -> Option<(&JobName, Incarnation)> {
        match self {
            Self::Fence { .. }
            | Self::Job(_)
            | Self::Carried(_)
            | Self::SavepointDropped { .. } => None,
            Self::Assign(assign) => Some((&assign.job, assign.incarnation)),
            Self::Epoch(epoch) => Some((&epoch.job, epoch.incarnation)),
            Self::Replay(replay) => Some((&replay.job, replay.incarnation)),
            Self::Savepoint(kept) => Some((&kept.job, kept.incarnation)),
            Self::Backlog {
                job, incarnation, ..
            }
            | Self::Ended {
                job, incarnation, ..
            }
            | Self::SinkCommanded {
                job, incarnation, ..
            }
            | Self::SinkRewound {
                job, incarnation, ..
            }
            | Self::Forgotten {
                job, incarnation, ..
            }
            | Self::Resumed { job, incarnation } => Some((job, *incarnation)),
        }
    }
}

/// A submitted job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobEntry {
    /// Its name.
    pub job: JobName,
    /// This life of its state.
    pub incarnation: Incarnation,
    /// The SQL as submitted; secrets are references in it.
    pub sql: String,
    /// What the SQL was planned to.
    pub plan: JobPlan,
    /// Wall clock at submit, microseconds since 1970 UTC.
    pub submitted_at_us: i64,
    /// Which submission this is, as its client says in each of its tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submission: Option<String>,
}

/// Rows that are to go through a job again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayEntry {
    /// The job.
    pub job: JobName,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Whose rows they are.
    pub source: SourceIndex,
    /// The split that reads them; named after what they are.
    pub split: SplitId,
    /// Where they are.
    pub object: ReplayObject,
}

/// How a job came to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum JobEnd {
    /// Told to stop; resumable.
    Stopped,
    /// All sources ended and all windows fired.
    Finished,
    /// Out of restarts, or a failure that a retry cannot help.
    Failed {
        /// Why.
        failure: Failure,
    },
}

/// A job given to workers. Its generation is the log position of the object that holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AssignEntry {
    /// The job.
    pub job: JobName,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// The epoch whose state the tasks begin with; 0 is nothing.
    pub restore_from: Epoch,
    /// Who runs what.
    pub assignment: Assignment,
    /// Why, unless it is for the first time since it was submitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
}

/// The commit of an epoch. Maps hold only what changed since the parent; [`JobProgress`] folds them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochEntry {
    /// The job.
    pub job: JobName,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// This epoch.
    pub epoch: Epoch,
    /// The epoch before it; no two entries of a life share one (INV-1).
    pub parent: Epoch,
    /// Wall clock of the master, microseconds since 1970 UTC; only for how long dead letters are kept.
    #[serde(default)]
    pub committed_at_us: i64,
    /// The generation that computed it.
    pub generation: Generation,
    /// Progress of the splits that moved, and splits claimed in this epoch.
    pub splits: BTreeMap<SourceIndex, BTreeMap<SplitId, SplitProgress>>,
    /// The sources' watermarks that moved; operators act on them from the next epoch on.
    pub watermarks: BTreeMap<SourceIndex, EventTime>,
    /// All live state parts of the operators that changed.
    pub parts: BTreeMap<OperatorId, Vec<StatePart>>,
    /// The rows of this epoch, fixed before any sink sees them (INV-2).
    pub segments: Vec<Segment>,
    /// What became of the rows of each source.
    pub counters: BTreeMap<SourceIndex, RowCounters>,
    /// What became of the rows of each stage.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub flows: BTreeMap<StageIndex, StageFlow>,
    /// How far each sink was known to be; a hint that shortens its history at the next start.
    pub sink_markers: BTreeMap<SinkIndex, Epoch>,
    /// Rows of earlier epochs that sinks refused; as dead letters they are among [`Self::segments`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedRows>,
    /// Rows that sinks refused and nobody keeps, as heard since the parent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<SinkIndex, u64>,
    /// All sources had ended and this epoch fired what was left.
    pub drained: bool,
    /// No barrier went with it: no task has acted on the watermarks recorded before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_barrier: bool,
}

impl EpochEntry {
    /// An epoch in which nothing happened, for whoever makes one to fill.
    pub fn empty(
        life: (&JobName, Incarnation),
        parent: Epoch,
        epoch: Epoch,
        generation: Generation,
    ) -> Self {
        Self {
            job: life.0.clone(),
            incarnation: life.1,
            epoch,
            parent,
            committed_at_us: 0,
            generation,
            splits: BTreeMap::new(),
            watermarks: BTreeMap::new(),
            parts: BTreeMap::new(),
            segments: Vec::new(),
            counters: BTreeMap::new(),
            flows: BTreeMap::new(),
            sink_markers: BTreeMap::new(),
            refused: Vec::new(),
            dropped: BTreeMap::new(),
            drained: false,
            without_barrier: false,
        }
    }
}

/// What a sink has to be told of an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedEpoch {
    /// The epoch.
    pub epoch: Epoch,
    /// The epoch before it.
    pub parent: Epoch,
    /// Its segments, of all outputs.
    pub segments: Vec<Segment>,
    /// Rows of earlier epochs that are to be left out of their sinks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedRows>,
    /// Nothing comes after it: sinks that gather epochs close what they hold.
    pub last: bool,
}

impl From<&EpochEntry> for CommittedEpoch {
    fn from(entry: &EpochEntry) -> Self {
        Self {
            epoch: entry.epoch,
            parent: entry.parent,
            segments: entry.segments.clone(),
            refused: entry.refused.clone(),
            last: entry.drained,
        }
    }
}

/// A job's position, folded from its entries in order. How it is stored: `progress.rs`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct JobProgress {
    /// The last committed epoch; 0 is none.
    pub epoch: Epoch,
    /// Every split ever claimed.
    pub splits: BTreeMap<SourceIndex, BTreeMap<SplitId, SplitProgress>>,
    /// The sources' watermarks: operators act on them at the next barrier.
    pub watermarks: BTreeMap<SourceIndex, EventTime>,
    /// The watermarks on which operators acted at the barrier of [`Self::epoch`]: those of the epoch before.
    pub acted_watermarks: BTreeMap<SourceIndex, EventTime>,
    /// Live state parts.
    pub parts: BTreeMap<OperatorId, Vec<StatePart>>,
    /// Row counts since the life began.
    pub counters: BTreeMap<SourceIndex, RowCounters>,
    /// Rows through each stage since the life began.
    pub flows: BTreeMap<StageIndex, StageFlow>,
    /// Rows in the segments of each output since the life began.
    pub shipped: BTreeMap<OutputIndex, u64>,
    /// Rows that each sink refused since the life began.
    pub refused: BTreeMap<SinkIndex, u64>,
    /// Rows that each sink refused and nobody keeps, since the life began.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<SinkIndex, u64>,
    /// Rows that each sink lacked when the counting began, where that was not at the life's first epoch.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub owed: BTreeMap<SinkIndex, u64>,
    /// The last known markers.
    pub sink_markers: BTreeMap<SinkIndex, Epoch>,
    /// Every sink is known to hold this epoch and all before it.
    #[serde(default)]
    pub delivered: Epoch,
    /// Epochs up to this one are forgotten; those behind it are kept, whoever holds them.
    #[serde(default = "super::progress::unsaid")]
    pub retained_from: Epoch,
    /// The epochs behind which rows of outputs are of their present columns and all shipped to a sink, where they were not before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub output_starts: BTreeMap<OutputIndex, Epoch>,
    /// The last time that each sink was sent back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sink_rewinds: BTreeMap<SinkIndex, SinkRewind>,
    /// The epochs up to which the rows that sinks drop are counted, where they get them again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counted_drops: BTreeMap<SinkIndex, Epoch>,
    /// Names of sinks that the life had and has no more: their markers may be ahead of what is kept.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub former_sinks: BTreeSet<String>,
    /// Operators that emit all their live groups in the next epoch, for sinks that begin with them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub snapshots: BTreeSet<OperatorId>,
    /// The epochs behind which sinks begin that were not there from the life's first epoch on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sink_starts: BTreeMap<SinkIndex, Epoch>,
    /// Epochs that are kept and older than [`Self::recent`], in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backlog: Vec<BacklogPart>,
    /// The newest epochs that are kept, in order: some sink lacks them, or may be sent back to before them.
    #[serde(alias = "undelivered")]
    pub recent: Vec<CommittedEpoch>,
    /// Rows sent through the job again; how far each is read stands among [`Self::splits`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub replays: BTreeMap<SourceIndex, BTreeMap<SplitId, ReplayObject>>,
    /// Rows that epochs of the backlog name as refused, while the epochs that they are of are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<RefusedRows>,
    /// The sources have ended and everything has fired.
    pub drained: bool,
    /// Sinks that are delivered nothing until a person resumes them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub paused_sinks: BTreeSet<SinkIndex>,
    /// Of them, those that nobody paused: they have used up their quota.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub suspended_sinks: BTreeSet<SinkIndex>,
    /// Sinks that a person resumed after that or sent back, and such as begin with what is kept: they may catch up, and nothing is done
    /// about their quota before they have.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub excused_sinks: BTreeSet<SinkIndex>,
}

/// An Epoch entry that does not follow the chain: another master's, or a defect.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("epoch {epoch} names parent {parent}, but the chain ends at {head}")]
pub struct BrokenChain {
    /// The entry's epoch.
    pub epoch: Epoch,
    /// The parent it names.
    pub parent: Epoch,
    /// Where the chain ends.
    pub head: Epoch,
}

impl JobProgress {
    /// Folds the next entry; checks INV-1 and INV-6.
    pub fn apply(&mut self, entry: &EpochEntry) -> Result<(), BrokenChain> {
        if entry.parent != self.epoch || entry.epoch <= entry.parent {
            return Err(BrokenChain {
                epoch: entry.epoch,
                parent: entry.parent,
                head: self.epoch,
            });
        }
        self.epoch = entry.epoch;
        for (source, splits) in &entry.splits {
            let known = self.splits.entry(*source).or_default();
            known.extend(
                splits
                    .iter()
                    .map(|(split, progress)| (split.clone(), progress.clone())),
            );
        }
        if !entry.without_barrier {
            self.acted_watermarks = self.watermarks.clone();
        }
        for (source, watermark) in &entry.watermarks {
            let known = self.watermarks.entry(*source).or_insert(*watermark);
            *known = (*known).max(*watermark);
        }
        for (operator, parts) in &entry.parts {
            self.parts.insert(operator.clone(), parts.clone());
        }
        for (source, counters) in &entry.counters {
            self.counters.entry(*source).or_default().add(counters);
        }
        for (stage, flow) in &entry.flows {
            self.flows.entry(*stage).or_default().add(flow);
        }
        for segment in &entry.segments {
            *self.shipped.entry(segment.output).or_default() += segment.row_count;
        }
        for refused in &entry.refused {
            *self.refused.entry(refused.sink).or_default() += refused.count();
        }
        for (sink, count) in &entry.dropped {
            *self.dropped.entry(*sink).or_default() += count;
        }
        self.hear_markers(entry);
        if !entry.without_barrier {
            self.snapshots.clear();
        }
        self.recent.push(entry.into());
        self.drained = entry.drained;
        Ok(())
    }

    /// Takes rows that are to go through the job again; says whether they were unknown. An entry written twice (its
    /// master did not learn of the first) is one replay.
    pub fn add_replay(
        &mut self,
        source: SourceIndex,
        split: SplitId,
        object: ReplayObject,
    ) -> bool {
        let known = self.replays.entry(source).or_default();
        let is_new = !known.contains_key(&split);
        known.entry(split).or_insert(object);
        is_new
    }
}

/// What fences the sinks that an assignment places.
pub fn sink_token(generation: Generation) -> Token {
    Token(generation.0)
}

/// The generation of an assignment in the log object at `seq`.
pub fn generation_of(seq: Seq) -> Generation {
    Generation(seq.0)
}
