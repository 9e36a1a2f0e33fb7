//! A panic beside the path of rows ends the pipeline with its text: the epoch does not wait for ever.
//!
//! Each test runs one actor of a pipeline; the pipeline is a channel that the test reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, UInt8Array};
use async_trait::async_trait;
use bytes::Bytes;
use millstream_common::blocking::ThreadPool;
use millstream_common::error::Kind;
use millstream_common::ids::{
    Epoch, Generation, Incarnation, SourceIndex, SplitId, StageIndex, TaskId, Vnode,
};
use millstream_common::link::{BarrierCommand, BarrierKind};
use millstream_common::plan::OnViolation;
use millstream_common::report::{SplitProgress, SplitStart};
use millstream_common::store::{Error, Store};
use millstream_common::time::{EventTime, SystemClock};
use millstream_worker::branch::Branches;
use millstream_worker::consume::reader_actor::ReaderActor;
use millstream_worker::consume::reader_task::ReaderTask;
use millstream_worker::consume::{ConsumeError, CutRequest, SourceEvent, SourceReader};
use millstream_worker::exchange::message::{EdgeId, OwnedRows, StreamMessage};
use millstream_worker::operator::keyed_actor::{KeyedActor, KeyedConfig, KeyedMessage};
use millstream_worker::operator::spill::{Spill, TaskSpill};
use millstream_worker::operator::task_state::{StateSeat, TaskState};
use millstream_worker::operator::{
    BarrierOutcome, BarrierRequest, Emitted, KeyedOperator, OperatorError, StateWrite,
};
use millstream_worker::pipeline::pipeline_actor::PipelineMessage;
use millstream_worker::snapshot::PartScope;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::mpsc;

/// What waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(30);
const TASK: TaskId = TaskId {
    stage: StageIndex(1),
    index: 0,
};

/// A pipeline that hands on what it is told.
struct Pipeline;

impl Actor for Pipeline {
    type Msg = PipelineMessage;
    type State = mpsc::Sender<PipelineMessage>;
    type Arguments = mpsc::Sender<PipelineMessage>;

    async fn pre_start(
        &self,
        _: ActorRef<PipelineMessage>,
        told: mpsc::Sender<PipelineMessage>,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(told)
    }

    async fn handle(
        &self,
        _: ActorRef<PipelineMessage>,
        message: PipelineMessage,
        told: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        Ok(told.send(message).await?)
    }
}

async fn pipeline() -> (ActorRef<PipelineMessage>, mpsc::Receiver<PipelineMessage>) {
    let (sender, told) = mpsc::channel(10);
    let (actor, _) = Actor::spawn(None, Pipeline, sender)
        .await
        .expect("a pipeline");
    (actor, told)
}

async fn failure(mut told: mpsc::Receiver<PipelineMessage>) -> (Kind, String) {
    let message = tokio::time::timeout(PATIENCE, told.recv()).await;
    match message.expect("it is told in time") {
        Some(PipelineMessage::Failed(failure)) => (failure.kind, failure.to_string()),
        _ => panic!("something else was told first"),
    }
}

/// Storage with a defect.
struct Panicking;

#[async_trait]
impl Store for Panicking {
    async fn create(&self, _: &str, _: Bytes) -> Result<(), Error> {
        panic!("no room");
    }

    async fn put(&self, _: &str, _: Bytes) -> Result<(), Error> {
        Ok(())
    }

    async fn get(&self, _: &str) -> Result<Option<Bytes>, Error> {
        Ok(None)
    }

    async fn list(&self, _: &str) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    async fn delete(&self, _: &str) -> Result<(), Error> {
        Ok(())
    }
}

/// Writes one key at each barrier.
struct OneKey;

impl KeyedOperator for OneKey {
    fn fold(&mut self, _: OwnedRows) -> Result<Vec<Emitted>, OperatorError> {
        Ok(Vec::new())
    }

    fn barrier(&mut self, _: &BarrierRequest) -> Result<BarrierOutcome, OperatorError> {
        let vnodes = Arc::new(UInt8Array::from(vec![1]));
        let part = RecordBatch::try_from_iter([("_vnode", vnodes as _)]).expect("a batch");
        Ok(BarrierOutcome {
            emitted: Vec::new(),
            write: StateWrite::Delta(part.into()),
            forget: BTreeSet::new(),
        })
    }

    fn restore(
        &mut self,
        _: Epoch,
        _: &RecordBatch,
        _: &dyn Fn(Vnode) -> bool,
        _: Option<EventTime>,
    ) -> Result<(), OperatorError> {
        Ok(())
    }

    fn spill(&mut self, _: usize, _: &TaskSpill) -> Result<bool, OperatorError> {
        Ok(false)
    }

    fn waits_for_disk(&self) -> bool {
        false
    }

    fn mark_all_changed(&mut self) {}

    fn state_bytes(&self) -> usize {
        0
    }

    fn disk_bytes(&self) -> u64 {
        0
    }

    fn key_count(&self) -> usize {
        1
    }
}

#[tokio::test]
async fn a_panic_while_a_state_part_is_stored_is_a_failure_of_the_task() {
    let (pipeline, told) = pipeline().await;
    let edge = EdgeId {
        from: TaskId {
            stage: StageIndex(0),
            index: 0,
        },
        to: TASK,
        branch: 0,
    };
    let config = KeyedConfig {
        name: "views.0".to_owned(),
        seat: StateSeat::new(
            TaskState::new(Box::new(OneKey), Spill::without_limit().task("views.0")),
            Arc::new(ThreadPool),
            "views.0".to_owned(),
        ),
        parts: Vec::new(),
        scope: PartScope {
            incarnation: Incarnation::fresh(),
            generation: Generation(1),
            operator: "views/aggregate/0".into(),
            task: TASK,
        },
        edges: vec![edge],
        sources: vec![SourceIndex(0)],
        branches: Branches::new(
            "views.0".to_owned(),
            Vec::new(),
            Arc::new(SystemClock::default()),
        ),
        changes_interval: Duration::ZERO,
        emits_all: false,
        keeps_first_rows: false,
        store: Arc::new(Panicking),
        blocking: Arc::new(ThreadPool),
        clock: Arc::new(SystemClock::default()),
        pipeline,
    };
    let (task, _) = Actor::spawn(None, KeyedActor, config)
        .await
        .expect("a task");
    let barrier = BarrierCommand {
        epoch: Epoch(1),
        kind: BarrierKind::Checkpoint,
        watermarks: BTreeMap::new(),
    };
    let message = StreamMessage::Barrier(barrier);
    task.cast(KeyedMessage::Stream { edge, message })
        .expect("it runs");
    let expected = (Kind::Internal, "views.0: panicked: no room".to_owned());
    assert_eq!(failure(told).await, expected);
    task.kill();
}

/// A client with a defect.
struct Broken;

#[async_trait]
impl SourceReader for Broken {
    async fn next(&mut self) -> Result<SourceEvent, ConsumeError> {
        panic!("no offset");
    }

    fn cut(&mut self, _: CutRequest) {}

    fn add_splits(&mut self, _: Vec<SplitStart>) {}

    fn committed(&mut self, _: &BTreeMap<SplitId, SplitProgress>) {}
}

#[tokio::test]
async fn a_panic_in_a_readers_loop_is_a_failure_of_the_task() {
    let (pipeline, told) = pipeline().await;
    let task = ReaderTask {
        task: TASK,
        name: "clicks".to_owned(),
        source: SourceIndex(0),
        on_violation: OnViolation::Fail,
        reader: Box::new(Broken),
        branches: Branches::new(
            "clicks.0".to_owned(),
            Vec::new(),
            Arc::new(SystemClock::default()),
        ),
        clock: Arc::new(SystemClock::default()),
        rows_read: Arc::default(),
        pipeline,
    };
    let (reader, _) = Actor::spawn(None, ReaderActor, task)
        .await
        .expect("a reader");
    let expected = (Kind::Internal, "clicks: panicked: no offset".to_owned());
    assert_eq!(failure(told).await, expected);
    reader.kill();
}
