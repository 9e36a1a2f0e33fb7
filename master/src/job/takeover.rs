//! The first steps of a job under a new master: wait for the workers that ran it, and go on with them or rewind.
//!
//! Called by `lifecycle.rs`; whether to go on is decided by `reattach`. A pipeline that no master goes on with is torn
//! down as soon as its worker says that it holds it. Failure: workers that do not come back in time, or not
//! with everything, mean a rewind to the log's head, as after the loss of a worker.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_common::ids::WorkerId;
use millstream_common::link::{Held, ToWorker};
use millstream_common::log::entry::{JobEnd, JobProgress};
use tracing::info;

use super::job_actor::{Due, JobState, Phase, Sent, WorkerHandle, Workers};
use super::lifecycle::Handled;
use super::reattach::{self, Lasting, Resumption, Verdict};
use crate::assign::workers_with_tasks;
use crate::checkpoint::coordinator::Coordinator;

/// How long the others have to come back once the first worker is there: they dial every 200 ms. While nobody is there, nothing
/// could be placed either.
const REATTACH_WAIT: Duration = Duration::from_secs(3);

impl JobState {
    /// The generation of the log is the one whose frames count, until another is placed.
    pub(super) fn begin_reattaching(&mut self) -> Handled {
        let Phase::Reattaching { lasting, .. } = &self.phase else {
            return Ok(());
        };
        self.generation = lasting.generation;
        self.observed.cause = "waiting for the workers that ran it".to_owned();
        self.observed.recovery.lost(self.clock.monotonic());
        let now_us = self.clock.unix_micros();
        self.traces.taken_over(self.generation, now_us);
        self.reattach()
    }

    pub(super) fn reattach(&mut self) -> Handled {
        let Phase::Reattaching { lasting, is_timed } = &self.phase else {
            return Ok(());
        };
        let workers = self.workers.iter();
        let joined: BTreeMap<WorkerId, Option<&Held>> = workers
            .map(|(worker, handle)| (worker.clone(), self.held_by(handle)))
            .collect();
        match reattach::decide(lasting, &self.progress, &joined) {
            Verdict::Wait if joined.is_empty() || *is_timed => Ok(()),
            Verdict::Wait => {
                self.remind(REATTACH_WAIT, Due::Reattachment);
                let lasting = lasting.clone();
                let is_timed = true;
                self.phase = Phase::Reattaching { lasting, is_timed };
                Ok(())
            }
            Verdict::Rewind(cause) => self.rewind(&cause),
            Verdict::GoOn(resumption) => {
                let lasting = lasting.clone();
                self.go_on(lasting, resumption)
            }
        }
    }

    pub(super) fn reattachment_due(&mut self) -> Handled {
        match self.phase {
            Phase::Reattaching { .. } => self.rewind("not all workers that ran it came back"),
            _ => Ok(()),
        }
    }

    /// Places the job anew from the log's head.
    pub(super) fn rewind(&mut self, cause: &str) -> Handled {
        info!(job = %self.entry.job, epoch = %self.progress.epoch, %cause, "rewind");
        if let Phase::Reattaching { lasting, .. } = &self.phase {
            let waited = self.clock.monotonic().saturating_sub(self.observed.begun);
            let now_us = self.clock.unix_micros();
            let since_us = now_us - waited.as_micros() as i64;
            let generation = lasting.generation;
            self.traces.lost(generation, cause, since_us, now_us);
        }
        self.dismiss()?;
        self.observed.cause.clear();
        self.phase = Phase::Waiting;
        self.advance()
    }

    fn go_on(&mut self, lasting: Lasting, resumption: Resumption) -> Handled {
        let Resumption {
            triggered,
            open,
            given,
        } = resumption;
        info!(
            job = %self.entry.job, generation = %lasting.generation, epoch = %self.progress.epoch,
            open = ?open.as_ref().map(|barrier| barrier.epoch), "go on with what workers hold"
        );
        // A worker without a task holds the generation as well.
        let holders = self.workers.iter().filter(|(_, handle)| {
            let held = self.held_by(handle);
            held.is_some_and(|held| held.at.generation == lasting.generation)
        });
        self.sessions = holders
            .map(|(worker, handle)| (worker.clone(), handle.session))
            .collect();
        self.assignment = lasting.assignment;
        self.assignment.splits.extend(given);
        let reporters = workers_with_tasks(&self.assignment);
        let now = self.clock.monotonic();
        self.coordinator = Coordinator::resume(reporters, triggered, open.clone(), now);
        self.observed.cause.clear();
        self.phase = Phase::Running;
        let now_us = self.clock.unix_micros();
        self.traces.reattached(lasting.generation, now_us);
        if open.is_some() {
            self.traces.barrier_sent(now_us);
        }
        self.gather();
        // Before it repeats its report, a worker has to know that somebody listens; the rest it obeys once.
        self.send_all(&ToWorker::Resume(self.at()))?;
        self.repeat_commands()?;
        self.repeat_commits()?;
        let (backlog, _) = self.progress.lacked();
        if !backlog.is_empty() {
            self.send_all(&ToWorker::Backlog(self.at(), backlog))?;
        }
        self.start_held_readers()?;
        match open {
            Some(barrier) => self.send_all(&ToWorker::Barrier(self.at(), barrier)),
            None => {
                self.give_new_splits()?;
                self.remind_of_barrier();
                Ok(())
            }
        }
    }

    /// Of the epochs that some sink lacks a worker knows all up to the one it names: what the last master did not come to
    /// tell it is a few, however long a sink has been down (INV-9).
    fn repeat_commits(&self) -> Handled {
        for (worker, handle) in self.workers.iter() {
            let Some(held) = self.held_by(handle) else {
                continue;
            };
            let untold = self.progress.recent.iter();
            let untold = untold.filter(|epoch| epoch.epoch > held.committed);
            for epoch in untold.filter(|_| self.sessions.contains_key(worker)) {
                let frame = ToWorker::EpochCommitted {
                    at: self.at(),
                    epoch: epoch.clone(),
                    positions: BTreeMap::new(),
                    trace: self.traces.of_epoch(epoch.epoch),
                };
                if self.send(worker, handle, frame)? == Sent::Overrun {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Ends what workers hold of the job, except under its own master.
    pub(super) fn dismiss(&self) -> Handled {
        for (worker, handle) in self.workers.iter() {
            self.dismiss_held(worker, handle)?;
        }
        Ok(())
    }

    /// A worker that joins while the job does not wait for it holds nothing that can be gone on with.
    pub(super) fn dismiss_joined(&self, known: &Workers) -> Handled {
        if matches!(self.phase, Phase::Reattaching { .. }) {
            return Ok(());
        }
        for (worker, handle) in self.workers.iter() {
            let known_session = known.get(worker).map(|known| known.session);
            if known_session != Some(handle.session) {
                self.dismiss_held(worker, handle)?;
            }
        }
        Ok(())
    }

    fn dismiss_held(&self, worker: &WorkerId, handle: &WorkerHandle) -> Handled {
        if let Some(held) = self.held_by(handle) {
            self.send(worker, handle, ToWorker::Teardown(held.at.clone()))?;
        }
        Ok(())
    }

    fn held_by<'a>(&self, handle: &'a WorkerHandle) -> Option<&'a Held> {
        let mut held = handle.held.iter();
        held.find(|held| held.at.job == self.entry.job)
    }
}

/// A job that has read everything has nothing to go on with.
pub(super) fn first_phase(
    end: Option<JobEnd>,
    lasting: Option<Lasting>,
    progress: &JobProgress,
) -> Phase {
    match (end, lasting) {
        (Some(end), _) => Phase::Ended(end),
        (None, Some(lasting)) if !progress.drained => Phase::Reattaching {
            lasting,
            is_timed: false,
        },
        (None, _) => Phase::Waiting,
    }
}
