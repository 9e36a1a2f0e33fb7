//! What a worker remembers of a pipeline: each frame counts once, whichever master sends it.

use millstream_common::blocking::ThreadPool;
use millstream_common::ids::{Generation, SourceIndex};
use millstream_common::link::BarrierKind;
use millstream_common::log::entry::{Assignment, CommittedEpoch};
use millstream_common::net::TcpNet;
use millstream_common::plan::{JobPlan, JobSettings};
use millstream_common::report::{
    AssignedSplit, RestorePoint, RowCounters, SplitProgress, SplitStart,
};
use millstream_common::time::SystemClock;
use millstream_common::trace::NoTracer;

use super::*;
use crate::config::{RealConnectors, RealStores, WorkerConfig};
use crate::operator::spill::Spill;

fn at() -> JobGeneration {
    JobGeneration {
        job: "clicks".into(),
        generation: Generation(7),
    }
}

/// Of a pipeline that has begun behind epoch 3.
fn holding() -> Holding {
    let deploy = Deploy {
        at: at(),
        incarnation: Incarnation::fresh(),
        plan: JobPlan {
            settings: JobSettings::default(),
            sources: Vec::new(),
            stages: Vec::new(),
            outputs: Vec::new(),
            sinks: Vec::new(),
        },
        assignment: Assignment::default(),
        restore: RestorePoint {
            epoch: Epoch(3),
            ..RestorePoint::default()
        },
        flight_addresses: BTreeMap::new(),
        trace: None,
    };
    let worker = WorkerConfig {
        spill: Spill::without_limit(),
        net: Arc::new(TcpNet),
        exchange_net: Arc::new(TcpNet),
        stores: Arc::new(RealStores {
            blocking: Arc::new(ThreadPool),
        }),
        connectors: Arc::new(RealConnectors),
        clock: Arc::new(SystemClock::new()),
        tracer: Arc::new(NoTracer),
        blocking: Arc::new(ThreadPool),
        master: String::new(),
        slots: 1,
        flight_listen: String::new(),
        http: None,
        advertise: None,
        name: "w".into(),
    };
    let spans = Arc::new(PipelineSpans::new(&deploy, &worker));
    let mut holding = Holding::new(&deploy, Arc::default(), spans);
    assert_eq!(holding.held(), None, "its readers do not read yet");
    assert!(holding.heard(&ToWorker::Start(at())));
    holding
}

fn barrier(epoch: u64) -> ToWorker {
    ToWorker::Barrier(
        at(),
        BarrierCommand {
            epoch: Epoch(epoch),
            kind: BarrierKind::Checkpoint,
            watermarks: BTreeMap::new(),
        },
    )
}

fn committed(epoch: u64, positions: SplitPositions) -> ToWorker {
    ToWorker::EpochCommitted {
        at: at(),
        epoch: CommittedEpoch {
            epoch: Epoch(epoch),
            parent: Epoch(epoch - 1),
            segments: Vec::new(),
            refused: Vec::new(),
            last: false,
        },
        positions,
        trace: None,
    }
}

fn snapshotted(epoch: u64) -> ToMaster {
    let report = PipelineReport {
        epoch: Epoch(epoch),
        worker: "w".into(),
        splits: BTreeMap::new(),
        parts: BTreeMap::new(),
        segments: Vec::new(),
        counters: BTreeMap::new(),
        flows: BTreeMap::new(),
        troubles: BTreeMap::new(),
        figures: Default::default(),
    };
    ToMaster::Snapshotted(at(), Box::new(report))
}

#[test]
fn what_the_next_master_says_again_is_obeyed_once() {
    let mut holding = holding();
    assert!(!holding.heard(&ToWorker::Start(at())));
    for frame in [barrier(4), committed(4, BTreeMap::new()), barrier(6)] {
        assert!(holding.heard(&frame));
        assert!(!holding.heard(&frame), "{frame:?}");
    }
    assert!(!holding.heard(&barrier(5)));
    let held = holding.held().expect("it has begun");
    assert_eq!((held.passed(), held.committed), (Epoch(6), Epoch(4)));
}

#[test]
fn a_report_is_said_again_until_its_epoch_is_dealt_with() {
    let mut holding = holding();
    for settled in [committed(4, BTreeMap::new()), barrier(5)] {
        holding.heard(&barrier(4));
        holding.said(&snapshotted(4));
        assert_eq!(holding.unheard(), [snapshotted(4)]);
        holding.heard(&settled);
        assert_eq!(holding.unheard(), []);
        holding = self::holding();
    }
    holding.heard(&barrier(4));
    holding.said(&snapshotted(4));
    holding.heard(&committed(3, BTreeMap::new()));
    assert_eq!(holding.unheard(), [snapshotted(4)]);
}

#[test]
fn where_a_sink_is_and_what_ails_it_are_said_again() {
    let mut holding = holding();
    let (sink, dropped_count) = (SinkIndex(0), 0);
    let advanced = |marker| ToMaster::SinkAdvanced {
        at: at(),
        sink,
        marker,
        dropped_count,
    };
    let troubled = ToMaster::SinkTroubled {
        at: at(),
        sink,
        cause: "down".to_owned(),
        suspended: false,
    };
    for said in [advanced(Epoch(3)), advanced(Epoch(4)), troubled.clone()] {
        holding.said(&said);
    }
    assert_eq!(holding.unheard(), [advanced(Epoch(4)), troubled]);
    holding.said(&advanced(Epoch(5)));
    assert_eq!(holding.unheard(), [advanced(Epoch(5))]);
}

#[test]
fn splits_given_while_it_runs_are_held_until_they_end() {
    let mut holding = holding();
    let progress = |status| SplitProgress {
        position: 0,
        end: None,
        watermark: None,
        status,
        identity: None,
        gaps: None,
    };
    let given = ["clicks-1", "clicks-2"].map(|split| AssignedSplit {
        task_index: 0,
        start: SplitStart {
            source: SourceIndex(0),
            split: split.into(),
            progress: progress(SplitStatus::Active),
        },
    });
    assert!(holding.heard(&ToWorker::AssignSplits(at(), given.to_vec())));
    let ended = BTreeMap::from([
        ("clicks-1".into(), progress(SplitStatus::Ended)),
        ("clicks-2".into(), progress(SplitStatus::Idle)),
    ]);
    holding.heard(&committed(4, BTreeMap::from([(SourceIndex(0), ended)])));
    let held = holding.held().expect("it has begun");
    let splits: Vec<&str> = held
        .given
        .iter()
        .map(|given| given.split.as_str())
        .collect();
    assert_eq!(splits, ["clicks-2"]);
}

#[test]
fn rows_behind_the_last_recorded_epoch_are_those_that_are_read_again() {
    let mut holding = holding();
    holding.rows_read.store(10, Ordering::Relaxed);
    holding.heard(&barrier(4));
    let ToMaster::Snapshotted(at, mut report) = snapshotted(4) else {
        panic!("a report");
    };
    let counted = RowCounters {
        read: 7,
        ..RowCounters::default()
    };
    report.counters.insert(SourceIndex(0), counted);
    holding.said(&ToMaster::Snapshotted(at, report));
    assert_eq!(holding.rows_unrecorded(), 10, "it may never be recorded");
    holding.heard(&committed(4, BTreeMap::new()));
    assert_eq!(holding.rows_unrecorded(), 3);
}
