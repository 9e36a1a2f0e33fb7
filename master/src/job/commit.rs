//! Epochs of a running job: trigger a barrier, gather reports, commit, tell the workers, go on.
//!
//! Called by `lifecycle.rs` and the actor. The coordinator decides what counts; the log's answer is the commit. Between two
//! epochs is the one place where splits are given out and the job is placed anew.

use std::time::Duration;

use millstream_common::control::StopMode;
use millstream_common::ids::{Epoch, SinkIndex};
use millstream_common::link::{BarrierKind, ToWorker};
use millstream_common::log::entry::{CommittedEpoch, EpochEntry, JobEnd};
use millstream_common::mutant::{self, Mutant};
use millstream_common::report::PipelineReport;
use tracing::{debug, info};

use super::claims;
use super::job_actor::{Due, JobState, Phase};
use super::lifecycle::Handled;
use crate::checkpoint::coordinator::FromSinks;

impl JobState {
    pub(super) fn remind_of_barrier(&mut self) {
        let interval = Duration::from_millis(self.entry.plan.settings.checkpoint_interval_ms);
        let pause = self.barrier_pace.pause(interval, self.clock.monotonic());
        self.remind(pause, Due::Barrier(self.generation));
    }

    /// The interval is over, or somebody is in a hurry: send the next barrier unless one is under way, after which
    /// this is called again.
    pub(super) fn barrier_due(&mut self) -> Handled {
        let is_free =
            matches!(self.phase, Phase::Running) && !self.coordinator.is_busy() && !self.committing;
        if !is_free {
            return Ok(());
        }
        let kind = match (self.stop, self.generation_ends()) {
            (Some(StopMode::Drain), _) => BarrierKind::Drain,
            (Some(StopMode::Stop), _) | (None, true) => BarrierKind::Stop,
            (None, false) => BarrierKind::Checkpoint,
        };
        self.trigger(kind, false)
    }

    /// Tasks move, readers are to wait for a sink, or one was sent back: the next barrier is the last of the generation.
    fn generation_ends(&self) -> bool {
        let is_sent_back = self.progress.has_going_back(self.generation);
        self.rescale.is_due || is_sent_back || self.is_to_be_held()
    }

    fn trigger(&mut self, kind: BarrierKind, drains: bool) -> Handled {
        let now = self.clock.monotonic();
        let source_count = self.entry.plan.sources.len();
        let barrier = self
            .coordinator
            .trigger(kind, drains, &self.progress, source_count, now);
        let Some(barrier) = barrier else {
            return Ok(());
        };
        self.barrier_pace.sent(now);
        self.traces.barrier_sent(self.clock.unix_micros());
        self.send_all(&ToWorker::Barrier(self.at(), barrier))
    }

    pub(super) fn snapshotted(&mut self, report: PipelineReport) -> Handled {
        self.observe_report(&report);
        let Some(collected) = self.coordinator.report(report) else {
            return Ok(());
        };
        self.observed.barrier_since = collected.since;
        let now = self.clock.monotonic();
        self.observed.tally.collected(collected.since, now);
        let task_count = self.task_count();
        self.observed.paces.collected(now, task_count);
        self.traces.collected(self.clock.unix_micros());
        self.passed = Some((collected.barrier.kind, collected.drains));
        let sinks = FromSinks {
            markers: self.progress.sink_markers.clone(),
            refusals: self.refusals.take(&self.progress),
            dropped: self.refusals.take_dropped(),
        };
        let collected = collected.expecting(self.claims.expected());
        let entry = collected.entry(&self.entry, self.generation, &self.progress, sinks);
        match entry {
            Some(entry) => self.commit(entry),
            None => {
                self.observe_empty_epoch();
                self.epoch_passed()
            }
        }
    }

    /// The epoch is in the log: from here on everything in it will happen.
    pub(super) fn epoch_recorded(&mut self, entry: EpochEntry) -> Handled {
        self.committing = false;
        let told = self.progress.sink_markers.clone();
        self.progress.apply(&entry)?;
        if !mutant::is(Mutant::HearOldMarkers) {
            // What sinks have told since the entry was made is newer than what it says.
            self.progress.sink_markers.extend(told);
        }
        self.refusals.dropped_counted();
        self.refusals.drop_named(&self.progress);
        self.progress.note_delivered(self.entry.plan.sinks.len());
        self.put_away();
        self.claims.recorded(&self.progress);
        claims::forget_ended(&mut self.assignment, &entry.splits);
        self.observe_commit(&entry);
        self.traces.committed(&entry, self.clock.unix_micros());
        let is_live = matches!(self.phase, Phase::Running | Phase::Delivering(_));
        if entry.generation != self.generation || !is_live {
            // The generation ended while its last epoch was on its way: the next one begins behind it. Of what is left of the
            // generation somebody may have to say what it did of the epoch.
            if entry.generation == self.generation {
                self.tell_committed(&entry)?;
            }
            self.keep_savepoints()?;
            return self.advance();
        }
        debug!(
            job = %self.entry.job, generation = %entry.generation, epoch = %entry.epoch,
            read = entry.counters.values().map(|counted| counted.read).sum::<u64>(),
            shipped = entry.segments.iter().map(|segment| segment.row_count).sum::<u64>(), "epoch committed"
        );
        self.restarts.committed();
        self.observed.recovery.over(self.clock.monotonic());
        let now_us = self.clock.unix_micros();
        self.traces
            .settled(Some(entry.epoch), self.generation, now_us);
        self.tell_committed(&entry)?;
        self.epoch_passed()?;
        self.record_refusals()
    }

    pub(super) fn tell_committed(&mut self, entry: &EpochEntry) -> Handled {
        self.send_all(&ToWorker::EpochCommitted {
            at: self.at(),
            epoch: CommittedEpoch::from(entry),
            positions: entry.splits.clone(),
            trace: self.traces.of_epoch(entry.epoch),
        })
    }

    /// Nothing is under way: what comes next?
    fn epoch_passed(&mut self) -> Handled {
        let Some((kind, drains)) = self.passed.take() else {
            return Ok(());
        };
        self.keep_savepoints()?;
        if drains {
            return self.deliver(JobEnd::Finished);
        }
        match (kind, self.stop) {
            (BarrierKind::Drain, _) => return self.trigger(BarrierKind::Stop, true),
            (BarrierKind::Stop, Some(StopMode::Stop)) => return self.deliver(JobEnd::Stopped),
            // A stop barrier that was not for a stop was for a new placement; a drain goes on behind it.
            (BarrierKind::Stop, Some(StopMode::Drain) | None) => return self.place_anew(),
            (BarrierKind::Checkpoint, Some(_)) => return self.barrier_due(),
            (BarrierKind::Checkpoint, None) => {}
        }
        if claims::all_ended(
            &self.entry.plan,
            &self.exhausted,
            &self.claims,
            &self.progress,
        ) {
            return self.trigger(BarrierKind::Stop, true);
        }
        self.judge_quotas()?;
        if self.generation_ends() {
            return self.barrier_due();
        }
        self.give_new_splits()?;
        self.remind_of_barrier();
        Ok(())
    }

    /// The generation is over: shares move at an epoch's end, so nothing is read twice.
    pub(super) fn place_anew(&mut self) -> Handled {
        info!(job = %self.entry.job, epoch = %self.progress.epoch, workers = self.workers.len(), "place anew");
        self.tear_down()?;
        let now_us = self.clock.unix_micros();
        self.traces.moves(self.generation, now_us);
        self.phase = Phase::Waiting;
        self.advance()
    }

    /// Gives found splits to readers, if no barrier is under way that would have to know of them.
    pub(super) fn give_new_splits(&mut self) -> Handled {
        let is_free =
            matches!(self.phase, Phase::Running) && !self.coordinator.is_busy() && !self.committing;
        if !is_free || self.quotas.is_held || !self.claims.has_ungiven() {
            return Ok(());
        }
        let starts = self.claims.give_new(&self.progress);
        let task_count = self.task_count();
        let assigned = claims::place_new(starts, &mut self.assignment, task_count);
        self.send_all(&ToWorker::AssignSplits(self.at(), assigned))
    }

    pub(super) fn sink_advanced(
        &mut self,
        sink: SinkIndex,
        marker: Epoch,
        dropped_count: u64,
    ) -> Handled {
        if !self.progress.has_counted_drops(sink, marker) {
            self.refusals.add_dropped(sink, dropped_count);
        }
        let is_old = self.progress.is_going_back(sink, self.generation);
        if is_old && !mutant::is(Mutant::HearOldMarkers) {
            // What it holds is of before.
            self.progress.note_counted_drops(sink, marker);
            return Ok(());
        }
        let lacked = self.sink_lag(sink).row_count;
        self.progress.sink_markers.insert(sink, marker);
        self.observe_delivery(sink, lacked);
        self.progress.note_delivered(self.entry.plan.sinks.len());
        self.observed.sink_causes.remove(&sink);
        self.judge_quotas()?;
        self.record_refusals()?;
        self.check_delivered()
    }
}
