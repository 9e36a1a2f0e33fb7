//! What a job's actor counts only to be shown: times of epochs and stages, lags of splits, codes of refused rows.
//!
//! Fed by `view.rs` and `commit.rs` with what the workers' reports carry anyway; asked for with [`JobFigures`] when somebody
//! scrapes. All of it begins anew with the actor. Cannot fail.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_common::control::JobView;
use millstream_common::ids::{SourceIndex, SplitId, StageIndex, WorkerId};
use millstream_common::metrics::Histogram;
use millstream_common::report::{PipelineReport, SplitStatus, StageTimes};

use super::job_actor::{JobState, Phase};

/// Lags by source and split.
type SplitLags = BTreeMap<SourceIndex, BTreeMap<SplitId, u64>>;

/// What was counted since the actor began.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// As of each worker's last report.
    lags: BTreeMap<WorkerId, SplitLags>,
    rejects: BTreeMap<SourceIndex, BTreeMap<String, u64>>,
    times: BTreeMap<StageIndex, StageTimes>,
    phases: EpochPhases,
    /// Monotonic times of the barrier that was collected last, and of its last report.
    collected: Option<(Duration, Duration)>,
    epoch_count: u64,
}

/// How long epochs took.
#[derive(Clone, Debug, Default)]
pub(crate) struct EpochPhases {
    /// From the barrier to the last worker's report.
    pub(crate) collect: Histogram,
    /// From there to the log's answer.
    pub(crate) commit: Histogram,
    /// Both.
    pub(crate) total: Histogram,
}

impl Tally {
    /// A worker has passed a barrier.
    pub(super) fn reported(&mut self, report: &PipelineReport) {
        let figures = &report.figures;
        self.lags
            .insert(report.worker.clone(), figures.split_lags.clone());
        for (source, codes) in &figures.rejects {
            let of_source = self.rejects.entry(*source).or_default();
            for (code, count) in codes {
                *of_source.entry(code.clone()).or_default() += count;
            }
        }
        for (stage, times) in &figures.times {
            self.times.entry(*stage).or_default().add(times);
        }
    }

    /// All workers have passed the barrier that was sent at `since`.
    pub(super) fn collected(&mut self, since: Duration, now: Duration) {
        self.collected = Some((since, now));
    }

    /// An epoch is in the log.
    pub(super) fn committed(&mut self, now: Duration) {
        self.epoch_count += 1;
        // One without a barrier has no phases.
        if let Some((since, collected)) = self.collected.take() {
            let span = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64();
            self.phases.collect.observe(span(since, collected));
            self.phases.commit.observe(span(collected, now));
            self.phases.total.observe(span(since, now));
        }
    }

    /// Other workers read the splits from now on.
    pub(super) fn forget_lags(&mut self) {
        self.lags.clear();
    }

    /// By split, records that it holds and nobody has read, where that is known.
    pub(super) fn lags_of(&self, source: SourceIndex) -> BTreeMap<SplitId, u64> {
        let workers = self.lags.values();
        let of_source = workers.filter_map(|lags| lags.get(&source)).flatten();
        of_source
            .map(|(split, lag)| (split.clone(), *lag))
            .collect()
    }
}

/// A job for a scrape.
#[derive(Debug)]
pub struct JobFigures {
    pub(crate) view: JobView,
    /// In the order of the view.
    pub(crate) sources: Vec<SourceFigures>,
    /// In the order of the plan; by name.
    pub(crate) stages: Vec<(String, StageTimes)>,
    pub(crate) phases: EpochPhases,
    pub(crate) epoch_count: u64,
    /// Of the last epoch, while the job runs.
    pub(crate) epoch_age: Option<Duration>,
    pub(crate) state_parts: u64,
    pub(crate) state_bytes: u64,
}

/// A source for a scrape.
#[derive(Debug)]
pub(crate) struct SourceFigures {
    pub(crate) bytes_read: u64,
    /// Expected, active, idle, ended.
    pub(crate) splits: [u64; 4],
    pub(crate) lags: BTreeMap<SplitId, u64>,
    pub(crate) rejects: BTreeMap<String, u64>,
}

impl JobState {
    pub(super) fn figures(&self) -> JobFigures {
        let tally = &self.observed.tally;
        let sources = 0..self.entry.plan.sources.len();
        let stages = self.entry.plan.stages.iter().enumerate();
        let times = |index: usize| tally.times.get(&StageIndex(index as u32)).copied();
        let parts = self.progress.parts.values().flatten();
        let is_running = matches!(self.phase, Phase::Running);
        let last = self.observed.last_commit.filter(|_| is_running);
        let now = self.clock.monotonic();
        JobFigures {
            view: self.view(),
            sources: sources
                .map(|index| self.source_figures(SourceIndex(index as u32)))
                .collect(),
            stages: stages
                .map(|(index, stage)| (stage.name.clone(), times(index).unwrap_or_default()))
                .collect(),
            phases: tally.phases.clone(),
            epoch_count: tally.epoch_count,
            epoch_age: last.map(|last| now.saturating_sub(last)),
            state_parts: parts.clone().count() as u64,
            state_bytes: parts.map(|part| part.bytes).sum(),
        }
    }

    fn source_figures(&self, source: SourceIndex) -> SourceFigures {
        let tally = &self.observed.tally;
        let counters = self.progress.counters.get(&source);
        let mut splits = [0; 4];
        for progress in self.progress.splits.get(&source).into_iter().flatten() {
            let status = match progress.1.status {
                SplitStatus::Expected => 0,
                SplitStatus::Active => 1,
                SplitStatus::Idle => 2,
                SplitStatus::Ended => 3,
            };
            splits[status] += 1;
        }
        SourceFigures {
            bytes_read: counters.map_or(0, |counters| counters.bytes),
            splits,
            lags: tally.lags_of(source),
            rejects: tally.rejects.get(&source).cloned().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_measured_once_in_each_phase_and_one_without_a_barrier_in_none() {
        let at = Duration::from_millis;
        let mut tally = Tally::default();
        tally.collected(at(100), at(150));
        tally.committed(at(190));
        tally.committed(at(191));
        assert_eq!(tally.epoch_count, 2);
        assert_eq!(tally.phases.total.count(), 1);
        assert_eq!(tally.phases.collect.count(), 1);
    }
}
