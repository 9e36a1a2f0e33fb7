//! Whether a job goes on under a new master as it ran under the last one, or is rewound.
//!
//! Pure; asked by a job's actor while it waits for the workers of the latest assignment. They have kept their pipelines,
//! and say how far each has come. Going on is safe only if nothing that lies behind the log's head is lost or comes twice:
//!
//! - INV-4: only the latest generation of the log goes on, whole: every worker that it was assigned holds it.
//! - INV-5, INV-7: each task stands at the head, or behind one and the same barrier after it. A barrier is sent when
//!   the one before it is recorded or was found to hold nothing, so at most the last one (E) is open. Its rows are in
//!   segments, state parts and counters that only reports of E name. So E is collected to its end, never skipped: workers
//!   that have passed it say their report again, the others are sent it again, with the same watermarks,
//!   which the head in the log determines. An E that nobody has seen never was: its number is used anew.
//! - INV-1: the entry of E then names the head as its parent, as the last master's would have.
//! - Splits that readers have and the log does not know would be found and given out once more: rewind.
//! - A barrier that ends the input belongs to a stop or a new placement that the last master had in mind: rewind.

use std::collections::BTreeMap;

use millstream_common::ids::{Epoch, Generation, Incarnation, SourceIndex, SplitId, WorkerId};
use millstream_common::link::{BarrierCommand, BarrierKind, Held};
use millstream_common::log::entry::{Assignment, JobProgress, SplitPlacement};
use millstream_common::mutant::{self, Mutant};
use millstream_common::report::SplitStatus;

/// What a job was when its last master was lost, by the log.
#[derive(Clone, Debug)]
pub(crate) struct Lasting {
    /// Its life.
    pub(crate) incarnation: Incarnation,
    /// Its latest generation.
    pub(crate) generation: Generation,
    /// Who ran what in it.
    pub(crate) assignment: Assignment,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not all workers have joined.
    Wait,
    /// Place the job anew from the log's head.
    Rewind(String),
    /// Go on with the generation.
    GoOn(Resumption),
}

/// How to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resumption {
    /// The last epoch that a barrier was sent for.
    pub(crate) triggered: Epoch,
    /// That barrier, if it has to be collected still.
    pub(crate) open: Option<BarrierCommand>,
    /// Splits given out after the assignment.
    pub(crate) given: Vec<SplitPlacement>,
}

/// Decides by what the workers that have joined hold of the job.
pub(crate) fn decide(
    lasting: &Lasting,
    progress: &JobProgress,
    joined: &BTreeMap<WorkerId, Option<&Held>>,
) -> Verdict {
    let mut all_held = Vec::new();
    let mut all_joined = true;
    for worker in lasting.assignment.workers() {
        match joined.get(&worker) {
            None => all_joined = false,
            Some(Some(held)) if is_latest(lasting, held) => all_held.push(*held),
            Some(_) => {
                let generation = lasting.generation;
                return Verdict::Rewind(format!("{worker} has lost generation {generation}"));
            }
        }
    }
    if !all_joined {
        return Verdict::Wait;
    }
    let mut given: Vec<SplitPlacement> = Vec::new();
    for placed in all_held.iter().flat_map(|held| &held.given) {
        // Every worker is told of every split.
        if !given.contains(placed) {
            given.push(placed.clone());
        }
    }
    let assigned = lasting.assignment.splits.iter().chain(&given);
    let unrecorded = assigned
        .filter(|placed| !is_recorded(progress, placed.source, &placed.split))
        .count();
    if unrecorded > 0 {
        return Verdict::Rewind(format!("{unrecorded} splits are in no epoch yet"));
    }
    match open_barrier(progress, &all_held) {
        Ok((triggered, open)) => Verdict::GoOn(Resumption {
            triggered,
            open,
            given,
        }),
        Err(cause) => Verdict::Rewind(cause),
    }
}

fn is_latest(lasting: &Lasting, held: &Held) -> bool {
    held.incarnation == lasting.incarnation && held.at.generation == lasting.generation
}

/// Whether an epoch knows that a reader has the split.
fn is_recorded(progress: &JobProgress, source: SourceIndex, split: &SplitId) -> bool {
    let splits = progress.splits.get(&source);
    let progress = splits.and_then(|splits| splits.get(split));
    progress.is_some_and(|progress| progress.status != SplitStatus::Expected)
}

/// The last barrier sent, and itself if it is open.
fn open_barrier(
    progress: &JobProgress,
    all_held: &[&Held],
) -> Result<(Epoch, Option<BarrierCommand>), String> {
    let head = progress.epoch;
    let Some(foremost) = all_held.iter().max_by_key(|held| held.passed()) else {
        return Err("no worker has any task".to_owned());
    };
    let last = foremost.passed();
    let stands_at = |held: &&Held, epoch: Epoch| held.passed() == epoch;
    let reads_on = |held: &&Held| {
        let barrier = held.barrier.as_ref();
        barrier.is_none_or(|barrier| barrier.kind == BarrierKind::Checkpoint)
    };
    if !all_held.iter().all(reads_on) {
        return Err(format!("epoch {last} was to be the generation's last"));
    }
    if last <= head {
        return match all_held.iter().all(|held| stands_at(held, head)) {
            true => Ok((head, None)),
            false => Err(format!(
                "a pipeline has not passed epoch {head}, the log's head"
            )),
        };
    }
    let Some(barrier) = &foremost.barrier else {
        return Err(format!("a pipeline began behind the log's head, {head}"));
    };
    if barrier.watermarks != progress.watermarks {
        return Err(format!(
            "epoch {last} acts on other watermarks than the log's"
        ));
    }
    let fits = |held: &&Held| {
        let has_passed = held.barrier.as_ref() == Some(barrier);
        has_passed || held.passed().next() == last
    };
    match all_held.iter().all(fits) {
        true if mutant::is(Mutant::SkipOpenEpoch) => Ok((last, None)),
        true => Ok((last, Some(barrier.clone()))),
        false => Err(format!(
            "pipelines stand behind different barriers before {last}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use millstream_common::ids::{StageIndex, TaskId};
    use millstream_common::link::JobGeneration;
    use millstream_common::log::entry::TaskPlacement;
    use millstream_common::report::SplitProgress;
    use millstream_common::time::EventTime;

    use super::*;

    const SOURCE: SourceIndex = SourceIndex(0);
    const WATERMARK: EventTime = EventTime(70);

    fn placed(split: &str) -> SplitPlacement {
        SplitPlacement {
            source: SOURCE,
            split: split.into(),
            task_index: 0,
        }
    }

    fn lasting() -> Lasting {
        let tasks = ["a", "b"].iter().enumerate();
        Lasting {
            incarnation: Incarnation::fresh(),
            generation: Generation(7),
            assignment: Assignment {
                tasks: tasks
                    .map(|(index, worker)| TaskPlacement {
                        task: TaskId {
                            stage: StageIndex(0),
                            index: index as u32,
                        },
                        worker: WorkerId::from(*worker),
                    })
                    .collect(),
                splits: vec![placed("clicks-0")],
                sinks: Vec::new(),
            },
        }
    }

    /// A job whose head is epoch 5.
    fn progress() -> JobProgress {
        let split = SplitProgress {
            position: 9,
            end: None,
            watermark: None,
            status: SplitStatus::Active,
            identity: None,
        };
        JobProgress {
            epoch: Epoch(5),
            splits: BTreeMap::from([(SOURCE, BTreeMap::from([("clicks-0".into(), split)]))]),
            watermarks: BTreeMap::from([(SOURCE, WATERMARK)]),
            ..JobProgress::default()
        }
    }

    fn barrier(epoch: u64) -> BarrierCommand {
        BarrierCommand {
            epoch: Epoch(epoch),
            kind: BarrierKind::Checkpoint,
            watermarks: BTreeMap::from([(SOURCE, WATERMARK)]),
        }
    }

    /// A pipeline that began behind epoch 3.
    fn held(lasting: &Lasting, barrier: Option<BarrierCommand>) -> Held {
        Held {
            at: JobGeneration {
                job: "clicks".into(),
                generation: lasting.generation,
            },
            incarnation: lasting.incarnation,
            restored: Epoch(3),
            barrier,
            committed: Epoch(4),
            given: Vec::new(),
        }
    }

    fn verdict(lasting: &Lasting, a: Option<&Held>, b: Option<&Held>) -> Verdict {
        let joined = BTreeMap::from([("a".into(), a), ("b".into(), b)]);
        decide(lasting, &progress(), &joined)
    }

    fn rewinds(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Rewind(_))
    }

    #[test]
    fn pipelines_that_all_stand_at_the_head_go_on_from_it() {
        let lasting = lasting();
        let held = held(&lasting, Some(barrier(5)));
        let expected = Resumption {
            triggered: Epoch(5),
            open: None,
            given: Vec::new(),
        };
        let found = verdict(&lasting, Some(&held), Some(&held));
        assert_eq!(found, Verdict::GoOn(expected));
    }

    #[test]
    fn a_barrier_that_some_have_passed_is_collected_to_its_end() {
        let lasting = lasting();
        let behind = held(&lasting, Some(barrier(5)));
        let passed = held(&lasting, Some(barrier(6)));
        for (a, b) in [(&behind, &passed), (&passed, &behind), (&passed, &passed)] {
            let Verdict::GoOn(found) = verdict(&lasting, Some(a), Some(b)) else {
                panic!("a rewind");
            };
            assert_eq!((found.triggered, found.open), (Epoch(6), Some(barrier(6))));
        }
    }

    #[test]
    fn behind_the_last_barrier_of_a_generation_nothing_goes_on_though_the_log_has_its_epoch() {
        let lasting = lasting();
        for kind in [BarrierKind::Stop, BarrierKind::Drain] {
            let last = BarrierCommand { kind, ..barrier(5) };
            let held = held(&lasting, Some(last));
            assert!(rewinds(&verdict(&lasting, Some(&held), Some(&held))));
        }
    }

    #[test]
    fn epochs_that_held_nothing_leave_a_gap_behind_the_head() {
        let lasting = lasting();
        let behind = held(&lasting, Some(barrier(8)));
        let passed = held(&lasting, Some(barrier(9)));
        let Verdict::GoOn(found) = verdict(&lasting, Some(&behind), Some(&passed)) else {
            panic!("a rewind");
        };
        assert_eq!(found.open, Some(barrier(9)));
        let far_behind = held(&lasting, Some(barrier(7)));
        assert!(rewinds(&verdict(
            &lasting,
            Some(&far_behind),
            Some(&passed)
        )));
    }

    #[test]
    fn the_first_barrier_of_a_generation_may_be_the_open_one() {
        let lasting = lasting();
        let mut fresh = held(&lasting, None);
        fresh.restored = Epoch(5);
        let passed = held(&lasting, Some(barrier(6)));
        let Verdict::GoOn(found) = verdict(&lasting, Some(&fresh), Some(&passed)) else {
            panic!("a rewind");
        };
        assert_eq!(found.open, Some(barrier(6)));
        let Verdict::GoOn(found) = verdict(&lasting, Some(&fresh), Some(&fresh)) else {
            panic!("a rewind");
        };
        assert_eq!((found.triggered, found.open), (Epoch(5), None));
    }

    #[test]
    fn a_worker_that_has_not_joined_is_waited_for_and_one_that_lost_its_tasks_is_not() {
        let lasting = lasting();
        let held_here = held(&lasting, Some(barrier(5)));
        let one = BTreeMap::from([("a".into(), Some(&held_here))]);
        assert_eq!(decide(&lasting, &progress(), &one), Verdict::Wait);
        let one = BTreeMap::from([("a".into(), None)]);
        assert!(rewinds(&decide(&lasting, &progress(), &one)));
        let mut other = held_here.clone();
        other.at.generation = Generation(6);
        assert!(rewinds(&verdict(&lasting, Some(&held_here), Some(&other))));
        let mut other = held_here.clone();
        other.incarnation = Incarnation::fresh();
        assert!(rewinds(&verdict(&lasting, Some(&held_here), Some(&other))));
    }

    #[test]
    fn a_barrier_that_the_log_does_not_explain_means_a_rewind() {
        let lasting = lasting();
        let behind = held(&lasting, Some(barrier(5)));
        let mut last = barrier(6);
        last.kind = BarrierKind::Stop;
        let mut other_time = barrier(6);
        other_time.watermarks = BTreeMap::from([(SOURCE, EventTime(71))]);
        for odd in [last, other_time] {
            let odd = held(&lasting, Some(odd));
            assert!(rewinds(&verdict(&lasting, Some(&behind), Some(&odd))));
        }
        let before_head = held(&lasting, Some(barrier(4)));
        assert!(rewinds(&verdict(
            &lasting,
            Some(&behind),
            Some(&before_head)
        )));
    }

    #[test]
    fn splits_that_no_epoch_has_recorded_mean_a_rewind() {
        let lasting = lasting();
        let mut held_here = held(&lasting, Some(barrier(5)));
        held_here.given = vec![placed("clicks-0")];
        let found = verdict(&lasting, Some(&held_here), Some(&held_here));
        assert!(matches!(found, Verdict::GoOn(_)));
        let mut expecting = progress();
        let splits = expecting.splits.get_mut(&SOURCE).expect("splits");
        splits
            .get_mut(&SplitId::from("clicks-0"))
            .expect("a split")
            .status = SplitStatus::Expected;
        let joined = ["a", "b"].map(|worker| (worker.into(), Some(&held_here)));
        let found = decide(&lasting, &expecting, &BTreeMap::from(joined));
        assert!(rewinds(&found), "no epoch has seen it begin");
        held_here.given.push(placed("clicks-9"));
        assert!(rewinds(&verdict(
            &lasting,
            Some(&held_here),
            Some(&held_here)
        )));
    }
}
