//! Workers as they come, speak and go: who is there is told to every job.
//!
//! Called by the supervisor's actor; the registry decides what counts. Failure: a worker that goes silent counts as lost.

use std::time::Duration;

use millstream_common::ids::WorkerId;
use millstream_common::link::{JobGeneration, ToMaster, ToWorker, WorkerHello};
use ractor::RpcReplyPort;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::supervisor_actor::{SupervisorState, answer};
use crate::cluster::registry::Session;
use crate::job::job_actor::JobMessage;

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
        reply: RpcReplyPort<Session>,
    ) {
        info!(worker = %hello.worker, flight = %hello.flight_address, slots = hello.slots, "worker joined");
        let session = self.registry.join(hello, frames, self.clock.monotonic());
        answer(reply, session);
        self.tell_workers();
    }

    pub(super) fn frame(&mut self, worker: WorkerId, session: u64, frame: ToMaster) {
        if !self
            .registry
            .heard(&worker, session, self.clock.monotonic())
        {
            return;
        }
        if let Some(at) = job_of(&frame)
            && let Some(job) = self.jobs.get(&at.job)
        {
            // A job whose actor is gone is being started anew and waits for no frame of before.
            let _ = job.actor.cast(JobMessage::Frame(worker, frame));
        }
    }

    pub(super) fn left(&mut self, worker: WorkerId, session: u64) {
        if self.registry.leave(&worker, session) {
            info!(%worker, "worker left");
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

    /// A full queue is a worker that is as good as lost: its link will end.
    pub(super) fn tell_everybody(&self, frame: &ToWorker) {
        for (worker, handle) in self.registry.workers().iter() {
            if let Err(error) = handle.frames.try_send(frame.clone()) {
                warn!(%worker, %error, "send frame");
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
                age: now.saturating_sub(member.joined_at),
                heartbeat_age: now.saturating_sub(member.heard_at),
            })
            .collect()
    }
}

fn job_of(frame: &ToMaster) -> Option<&JobGeneration> {
    match frame {
        ToMaster::Hello(_) | ToMaster::Heartbeat => None,
        ToMaster::Deployed(at)
        | ToMaster::Snapshotted(at, _)
        | ToMaster::PipelineFailed(at, _)
        | ToMaster::SinkAdvanced { at, .. }
        | ToMaster::SinkTroubled { at, .. }
        | ToMaster::SinkRefused(at, _)
        | ToMaster::TornDown(at) => Some(at),
    }
}
