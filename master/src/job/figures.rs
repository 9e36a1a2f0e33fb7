//! What a job's actor counts only to be shown: times of epochs and stages, lags of splits, codes of refused rows.
//!
//! Fed by `view.rs` and `commit.rs` with what the workers' reports carry anyway; asked for with [`JobFigures`] when somebody
//! scrapes. All of it begins anew with the actor. Cannot fail.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_common::control::{JobView, SinkView};
use millstream_common::ids::{Epoch, SourceIndex, SplitId, StageIndex, WorkerId};
use millstream_common::metrics::Histogram;
use millstream_common::report::{PipelineReport, SplitStatus, StageTimes};
use ractor::RpcReplyPort;

use super::job_actor::{JobState, Phase};
use super::lifecycle::Handled;

/// Rows by source and code.
type Rejects = BTreeMap<SourceIndex, BTreeMap<String, u64>>;

/// Lags by source and split.
type SplitLags = BTreeMap<SourceIndex, BTreeMap<SplitId, u64>>;

/// What was counted since the actor began.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// As of each worker's last report.
    lags: BTreeMap<WorkerId, SplitLags>,
    rejects: Rejects,
    /// Of epochs that are not in the log yet: what is read again is refused again.
    uncommitted_rejects: BTreeMap<Epoch, Rejects>,
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

/// How long the phases of one epoch took; see [`EpochPhases`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Took {
    pub(super) collect: Duration,
    pub(super) commit: Duration,
}

impl Tally {
    /// A worker has passed a barrier.
    pub(super) fn reported(&mut self, report: &PipelineReport) {
        let figures = &report.figures;
        self.lags
            .insert(report.worker.clone(), figures.split_lags.clone());
        if !figures.rejects.is_empty() {
            let of_epoch = self.uncommitted_rejects.entry(report.epoch).or_default();
            add(of_epoch, &figures.rejects);
        }
        for (stage, times) in &figures.times {
            self.times.entry(*stage).or_default().add(times);
        }
    }

    /// All workers have passed the barrier that was sent at `since`.
    pub(super) fn collected(&mut self, since: Duration, now: Duration) {
        self.collected = Some((since, now));
    }

    /// Nothing has changed up to the barrier: it makes no epoch.
    pub(super) fn found_empty(&mut self) {
        self.collected = None;
    }

    /// An epoch is in the log; how long its phases took: one without a barrier has none.
    pub(super) fn committed(&mut self, epoch: Epoch, now: Duration) -> Option<Took> {
        self.epoch_count += 1;
        if let Some(rejects) = self.uncommitted_rejects.remove(&epoch) {
            add(&mut self.rejects, &rejects);
        }
        let (since, collected) = self.collected.take()?;
        let took = Took {
            collect: collected.saturating_sub(since),
            commit: now.saturating_sub(collected),
        };
        self.phases.collect.observe(took.collect.as_secs_f64());
        self.phases.commit.observe(took.commit.as_secs_f64());
        let total = now.saturating_sub(since);
        self.phases.total.observe(total.as_secs_f64());
        Some(took)
    }

    /// Nobody reads the splits any more.
    pub(super) fn ended(&mut self) {
        self.lags.clear();
    }

    /// Other workers read the splits from now on, from the last epoch in the log.
    pub(super) fn assigned(&mut self) {
        self.lags.clear();
        self.uncommitted_rejects.clear();
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

/// The most that scrapes were told of each sink: rows that it delivered, refused and dropped. A sink that is sent back holds less than
/// before, and what is left of a part of the backlog is an estimate; a counter goes back for neither.
#[derive(Debug, Default)]
pub(super) struct Told(Vec<[u64; 3]>);

impl Told {
    fn at_least(&mut self, sinks: &mut [SinkView]) {
        self.0.resize(sinks.len(), [0; 3]);
        for (told, sink) in self.0.iter_mut().zip(sinks) {
            let counts = [
                &mut sink.rows_delivered,
                &mut sink.rows_refused,
                &mut sink.rows_dropped,
            ];
            for (told, count) in told.iter_mut().zip(counts) {
                *told = (*told).max(*count);
                *count = *told;
            }
        }
    }
}

fn add(to: &mut Rejects, rejects: &Rejects) {
    for (source, codes) in rejects {
        let of_source = to.entry(*source).or_default();
        for (code, count) in codes {
            *of_source.entry(code.clone()).or_default() += count;
        }
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
    /// Of the last epoch, or of this actor; unless there will be no other epoch.
    pub(crate) epoch_age: Option<Duration>,
    pub(crate) state_parts: u64,
    pub(crate) state_bytes: u64,
}

/// A source for a scrape.
#[derive(Debug)]
pub(crate) struct SourceFigures {
    /// It has a watermark, or will have one.
    pub(crate) keeps_time: bool,
    pub(crate) bytes_read: u64,
    /// Expected, active, idle, ended.
    pub(crate) splits: [u64; 4],
    /// Of all splits together; `None` until all that are being read have told their ends.
    pub(crate) lag: Option<u64>,
    /// Where that is known.
    pub(crate) lags: BTreeMap<SplitId, u64>,
    pub(crate) rejects: BTreeMap<String, u64>,
}

impl JobState {
    pub(super) fn tell_figures(&mut self, reply: RpcReplyPort<JobFigures>) -> Handled {
        let mut figures = self.figures();
        self.observed.told.at_least(&mut figures.view.sinks);
        self.answer(reply, |_| figures)
    }

    /// What waits for workers waits for an epoch too.
    fn epoch_age(&self) -> Option<Duration> {
        if self.is_over() || matches!(self.phase, Phase::Delivering(_)) {
            return None;
        }
        let last = self.observed.last_commit.unwrap_or(self.observed.begun);
        Some(self.clock.monotonic().saturating_sub(last))
    }

    fn figures(&self) -> JobFigures {
        let tally = &self.observed.tally;
        let sources = 0..self.entry.plan.sources.len();
        let stages = self.entry.plan.stages.iter().enumerate();
        let times = |index: usize| tally.times.get(&StageIndex(index as u32)).copied();
        let parts = self.progress.parts.values().flatten();
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
            epoch_age: self.epoch_age(),
            state_parts: parts.clone().count() as u64,
            state_bytes: parts.map(|part| part.bytes).sum(),
        }
    }

    fn source_figures(&self, source: SourceIndex) -> SourceFigures {
        let tally = &self.observed.tally;
        let counters = self.progress.counters.get(&source);
        let known = self.progress.splits.get(&source);
        let mut splits = [0; 4];
        for progress in known.into_iter().flatten() {
            let status = match progress.1.status {
                SplitStatus::Expected => 0,
                SplitStatus::Active => 1,
                SplitStatus::Idle => 2,
                SplitStatus::Ended => 3,
            };
            splits[status] += 1;
        }
        SourceFigures {
            keeps_time: self.entry.plan.sources[source.index()].watermark.is_some(),
            bytes_read: counters.map_or(0, |counters| counters.bytes),
            splits,
            lag: self.lag_of(source),
            lags: tally.lags_of(source),
            rejects: tally.rejects.get(&source).cloned().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_common::report::ReportFigures;

    use super::*;
    use crate::dashboard::tests::scene;

    #[test]
    fn counters_of_a_sink_do_not_go_back_in_the_eyes_of_a_scraper() {
        let mut told = Told::default();
        let mut scraped = |delivered, dropped| {
            let mut sinks = [scene::sink("warehouse")];
            (sinks[0].rows_delivered, sinks[0].rows_dropped) = (delivered, dropped);
            told.at_least(&mut sinks);
            (sinks[0].rows_delivered, sinks[0].rows_dropped)
        };
        assert_eq!(scraped(90, 3), (90, 3));
        assert_eq!(scraped(40, 0), (90, 3), "it was sent back");
        assert_eq!(scraped(95, 4), (95, 4));
    }

    #[test]
    fn rows_that_are_refused_again_after_a_rewind_are_counted_once() {
        let codes = BTreeMap::from([("malformed".to_owned(), 3)]);
        let report = PipelineReport {
            epoch: Epoch(4),
            worker: "w".into(),
            splits: BTreeMap::new(),
            parts: BTreeMap::new(),
            segments: Vec::new(),
            counters: BTreeMap::new(),
            flows: BTreeMap::new(),
            troubles: BTreeMap::new(),
            figures: ReportFigures {
                rejects: BTreeMap::from([(SourceIndex(0), codes.clone())]),
                ..ReportFigures::default()
            },
        };
        let mut tally = Tally::default();
        tally.reported(&report);
        tally.assigned();
        tally.reported(&report);
        assert!(tally.rejects.is_empty());
        tally.committed(Epoch(4), Duration::ZERO);
        assert_eq!(tally.rejects, BTreeMap::from([(SourceIndex(0), codes)]));
        assert!(tally.uncommitted_rejects.is_empty());
    }

    #[test]
    fn an_epoch_is_measured_once_in_each_phase_and_one_without_a_barrier_in_none() {
        let at = Duration::from_millis;
        let mut tally = Tally::default();
        tally.collected(at(100), at(150));
        let took = Took {
            collect: at(50),
            commit: at(40),
        };
        assert_eq!(tally.committed(Epoch(1), at(190)), Some(took));
        assert_eq!(tally.committed(Epoch(2), at(191)), None);
        tally.collected(at(200), at(210));
        tally.found_empty();
        assert_eq!(tally.committed(Epoch(3), at(900)), None);
        assert_eq!(tally.epoch_count, 3);
        assert_eq!(tally.phases.total.count(), 1);
        assert_eq!(tally.phases.collect.count(), 1);
    }
}
