//! The one writer of the log: appends entries in order, several to an object while one is in flight.
//!
//! Sent to by job actors and the supervisor; answers each entry through the callback it came with. Owns the next
//! free position and this master's term. Keeps INV-1 and INV-4 together with the create-only store: at most one append is
//! in flight, and an object of a newer term found in its way ends this master.
//! Failure: storage that does not answer is tried again for ever with backoff (the reason is visible in
//! the trouble callback); a newer term or a broken object stops the actor, and with it the master.

use std::sync::Arc;
use std::time::Duration;

use millstream_common::error::chain;
use millstream_common::ids::{Seq, Term};
use millstream_common::log::{self, Appended, Entry, LogObject};
use millstream_common::store::StoreRef;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::task::JoinSet;

/// Told the position of the object that holds the entry, once it is durable.
pub type OnWritten = Box<dyn FnOnce(Seq) + Send>;

/// Told why the log cannot be written at the moment; `None` when it can again.
pub type OnTrouble = Arc<dyn Fn(Option<String>) + Send + Sync>;

/// Most entries in one object: bounds its size.
const ENTRIES_PER_OBJECT_MAX: usize = 64;
const RETRY_DELAY_MIN: Duration = Duration::from_millis(100);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

/// What the log actor takes.
pub enum LogMessage {
    /// Write this entry after all earlier ones.
    Append {
        /// What happened.
        entry: Box<Entry>,
        /// Told once it is durable.
        on_written: OnWritten,
    },
    /// The append in flight has come to an end.
    Finished(Result<Landed, Stopped>),
}

/// An append that took its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Landed {
    seq: Seq,
}

/// Why this master may not write any more.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// Another master has begun a later reign.
    #[error("a newer master reigns (term {newer}, ours is {ours}); this one ends")]
    Fenced {
        /// The other's term.
        newer: Term,
        /// Ours.
        ours: Term,
    },
    /// The log holds what no master wrote.
    #[error(transparent)]
    Log(log::Error),
}

/// Where the log actor begins.
pub struct LogConfig {
    /// Where the log lives.
    pub store: StoreRef,
    /// This master's reign; its Fence entry is already in the log.
    pub term: Term,
    /// The first free position.
    pub next: Seq,
    /// Told of trouble.
    pub on_trouble: OnTrouble,
}

/// The state of the log actor.
pub struct LogState {
    config: LogConfig,
    waiting: Vec<(Entry, OnWritten)>,
    /// Callbacks of the entries in flight; empty while nothing is.
    in_flight: Vec<OnWritten>,
    tasks: JoinSet<()>,
}

/// The actor.
pub struct LogActor;

impl Actor for LogActor {
    type Msg = LogMessage;
    type State = LogState;
    type Arguments = LogConfig;

    async fn pre_start(
        &self,
        _: ActorRef<LogMessage>,
        config: LogConfig,
    ) -> Result<LogState, ActorProcessingErr> {
        Ok(LogState {
            config,
            waiting: Vec::new(),
            in_flight: Vec::new(),
            tasks: JoinSet::new(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<LogMessage>,
        message: LogMessage,
        state: &mut LogState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            LogMessage::Append { entry, on_written } => state.waiting.push((*entry, on_written)),
            LogMessage::Finished(result) => state.finish(result?),
        }
        state.begin(&myself);
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<LogMessage>,
        event: SupervisionEvent,
        _: &mut LogState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => Ok(()),
            SupervisionEvent::ActorTerminated(child, _, _)
            | SupervisionEvent::ActorFailed(child, _) => Err(format!(
                "the log actor has no children, but {} ended",
                child.get_id()
            )
            .into()),
        }
    }
}

impl LogState {
    fn finish(&mut self, landed: Landed) {
        self.config.next = landed.seq.next();
        for on_written in self.in_flight.drain(..) {
            on_written(landed.seq);
        }
    }

    /// Starts the next append, if none is in flight and something waits.
    fn begin(&mut self, myself: &ActorRef<LogMessage>) {
        if !self.in_flight.is_empty() || self.waiting.is_empty() {
            return;
        }
        while self.tasks.try_join_next().is_some() {}
        let count = self.waiting.len().min(ENTRIES_PER_OBJECT_MAX);
        let (entries, callbacks) = self.waiting.drain(..count).unzip();
        self.in_flight = callbacks;
        let object = LogObject {
            term: self.config.term,
            nonce: millstream_common::ids::nonce(),
            entries,
        };
        let store = self.config.store.clone();
        let on_trouble = self.config.on_trouble.clone();
        let next = self.config.next;
        let myself = myself.clone();
        self.tasks.spawn(async move {
            let result = append_until_settled(&store, next, &object, &on_trouble).await;
            // The actor outlives its tasks: they are in its state.
            let _ = myself.cast(LogMessage::Finished(result));
        });
    }
}

/// Appends `object` at the first position from `seq` on that takes it. Ends only with a place or with
/// the proof that this master may not write.
pub async fn append_until_settled(
    store: &StoreRef,
    mut seq: Seq,
    object: &LogObject,
    on_trouble: &OnTrouble,
) -> Result<Landed, Stopped> {
    let mut delay = RETRY_DELAY_MIN;
    loop {
        match log::append(store, seq, object).await {
            Ok(Appended::Written) => {
                on_trouble(None);
                return Ok(Landed { seq });
            }
            Ok(Appended::Taken(other)) if other.term > object.term => {
                return Err(Stopped::Fenced {
                    newer: other.term,
                    ours: object.term,
                });
            }
            // An older master was still at it: its object does not count, ours goes behind it.
            Ok(Appended::Taken(_)) => seq = seq.next(),
            Err(log::Error::Store(error)) => {
                on_trouble(Some(chain(&error)));
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(RETRY_DELAY_MAX);
            }
            Err(error @ log::Error::Broken { .. }) => return Err(Stopped::Log(error)),
        }
    }
}

impl Landed {
    /// Where the object stands.
    pub fn seq(self) -> Seq {
        self.seq
    }
}
