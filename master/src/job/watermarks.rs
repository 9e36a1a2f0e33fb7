//! How far time has come in a job, who holds it back, and in words why nothing comes out.
//!
//! Asked by `job_actor.rs` for `watermarks`. [`Sightings`] keeps when splits were seen to move, as workers report them; everything
//! else is in the log's progress. Pure; forgets splits that have ended (INV-9).

use std::collections::BTreeMap;

use millstream_common::control::{SourceWatermarkView, SplitWatermarkView, WatermarksView};
use millstream_common::ids::{SourceIndex, SplitId, StageIndex, TaskId, WorkerId};
use millstream_common::replay_split::is_replay;
use millstream_common::report::{PipelineReport, SplitProgress, SplitStatus};
use millstream_common::time::EventTime;

use super::job_actor::JobState;
use super::view::source_connector;
use super::why;

/// When splits were seen to move.
#[derive(Debug, Default)]
pub(super) struct Sightings(BTreeMap<(SourceIndex, SplitId), Sighting>);

/// Of one split; times in microseconds since 1970.
#[derive(Clone, Copy, Debug)]
struct Sighting {
    position: i64,
    /// When the position was seen to move.
    moved_us: Option<i64>,
    /// When it was first seen idle since.
    idle_us: Option<i64>,
}

impl Sightings {
    /// A worker has passed a barrier.
    pub(super) fn reported(&mut self, report: &PipelineReport, now_us: i64) {
        for (source, splits) in &report.splits {
            for (split, progress) in splits {
                self.seen((*source, split.clone()), progress, now_us);
            }
        }
    }

    fn seen(&mut self, key: (SourceIndex, SplitId), progress: &SplitProgress, now_us: i64) {
        if progress.status == SplitStatus::Ended {
            self.0.remove(&key);
            return;
        }
        let seen = self.0.entry(key).or_insert(Sighting {
            position: progress.position,
            moved_us: None,
            idle_us: None,
        });
        // Behind a rewind it goes back without a row, and moves again where it has been.
        if seen.position < progress.position {
            seen.moved_us = Some(now_us);
        }
        seen.position = progress.position;
        seen.idle_us = match progress.status {
            SplitStatus::Idle => seen.idle_us.or(Some(now_us)),
            SplitStatus::Expected | SplitStatus::Active | SplitStatus::Ended => None,
        };
    }
}

impl JobState {
    pub(super) fn watermarks(&self) -> WatermarksView {
        let job = self.view();
        let sources = 0..self.entry.plan.sources.len();
        let sources: Vec<SourceWatermarkView> = sources
            .map(|index| self.source_watermark(SourceIndex(index as u32)))
            .collect();
        WatermarksView {
            why: why::why(&self.entry.plan, &job, &sources),
            job: job.name,
            state: job.state,
            sources,
        }
    }

    fn source_watermark(&self, index: SourceIndex) -> SourceWatermarkView {
        let source = &self.entry.plan.sources[index.index()];
        let splits = self.progress.splits.get(&index);
        let all = splits.into_iter().flatten();
        // Nobody reads what is only expected, and files move time when they end.
        let all = all.filter(|(_, progress)| progress.status != SplitStatus::Expected);
        let (ended, open): (Vec<_>, Vec<_>) =
            all.partition(|(_, progress)| progress.status == SplitStatus::Ended);
        let lags = self.observed.tally.lags_of(index);
        let workers = self.split_workers(index);
        let mut open: Vec<SplitWatermarkView> = open
            .into_iter()
            // A replay says nothing about the time of its source.
            .filter(|(split, _)| !is_replay(split))
            .map(|(split, progress)| {
                let mut view = self.split_watermark((index, split.clone()), progress);
                view.lag_records = lags.get(split).copied();
                view.worker = workers.get(split).cloned();
                view
            })
            .collect();
        open.sort_by_key(|split| (split.is_idle, split.watermark));
        let watermark = self.watermark_of(index);
        let keeps_time = source.watermark.is_some();
        // Nothing waits for the time of a job that is over.
        let waits = keeps_time && !self.is_over();
        let first = open.first().filter(|split| waits && !split.is_idle);
        let now_us = self.clock.unix_micros();
        SourceWatermarkView {
            name: source.name.clone(),
            connector: source_connector(&source.spec).to_owned(),
            keeps_time,
            watermark,
            delay_ms: watermark
                .filter(|time| *time != EventTime::MAX)
                .map(|time| now_us.saturating_sub(time.0) / 1_000),
            held_by: first.map(|split| split.split.clone()),
            splits: open,
            splits_ended: ended.len() as u64,
            lag_records: self.lag_of(index),
        }
    }

    fn split_watermark(
        &self,
        key: (SourceIndex, SplitId),
        progress: &SplitProgress,
    ) -> SplitWatermarkView {
        let now_us = self.clock.unix_micros();
        let since = |at_us: i64| now_us.saturating_sub(at_us).max(0).unsigned_abs() / 1_000;
        let seen = self.observed.sightings.0.get(&key);
        SplitWatermarkView {
            split: key.1,
            is_idle: progress.status == SplitStatus::Idle,
            watermark: progress.watermark,
            position: progress.position,
            lag_records: None,
            worker: None,
            silent_ms: seen.and_then(|seen| seen.moved_us).map(since),
            idle_ms: seen.and_then(|seen| seen.idle_us).map(since),
        }
    }

    /// Equal indexes of tasks share a worker, whatever their stage.
    fn split_workers(&self, source: SourceIndex) -> BTreeMap<SplitId, WorkerId> {
        let stage = StageIndex(0);
        let tasks = self.assignment.tasks.iter();
        let workers: BTreeMap<TaskId, &WorkerId> = tasks
            .map(|placement| (placement.task, &placement.worker))
            .collect();
        let splits = self.assignment.splits.iter();
        let own = splits.filter(|placement| placement.source == source);
        own.filter_map(|placement| {
            let index = placement.task_index;
            let worker = workers.get(&TaskId { stage, index })?;
            Some((placement.split.clone(), (*worker).clone()))
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(position: i64, status: SplitStatus) -> SplitProgress {
        SplitProgress {
            position,
            end: None,
            watermark: None,
            status,
            identity: None,
            gaps: None,
        }
    }

    #[test]
    fn a_split_is_silent_since_it_was_seen_to_move_and_idle_since_it_was_seen_so() {
        let key = || (SourceIndex(0), SplitId::from("clicks-0"));
        let mut sightings = Sightings::default();
        for (now_us, position, status) in [
            (10, 0, SplitStatus::Active),
            (20, 5, SplitStatus::Active),
            (30, 5, SplitStatus::Idle),
            (40, 5, SplitStatus::Idle),
        ] {
            sightings.seen(key(), &progress(position, status), now_us);
        }
        let seen = sightings.0[&key()];
        assert_eq!((seen.moved_us, seen.idle_us), (Some(20), Some(30)));
        sightings.seen(key(), &progress(6, SplitStatus::Active), 50);
        let seen = sightings.0[&key()];
        assert_eq!((seen.moved_us, seen.idle_us), (Some(50), None));
        sightings.seen(key(), &progress(2, SplitStatus::Active), 55);
        let seen = sightings.0[&key()];
        assert_eq!(seen.moved_us, Some(50), "a rewind is no row");
        sightings.seen(key(), &progress(3, SplitStatus::Active), 57);
        assert_eq!(sightings.0[&key()].moved_us, Some(57));
        sightings.seen(key(), &progress(6, SplitStatus::Ended), 60);
        assert!(sightings.0.is_empty(), "INV-9");
    }
}
