//! Who runs what of a job, as its Assign entries say.
//!
//! Made by the master's placement, read by whoever folds the log and by the workers. Plain data.

use serde::{Deserialize, Serialize};

use crate::ids::{Generation, SinkIndex, SourceIndex, SplitId, TaskId, WorkerId};

/// Who runs what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The worker of each task. Every stage has the same number of tasks.
    pub tasks: Vec<TaskPlacement>,
    /// The reader task of each split.
    pub splits: Vec<SplitPlacement>,
    /// The worker of each sink.
    pub sinks: Vec<SinkPlacement>,
}

/// The worker of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskPlacement {
    /// The task.
    pub task: TaskId,
    /// Its worker.
    pub worker: WorkerId,
}

/// The reader of a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitPlacement {
    /// The source.
    pub source: SourceIndex,
    /// The split.
    pub split: SplitId,
    /// Which task of the source's stage reads it.
    pub task_index: u32,
}

/// The worker of a sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkPlacement {
    /// The sink.
    pub sink: SinkIndex,
    /// Its worker.
    pub worker: WorkerId,
}

/// Why a job was placed anew: a master that takes it over goes by it to tell of the trace that workers have added to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// What happened.
    pub cause: PlacementCause,
    /// The generation before, in a series of losses that before the first one.
    pub before: Generation,
    /// Microseconds since 1970 UTC, of the master that wrote it.
    pub begun_at_us: i64,
}

/// What makes a master place a job anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlacementCause {
    /// Its generation was lost.
    Recovery,
    /// Its shares move to other workers.
    Rescale,
    /// Another master has begun to reign, and could not go on with its generation.
    Takeover,
}

impl Assignment {
    /// The workers that run anything of the job, each once, in order.
    pub fn workers(&self) -> Vec<WorkerId> {
        let tasks = self.tasks.iter().map(|placement| &placement.worker);
        let sinks = self.sinks.iter().map(|placement| &placement.worker);
        let mut workers: Vec<WorkerId> = tasks.chain(sinks).cloned().collect();
        workers.sort();
        workers.dedup();
        workers
    }
}
