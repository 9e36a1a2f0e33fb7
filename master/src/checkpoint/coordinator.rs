//! The coordinator: one barrier at a time, from its trigger to the Epoch entry that commits it.
//!
//! Pure; owned by a running job's actor, made anew for each generation. It decides which reports count and what the
//! entry says; the actor sends frames and appends to the log. Keeps INV-1 (the entry's parent is the head of the
//! chain), INV-5 (an entry holds exactly the positions at its barrier), INV-9 (one epoch in flight).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millstream_common::ids::{
    Epoch, Generation, OperatorId, SinkIndex, SourceIndex, SplitId, StageIndex, WorkerId,
};
use millstream_common::link::{BarrierCommand, BarrierKind};
use millstream_common::log::entry::{EpochEntry, JobEntry, JobProgress};
use millstream_common::mutant::{self, Mutant};
use millstream_common::plan::JobPlan;
use millstream_common::replay_split::is_replay;
use millstream_common::report::{
    PipelineReport, Refusal, RowCounters, Segment, SplitProgress, StageFlow, StatePart,
};
use millstream_common::time::EventTime;

use super::watermark::source_watermark;

/// Gathers the reports of one generation.
#[derive(Debug)]
pub struct Coordinator {
    workers: BTreeSet<WorkerId>,
    /// The last epoch that a barrier was sent for; numbers of abandoned ones are not used again.
    triggered: Epoch,
    in_flight: Option<InFlight>,
}

#[derive(Debug)]
struct InFlight {
    barrier: BarrierCommand,
    drains: bool,
    since: Duration,
    reports: BTreeMap<WorkerId, PipelineReport>,
}

/// An epoch that every worker has reported.
#[derive(Debug, PartialEq)]
pub struct Collected {
    /// The barrier it ended with.
    pub barrier: BarrierCommand,
    /// The barrier fired what was left in windows.
    pub drains: bool,
    /// Monotonic time of the trigger.
    pub since: Duration,
    reports: Vec<PipelineReport>,
    /// Splits that no reader reports.
    expected: Splits,
}

impl Coordinator {
    /// For a generation on `workers` that goes on after `head`.
    pub fn new(workers: BTreeSet<WorkerId>, head: Epoch) -> Self {
        Self {
            workers,
            triggered: head,
            in_flight: None,
        }
    }

    /// For a generation that goes on under a new master: numbers up to `triggered` have been used, and `open` is under
    /// way.
    pub fn resume(
        workers: BTreeSet<WorkerId>,
        triggered: Epoch,
        open: Option<BarrierCommand>,
        now: Duration,
    ) -> Self {
        Self {
            workers,
            triggered,
            in_flight: open.map(|barrier| InFlight {
                barrier,
                drains: false,
                since: now,
                reports: BTreeMap::new(),
            }),
        }
    }

    /// Whether a barrier is under way.
    pub fn is_busy(&self) -> bool {
        self.in_flight.is_some()
    }

    /// The next barrier, unless one is under way. `drains` closes everything: all sources have ended.
    pub fn trigger(
        &mut self,
        kind: BarrierKind,
        drains: bool,
        progress: &JobProgress,
        sources: usize,
        now: Duration,
    ) -> Option<BarrierCommand> {
        if self.is_busy() {
            return None;
        }
        self.triggered = self.triggered.next();
        let watermarks = if drains {
            let all = (0..sources).map(|index| (SourceIndex(index as u32), EventTime::MAX));
            all.collect()
        } else {
            progress.watermarks.clone()
        };
        let barrier = BarrierCommand {
            epoch: self.triggered,
            kind,
            watermarks,
        };
        self.in_flight = Some(InFlight {
            barrier: barrier.clone(),
            drains,
            since: now,
            reports: BTreeMap::new(),
        });
        Some(barrier)
    }

    /// The number of an epoch that is committed without a barrier: no task has anything more to say.
    pub fn skip_barrier(&mut self) -> Epoch {
        debug_assert!(!self.is_busy(), "INV-9: one epoch in flight");
        self.triggered = self.triggered.next();
        self.triggered
    }

    /// Takes a worker's report; the epoch is collected with the last one. A report of another epoch or worker
    /// does not count.
    pub fn report(&mut self, report: PipelineReport) -> Option<Collected> {
        let in_flight = self.in_flight.as_mut()?;
        let expected =
            report.epoch == in_flight.barrier.epoch && self.workers.contains(&report.worker);
        if !expected {
            return None;
        }
        in_flight.reports.insert(report.worker.clone(), report);
        if in_flight.reports.len() < self.workers.len() {
            return None;
        }
        let finished = self.in_flight.take()?;
        Some(Collected {
            barrier: finished.barrier,
            drains: finished.drains,
            since: finished.since,
            reports: finished.reports.into_values().collect(),
            expected: Splits::new(),
        })
    }

    /// The generation is over: no report of it counts any more. An epoch committed after the next generation was
    /// placed would hold rows that are read again (INV-5).
    pub fn abandon(&mut self) {
        if mutant::is(Mutant::CommitAbandoned) {
            return;
        }
        self.workers.clear();
        self.in_flight = None;
    }

    /// The splits of those that have reported the barrier under way.
    pub(crate) fn reported(&self) -> Splits {
        let in_flight = self.in_flight.iter();
        let reports = in_flight.flat_map(|in_flight| in_flight.reports.values());
        reports.flat_map(|report| report.splits.clone()).collect()
    }

    /// How long the barrier under way has been waited for, and by whom.
    pub fn waiting_for(&self, now: Duration) -> Option<(Duration, Vec<WorkerId>)> {
        let in_flight = self.in_flight.as_ref()?;
        let missing = self
            .workers
            .iter()
            .filter(|worker| !in_flight.reports.contains_key(*worker));
        Some((
            now.saturating_sub(in_flight.since),
            missing.cloned().collect(),
        ))
    }
}

/// What an Epoch says of sinks, which take no part in it.
#[derive(Debug, Default)]
pub struct FromSinks {
    /// How far each is.
    pub markers: BTreeMap<SinkIndex, Epoch>,
    /// What they refused of earlier epochs, as dead letters.
    pub refusals: Vec<Refusal>,
    /// How many rows they dropped.
    pub dropped: BTreeMap<SinkIndex, u64>,
}

impl Collected {
    /// With splits that no reader has and that the log is to know.
    pub fn expecting(mut self, expected: Splits) -> Self {
        self.expected = expected;
        self
    }

    /// The entry that commits the epoch, or `None` if nothing changed and nothing has to be said.
    pub fn entry(
        self,
        job: &JobEntry,
        generation: Generation,
        progress: &JobProgress,
        sinks: FromSinks,
    ) -> Option<EpochEntry> {
        let mut splits = changed_splits(&self.reports, &self.expected, progress);
        if mutant::is(Mutant::EmptyOffsetsAtStop) && self.barrier.kind == BarrierKind::Stop {
            splits.clear();
        }
        let watermarks = changed_watermarks(&job.plan, &splits, progress);
        let parts = changed_parts(&self.reports, progress);
        let mut counters: BTreeMap<SourceIndex, RowCounters> = BTreeMap::new();
        for (source, count) in self.reports.iter().flat_map(|report| &report.counters) {
            if *count != RowCounters::default() {
                counters.entry(*source).or_default().add(count);
            }
        }
        let mut flows: BTreeMap<StageIndex, StageFlow> = BTreeMap::new();
        for (stage, flow) in self.reports.iter().flat_map(|report| &report.flows) {
            if !flow.is_empty() {
                flows.entry(*stage).or_default().add(flow);
            }
        }
        let mut segments: Vec<Segment> = self
            .reports
            .into_iter()
            .flat_map(|report| report.segments)
            .collect();
        let mut refused = Vec::new();
        for refusal in sinks.refusals {
            segments.extend(refusal.segments);
            refused.push(refusal.refused);
        }
        let entry = EpochEntry {
            job: job.job.clone(),
            incarnation: job.incarnation,
            epoch: self.barrier.epoch,
            parent: progress.epoch,
            committed_at_us: 0,
            generation,
            splits,
            watermarks,
            parts,
            segments,
            counters,
            flows,
            sink_markers: sinks.markers,
            refused,
            dropped: sinks.dropped,
            drained: self.drains,
            without_barrier: false,
        };
        let changed = !entry.splits.is_empty()
            || !entry.watermarks.is_empty()
            || !entry.parts.is_empty()
            || !entry.segments.is_empty()
            || !entry.refused.is_empty()
            || !entry.dropped.is_empty()
            || !entry.counters.is_empty();
        (changed || self.drains).then_some(entry)
    }
}

/// Splits and how far each is, by source.
pub type Splits = BTreeMap<SourceIndex, BTreeMap<SplitId, SplitProgress>>;

fn changed_splits(reports: &[PipelineReport], expected: &Splits, progress: &JobProgress) -> Splits {
    let mut changed = Splits::new();
    let reported = reports.iter().flat_map(|report| &report.splits);
    for (source, splits) in reported.chain(expected) {
        for (split, now) in splits {
            let now = match mutant::is(Mutant::PositionsOfAnotherSplit) {
                true => splits.values().next().unwrap_or(now),
                false => now,
            };
            let before = progress
                .splits
                .get(source)
                .and_then(|known| known.get(split));
            if before != Some(now) {
                changed
                    .entry(*source)
                    .or_default()
                    .insert(split.clone(), now.clone());
            }
        }
    }
    changed
}

fn changed_watermarks(
    plan: &JobPlan,
    changed: &Splits,
    progress: &JobProgress,
) -> BTreeMap<SourceIndex, EventTime> {
    let mut watermarks = BTreeMap::new();
    for (source, splits) in changed {
        let known = progress.splits.get(source).into_iter().flatten();
        let unmoved = known.filter(|(split, _)| !splits.contains_key(*split));
        // A replay says nothing about the time of its source: its rows are of any time, and have to wait for nobody.
        let now = unmoved
            .chain(splits)
            .filter(|(split, _)| !is_replay(split))
            .map(|(_, progress)| progress);
        let previous = progress.watermarks.get(source).copied();
        let spec = &plan.sources[source.index()].spec;
        let watermark = source_watermark(spec, now, previous);
        if let Some(watermark) = watermark.filter(|_| watermark != previous) {
            watermarks.insert(*source, watermark);
        }
    }
    watermarks
}

/// The union of what the tasks need, oldest first; a part needed by two tasks is listed once.
fn changed_parts(
    reports: &[PipelineReport],
    progress: &JobProgress,
) -> BTreeMap<OperatorId, Vec<StatePart>> {
    let mut needed: BTreeMap<OperatorId, BTreeMap<(Epoch, String), StatePart>> = BTreeMap::new();
    for (operator, parts) in reports.iter().flat_map(|report| &report.parts) {
        let of_operator = needed.entry(operator.clone()).or_default();
        if mutant::is(Mutant::PartsOfOneWorker) {
            of_operator.clear();
        }
        for part in parts {
            of_operator.insert((part.epoch, part.path.clone()), part.clone());
        }
    }
    let mut changed = BTreeMap::new();
    for (operator, parts) in needed {
        let parts: Vec<StatePart> = parts.into_values().collect();
        let before = progress
            .parts
            .get(&operator)
            .map(Vec::as_slice)
            .unwrap_or_default();
        if before != parts.as_slice() {
            changed.insert(operator, parts);
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coordinator() -> Coordinator {
        Coordinator::new(BTreeSet::from(["a".into(), "b".into()]), Epoch(4))
    }

    fn trigger(coordinator: &mut Coordinator) -> Option<BarrierCommand> {
        let progress = JobProgress::default();
        coordinator.trigger(BarrierKind::Checkpoint, false, &progress, 1, Duration::ZERO)
    }

    fn report(worker: &str, epoch: u64) -> PipelineReport {
        PipelineReport {
            epoch: Epoch(epoch),
            worker: worker.into(),
            splits: BTreeMap::new(),
            parts: BTreeMap::new(),
            segments: Vec::new(),
            counters: BTreeMap::new(),
            flows: BTreeMap::new(),
            troubles: BTreeMap::new(),
            figures: Default::default(),
        }
    }

    #[test]
    fn an_epoch_is_collected_with_the_last_report_and_one_is_under_way_at_a_time() {
        let mut coordinator = coordinator();
        let barrier = trigger(&mut coordinator).expect("free");
        assert_eq!(barrier.epoch, Epoch(5));
        assert_eq!(trigger(&mut coordinator), None);
        assert_eq!(coordinator.report(report("a", 5)), None);
        assert_eq!(coordinator.report(report("a", 5)), None, "said again");
        let collected = coordinator.report(report("b", 5)).expect("complete");
        assert_eq!(collected.barrier, barrier);
        assert_eq!(
            trigger(&mut coordinator).map(|barrier| barrier.epoch),
            Some(Epoch(6))
        );
    }

    #[test]
    fn a_barrier_of_the_last_master_is_collected_and_its_number_is_not_used_again() {
        let open = BarrierCommand {
            epoch: Epoch(6),
            kind: BarrierKind::Checkpoint,
            watermarks: BTreeMap::new(),
        };
        let workers = || BTreeSet::from(["a".into(), "b".into()]);
        let mut going_on =
            Coordinator::resume(workers(), Epoch(6), Some(open.clone()), Duration::ZERO);
        assert!(going_on.is_busy());
        assert_eq!(going_on.report(report("a", 6)), None);
        assert_eq!(going_on.report(report("a", 6)), None, "said again");
        let collected = going_on.report(report("b", 6)).expect("complete");
        assert_eq!(collected.barrier, open);
        let next = trigger(&mut going_on).map(|barrier| barrier.epoch);
        assert_eq!(next, Some(Epoch(7)));
        let mut quiet = Coordinator::resume(workers(), Epoch(6), None, Duration::ZERO);
        let next = trigger(&mut quiet).map(|barrier| barrier.epoch);
        assert_eq!(next, Some(Epoch(7)));
    }

    #[test]
    fn reports_of_another_epoch_or_worker_do_not_count() {
        let mut coordinator = coordinator();
        trigger(&mut coordinator);
        for stray in [report("a", 4), report("c", 5)] {
            assert_eq!(coordinator.report(stray), None);
        }
        assert_eq!(
            coordinator.report(report("b", 5)),
            None,
            "a has not reported epoch 5"
        );
    }

    #[test]
    fn a_report_that_arrives_after_its_generation_was_given_up_commits_nothing() {
        let mut coordinator = coordinator();
        trigger(&mut coordinator);
        assert_eq!(coordinator.report(report("a", 5)), None);
        coordinator.abandon();
        assert_eq!(coordinator.report(report("b", 5)), None);
    }

    #[test]
    fn draining_closes_every_source_at_the_end_of_time() {
        let mut coordinator = coordinator();
        let progress = JobProgress::default();
        let barrier = coordinator.trigger(BarrierKind::Stop, true, &progress, 2, Duration::ZERO);
        let watermarks = barrier.expect("free").watermarks;
        assert!(
            watermarks
                .values()
                .all(|watermark| *watermark == EventTime::MAX)
        );
        assert_eq!(watermarks.len(), 2);
    }

    #[test]
    fn a_part_that_two_tasks_need_is_listed_once_and_oldest_first() {
        let part = |epoch: u64, path: &str| StatePart {
            path: path.to_owned(),
            epoch: Epoch(epoch),
            bytes: 1,
            checksum: 0,
            row_count: 1,
        };
        let operator = OperatorId::from("views/aggregate/1");
        let with_parts = |worker: &str, parts: Vec<StatePart>| PipelineReport {
            parts: BTreeMap::from([(operator.clone(), parts)]),
            ..report(worker, 5)
        };
        let reports = [
            with_parts("a", vec![part(3, "shared"), part(5, "a")]),
            with_parts("b", vec![part(3, "shared"), part(4, "b")]),
        ];
        let changed = changed_parts(&reports, &JobProgress::default());
        let paths: Vec<&str> = changed[&operator]
            .iter()
            .map(|part| part.path.as_str())
            .collect();
        assert_eq!(paths, ["shared", "b", "a"]);
    }

    #[test]
    fn a_split_that_is_expected_is_recorded_once_though_no_task_reports_it() {
        let expected = r#"{"0":{"file:///in/b.csv":{"position":0,"status":"expected"}}}"#;
        let expected: Splits = serde_json::from_str(expected).expect("splits as in the log");
        let mut progress = JobProgress::default();
        let changed = changed_splits(&[report("a", 5)], &expected, &progress);
        assert_eq!(changed, expected);
        progress.splits = changed;
        assert!(changed_splits(&[report("a", 6)], &expected, &progress).is_empty());
    }
}
