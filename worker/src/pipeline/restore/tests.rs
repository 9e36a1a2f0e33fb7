//! State parts are read once a worker, side by side, and handed to every task that needs them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::Int64Array;
use arrow::datatypes::{DataType, Field};
use async_trait::async_trait;
use bytes::Bytes;
use millstream_common::blocking::ThreadPool;
use millstream_common::ids::{Epoch, StageIndex, WorkerId};
use millstream_common::log::entry::{Assignment, TaskPlacement};
use millstream_common::plan::{JobPlan, JobSettings, KeyedKind, PlanSchema, StagePlan};
use millstream_common::store::{Error, Store};
use tokio::sync::Barrier;

use super::*;
use crate::exchange::message::OwnedRows;
use crate::operator::spill::Spill;
use crate::operator::{BarrierRequest, StateWrite};

const PART_COUNT: usize = 6;

/// Answers nobody before it was asked for every part.
struct Meeting {
    objects: BTreeMap<String, Bytes>,
    all: Barrier,
    read_count: AtomicUsize,
}

#[async_trait]
impl Store for Meeting {
    async fn create(&self, key: &str, _: Bytes) -> Result<(), Error> {
        unreachable!("create {key}")
    }

    async fn put(&self, key: &str, _: Bytes) -> Result<(), Error> {
        unreachable!("put {key}")
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, Error> {
        self.read_count.fetch_add(1, Ordering::Relaxed);
        self.all.wait().await;
        Ok(self.objects.get(key).cloned())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        unreachable!("list {prefix}")
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        unreachable!("delete {key}")
    }
}

fn keyed() -> KeyedPlan {
    KeyedPlan {
        operator: "clicks/distinct/0".into(),
        fingerprint: "test".to_owned(),
        input: PlanSchema::from_fields(vec![Field::new("id", DataType::Int64, false)]),
        key_columns: vec![0],
        kind: KeyedKind::Distinct { time_column: None },
    }
}

fn plan() -> JobPlan {
    JobPlan {
        settings: JobSettings::default(),
        sources: Vec::new(),
        stages: vec![StagePlan {
            name: "clicks/distinct/0".to_owned(),
            head: StageHead::Keyed(keyed()),
            sources: Vec::new(),
            branches: Vec::new(),
        }],
        outputs: Vec::new(),
        sinks: Vec::new(),
    }
}

/// One key, as the epoch of its number stored it.
fn part(functions: &Functions, number: usize) -> (StatePart, Bytes) {
    let epoch = Epoch(number as u64 + 1);
    let mut operator = operator::build(&keyed(), functions).expect("operator");
    let ids = Arc::new(Int64Array::from(vec![number as i64]));
    let rows = RecordBatch::try_new(keyed().input.0, vec![ids]).expect("batch");
    operator.fold(OwnedRows::whole(rows)).expect("fold");
    let outcome = operator.barrier(&BarrierRequest {
        epoch,
        watermark: None,
        emit_changes: true,
    });
    let write = outcome.expect("barrier").write;
    let (StateWrite::Delta(rows) | StateWrite::Full(rows)) = write else {
        panic!("nothing to store: {write:?}");
    };
    let batch = rows.make().expect("a batch");
    let path = format!("state/{number}");
    let object = ipc::encode(&path, &batch.schema(), &[batch]).expect("encode");
    let part = StatePart {
        path,
        epoch,
        bytes: object.bytes.len() as u64,
        checksum: object.checksum,
        row_count: 1,
    };
    (part, object.bytes.whole())
}

/// Storage that holds `objects`, and what comes of restoring `parts` from it.
async fn restore(
    functions: &Functions,
    objects: BTreeMap<String, Bytes>,
    parts: Vec<StatePart>,
) -> (Arc<Meeting>, Result<Restored, Failure>) {
    let meeting = Arc::new(Meeting {
        objects,
        all: Barrier::new(parts.len()),
        read_count: AtomicUsize::new(0),
    });
    let store: StoreRef = meeting.clone();
    let worker = WorkerId::from("w");
    let placement = |index| TaskPlacement {
        task: TaskId {
            stage: StageIndex(0),
            index,
        },
        worker: worker.clone(),
    };
    let assignment = Assignment {
        tasks: (0..2).map(placement).collect(),
        ..Assignment::default()
    };
    let plan = plan();
    let blocking: BlockingRef = Arc::new(ThreadPool);
    let restore = Restore {
        wiring: &Wiring::new(&plan, &assignment, &worker),
        point: &RestorePoint {
            parts: BTreeMap::from([(keyed().operator, parts)]),
            ..RestorePoint::default()
        },
        functions,
        store: &store,
        spill: &Spill::without_limit(),
        blocking: &blocking,
    };
    let restored = tokio::time::timeout(Duration::from_secs(60), restore.run()).await;
    (meeting, restored.expect("one by one"))
}

/// So many parts, and the objects that hold them.
fn stored(functions: &Functions) -> (Vec<StatePart>, BTreeMap<String, Bytes>) {
    let stored = (0..PART_COUNT).map(|number| part(functions, number));
    let stored = stored.map(|(part, bytes)| {
        let object = (part.path.clone(), bytes);
        (part, object)
    });
    stored.unzip()
}

#[tokio::test(start_paused = true)]
async fn each_part_is_read_once_for_all_tasks_and_all_at_a_time() {
    let functions = Functions::new();
    let (parts, objects) = stored(&functions);
    let (meeting, restored) = restore(&functions, objects, parts).await;
    let restored = restored.expect("restored");
    let mut restored = restored;
    let keys = restored.values_mut();
    let keys = keys.map(|(state, _)| state.operator().key_count());
    assert_eq!((keys.len(), keys.sum()), (2, PART_COUNT));
    assert_eq!(meeting.read_count.load(Ordering::Relaxed), PART_COUNT);
    assert!(
        restored
            .values()
            .all(|(_, parts)| parts.len() == PART_COUNT)
    );
}

#[tokio::test]
async fn parts_on_their_way_take_an_eighth_of_what_state_may_take() {
    let room = Room::new(Some(8_000));
    let part = |bytes| StatePart {
        path: String::new(),
        epoch: Epoch(1),
        bytes,
        checksum: 0,
        row_count: 1,
    };
    let (_, first) = room.clone().begin(part(600)).await;
    let (_, second) = room.clone().begin(part(400)).await;
    let mut large = pin!(room.clone().begin(part(1 << 40)));
    assert!(futures::poll!(large.as_mut()).is_pending());
    drop(first);
    assert!(
        futures::poll!(large.as_mut()).is_pending(),
        "it comes alone"
    );
    drop(second);
    let (_, alone) = large.await;
    assert!(futures::poll!(pin!(room.clone().begin(part(1)))).is_pending());
    drop(alone);
    drop(room.clone().begin(part(0)).await);
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_missing_or_damaged_is_refused_by_its_name_and_never_taken_for_empty() {
    let functions = Functions::new();
    let (parts, whole) = stored(&functions);
    let lost = &parts[3].path;
    let mut missing = whole.clone();
    missing.remove(lost);
    let mut cut = whole.clone();
    let end = whole[lost].len() / 2;
    cut.insert(lost.clone(), whole[lost].slice(..end));
    for (objects, said) in [(missing, "is missing"), (cut, "is damaged")] {
        let (_, restored) = restore(&functions, objects, parts.clone()).await;
        let failure = restored.err().expect("refused");
        assert!(!failure.kind.is_retryable(), "{failure}");
        let text = failure.to_string();
        let wanted = [lost.as_str(), said, "restore the storage from a backup"];
        assert!(wanted.iter().all(|part| text.contains(part)), "{text}");
    }
}
