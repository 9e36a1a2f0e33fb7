//! A job as people see it: what its actor answers to `job`, `jobs` and `checkpoints`.
//!
//! Called by `job_actor.rs`; also keeps the figures that exist only to be shown. Cannot fail.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_common::control::{
    CheckpointView, GapView, JobState as State, JobView, LastFailure, PlanView, SourceView,
    StageView, Stopped,
};
use millstream_common::ids::{SourceIndex, SplitId, StageIndex, TaskId, WorkerId};
use millstream_common::log::entry::{EpochEntry, JobEnd};
use millstream_common::plan::SourceSpec;
use millstream_common::report::{PipelineReport, SplitProgress, SplitStatus};
use millstream_common::time::EventTime;
use ractor::RpcReplyPort;

use super::job_actor::{JobState, Phase, Share};
use super::lifecycle::Handled;
use super::{lag, row_sum};
use crate::plan::shown;

/// A barrier that takes longer than this is worth a word.
const BARRIER_SLOW: Duration = Duration::from_secs(10);

impl JobState {
    pub(super) fn answer<T: Send + 'static>(
        &self,
        reply: RpcReplyPort<T>,
        value: impl FnOnce(&Self) -> T,
    ) -> Handled {
        crate::supervisor::supervisor_actor::answer(reply, value(self));
        Ok(())
    }

    pub(super) fn answer_stops(&mut self) -> Handled {
        for reply in std::mem::take(&mut self.stop_replies) {
            let stopped = Stopped {
                job: self.view(),
                lagging_sinks: self.lagging_sinks(),
            };
            crate::supervisor::supervisor_actor::answer(reply, stopped);
        }
        Ok(())
    }

    pub(super) fn view(&self) -> JobView {
        let counters = self.progress.counters.values();
        let (rows_read, rows_rejected) = counters.fold((0, 0), |(read, rejected), count| {
            (read + count.read, rejected + count.rejected)
        });
        JobView {
            name: self.entry.job.clone(),
            state: self.shown_state(),
            incarnation: self.entry.incarnation.to_string(),
            generation: self.generation,
            epoch: self.progress.epoch,
            watermark: self.watermark(),
            rows_read,
            rows_rejected,
            rows_per_second: self.observed.rows_per_second,
            lag_records: self.lag(),
            sources: self.source_views(),
            sinks: self.sink_views(),
            cause: self.cause(),
            restarts: self.observed.restart_count,
            submitted_at_us: self.entry.submitted_at_us,
            last_recovery_ms: self
                .observed
                .recovery
                .last()
                .map(|took| took.as_millis() as u64),
            checkpoint_interval_ms: self.entry.plan.settings.checkpoint_interval_ms,
            storage: self.observed.storage,
            stages: self.stage_views(),
            rows_unaccounted: row_sum::unaccounted(&self.entry.plan, &self.progress),
            rows_reread: self.observed.rows_reread,
            last_failure: self.last_failure(),
        }
    }

    fn stage_views(&self) -> Vec<StageView> {
        let mut views = row_sum::stage_views(&self.entry.plan, &self.progress);
        if !self.is_over() {
            self.observed.paces.show(&mut views);
        }
        views
    }

    /// The source that is furthest behind decides.
    fn watermark(&self) -> Option<EventTime> {
        let sources = (0..self.entry.plan.sources.len()).map(|index| SourceIndex(index as u32));
        sources.filter_map(|index| self.watermark_of(index)).min()
    }

    /// A source of a drained job is at the end of time, though no split of it has said so.
    pub(super) fn watermark_of(&self, source: SourceIndex) -> Option<EventTime> {
        let keeps_time = self.entry.plan.sources[source.index()].watermark.is_some();
        match self.progress.drained && keeps_time {
            true => Some(EventTime::MAX),
            false => self.progress.watermarks.get(&source).copied(),
        }
    }

    pub(super) fn plan_view(&self) -> PlanView {
        shown::view(&self.entry.job, &self.entry.sql, &self.entry.plan)
    }

    fn shown_state(&self) -> State {
        match &self.phase {
            Phase::Waiting => State::Waiting,
            Phase::Assigning | Phase::Deploying(_) => State::Deploying,
            Phase::Running if self.stop.is_some() => State::Stopping,
            Phase::Running => State::Running,
            Phase::Recovering | Phase::Reattaching { .. } => State::Recovering,
            Phase::Delivering(_) | Phase::Ending => State::Stopping,
            Phase::Ended(JobEnd::Stopped) => State::Stopped,
            Phase::Ended(JobEnd::Finished) => State::Finished,
            Phase::Ended(JobEnd::Failed { .. }) => State::Failed,
        }
    }

    fn cause(&self) -> Option<String> {
        if let Phase::Ended(JobEnd::Failed { failure }) = &self.phase {
            return Some(failure.to_string());
        }
        if let Some(trouble) = &self.observed.log_trouble {
            return Some(format!("the log cannot be written: {trouble}; trying on"));
        }
        if !self.observed.cause.is_empty() {
            return Some(self.observed.cause.clone());
        }
        if let Some(waits) = self.ending_cause() {
            return Some(waits);
        }
        let reads = !self.is_over() && !matches!(self.phase, Phase::Delivering(_));
        if let Some(waits) = self.quota_cause().filter(|_| reads) {
            return Some(waits);
        }
        if let Some(trouble) = self.source_trouble() {
            return Some(trouble);
        }
        let (waited, missing) = self.coordinator.waiting_for(self.clock.monotonic())?;
        let names: Vec<&str> = missing.iter().map(WorkerId::as_str).collect();
        (waited > BARRIER_SLOW).then(|| {
            format!(
                "the barrier has been waiting for {} for {} s",
                names.join(", "),
                waited.as_secs()
            )
        })
    }

    fn last_failure(&self) -> Option<LastFailure> {
        let (at, cause) = self.observed.last_failure.as_ref()?;
        let age = self.clock.monotonic().saturating_sub(*at);
        Some(LastFailure {
            cause: cause.clone(),
            age_ms: age.as_millis() as u64,
        })
    }

    /// Of all topics together; `None` if the end of one split is not known, or if nothing has an end.
    fn lag(&self) -> Option<u64> {
        let of_topics: Option<Vec<u64>> = self.lags_of_topics().collect();
        of_topics
            .filter(|lags| !lags.is_empty())
            .map(|lags| lags.iter().sum())
    }

    fn lags_of_topics(&self) -> impl Iterator<Item = Option<u64>> {
        let sources = self.entry.plan.sources.iter().enumerate();
        sources
            .filter(|(_, source)| matches!(source.spec, SourceSpec::Kafka(_)))
            .map(|(index, _)| self.lag_of(SourceIndex(index as u32)))
    }

    /// Of one source; nobody looks for the ends of files.
    pub(super) fn lag_of(&self, source: SourceIndex) -> Option<u64> {
        let spec = &self.entry.plan.sources[source.index()].spec;
        let splits = self.progress.splits.get(&source);
        let splits = splits.filter(|_| matches!(spec, SourceSpec::Kafka(_)))?;
        lag::of_splits(splits, &self.observed.tally.lags_of(source))
    }

    fn source_views(&self) -> Vec<SourceView> {
        let sources = self.entry.plan.sources.iter().enumerate();
        let views = sources.map(|(index, source)| {
            let index = SourceIndex(index as u32);
            let splits = self.progress.splits.get(&index);
            let ended = |status: SplitStatus| status == SplitStatus::Ended;
            let counters = self
                .progress
                .counters
                .get(&index)
                .copied()
                .unwrap_or_default();
            SourceView {
                name: source.name.clone(),
                connector: source_connector(&source.spec).to_owned(),
                splits: splits.map_or(0, |splits| splits.len() as u32),
                splits_ended: splits.map_or(0, |splits| {
                    splits
                        .values()
                        .filter(|progress| ended(progress.status))
                        .count() as u32
                }),
                rows_read: counters.read,
                rows_accepted: counters.accepted,
                rows_rejected: counters.rejected,
                rows_dropped: counters.dropped,
                watermark: self.watermark_of(index),
                gaps: splits.map_or_else(Vec::new, gap_views),
            }
        });
        views.collect()
    }

    /// What each worker of the assignment has.
    pub(super) fn shares(&self) -> Vec<Share> {
        let is_on = |stage, index| {
            let task = TaskId { stage, index };
            let placement = self
                .assignment
                .tasks
                .iter()
                .find(|placement| placement.task == task);
            placement.map(|placement| &placement.worker)
        };
        let shares = self.sessions.keys().map(|worker| {
            let tasks = self
                .assignment
                .tasks
                .iter()
                .filter(|placement| placement.worker == *worker);
            // Every stage has as many tasks, and equal indexes share a worker.
            let splits = self.assignment.splits.iter();
            let own = splits.filter(|split| is_on(StageIndex(0), split.task_index) == Some(worker));
            Share {
                worker: worker.clone(),
                job: self.entry.job.clone(),
                tasks: tasks.count() as u32,
                splits: own.count() as u32,
            }
        });
        match self.is_over() {
            true => Vec::new(),
            false => shares.collect(),
        }
    }

    pub(super) fn newest_checkpoints(&self, limit: usize) -> Vec<CheckpointView> {
        self.observed.epochs.newest(limit)
    }

    /// What readers say beside their progress.
    pub(super) fn observe_report(&mut self, report: &PipelineReport) {
        self.observed.tally.reported(report);
        self.observed.paces.reported(report);
        let now_us = self.clock.unix_micros();
        self.observed.sightings.reported(report, now_us);
        let troubles = report.troubles.clone();
        self.observed
            .reader_troubles
            .insert(report.worker.clone(), troubles);
    }

    /// What hinders a source, which is tried again meanwhile.
    fn source_trouble(&self) -> Option<String> {
        let observed = &self.observed;
        let of_readers = observed.reader_troubles.values().flatten();
        let (source, cause) = of_readers.chain(&observed.discovery_troubles).next()?;
        let name = &self.entry.plan.sources[source.index()].name;
        Some(format!("source {name}: {cause}; trying on"))
    }

    /// All tasks have passed a barrier between which and the one before nothing changed.
    pub(super) fn observe_empty_epoch(&mut self) {
        self.observed.last_commit = Some(self.clock.monotonic());
        self.observed.rows_per_second /= 2.0;
        self.observed.tally.found_empty();
        self.traces.found_empty();
        let nothing_waits = self.lags_of_topics().all(|lag| lag == Some(0));
        if nothing_waits {
            self.observed.recovery.over(self.clock.monotonic());
            let now_us = self.clock.unix_micros();
            self.traces.settled(None, self.generation, now_us);
        }
    }

    /// Keeps what is worth showing of a committed epoch.
    pub(super) fn observe_commit(&mut self, entry: &EpochEntry) {
        let now = self.clock.monotonic();
        let took = self.observed.tally.committed(entry.epoch, now);
        let rows_read: u64 = entry.counters.values().map(|count| count.read).sum();
        if let Some(before) = self.observed.last_commit.replace(now) {
            let seconds = now.saturating_sub(before).as_secs_f64().max(1e-3);
            let newest = rows_read as f64 / seconds;
            // Half of the old figure: steady for the eye, and right after a few epochs.
            self.observed.rows_per_second = (self.observed.rows_per_second + newest) / 2.0;
        }
        self.observe_commit_time(entry.epoch, now);
        let parts = self.progress.parts.values().flatten();
        let (state_parts, state_bytes) = parts.fold((0, 0), |(count, bytes), part| {
            (count + 1, bytes + part.bytes)
        });
        let view = CheckpointView {
            epoch: entry.epoch,
            parent: entry.parent,
            generation: entry.generation,
            watermark: self.watermark(),
            rows_read,
            segments: entry.segments.len() as u64,
            segment_bytes: entry.segments.iter().map(|segment| segment.bytes).sum(),
            state_parts,
            state_bytes,
            duration_ms: Some(now.saturating_sub(self.observed.barrier_since).as_millis() as u64),
            collect_ms: took.map(|took| took.collect.as_millis() as u64),
            commit_ms: took.map(|took| took.commit.as_millis() as u64),
            deliver_ms: None,
        };
        self.observed.epochs.committed(view, now);
    }
}

fn gap_views(splits: &BTreeMap<SplitId, SplitProgress>) -> Vec<GapView> {
    let with_gaps = splits
        .iter()
        .filter_map(|(split, progress)| Some((split, progress.gaps?)));
    let views = with_gaps.map(|(split, gaps)| GapView {
        split: split.to_string(),
        count: gaps.count,
        positions: gaps.positions,
        from: gaps.from,
        to: gaps.to,
    });
    views.collect()
}

pub(super) fn source_connector(spec: &SourceSpec) -> &'static str {
    match spec {
        SourceSpec::Kafka(_) => "kafka",
        SourceSpec::Files(_) => "files",
        SourceSpec::Datagen(_) => "datagen",
    }
}
