//! From phase to phase: waiting, assigning, deploying, running, recovering, delivering, ended.
//!
//! Called by `job_actor.rs` for each message; hands running epochs to `commit.rs`. A generation begins with its
//! Assign entry in the log and ends with a Teardown; between the two, any lost worker or failed pipeline rewinds the whole
//! job to the last epoch (all tasks, for survivors have folded rows that will be read again).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millstream_common::control::{StopMode, Stopped};
use millstream_common::error::Failure;
use millstream_common::ids::{Generation, Seq, WorkerId};
use millstream_common::link::{ToMaster, ToWorker};
use millstream_common::log::Entry;
use millstream_common::log::entry::{AssignEntry, Assignment, EpochEntry, JobEnd, generation_of};
use millstream_common::mutant::{self, Mutant};
use ractor::{ActorProcessingErr, RpcReplyPort};
use tracing::{debug, info, warn};

use super::barrier_pace::BarrierPace;
use super::claims;
use super::job_actor::{Due, JobMessage, JobState, Phase, Workers};
use super::recorded::Recorded;
use super::rescale::{self, candidates};
use super::restart::Decision;
use crate::assign::{Candidate, assign, workers_with_tasks};
use crate::checkpoint::coordinator::Coordinator;
use crate::supervisor::supervisor_actor::SupervisorMessage;

/// How long a stop waits for sinks to hold the last epoch.
const DELIVERY_WAIT: Duration = Duration::from_secs(30);

pub(super) type Handled = Result<(), ActorProcessingErr>;

impl JobState {
    pub(super) fn due(&mut self, due: Due) -> Handled {
        match due {
            Due::Barrier(generation) if generation == self.generation => self.barrier_due(),
            Due::Retry if matches!(self.phase, Phase::Recovering) => {
                self.phase = Phase::Waiting;
                self.advance()
            }
            // At most the files of one look in each epoch: not before the last ones are recorded.
            Due::Discovery(source) if self.claims.is_waiting(source) && !self.is_over() => {
                self.remind(self.discovery_interval(source), due);
                Ok(())
            }
            Due::Discovery(source) if !self.is_over() => self.discover(source),
            Due::Delivery(generation) if generation == self.generation => self.delivery_due(),
            Due::Reattachment => self.reattachment_due(),
            Due::Rescale => self.gathered(),
            Due::Barrier(_) | Due::Retry | Due::Discovery(_) | Due::Delivery(_) => Ok(()),
        }
    }

    pub(super) fn workers_changed(&mut self, workers: Workers) -> Handled {
        let known = std::mem::replace(&mut self.workers, workers);
        self.dismiss_joined(&known)?;
        match self.phase {
            Phase::Reattaching { .. } => self.reattach(),
            Phase::Waiting => self.advance(),
            Phase::Recovering | Phase::Ending | Phase::Ended(_) => Ok(()),
            Phase::Assigning | Phase::Deploying(_) | Phase::Running | Phase::Delivering(_) => {
                if let Some(lost) = self.lost_worker() {
                    let heard = known.get(&lost).map(|handle| handle.heard_us.clone());
                    return self.lost(lost, heard);
                }
                self.gather();
                Ok(())
            }
        }
    }

    fn lost_worker(&self) -> Option<WorkerId> {
        let is_lost = |(worker, session): &(&WorkerId, &u64)| {
            self.workers.get(*worker).map(|handle| handle.session) != Some(**session)
        };
        self.sessions
            .iter()
            .find(is_lost)
            .map(|(worker, _)| worker.clone())
    }

    fn lost(&mut self, worker: WorkerId, heard_us: Option<Arc<AtomicU64>>) -> Handled {
        let cause = format!("worker {worker} is lost");
        self.observed.heard_us = heard_us.map(|heard| heard.load(Ordering::Relaxed));
        if matches!(self.phase, Phase::Assigning) && self.stop != Some(StopMode::Stop) {
            // Nothing runs yet that could be lost: often its peers have told of the loss, and this is no other one.
            info!(job = %self.entry.job, %cause, "assign anew");
            self.trace_same_loss(&cause);
            self.phase = Phase::Waiting;
            return self.advance();
        }
        self.recover(cause, Duration::ZERO)
    }

    /// Places the job if everything it needs is there.
    pub(super) fn advance(&mut self) -> Handled {
        let is_ready =
            matches!(self.phase, Phase::Waiting) && self.looked.iter().all(|looked| *looked);
        let is_settled = !self.committing || mutant::is(Mutant::AssignWhileCommitting);
        if !is_ready || !is_settled {
            return Ok(());
        }
        if candidates(&self.workers).next().is_none() {
            let cause = match self.workers.is_empty() {
                true => "no worker has joined",
                false => "every worker is leaving or drained",
            };
            self.observed.cause = format!("{cause}; start one with `millstream worker`");
            return Ok(());
        }
        self.assign()
    }

    pub(super) fn assign(&mut self) -> Handled {
        let candidates: Vec<Candidate> = candidates(&self.workers)
            .map(|(worker, handle)| Candidate {
                worker: worker.clone(),
                slots: handle.slots,
            })
            .collect();
        self.starts = match self.progress.drained {
            true => Vec::new(),
            false => self.claims.give_all(&self.progress),
        };
        let assignment = assign(
            &self.entry.plan,
            &candidates,
            &claims::by_source(&self.starts),
        );
        self.observed.tally.assigned();
        self.observed.reader_troubles.clear();
        self.sessions = rescale::candidates(&self.workers)
            .map(|(worker, handle)| (worker.clone(), handle.session))
            .collect();
        self.rescale.is_due = false;
        self.phase = Phase::Assigning;
        let entry = AssignEntry {
            job: self.entry.job.clone(),
            incarnation: self.entry.incarnation,
            restore_from: self.progress.epoch,
            assignment: assignment.clone(),
            placement: self.traces.placement(),
        };
        self.attempt += 1;
        let recorded = Recorded::Assign {
            attempt: self.attempt,
            assignment: Box::new(assignment),
        };
        self.append(Entry::Assign(Box::new(entry)), recorded)
    }

    pub(super) fn assigned(&mut self, attempt: u64, assignment: Assignment, seq: Seq) -> Handled {
        if attempt != self.attempt || !matches!(self.phase, Phase::Assigning) {
            return Ok(());
        }
        if self.generation == Generation(0) || !mutant::is(Mutant::ReuseGeneration) {
            self.generation = generation_of(seq);
        }
        self.assignment = assignment;
        self.traces
            .assigned(self.generation, self.clock.unix_micros());
        // Frames of the last generation may have come until now.
        self.refusals.forget();
        self.barrier_pace = BarrierPace::default();
        let workers: BTreeSet<WorkerId> = self.sessions.keys().cloned().collect();
        let reporters = workers_with_tasks(&self.assignment);
        self.coordinator = Coordinator::new(reporters, self.progress.epoch);
        info!(
            job = %self.entry.job, generation = %self.generation, epoch = %self.progress.epoch,
            workers = workers.len(), splits = self.assignment.splits.len(), "deploy"
        );
        self.phase = Phase::Deploying(workers);
        let starts = std::mem::take(&mut self.starts);
        let deploy = self.deploy(starts);
        self.send_all(&ToWorker::Deploy(Box::new(deploy)))
    }

    pub(super) fn frame(&mut self, worker: WorkerId, frame: ToMaster) -> Handled {
        match frame {
            ToMaster::Deployed(at) if at.generation == self.generation => self.deployed(&worker),
            ToMaster::Snapshotted(at, report) if at.generation == self.generation => {
                self.snapshotted(*report)
            }
            ToMaster::PipelineFailed(at, failure) if at.generation == self.generation => {
                self.failed(&worker, &failure)
            }
            ToMaster::SinkAdvanced {
                at,
                sink,
                marker,
                dropped_count,
            } if at.generation == self.generation => {
                self.sink_advanced(sink, marker, dropped_count)
            }
            ToMaster::SinkTroubled {
                at, sink, cause, ..
            } if at.generation == self.generation => {
                self.observed.sink_causes.insert(sink, cause);
                Ok(())
            }
            ToMaster::SinkRefused(at, refusal) if at.generation == self.generation => {
                self.sink_refused(*refusal)
            }
            // Said of a generation that is over.
            ToMaster::TornDown(_, rows_reread) => {
                self.observed.rows_reread += rows_reread;
                Ok(())
            }
            ToMaster::Deployed(_)
            | ToMaster::Snapshotted(..)
            | ToMaster::PipelineFailed(..)
            | ToMaster::SinkAdvanced { .. }
            | ToMaster::SinkTroubled { .. }
            | ToMaster::SinkRefused(..)
            | ToMaster::Hello(_)
            | ToMaster::Leaving
            | ToMaster::Heartbeat => Ok(()),
        }
    }

    fn deployed(&mut self, worker: &WorkerId) -> Handled {
        let Phase::Deploying(waiting) = &mut self.phase else {
            return Ok(());
        };
        waiting.remove(worker);
        if !waiting.is_empty() {
            return Ok(());
        }
        self.observed.cause.clear();
        let now_us = self.clock.unix_micros();
        self.traces.deployed(self.generation, now_us);
        if self.progress.drained {
            // There is nothing to commit any more.
            self.traces.settled(None, self.generation, now_us);
            return self.deliver(JobEnd::Finished);
        }
        debug!(job = %self.entry.job, generation = %self.generation, "run");
        self.phase = Phase::Running;
        self.start_readers()?;
        if self.stop.is_some() {
            return self.barrier_due();
        }
        self.remind_of_barrier();
        Ok(())
    }

    fn failed(&mut self, worker: &WorkerId, failure: &Failure) -> Handled {
        if matches!(self.phase, Phase::Reattaching { .. }) {
            return self.rewind(&format!("on {worker}: {failure}"));
        }
        let is_stale = matches!(
            self.phase,
            Phase::Recovering | Phase::Waiting | Phase::Assigning
        );
        if is_stale || self.is_over() {
            return Ok(());
        }
        let cause = format!("on {worker}: {failure}");
        match self.restarts.failed(failure.kind, self.clock.monotonic()) {
            Decision::RetryAfter(delay) => self.recover(cause, delay),
            Decision::GiveUp => {
                warn!(job = %self.entry.job, %cause, "job failed");
                self.observed.last_failure = Some((self.clock.monotonic(), cause.clone()));
                self.observed.cause = cause;
                self.end(JobEnd::Failed {
                    failure: failure.clone(),
                })
            }
        }
    }

    /// Ends the running generation; the next one begins after `delay`. A stop begins none: the last committed epoch is the
    /// last one, and what sinks do not hold of it yet they get when the job goes on.
    fn recover(&mut self, cause: String, delay: Duration) -> Handled {
        if self.stop == Some(StopMode::Stop) {
            warn!(job = %self.entry.job, epoch = %self.progress.epoch, %cause, "stop without another epoch");
            return self.end(JobEnd::Stopped);
        }
        warn!(job = %self.entry.job, generation = %self.generation, epoch = %self.progress.epoch, %cause, "recover");
        self.observed.restart_count += 1;
        self.observed.recovery.lost(self.clock.monotonic());
        self.observed.last_failure = Some((self.clock.monotonic(), cause.clone()));
        self.trace_loss(&cause);
        self.observed.cause = cause;
        self.tear_down()?;
        self.phase = Phase::Recovering;
        match delay.is_zero() {
            true => self.due(Due::Retry),
            false => {
                self.remind(delay, Due::Retry);
                Ok(())
            }
        }
    }

    pub(super) fn tear_down(&mut self) -> Handled {
        if mutant::is(Mutant::RewindOnlyTheDead) {
            self.progress.splits.extend(self.coordinator.reported());
        }
        self.coordinator.abandon();
        self.refusals.forget();
        self.quotas.is_held = false;
        self.passed = None;
        let frame = ToWorker::Teardown(self.at());
        self.sessions.retain(|worker, session| {
            self.workers.get(worker).map(|handle| handle.session) == Some(*session)
        });
        self.send_all(&frame)
    }

    pub(super) fn stop(&mut self, mode: StopMode, reply: RpcReplyPort<Stopped>) -> Handled {
        self.stop_replies.push(reply);
        match (&self.phase, mode) {
            (Phase::Ended(_), _) => self.answer_stops(),
            (Phase::Ending, _) => Ok(()),
            (Phase::Running, _) => {
                self.stop = Some(mode);
                self.barrier_due()
            }
            (Phase::Delivering(JobEnd::Finished), StopMode::Stop) => self.end(JobEnd::Stopped),
            (Phase::Delivering(_), _) => Ok(()),
            (Phase::Reattaching { .. }, StopMode::Stop) => {
                self.dismiss()?;
                self.end(JobEnd::Stopped)
            }
            (_, StopMode::Drain) => {
                self.stop = Some(mode);
                Ok(())
            }
            // Who runs in a moment delivers what is committed, and stops then. Asked again, it does not wait for that.
            (Phase::Assigning | Phase::Deploying(_), StopMode::Stop)
                if self.stop != Some(mode) && !self.progress.drained =>
            {
                self.stop = Some(mode);
                Ok(())
            }
            // Nothing runs: the last committed epoch is the last one.
            (
                Phase::Waiting | Phase::Assigning | Phase::Deploying(_) | Phase::Recovering,
                StopMode::Stop,
            ) => self.end(JobEnd::Stopped),
        }
    }

    /// Waits until every sink holds the last epoch.
    pub(super) fn deliver(&mut self, end: JobEnd) -> Handled {
        if end == JobEnd::Stopped {
            self.remind(DELIVERY_WAIT, Due::Delivery(self.generation));
        }
        if end == JobEnd::Finished && self.progress.has_going_back(self.generation) {
            // No barrier comes any more behind which a sink could be sent back.
            return self.place_anew();
        }
        self.phase = Phase::Delivering(end);
        self.record_refusals()?;
        self.check_delivered()?;
        // A move that waited for a barrier finds none any more.
        self.gather();
        Ok(())
    }

    pub(super) fn check_delivered(&mut self) -> Handled {
        let Phase::Delivering(end) = &self.phase else {
            return Ok(());
        };
        // An Epoch that is on its way counts what sinks dropped, and they are to hold it too. A sink that is being sent back lacks something
        // again in a moment, and who goes on with a job that has finished begins anew.
        let is_settled =
            !self.committing && (*end != JobEnd::Finished || !self.has_rewind_under_way());
        match is_settled && self.lagging_sinks().is_empty() {
            true => self.end(end.clone()),
            false => Ok(()),
        }
    }

    fn delivery_due(&mut self) -> Handled {
        match &self.phase {
            Phase::Delivering(end) => self.end(end.clone()),
            _ => Ok(()),
        }
    }

    fn end(&mut self, end: JobEnd) -> Handled {
        self.tear_down()?;
        self.traces.ended(self.clock.unix_micros());
        self.phase = Phase::Ending;
        let entry = Entry::Ended {
            job: self.entry.job.clone(),
            incarnation: self.entry.incarnation,
            end: end.clone(),
        };
        self.append(entry, Recorded::Ended(end))
    }

    pub(super) fn ended(&mut self, end: JobEnd) -> Handled {
        info!(job = %self.entry.job, epoch = %self.progress.epoch, ?end, "job ended");
        for enumerator in &self.enumerators {
            enumerator.get_cell().unlink(self.myself.get_cell());
            enumerator.stop(None);
        }
        if !matches!(end, JobEnd::Failed { .. }) {
            self.observed.cause.clear();
        }
        self.supervisor.cast(SupervisorMessage::JobEnded {
            job: self.entry.job.clone(),
            end: end.clone(),
            progress: Box::new(self.progress.clone()),
        })?;
        self.observed.tally.ended();
        self.phase = Phase::Ended(end);
        self.keep_savepoints()?;
        self.answer_stops()
    }

    pub(super) fn log_troubled(&mut self, trouble: Option<String>) -> Handled {
        self.observed.log_trouble = trouble;
        Ok(())
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ending | Phase::Ended(_))
    }

    pub(super) fn commit(&mut self, mut entry: EpochEntry) -> Handled {
        self.committing = true;
        entry.committed_at_us = self.clock.unix_micros();
        self.traces.appended(&entry, entry.committed_at_us);
        if mutant::is(Mutant::DeliverBeforeRecord) {
            self.tell_committed(&entry)?;
        }
        self.append(
            Entry::Epoch(Box::new(entry.clone())),
            Recorded::Epoch(Box::new(entry)),
        )
    }

    pub(super) fn remind(&self, after: Duration, due: Due) {
        // The timer ends with the actor, which is the only one that waits for it.
        drop(self.myself.send_after(after, move || JobMessage::Due(due)));
    }
}
