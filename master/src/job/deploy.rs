//! What workers are sent to build a generation, and the sending of all frames.
//!
//! Called by `lifecycle.rs` once the Assign entry is in the log. Every worker gets the same frame and takes its own share.
//! Failure: a worker that takes no frames is told to the supervisor, which ends its session.

use millstream_common::ids::{StageIndex, WorkerId};
use millstream_common::link::{Deploy, JobGeneration, ToWorker};
use millstream_common::mutant::{self, Mutant};
use millstream_common::report::{RefusedRows, RestorePoint, SplitStart};
use ractor::ActorProcessingErr;

use super::claims;
use super::job_actor::{JobState, Sent, WorkerHandle};
use super::lifecycle::Handled;
use crate::supervisor::supervisor_actor::SupervisorMessage;

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
        // What every sink holds is kept here only.
        let (backlog, held) = self.progress.lacked();
        let addresses = self
            .workers
            .iter()
            .filter(|(worker, _)| self.sessions.contains_key(*worker));
        Deploy {
            trace: self.traces.of_placement(),
            at: self.at(),
            incarnation: self.entry.incarnation,
            plan: self.entry.plan.clone(),
            assignment: self.assignment.clone(),
            restore: RestorePoint {
                epoch: self.progress.epoch,
                splits: claims::with_readers(starts, &self.assignment),
                acted_watermarks: match mutant::is(Mutant::RestoreAtNewestWatermark) {
                    true => self.progress.watermarks.clone(),
                    false => self.progress.acted_watermarks.clone(),
                },
                parts: self.progress.parts.clone(),
                backlog,
                left_out: self.left_out_of_sinks(),
                undelivered: self.progress.recent[held..].to_vec(),
                sink_starts: self.progress.sink_starts.clone(),
                sink_markers: self.progress.sink_markers.clone(),
                sink_rewinds: self.open_rewinds(),
                paused_sinks: match mutant::is(Mutant::DeliverToSuspended) {
                    true => &self.progress.paused_sinks - &self.progress.suspended_sinks,
                    false => self.progress.paused_sinks.clone(),
                },
                snapshots: self.progress.snapshots.clone(),
            },
            flight_addresses: addresses
                .map(|(worker, handle)| (worker.clone(), handle.flight_address.clone()))
                .collect(),
        }
    }

    /// Rows that sinks refused and that are of epochs which they lack.
    fn left_out_of_sinks(&self) -> Vec<RefusedRows> {
        let named = self.progress.left_out.iter();
        let needed =
            named.filter(|refused| refused.is_needed_behind(self.progress.marker(refused.sink)));
        needed.cloned().collect()
    }

    /// Sends `frame` to every worker of the assignment.
    pub(super) fn send_all(&mut self, frame: &ToWorker) -> Handled {
        let workers = self.sessions.keys();
        let handles = workers.filter_map(|worker| self.workers.get_key_value(worker));
        for (worker, handle) in handles {
            self.send(worker, handle, frame.clone())?;
        }
        Ok(())
    }

    /// A worker that takes no frames any more is lost, once the supervisor has ended its session.
    pub(super) fn send(
        &self,
        worker: &WorkerId,
        handle: &WorkerHandle,
        frame: ToWorker,
    ) -> Result<Sent, ActorProcessingErr> {
        let sent = handle.send(frame);
        if sent == Sent::Overrun {
            self.supervisor.cast(SupervisorMessage::Overrun {
                worker: worker.clone(),
                session: handle.session,
            })?;
        }
        Ok(sent)
    }
}
