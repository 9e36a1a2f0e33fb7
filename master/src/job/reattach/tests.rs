//! What workers have kept under the last master, and whether a job goes on with it.

use millstream_common::ids::{StageIndex, TaskId};
use millstream_common::link::JobGeneration;
use millstream_common::log::entry::TaskPlacement;
use millstream_common::report::{SplitProgress, SplitStatus};
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
        gaps: None,
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
