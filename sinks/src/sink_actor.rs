//! Delivers committed epochs to one sink, at the sink's own pace.
//!
//! Told of each committed epoch by the worker's pipeline; never part of the commit, so a sink that is down stops
//! nobody. Owns the sink, the queue of epochs it lacks (`delivery` decides what comes next), and one task at a
//! time that talks to the sink: the actor itself always answers. Fences before the first run and after every
//! error. Failure: what may pass by itself is tried again with growing pauses; what a person must act on
//! suspends the sink, which looks again every [`SUSPENDED_RETRY`]; a newer deliverer ends this actor quietly; a
//! broken chain or a panic fails it, and with it the pipeline.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use millstream_common::error::Kind;
use millstream_common::ids::{Epoch, OutputIndex, SinkIndex};
use millstream_common::log::backlog::BacklogPart;
use millstream_common::log::entry::CommittedEpoch;
use millstream_common::mutant::{self, Mutant};
use millstream_common::report::Refusal;
use millstream_common::time::ClockRef;
use millstream_common::trace::TraceContext;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tracing::{Instrument, info, info_span};

use arrow::datatypes::SchemaRef;

use crate::delivery::{Delivery, Lacking, Next, backoff};
use crate::left_out::RunSegment;
use crate::refused_rows::{PlacedRow, RefusedRun};
use crate::segment_rows::{SegmentRows, SegmentSource};
use crate::sink::{Applied, Deliverer, EpochRun, Held, Sink, SinkError};

/// How often a suspended sink is tried again: a table that was put right heals by itself.
pub const SUSPENDED_RETRY: Duration = Duration::from_secs(30);

/// Makes the sink; connects to nothing.
pub type SinkFactory = Arc<dyn Fn() -> Result<Box<dyn Sink>, SinkError> + Send + Sync>;

/// Told how a sink fares; the worker's way to the master, metrics and dead letters.
#[async_trait]
pub trait SinkObserver: Send + Sync {
    /// The sink durably holds `marker`; `applied` is what the last run did (nothing, right after
    /// fencing). Ends a trouble.
    fn advanced(&self, marker: Epoch, applied: &Applied);
    /// It was fenced for the first time, by a task that began at monotonic time `begun`.
    fn fenced(&self, _begun: Duration) {}
    /// It has taken these epochs, with so many rows each, as one run that began at monotonic time `begun`.
    fn delivered(&self, _epochs: &[(Epoch, u64)], _begun: Duration) {}
    /// The context under which the run that ends with `last` is delivered, if its trace is kept.
    fn trace(&self, _last: Epoch) -> Option<TraceContext> {
        None
    }
    /// Delivery does not go on for now.
    fn troubled(&self, trouble: &Trouble);
    /// Stores refused rows of the run that ends with `last` as dead letters.
    async fn keep(&self, last: Epoch, rows: &[PlacedRow]) -> Result<Refusal, SinkError>;
    /// The rows of `refusal` are to be named by the next Epoch. Said again until one does.
    fn refused(&self, refusal: &Refusal);
}

/// Why delivery does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Who has to act.
    pub kind: Kind,
    /// The whole cause.
    pub cause: String,
    /// What happens next.
    pub state: TroubleState,
}

/// What happens after a failed try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleState {
    /// Tried again soon.
    Retrying,
    /// A person has to act; looked at again every [`SUSPENDED_RETRY`].
    Suspended,
}

/// What a sink actor starts with.
pub struct SinkArguments {
    /// Whose deliverer it is.
    pub deliverer: Deliverer,
    /// Its number in the plan.
    pub sink: SinkIndex,
    /// The output it reads.
    pub output: OutputIndex,
    /// The output's columns, then `_op`.
    pub schema: SchemaRef,
    /// Makes the sink.
    pub factory: SinkFactory,
    /// Reads segments.
    pub segments: Arc<dyn SegmentSource>,
    /// Epochs the sink may lack.
    pub lacking: Lacking,
    /// Touches nothing until [`SinkMessage::Resume`].
    pub is_paused: bool,
    /// Measures how long epochs wait.
    pub clock: ClockRef,
    /// Told how it goes.
    pub observer: Arc<dyn SinkObserver>,
}

/// What a sink actor is told.
#[derive(Debug)]
pub enum SinkMessage {
    /// The next epoch of the job's chain is in the log.
    EpochCommitted(CommittedEpoch),
    /// Epochs that may wait here are in storage by now.
    Folded(BacklogPart),
    /// Deliver nothing until `Resume`; a run under way is finished.
    Pause,
    /// Deliver again.
    Resume,
    /// Deliver what waits now, without gathering: the job is being stopped.
    Flush,
    /// Look what is due: a timer of this actor has passed.
    Deliver,
    /// The task of this actor has ended.
    Delivered(TaskEnd),
}

/// What the one task of a sink actor comes back with.
pub struct TaskEnd {
    /// The sink, unless it could not be made.
    sink: Option<Box<dyn Sink>>,
    outcome: Outcome,
}

impl std::fmt::Debug for TaskEnd {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.outcome.fmt(formatter)
    }
}

#[derive(Debug)]
enum Outcome {
    Fenced(Held),
    Loaded(BacklogPart, Vec<CommittedEpoch>),
    Applied(EpochRun, Applied),
    Failed(SinkError),
    Panicked,
}

/// Delivers to one sink.
pub struct SinkActor;

/// What a sink actor owns.
pub struct SinkState {
    arguments: SharedArguments,
    delivery: Delivery,
    /// `None` while the task has it, and before it was made.
    sink: Option<Box<dyn Sink>>,
    /// The sink's task and timer; dropped with the actor.
    tasks: JoinSet<()>,
    timer: Option<AbortHandle>,
    activity: Activity,
    /// When the last task began, monotonic.
    begun: Duration,
    is_paused: bool,
    /// Failed tries since the last success.
    attempt: u32,
    /// The marker that the observer knows. A sink that is fenced again and holds what it held is not
    /// news while epochs wait: the trouble may go on.
    reported: Option<Epoch>,
    /// The attempt that the newest Epoch with refused rows of this sink names.
    recorded: watch::Sender<Option<String>>,
}

/// The parts of [`SinkArguments`] that last.
struct SharedArguments {
    deliverer: Deliverer,
    index: SinkIndex,
    schema: SchemaRef,
    factory: SinkFactory,
    segments: Arc<dyn SegmentSource>,
    clock: ClockRef,
    observer: Arc<dyn SinkObserver>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activity {
    /// May start a task.
    Free,
    /// A task is under way.
    Busy,
    /// After a failure, until the timer.
    Resting,
}

impl Actor for SinkActor {
    type Msg = SinkMessage;
    type State = SinkState;
    type Arguments = SinkArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<SinkMessage>,
        arguments: SinkArguments,
    ) -> Result<SinkState, ActorProcessingErr> {
        let now = arguments.clock.monotonic();
        let delivery = Delivery::new(arguments.sink, arguments.output, arguments.lacking, now)?;
        myself.cast(SinkMessage::Deliver)?;
        Ok(SinkState {
            arguments: SharedArguments {
                deliverer: arguments.deliverer,
                index: arguments.sink,
                schema: arguments.schema,
                factory: arguments.factory,
                segments: arguments.segments,
                clock: arguments.clock,
                observer: arguments.observer,
            },
            delivery,
            sink: None,
            tasks: JoinSet::new(),
            timer: None,
            activity: Activity::Free,
            begun: now,
            is_paused: arguments.is_paused,
            attempt: 0,
            reported: None,
            recorded: watch::Sender::new(None),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<SinkMessage>,
        message: SinkMessage,
        state: &mut SinkState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SinkMessage::EpochCommitted(committed) => state.committed(committed)?,
            SinkMessage::Folded(part) => state.delivery.folded(part),
            SinkMessage::Pause => state.is_paused = true,
            SinkMessage::Resume => state.resume(),
            SinkMessage::Flush => state.delivery.hurry(),
            SinkMessage::Deliver => state.timer_passed(),
            SinkMessage::Delivered(end) => state.task_ended(&myself, end)?,
        }
        state.go_on(&myself);
        Ok(())
    }
}

impl SinkState {
    fn committed(&mut self, committed: CommittedEpoch) -> Result<(), ActorProcessingErr> {
        let mut refused = committed.refused.iter();
        let own = refused.find(|refused| refused.sink == self.arguments.index);
        let attempt = own.map(|refused| refused.attempt.clone());
        let now = self.arguments.clock.monotonic();
        self.delivery.committed(committed, now)?;
        if attempt.is_some() {
            self.recorded.send_replace(attempt);
        }
        Ok(())
    }

    /// Starts whatever is due, if nothing is under way.
    fn go_on(&mut self, myself: &ActorRef<SinkMessage>) {
        while self.tasks.try_join_next().is_some() {}
        if self.is_paused || self.activity != Activity::Free {
            return;
        }
        let now = self.arguments.clock.monotonic();
        let next = match &self.sink {
            None => Next::Fence,
            Some(sink) => self.delivery.next(sink.cadence(), now),
        };
        match next {
            Next::Idle => {}
            Next::Wait(pause) => self.wake_after(myself, pause),
            Next::Fence => self.start_fence(myself),
            Next::Load(part) => self.start_load(myself, part),
            Next::Apply(run, segments) => self.start_apply(myself, run, segments),
        }
    }

    fn start_fence(&mut self, myself: &ActorRef<SinkMessage>) {
        let sink = self.sink.take();
        let factory = self.arguments.factory.clone();
        let span = info_span!("fence", sink = %self.arguments.deliverer.sink);
        let work = async move {
            let mut sink = match sink.map_or_else(|| factory(), Ok) {
                Ok(sink) => sink,
                Err(error) => return (None, Outcome::Failed(error)),
            };
            let outcome = match sink.fence().await {
                Ok(held) => Outcome::Fenced(held),
                Err(error) => Outcome::Failed(error),
            };
            (Some(sink), outcome)
        };
        self.start_task(myself, work.instrument(span));
    }

    fn start_load(&mut self, myself: &ActorRef<SinkMessage>, part: BacklogPart) {
        let sink = self.sink.take();
        let segments = self.arguments.segments.clone();
        let work = async move {
            let outcome = match segments.read_backlog(&part).await {
                Ok(epochs) => Outcome::Loaded(part, epochs),
                Err(error) => Outcome::Failed(error),
            };
            (sink, outcome)
        };
        self.start_task(myself, work);
    }

    fn start_apply(
        &mut self,
        myself: &ActorRef<SinkMessage>,
        run: EpochRun,
        segments: Vec<RunSegment>,
    ) {
        let Some(mut sink) = self.sink.take() else {
            return;
        };
        let rows = SegmentRows::new(
            self.arguments.schema.clone(),
            segments.clone(),
            self.arguments.segments.clone(),
        )
        .traced(self.arguments.observer.trace(run.last));
        let rejects = RefusedRun {
            segments,
            observer: self.arguments.observer.clone(),
            recorded: self.recorded.subscribe(),
        };
        let name = &self.arguments.deliverer.sink;
        let span = info_span!("sinks", sink = %name, epoch = %run.last, rows = run.row_count);
        let work = async move {
            if run.row_count == 0 && mutant::is(Mutant::AcknowledgeEmptyEpoch) {
                return (Some(sink), Outcome::Applied(run, Applied::default()));
            }
            let outcome = match sink.apply(&run, &rows, &rejects).await {
                Ok(applied) => Outcome::Applied(run, applied),
                Err(SinkError::Unavailable { .. }) if mutant::is(Mutant::TakeUnknownForApplied) => {
                    Outcome::Applied(run, Applied::default())
                }
                Err(error) => Outcome::Failed(error),
            };
            (Some(sink), outcome)
        };
        self.start_task(myself, work.instrument(span));
    }

    fn start_task(
        &mut self,
        myself: &ActorRef<SinkMessage>,
        work: impl Future<Output = (Option<Box<dyn Sink>>, Outcome)> + Send + 'static,
    ) {
        self.activity = Activity::Busy;
        self.begun = self.arguments.clock.monotonic();
        self.cancel_timer();
        let myself = myself.clone();
        self.tasks.spawn(async move {
            let ended = AssertUnwindSafe(work).catch_unwind().await;
            let (sink, outcome) = ended.unwrap_or((None, Outcome::Panicked));
            let end = TaskEnd { sink, outcome };
            // The actor may have been stopped meanwhile; then nobody waits for the end.
            let _ = myself.cast(SinkMessage::Delivered(end));
        });
    }

    fn task_ended(
        &mut self,
        myself: &ActorRef<SinkMessage>,
        end: TaskEnd,
    ) -> Result<(), ActorProcessingErr> {
        self.activity = Activity::Free;
        self.sink = end.sink;
        let result = match end.outcome {
            Outcome::Fenced(held) => {
                if self.reported.is_none() {
                    self.arguments.observer.fenced(self.begun);
                }
                let fenced = self.delivery.fenced(held);
                fenced.map(|marker| self.fenced(marker))
            }
            Outcome::Loaded(part, epochs) => {
                let now = self.arguments.clock.monotonic();
                let loaded = self.delivery.loaded(&part, epochs, now);
                loaded.map(|marker| self.fenced(marker))
            }
            Outcome::Applied(run, applied) => {
                self.attempt = 0;
                let epochs = self.delivery.run_up_to(run.last);
                self.arguments.observer.delivered(&epochs, self.begun);
                self.delivery.applied(run.last);
                self.report(run.last, &applied);
                Ok(())
            }
            Outcome::Failed(error) => Err(error),
            Outcome::Panicked => {
                return Err(format!("sink {} panicked", self.arguments.deliverer.sink).into());
            }
        };
        if let Err(error) = result {
            self.recover(myself, &error);
        }
        Ok(())
    }

    /// The marker is known, unless a part of the backlog has to be read first.
    fn fenced(&mut self, marker: Option<Epoch>) {
        let Some(marker) = marker else {
            return;
        };
        info!(sink = %self.arguments.deliverer.sink, %marker, "sink fenced");
        if self.reported != Some(marker) || self.delivery.head() == marker {
            self.report(marker, &Applied::default());
        }
    }

    fn report(&mut self, marker: Epoch, applied: &Applied) {
        self.reported = Some(marker);
        self.arguments.observer.advanced(marker, applied);
    }

    /// A person asks to go on: a suspended sink is tried now, not at its next turn.
    fn resume(&mut self) {
        self.is_paused = false;
        if self.activity == Activity::Resting {
            self.activity = Activity::Free;
        }
    }

    fn recover(&mut self, myself: &ActorRef<SinkMessage>, error: &SinkError) {
        self.delivery.failed();
        self.activity = Activity::Resting;
        let sink = &self.arguments.deliverer.sink;
        let (state, pause) = match error {
            SinkError::Fenced { newer } => {
                info!(%sink, %newer, "a newer deliverer has taken over");
                myself.stop(Some("fenced".to_owned()));
                return;
            }
            SinkError::Unavailable { .. } => {
                self.attempt = self.attempt.saturating_add(1);
                let seed = self.arguments.clock.unix_micros().unsigned_abs();
                (TroubleState::Retrying, backoff(self.attempt, seed))
            }
            SinkError::Refused { .. } | SinkError::MarkerMismatch { .. } => {
                self.delivery.refused();
                (TroubleState::Suspended, SUSPENDED_RETRY)
            }
        };
        // The observer logs it: it knows the job.
        self.arguments.observer.troubled(&Trouble {
            kind: error.kind(),
            cause: error.to_string(),
            state,
        });
        self.wake_after(myself, pause);
    }

    fn timer_passed(&mut self) {
        self.timer = None;
        if self.activity == Activity::Resting {
            self.activity = Activity::Free;
        }
    }

    fn wake_after(&mut self, myself: &ActorRef<SinkMessage>, pause: Duration) {
        /// Below this a timer that is a little early would spin.
        const PAUSE_MIN: Duration = Duration::from_millis(1);
        self.cancel_timer();
        let myself = myself.clone();
        let timer = self.tasks.spawn(async move {
            tokio::time::sleep(pause.max(PAUSE_MIN)).await;
            // The actor may have been stopped meanwhile; then nothing is due.
            let _ = myself.cast(SinkMessage::Deliver);
        });
        self.timer = Some(timer);
    }

    fn cancel_timer(&mut self) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
    }
}
