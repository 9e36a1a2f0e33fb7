//! The sink actor with a sink that fails on command.
//!
//! Goal: whatever a sink does, each epoch reaches it once and in order, the actor answers all the while, and
//! the observer is told. Method: a sink in memory takes its next failure from a script; tests wait for what the observer
//! is told, never for time to pass.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use futures::StreamExt;
use millstream_common::ids::{Epoch, OutputIndex, SinkIndex, Token};
use millstream_common::log::backlog::BacklogPart;
use millstream_common::log::entry::CommittedEpoch;
use millstream_common::report::{Refusal, RefusedRows, Segment};
use millstream_common::time::SystemClock;
use millstream_sinks::conformance::{Change, MemoryRows, deliverer};
use millstream_sinks::delivery::Lacking;
use millstream_sinks::refused_rows::{PlacedRow, places};
use millstream_sinks::segment_rows::SegmentSource;
use millstream_sinks::sink::{
    Applied, Cadence, EpochRun, Held, RejectedRow, Rejects, RunRows, Sink, SinkError,
};
use millstream_sinks::sink_actor::{
    SinkActor, SinkArguments, SinkMessage, SinkObserver, Trouble, TroubleState,
};
use ractor::{Actor, ActorRef, ActorStatus};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

const SINK: SinkIndex = SinkIndex(1);
const OUTPUT: OutputIndex = OutputIndex(2);

#[derive(Default)]
struct Script {
    marker: u64,
    fence_errors: VecDeque<SinkError>,
    apply_errors: VecDeque<SinkError>,
    panics: bool,
    /// Row numbers that the next applies refuse.
    refuses: VecDeque<Vec<u64>>,
    gather: Duration,
    /// Each apply waits for a permit of this first.
    gate: Option<Arc<Notify>>,
    runs: Vec<(u64, u64)>,
    rows: u64,
}

type Shared = Arc<Mutex<Script>>;

struct ScriptedSink(Shared);

#[async_trait]
impl Sink for ScriptedSink {
    fn cadence(&self) -> Cadence {
        Cadence {
            run_bytes_max: 1 << 20,
            run_epochs_max: 64,
            gather: lock(&self.0).gather,
        }
    }

    async fn fence(&mut self) -> Result<Held, SinkError> {
        let mut script = lock(&self.0);
        match script.fence_errors.pop_front() {
            Some(error) => Err(error),
            None => Ok(Held {
                marker: Some(Epoch(script.marker)),
                begun: None,
            }),
        }
    }

    async fn apply(
        &mut self,
        run: &EpochRun,
        rows: &dyn RunRows,
        rejects: &dyn Rejects,
    ) -> Result<Applied, SinkError> {
        let gate = lock(&self.0).gate.clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        let mut row_count = 0;
        let mut batches = rows.batches();
        while let Some(batch) = batches.next().await {
            row_count += batch?.num_rows() as u64;
        }
        let refused = lock(&self.0).refuses.pop_front();
        let rejected = refused.into_iter().flatten().map(|row| RejectedRow {
            row,
            payload: "{}".to_owned(),
            reason: "no".to_owned(),
        });
        let rejected: Vec<RejectedRow> = rejected.collect();
        if !rejected.is_empty() {
            rejects.keep(run, &rejected).await?;
        }
        let mut script = lock(&self.0);
        assert!(!script.panics, "as the script says");
        if let Some(error) = script.apply_errors.pop_front() {
            return Err(error);
        }
        assert_eq!((script.marker, row_count), (run.guard.0, run.row_count));
        script.marker = run.last.0;
        script.runs.push((run.guard.0, run.last.0));
        let rejected_count = rejected.len() as u64;
        script.rows += row_count - rejected_count;
        Ok(Applied {
            row_count: row_count - rejected_count,
            rejected_count,
            ..Applied::default()
        })
    }
}

fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, Script> {
    shared
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Two rows a segment.
struct TwoRows;

fn two_rows() -> MemoryRows {
    MemoryRows::of(&[&[Change::Put(1, "a"), Change::Put(2, "b")]])
}

#[async_trait]
impl SegmentSource for TwoRows {
    async fn read(&self, _: &Segment) -> Result<Vec<RecordBatch>, SinkError> {
        let rows = two_rows();
        let batches: Vec<_> = rows.batches().collect().await;
        batches.into_iter().collect()
    }

    async fn read_backlog(&self, part: &BacklogPart) -> Result<Vec<CommittedEpoch>, SinkError> {
        let epochs = part.parent.0 + 1..=part.last.0;
        Ok(epochs.map(|epoch| committed(epoch - 1, epoch)).collect())
    }
}

#[derive(Debug, PartialEq)]
enum Told {
    Advanced(u64),
    Troubled(TroubleState, String),
    Refused(RefusedRows),
}

struct Observer(mpsc::UnboundedSender<Told>);

#[async_trait]
impl SinkObserver for Observer {
    async fn keep(&self, last: Epoch, rows: &[PlacedRow]) -> Result<Refusal, SinkError> {
        Ok(Refusal {
            refused: RefusedRows {
                sink: SINK,
                attempt: format!("{last}-{}", rows.len()),
                rows: places(rows),
            },
            segments: Vec::new(),
        })
    }

    fn refused(&self, refusal: &Refusal) {
        let _ = self.0.send(Told::Refused(refusal.refused.clone()));
    }

    fn advanced(&self, marker: Epoch, _: &Applied) {
        let _ = self.0.send(Told::Advanced(marker.0));
    }

    fn troubled(&self, trouble: &Trouble) {
        let told = Told::Troubled(trouble.state, trouble.cause.clone());
        let _ = self.0.send(told);
    }
}

fn committed(parent: u64, epoch: u64) -> CommittedEpoch {
    let segment = |output, row_count| Segment {
        output,
        path: format!("segments/{epoch}"),
        bytes: 100,
        checksum: 0,
        row_count,
    };
    CommittedEpoch {
        epoch: Epoch(epoch),
        parent: Epoch(parent),
        segments: vec![segment(OUTPUT, 2), segment(OutputIndex(0), 77)],
        refused: Vec::new(),
        last: false,
    }
}

struct Started {
    actor: ActorRef<SinkMessage>,
    ended: JoinHandle<()>,
    told: mpsc::UnboundedReceiver<Told>,
    script: Shared,
}

async fn start(script: Script, undelivered: Vec<CommittedEpoch>, head: u64) -> Started {
    start_behind(script, Vec::new(), undelivered, head).await
}

#[allow(
    clippy::disallowed_methods,
    reason = "what the observer is told is bounded by the script"
)]
async fn start_behind(
    script: Script,
    backlog: Vec<BacklogPart>,
    undelivered: Vec<CommittedEpoch>,
    head: u64,
) -> Started {
    let script = Arc::new(Mutex::new(script));
    let (sender, told) = mpsc::unbounded_channel();
    let made = script.clone();
    let arguments = SinkArguments {
        deliverer: deliverer(1),
        sink: SINK,
        output: OUTPUT,
        schema: two_rows().schema(),
        factory: Arc::new(move || Ok(Box::new(ScriptedSink(made.clone())))),
        segments: Arc::new(TwoRows),
        lacking: Lacking {
            backlog,
            left_out: Vec::new(),
            undelivered,
            head: Epoch(head),
            start: Epoch(0),
        },
        clock: Arc::new(SystemClock::new()),
        observer: Arc::new(Observer(sender)),
    };
    let (actor, ended) = Actor::spawn(None, SinkActor, arguments)
        .await
        .expect("the actor starts");
    Started {
        actor,
        ended,
        told,
        script,
    }
}

impl Started {
    async fn next(&mut self) -> Told {
        let next = tokio::time::timeout(Duration::from_secs(20), self.told.recv()).await;
        next.expect("the observer is told within 20 s")
            .expect("open")
    }

    fn send(&self, message: SinkMessage) {
        self.actor.cast(message).expect("the actor lives");
    }
}

fn unavailable() -> SinkError {
    SinkError::unavailable("write", "gone for a moment")
}

fn refused() -> SinkError {
    SinkError::refused("write", "no such table")
}

#[tokio::test]
async fn epochs_in_storage_arrive_before_those_in_memory_whatever_the_sink_held() {
    for (marker, expected) in [(0, vec![(0, 3), (3, 7)]), (4, vec![(4, 7)])] {
        let part = |parent: u64, last: u64| BacklogPart {
            path: format!("backlog/{last}"),
            checksum: 0,
            parent: Epoch(parent),
            last: Epoch(last),
            epoch_count: last - parent,
            outputs: Default::default(),
        };
        let script = Script {
            marker,
            ..Script::default()
        };
        let backlog = vec![part(0, 3), part(3, 6)];
        let mut started = start_behind(script, backlog, vec![committed(6, 7)], 7).await;
        while started.next().await != Told::Advanced(7) {}
        assert_eq!(lock(&started.script).runs, expected);
        started.actor.stop(None);
    }
}

#[tokio::test]
async fn old_and_new_epochs_arrive_in_order_after_the_marker() {
    let script = Script {
        marker: 3,
        ..Script::default()
    };
    let undelivered = vec![committed(2, 3), committed(3, 4), committed(4, 6)];
    let mut sink = start(script, undelivered, 6).await;
    assert_eq!(sink.next().await, Told::Advanced(3));
    assert_eq!(sink.next().await, Told::Advanced(6));
    sink.send(SinkMessage::EpochCommitted(committed(6, 7)));
    assert_eq!(sink.next().await, Told::Advanced(7));
    assert_eq!(lock(&sink.script).runs, [(3, 6), (6, 7)]);
    assert_eq!(lock(&sink.script).rows, 6);
}

#[tokio::test]
async fn what_may_pass_is_tried_again_after_fencing_anew() {
    let script = Script {
        fence_errors: [unavailable()].into(),
        apply_errors: [unavailable(), unavailable()].into(),
        ..Script::default()
    };
    let mut sink = start(script, vec![committed(0, 1)], 1).await;
    let retrying = || {
        Told::Troubled(
            TroubleState::Retrying,
            "write: gone for a moment".to_owned(),
        )
    };
    assert_eq!(sink.next().await, retrying());
    assert_eq!(sink.next().await, Told::Advanced(0));
    assert_eq!(sink.next().await, retrying());
    assert_eq!(sink.next().await, retrying());
    assert_eq!(sink.next().await, Told::Advanced(1));
    assert_eq!(lock(&sink.script).rows, 2);
}

#[tokio::test]
async fn an_apply_whose_answer_was_lost_is_found_done() {
    let script = Script {
        apply_errors: [unavailable()].into(),
        ..Script::default()
    };
    let mut sink = start(script, vec![], 0).await;
    assert_eq!(sink.next().await, Told::Advanced(0));
    sink.send(SinkMessage::EpochCommitted(committed(0, 1)));
    assert!(matches!(sink.next().await, Told::Troubled(..)));
    lock(&sink.script).marker = 1;
    assert_eq!(sink.next().await, Told::Advanced(1));
    assert_eq!(lock(&sink.script).runs, []);
}

#[tokio::test]
async fn a_refusing_sink_is_suspended_until_it_is_resumed() {
    let script = Script {
        apply_errors: [refused()].into(),
        ..Script::default()
    };
    let mut sink = start(script, vec![committed(0, 1)], 1).await;
    assert_eq!(sink.next().await, Told::Advanced(0));
    let suspended = Told::Troubled(TroubleState::Suspended, "write: no such table".to_owned());
    assert_eq!(sink.next().await, suspended);
    sink.send(SinkMessage::EpochCommitted(committed(1, 2)));
    sink.send(SinkMessage::Resume);
    // Epoch by epoch: what was refused together need not be refused apart.
    assert_eq!(sink.next().await, Told::Advanced(1));
    assert_eq!(sink.next().await, Told::Advanced(2));
}

#[tokio::test]
async fn a_marker_outside_the_chain_suspends_with_advice() {
    let script = Script {
        marker: 9,
        ..Script::default()
    };
    let mut sink = start(script, vec![committed(0, 1)], 1).await;
    match sink.next().await {
        Told::Troubled(TroubleState::Suspended, cause) => {
            assert!(cause.contains("ahead of the job's log"), "{cause}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(lock(&sink.script).runs, []);
}

#[tokio::test]
async fn a_fenced_deliverer_ends_quietly() {
    let fenced = SinkError::Fenced { newer: Token(8) };
    let script = Script {
        fence_errors: [fenced].into(),
        ..Script::default()
    };
    let mut sink = start(script, vec![committed(0, 1)], 1).await;
    sink.ended.await.expect("ends without a panic");
    assert_eq!(sink.actor.get_status(), ActorStatus::Stopped);
    assert!(sink.told.recv().await.is_none(), "nobody is troubled");
}

#[tokio::test]
async fn the_actor_answers_while_its_sink_is_stuck_and_merges_what_came_meanwhile() {
    let gate = Arc::new(Notify::new());
    let script = Script {
        gate: Some(gate.clone()),
        ..Script::default()
    };
    let mut sink = start(script, vec![committed(0, 1)], 1).await;
    assert_eq!(sink.next().await, Told::Advanced(0));
    for epoch in 1..4 {
        sink.send(SinkMessage::EpochCommitted(committed(epoch, epoch + 1)));
    }
    sink.send(SinkMessage::Pause);
    gate.notify_one();
    assert_eq!(sink.next().await, Told::Advanced(1));
    gate.notify_one();
    sink.send(SinkMessage::Resume);
    assert_eq!(sink.next().await, Told::Advanced(4));
    assert_eq!(lock(&sink.script).runs, [(0, 1), (1, 4)]);
}

#[tokio::test]
async fn a_gathering_sink_is_handed_everything_when_the_job_stops() {
    let script = Script {
        gather: Duration::from_secs(3_600),
        ..Script::default()
    };
    let mut sink = start(script, vec![committed(0, 1)], 1).await;
    assert_eq!(sink.next().await, Told::Advanced(0));
    sink.send(SinkMessage::EpochCommitted(committed(1, 2)));
    sink.send(SinkMessage::Flush);
    assert_eq!(sink.next().await, Told::Advanced(2));
    assert_eq!(lock(&sink.script).runs, [(0, 2)]);
}

#[tokio::test]
async fn a_gathering_sink_is_handed_a_run_when_its_time_has_come() {
    let script = Script {
        gather: Duration::from_millis(30),
        ..Script::default()
    };
    let mut sink = start(script, vec![committed(0, 1)], 1).await;
    assert_eq!(sink.next().await, Told::Advanced(0));
    assert_eq!(sink.next().await, Told::Advanced(1));
}

fn naming(parent: u64, epoch: u64, refused: RefusedRows) -> CommittedEpoch {
    CommittedEpoch {
        refused: vec![refused],
        ..committed(parent, epoch)
    }
}

async fn refused_of(sink: &mut Started) -> RefusedRows {
    match sink.next().await {
        Told::Refused(refused) => refused,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_run_with_refused_rows_is_applied_when_the_log_names_them_and_not_before() {
    let script = Script {
        refuses: [vec![1]].into(),
        ..Script::default()
    };
    let mut sink = start(script, vec![committed(0, 1), committed(1, 2)], 2).await;
    assert_eq!(sink.next().await, Told::Advanced(0));
    let refused = refused_of(&mut sink).await;
    assert_eq!(refused.rows, [(Epoch(1), vec![1])].into());
    sink.send(SinkMessage::EpochCommitted(committed(2, 3)));
    assert_eq!(refused_of(&mut sink).await, refused, "said again");
    assert_eq!(lock(&sink.script).runs, []);
    sink.send(SinkMessage::EpochCommitted(naming(3, 4, refused)));
    assert_eq!(sink.next().await, Told::Advanced(2));
    assert_eq!(sink.next().await, Told::Advanced(4));
    assert_eq!(lock(&sink.script).rows, 7);
}

#[tokio::test]
async fn a_retry_that_refuses_another_row_adds_it_to_those_of_the_first() {
    let script = Script {
        refuses: [vec![0], vec![0]].into(),
        apply_errors: [unavailable()].into(),
        ..Script::default()
    };
    let mut sink = start(script, vec![committed(0, 1)], 1).await;
    assert_eq!(sink.next().await, Told::Advanced(0));
    let first = refused_of(&mut sink).await;
    assert_eq!(first.rows, [(Epoch(1), vec![0])].into());
    sink.send(SinkMessage::EpochCommitted(naming(1, 2, first)));
    assert!(matches!(sink.next().await, Told::Troubled(..)));
    let second = refused_of(&mut sink).await;
    let other_row = [(Epoch(1), vec![1])].into();
    assert_eq!(second.rows, other_row, "the first is left out already");
    sink.send(SinkMessage::EpochCommitted(naming(2, 3, second)));
    assert_eq!(sink.next().await, Told::Advanced(2));
    assert_eq!(sink.next().await, Told::Advanced(3));
    assert_eq!(
        lock(&sink.script).rows,
        4,
        "two rows of epoch 1 are left out"
    );
}

#[tokio::test]
async fn the_next_deliverer_leaves_out_what_the_log_names() {
    let refused = RefusedRows {
        sink: SINK,
        attempt: "a".to_owned(),
        rows: [(Epoch(1), vec![0, 1])].into(),
    };
    let undelivered = vec![committed(0, 1), naming(1, 2, refused)];
    let mut sink = start(Script::default(), undelivered, 2).await;
    assert_eq!(sink.next().await, Told::Advanced(0));
    assert_eq!(sink.next().await, Told::Advanced(2));
    assert_eq!(lock(&sink.script).rows, 2);
}

#[tokio::test]
async fn a_sink_that_panics_fails_its_actor() {
    let script = Script {
        panics: true,
        ..Script::default()
    };
    let sink = start(script, vec![committed(0, 1)], 1).await;
    sink.ended.await.expect("the actor catches the panic");
    assert_eq!(sink.actor.get_status(), ActorStatus::Stopped);
    assert_eq!(lock(&sink.script).runs, []);
}

#[tokio::test]
async fn an_epoch_that_does_not_follow_fails_the_actor() {
    let mut sink = start(Script::default(), vec![], 4).await;
    lock(&sink.script).marker = 4;
    sink.send(SinkMessage::EpochCommitted(committed(5, 6)));
    while sink.told.recv().await.is_some() {}
    sink.ended.await.expect("ends");
    assert_eq!(sink.actor.get_status(), ActorStatus::Stopped);
}
