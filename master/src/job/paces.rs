//! How fast each stage of a job is at present, and how much of their time its tasks work or wait.
//!
//! Fed with what the workers' reports carry anyway, barrier by barrier; shown in the job's view. Begins anew with the actor.
//! Cannot fail.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_common::control::StageView;
use millstream_common::ids::StageIndex;
use millstream_common::report::{PipelineReport, StageTimes};

/// The paces of all stages.
#[derive(Debug, Default)]
pub(super) struct Paces {
    stages: BTreeMap<StageIndex, Pace>,
    /// Reported for the barrier that is under way.
    pending: BTreeMap<StageIndex, (u64, StageTimes)>,
    /// When the last barrier was behind all tasks.
    last: Option<Duration>,
}

/// Of one stage, over the last epochs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Pace {
    rows_per_second: f64,
    busy_share: f64,
    blocked_share: f64,
}

impl Paces {
    /// A worker has passed a barrier.
    pub(super) fn reported(&mut self, report: &PipelineReport) {
        for (stage, flow) in &report.flows {
            self.pending.entry(*stage).or_default().0 += flow.received;
        }
        for (stage, times) in &report.figures.times {
            self.pending.entry(*stage).or_default().1.add(times);
        }
    }

    /// All workers have; every stage has so many tasks.
    pub(super) fn collected(&mut self, now: Duration, task_count: u32) {
        let pending = std::mem::take(&mut self.pending);
        let Some(last) = self.last.replace(now) else {
            return;
        };
        let seconds = now.saturating_sub(last).as_secs_f64().max(1e-3);
        let task_seconds = seconds * f64::from(task_count.max(1));
        let share = |micros: u64| (micros as f64 / 1e6 / task_seconds).min(1.0);
        for stage in pending.keys() {
            self.stages.entry(*stage).or_default();
        }
        for (stage, pace) in &mut self.stages {
            let (rows, times) = pending.get(stage).copied().unwrap_or_default();
            // Half of the old figure: steady for the eye, and right after a few epochs.
            pace.rows_per_second = (pace.rows_per_second + rows as f64 / seconds) / 2.0;
            pace.busy_share = (pace.busy_share + share(times.busy_us)) / 2.0;
            pace.blocked_share = (pace.blocked_share + share(times.blocked_us)) / 2.0;
        }
    }

    /// Puts them into the views, which are in the order of the plan.
    pub(super) fn show(&self, views: &mut [StageView]) {
        for (stage, pace) in &self.stages {
            if let Some(view) = views.get_mut(stage.index()) {
                view.rows_per_second = pace.rows_per_second;
                view.busy_share = pace.busy_share;
                view.blocked_share = pace.blocked_share;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_waits_half_of_the_time_of_its_tasks_is_blocked_by_half_and_calms_down_afterwards()
     {
        let mut paces = Paces::default();
        paces.collected(Duration::from_secs(10), 2);
        for second in 11..=30 {
            let times = StageTimes {
                busy_us: 500_000,
                blocked_us: 1_000_000,
            };
            paces.pending.insert(StageIndex(0), (40, times));
            paces.collected(Duration::from_secs(second), 2);
        }
        let mut views = [StageView::default()];
        paces.show(&mut views);
        assert_eq!(views[0].rows_per_second.round(), 40.0);
        assert_eq!((views[0].busy_share * 100.0).round(), 25.0);
        assert_eq!((views[0].blocked_share * 100.0).round(), 50.0);
        for second in 31..=50 {
            paces.collected(Duration::from_secs(second), 2);
        }
        paces.show(&mut views);
        assert_eq!((views[0].blocked_share * 100.0).round(), 0.0);
    }
}
