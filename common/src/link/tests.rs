//! What masters and workers say to each other survives the wire.
//!
//! Goal: each kind of frame arrives as it was sent. Method: encoded, decoded, compared.

use std::fmt::Debug;

use millstream_proto::v1;

use super::*;
use crate::trace::TraceId;

fn at() -> JobGeneration {
    JobGeneration {
        job: "clicks".into(),
        generation: Generation(7),
    }
}

fn barrier() -> BarrierCommand {
    BarrierCommand {
        epoch: Epoch(3),
        kind: BarrierKind::Stop,
        watermarks: BTreeMap::from([(SourceIndex(0), EventTime(-5))]),
    }
}

fn survives<F, W>(frame: F)
where
    F: Clone + PartialEq + Debug + TryFrom<W, Error: Debug>,
    W: TryFrom<F, Error: Debug>,
{
    let wire = W::try_from(frame.clone()).expect("encode");
    assert_eq!(F::try_from(wire).expect("decode"), frame);
}

#[test]
fn frames_to_workers_survive_the_wire() {
    let part = BacklogPart {
        path: "backlog/a".to_owned(),
        checksum: 7,
        parent: Epoch(1),
        last: Epoch(3),
        epoch_count: 2,
        outputs: BTreeMap::from([(crate::ids::OutputIndex(1), Default::default())]),
    };
    let committed = ToWorker::EpochCommitted {
        at: at(),
        epoch: CommittedEpoch {
            epoch: Epoch(3),
            parent: Epoch(2),
            segments: Vec::new(),
            refused: Vec::new(),
            last: false,
        },
        positions: BTreeMap::new(),
        trace: Some(TraceContext::root(TraceId(7))),
    };
    for frame in [
        ToWorker::Barrier(at(), barrier()),
        ToWorker::CommandSink(at(), SinkIndex(2), SinkCommand::Pause),
        ToWorker::Drain,
        ToWorker::Released { is_last: true },
        ToWorker::Backlog(at(), vec![part]),
        committed,
    ] {
        survives::<ToWorker, v1::MasterFrame>(frame);
    }
}

#[test]
fn frames_to_masters_survive_the_wire() {
    let hello = ToMaster::Hello(WorkerHello {
        worker: "w1".into(),
        process: "p1".to_owned(),
        flight_address: "w1:7080".to_owned(),
        slots: 2,
        version: "1".to_owned(),
        held: vec![Held {
            at: at(),
            incarnation: Incarnation::fresh(),
            restored: Epoch(1),
            barrier: Some(barrier()),
            committed: Epoch(2),
            given: Vec::new(),
        }],
        is_leaving: true,
    });
    let report = PipelineReport {
        epoch: Epoch(3),
        worker: "w1".into(),
        splits: BTreeMap::new(),
        parts: BTreeMap::new(),
        segments: Vec::new(),
        counters: BTreeMap::new(),
        flows: BTreeMap::new(),
        troubles: BTreeMap::new(),
        figures: Default::default(),
    };
    for frame in [
        hello,
        ToMaster::Snapshotted(at(), Box::new(report)),
        ToMaster::TornDown(at(), 8),
        ToMaster::Leaving,
    ] {
        survives::<ToMaster, v1::WorkerFrame>(frame);
    }
}
