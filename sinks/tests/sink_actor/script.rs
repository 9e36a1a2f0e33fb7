//! A sink in memory that does what a script says, its actor, and what the actor's observer is told.
//!
//! Used by the tests beside it. Each apply takes its next failure, refusal or wait from the script and notes the run; rows come from a
//! source with two of them in every segment.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use millstream_common::ids::{Epoch, OutputIndex, SinkIndex};
use millstream_common::log::backlog::BacklogPart;
use millstream_common::log::entry::CommittedEpoch;
use millstream_common::report::{Refusal, RefusedRows, Segment};
use millstream_common::time::SystemClock;
use millstream_sinks::conformance::{Change, MemoryRows, deliverer};
use millstream_sinks::delivery::Lacking;
use millstream_sinks::refused_rows::{PlacedRow, places};
use millstream_sinks::segment_rows::SegmentSource;
use millstream_sinks::sink::{
    Applied, Cadence, EpochRun, Held, RejectedRow, Rejects, RunPart, RunRows, Sink, SinkError,
};
use millstream_sinks::sink_actor::{
    SinkActor, SinkArguments, SinkMessage, SinkObserver, Trouble, TroubleState,
};
use ractor::{Actor, ActorRef};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

pub(crate) const SINK: SinkIndex = SinkIndex(1);
pub(crate) const OUTPUT: OutputIndex = OutputIndex(2);

#[derive(Default)]
pub(crate) struct Script {
    pub(crate) marker: u64,
    pub(crate) fence_errors: VecDeque<SinkError>,
    pub(crate) apply_errors: VecDeque<SinkError>,
    pub(crate) panics: bool,
    /// Row numbers that the next applies refuse.
    pub(crate) refuses: VecDeque<Vec<u64>>,
    pub(crate) gather: Duration,
    pub(crate) begins_paused: bool,
    /// Each apply waits for a permit of this first.
    pub(crate) gate: Option<Arc<Notify>>,
    pub(crate) runs: Vec<(u64, u64)>,
    pub(crate) rows: u64,
}

pub(crate) type Shared = Arc<Mutex<Script>>;

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

pub(crate) fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, Script> {
    shared
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Two rows a segment.
struct TwoRows;

pub(crate) fn two_rows() -> MemoryRows {
    MemoryRows::of(&[&[Change::Put(1, "a"), Change::Put(2, "b")]])
}

#[async_trait]
impl SegmentSource for TwoRows {
    async fn read(&self, _: &Segment) -> Result<RunPart, SinkError> {
        let rows = two_rows();
        let batches: Vec<_> = rows.batches().collect().await;
        let batches = batches.into_iter().collect::<Result<_, _>>();
        batches.map(RunPart::Batches)
    }

    async fn read_backlog(&self, part: &BacklogPart) -> Result<Vec<CommittedEpoch>, SinkError> {
        let epochs = part.parent.0 + 1..=part.last.0;
        Ok(epochs.map(|epoch| committed(epoch - 1, epoch)).collect())
    }
}

#[derive(Debug, PartialEq)]
pub(crate) enum Told {
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

pub(crate) fn committed(parent: u64, epoch: u64) -> CommittedEpoch {
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

pub(crate) struct Started {
    pub(crate) actor: ActorRef<SinkMessage>,
    pub(crate) ended: JoinHandle<()>,
    pub(crate) told: mpsc::UnboundedReceiver<Told>,
    pub(crate) script: Shared,
}

pub(crate) async fn start(script: Script, undelivered: Vec<CommittedEpoch>, head: u64) -> Started {
    start_behind(script, Vec::new(), undelivered, head).await
}

#[allow(
    clippy::disallowed_methods,
    reason = "what the observer is told is bounded by the script"
)]
pub(crate) async fn start_behind(
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
            known: Epoch(0),
        },
        is_paused: lock(&script).begins_paused,
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
    pub(crate) async fn next(&mut self) -> Told {
        let next = tokio::time::timeout(Duration::from_secs(20), self.told.recv()).await;
        next.expect("the observer is told within 20 s")
            .expect("open")
    }

    pub(crate) fn send(&self, message: SinkMessage) {
        self.actor.cast(message).expect("the actor lives");
    }
}
