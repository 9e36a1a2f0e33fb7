//! What workers are sent to build a generation.
//!
//! Called by `lifecycle.rs` once the Assign entry is in the log. Every worker gets the same frame and takes its own share.

use millstream_common::ids::StageIndex;
use millstream_common::link::{Deploy, JobGeneration};
use millstream_common::report::{RestorePoint, SplitStart};

use super::claims;
use super::job_actor::JobState;

impl JobState {
    /// The running generation, for frames.
    pub(super) fn at(&self) -> JobGeneration {
        JobGeneration {
            job: self.entry.job.clone(),
            generation: self.generation,
        }
    }

    /// Tasks of each stage.
    pub(super) fn task_count(&self) -> u32 {
        let tasks = self.assignment.tasks.iter();
        tasks
            .filter(|placement| placement.task.stage == StageIndex(0))
            .count() as u32
    }

    pub(super) fn deploy(&self, starts: Vec<SplitStart>) -> Deploy {
        let addresses = self
            .workers
            .iter()
            .filter(|(worker, _)| self.sessions.contains_key(*worker));
        Deploy {
            at: self.at(),
            incarnation: self.entry.incarnation,
            plan: self.entry.plan.clone(),
            assignment: self.assignment.clone(),
            restore: RestorePoint {
                epoch: self.progress.epoch,
                splits: claims::with_readers(starts, &self.assignment),
                acted_watermarks: self.progress.acted_watermarks.clone(),
                parts: self.progress.parts.clone(),
                undelivered: self.progress.undelivered.clone(),
                sink_starts: self.progress.sink_starts.clone(),
            },
            flight_addresses: addresses
                .map(|(worker, handle)| (worker.clone(), handle.flight_address.clone()))
                .collect(),
        }
    }
}
