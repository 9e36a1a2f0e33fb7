//! The frames of the stream between a worker and its master, as plain types.
//!
//! Used by `master/src/cluster` and `worker/src/link`; the generated types stop here. Compound documents
//! travel as JSON in the form of the log. Failure: a frame that does not decode is a broken peer; the
//! link is closed with [`FrameError`].

#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::control::SinkCommand;
use crate::error::Failure;
use crate::ids::{
    Epoch, Generation, Incarnation, JobName, SinkIndex, SourceIndex, SplitId, Term, WorkerId,
};
use crate::log::backlog::BacklogPart;
use crate::log::entry::{Assignment, CommittedEpoch, SplitPlacement};
use crate::plan::JobPlan;
use crate::report::{AssignedSplit, PipelineReport, Refusal, RestorePoint, SplitProgress};
use crate::time::EventTime;
use crate::trace::TraceContext;

/// A frame that is not what the contract says.
#[derive(Debug, thiserror::Error)]
#[error("read link frame: {0}")]
pub struct FrameError(String);

/// One assignment of one job: what every frame about a job names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobGeneration {
    /// The job.
    pub job: JobName,
    /// Frames of an older one are dropped (INV-4).
    pub generation: Generation,
}

/// What a worker says.
#[derive(Clone, Debug, PartialEq)]
pub enum ToMaster {
    /// First frame.
    Hello(WorkerHello),
    /// I am alive.
    Heartbeat,
    /// The tasks are built and wait for Start.
    Deployed(JobGeneration),
    /// The barrier has passed all tasks here, and what they wrote is durable.
    Snapshotted(JobGeneration, Box<PipelineReport>),
    /// The pipeline has ended by itself.
    PipelineFailed(JobGeneration, Failure),
    /// A sink holds everything up to `marker`.
    SinkAdvanced {
        /// Whose.
        at: JobGeneration,
        /// Which sink.
        sink: SinkIndex,
        /// What it holds.
        marker: Epoch,
        /// Rows it refused since the last report and nobody keeps.
        dropped_count: u64,
    },
    /// A sink retries or is suspended; an empty cause means that it is well again.
    SinkTroubled {
        /// Whose.
        at: JobGeneration,
        /// Which sink.
        sink: SinkIndex,
        /// Why.
        cause: String,
        /// It waits for a person.
        suspended: bool,
    },
    /// A sink refused rows and waits with its run until the log says so. Said again until it does.
    SinkRefused(JobGeneration, Box<Refusal>),
    /// Nothing of the generation is left. So many rows were read behind the last recorded epoch: they are read again.
    TornDown(JobGeneration, u64),
    /// Give me no more tasks; I go when I am released.
    Leaving,
}

impl ToMaster {
    /// The generation that the frame is about.
    pub fn at(&self) -> Option<&JobGeneration> {
        match self {
            Self::Hello(_) | Self::Heartbeat | Self::Leaving => None,
            Self::Deployed(at)
            | Self::Snapshotted(at, _)
            | Self::PipelineFailed(at, _)
            | Self::SinkAdvanced { at, .. }
            | Self::SinkTroubled { at, .. }
            | Self::SinkRefused(at, _)
            | Self::TornDown(at, _) => Some(at),
        }
    }
}

/// Who a worker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerHello {
    /// The name it gave itself.
    pub worker: WorkerId,
    /// Unique to this process: tells one that joins again from another of its name.
    pub process: String,
    /// Where other workers reach its Flight server.
    pub flight_address: String,
    /// Tasks of each stage that it runs.
    pub slots: u32,
    /// Of the program.
    pub version: String,
    /// The pipelines that it has kept since its last master was lost.
    pub held: Vec<Held>,
    /// It is to be given no tasks.
    pub is_leaving: bool,
}

/// A pipeline that runs on without a master, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Whose.
    pub at: JobGeneration,
    /// Which life of the job's state.
    pub incarnation: Incarnation,
    /// The epoch behind which it began.
    pub restored: Epoch,
    /// The last barrier that it was sent.
    pub barrier: Option<BarrierCommand>,
    /// The last epoch that its sinks know to be in the log.
    pub committed: Epoch,
    /// Splits that readers were given while it ran, and that have not ended.
    pub given: Vec<SplitPlacement>,
}

impl Held {
    /// The epoch behind which its readers read.
    pub fn passed(&self) -> Epoch {
        let barrier = self.barrier.as_ref();
        barrier.map_or(self.restored, |barrier| barrier.epoch)
    }
}

/// What a master says.
#[derive(Clone, Debug, PartialEq)]
pub enum ToWorker {
    /// First frame.
    Welcome {
        /// The master's reign.
        term: Term,
        /// Where state and segments go.
        storage_url: String,
    },
    /// Build the tasks of a generation.
    Deploy(Box<Deploy>),
    /// All workers have deployed: read.
    Start(JobGeneration),
    /// Cut the streams.
    Barrier(JobGeneration, BarrierCommand),
    /// An epoch is in the log.
    EpochCommitted {
        /// Whose.
        at: JobGeneration,
        /// For the sinks.
        epoch: CommittedEpoch,
        /// For outside tools: positions of the splits that moved.
        positions: SplitPositions,
        /// The root of the epoch's trace, if it is kept.
        trace: Option<TraceContext>,
    },
    /// Epochs that sinks lack are in storage by now: they need not be kept in memory.
    Backlog(JobGeneration, Vec<BacklogPart>),
    /// Splits found while the job runs.
    AssignSplits(JobGeneration, Vec<AssignedSplit>),
    /// Go on with what was kept of the generation, and say again what its last master may not have heard.
    Resume(JobGeneration),
    /// A person wants a sink to wait, or to go on.
    CommandSink(JobGeneration, SinkIndex, SinkCommand),
    /// End everything of the generation.
    Teardown(JobGeneration),
    /// A person wants the worker to be given no tasks.
    Drain,
    /// Nothing counts any more on a worker that is leaving.
    Released {
        /// No other worker is there to go on.
        is_last: bool,
    },
    /// Keeps the stream known to be alive.
    Ping,
}

impl ToWorker {
    /// The generation that the frame is about.
    pub fn at(&self) -> Option<&JobGeneration> {
        match self {
            Self::Welcome { .. } | Self::Drain | Self::Released { .. } | Self::Ping => None,
            Self::Deploy(deploy) => Some(&deploy.at),
            Self::Start(at)
            | Self::Barrier(at, _)
            | Self::EpochCommitted { at, .. }
            | Self::Backlog(at, _)
            | Self::AssignSplits(at, _)
            | Self::CommandSink(at, ..)
            | Self::Resume(at)
            | Self::Teardown(at) => Some(at),
        }
    }
}

/// Positions by source and split.
pub type SplitPositions = BTreeMap<SourceIndex, BTreeMap<SplitId, SplitProgress>>;

/// What a worker needs to build its share of a generation.
#[derive(Clone, Debug, PartialEq)]
pub struct Deploy {
    /// Whose.
    pub at: JobGeneration,
    /// Which life of the job's state.
    pub incarnation: Incarnation,
    /// What to run.
    pub plan: JobPlan,
    /// Who runs what.
    pub assignment: Assignment,
    /// What to begin with.
    pub restore: RestorePoint,
    /// Flight addresses of all workers of the assignment.
    pub flight_addresses: BTreeMap<WorkerId, String>,
    /// What begins the generation, if its trace is kept.
    pub trace: Option<TraceContext>,
}

/// A barrier, as readers insert it and every edge carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BarrierCommand {
    /// The epoch that ends.
    pub epoch: Epoch,
    /// What comes after it.
    pub kind: BarrierKind,
    /// The sources' watermarks on which operators act at this barrier.
    pub watermarks: BTreeMap<SourceIndex, EventTime>,
}

/// What comes after a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BarrierKind {
    /// The next epoch.
    Checkpoint,
    /// No row from any source, but one more barrier, at the end of time, that closes all windows.
    Drain,
    /// Nothing: the last message of its generation.
    Stop,
}

impl BarrierKind {
    /// Whether readers hand on rows after it.
    pub fn reads_on(self) -> bool {
        matches!(self, Self::Checkpoint)
    }
}
