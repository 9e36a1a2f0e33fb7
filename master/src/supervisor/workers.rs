//! Workers as they come, speak and go: who is there is told to every job.
//!
//! Called by the supervisor's actor; the registry decides what counts. Failure: a worker that goes silent counts as lost.

use std::time::Duration;

use millstream_common::control::{ControlError, WorkerState};
use millstream_common::ids::{JobName, WorkerId};
use millstream_common::link::{ToMaster, ToWorker, WorkerHello};
use millstream_common::suggest::nearest;
use ractor::RpcReplyPort;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::supervisor_actor::{SupervisorState, answer};
use crate::cluster::registry::{NameTaken, Session};
use crate::job::job_actor::{JobMessage, Sent, WorkerHandle};

/// A worker as the registry knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Its name.
    pub worker: WorkerId,
    /// Where its Flight server is reached.
    pub flight_address: String,
    /// Tasks of each stage that it runs.
    pub slots: u32,
    /// Of its program.
    pub version: String,
    /// Whether it is given tasks.
    pub state: WorkerState,
    /// Since it joined.
    pub age: Duration,
    /// Since it was last heard of.
    pub heartbeat_age: Duration,
}

impl SupervisorState {
    pub(super) fn joined(
        &mut self,
        hello: WorkerHello,
        frames: mpsc::Sender<ToWorker>,
        reply: RpcReplyPort<Result<Session, NameTaken>>,
    ) {
        let who = format!("{} (flight {})", hello.worker, hello.flight_address);
        let slots = hello.slots;
        let joined = self.registry.join(hello, frames, self.clock.monotonic());
        let is_taken = joined.is_err();
        match &joined {
            Ok(_) => info!(worker = %who, slots, "worker joined"),
            // The worker says so to whoever started it, and dials on.
            Err(taken) => debug!(worker = %who, %taken, "worker refused"),
        }
        answer(reply, joined);
        if !is_taken {
            self.tell_workers();
            self.release();
        }
    }

    pub(super) fn frame(&mut self, worker: WorkerId, session: u64, frame: ToMaster) {
        if !self
            .registry
            .heard(&worker, session, self.clock.monotonic())
        {
            return;
        }
        if frame == ToMaster::Leaving {
            return self.leaving(&worker);
        }
        if let Some(at) = frame.at()
            && let Some(job) = self.jobs.get(&at.job)
        {
            // A job whose actor is gone is being started anew and waits for no frame of before.
            let _ = job.actor.cast(JobMessage::Frame(worker, frame));
        }
    }

    pub(super) fn left(&mut self, worker: WorkerId, session: u64) {
        if self.registry.end(&worker, session, "its stream has ended") {
            info!(%worker, "worker left");
            self.tell_workers();
        }
    }

    /// The worker goes once nothing counts on it.
    fn leaving(&mut self, worker: &WorkerId) {
        info!(%worker, "worker is leaving");
        if self.registry.begin_leaving(worker) {
            self.tell_workers();
            self.release();
        }
    }

    /// A person wants the worker to be idle. It remembers that itself, for other masters and sessions.
    pub(super) fn drain_worker(&mut self, worker: &WorkerId) -> Result<(), ControlError> {
        let Some(member) = self.registry.members().get(worker) else {
            let known = self.registry.members().keys().map(WorkerId::as_str);
            let hint = nearest(worker.as_str(), known)
                .map_or(String::new(), |name| format!(", did you mean {name}?"));
            return Err(ControlError::Invalid(format!(
                "no worker {worker}{hint}; `millstream workers` lists them"
            )));
        };
        let handle = member.handle.clone();
        self.tell(worker, &handle, ToWorker::Drain);
        self.leaving(worker);
        Ok(())
    }

    pub(super) fn vacated(&mut self, worker: &WorkerId, session: u64, job: JobName) {
        self.registry.vacated(worker, session, job);
        self.release();
    }

    fn release(&mut self) {
        for (worker, handle) in self.registry.release(self.jobs.keys()) {
            let is_last = !self.registry.has_active();
            info!(%worker, is_last, "worker is drained");
            self.tell(&worker, &handle, ToWorker::Released { is_last });
        }
    }

    fn tell(&mut self, worker: &WorkerId, handle: &WorkerHandle, frame: ToWorker) {
        if handle.send(frame) == Sent::Overrun {
            self.overrun(worker, handle.session);
        }
    }

    /// What it was not sent it would miss for ever: it is lost, joins again, and jobs begin anew from the log.
    pub(super) fn overrun(&mut self, worker: &WorkerId, session: u64) {
        let reason = "the worker does not take its frames: too many wait for it";
        if self.registry.end(worker, session, reason) {
            warn!(%worker, reason, "worker counts as lost");
            self.tell_workers();
        }
    }

    pub(super) fn expire(&mut self) {
        let lost = self.registry.expire(self.clock.monotonic());
        if lost.is_empty() {
            return;
        }
        warn!(workers = ?lost, "workers are silent and count as lost");
        self.tell_workers();
    }

    fn tell_workers(&self) {
        let workers = self.registry.workers();
        self.tell_jobs(|| JobMessage::WorkersChanged(workers.clone()));
    }

    pub(super) fn tell_jobs(&self, message: impl Fn() -> JobMessage) {
        for job in self.jobs.values() {
            let _ = job.actor.cast(message());
        }
    }

    pub(super) fn tell_everybody(&mut self, frame: &ToWorker) {
        for (worker, handle) in self.registry.workers().iter() {
            if handle.send(frame.clone()) == Sent::Overrun {
                self.overrun(worker, handle.session);
            }
        }
    }

    pub(super) fn worker_statuses(&self) -> Vec<WorkerStatus> {
        let now = self.clock.monotonic();
        let members = self.registry.members().iter();
        members
            .map(|(worker, member)| WorkerStatus {
                worker: worker.clone(),
                flight_address: member.handle.flight_address.clone(),
                slots: member.handle.slots,
                version: member.version.clone(),
                state: match &member.leaving {
                    None => WorkerState::Active,
                    Some(leaving) if leaving.is_released() => WorkerState::Drained,
                    Some(_) => WorkerState::Draining,
                },
                age: now.saturating_sub(member.joined_at),
                heartbeat_age: now.saturating_sub(member.heard_at),
            })
            .collect()
    }
}
