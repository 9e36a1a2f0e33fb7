//! The one writer of the log: appends entries in order, several to an object while one is in flight.
//!
//! Sent to by job actors and the supervisor; answers each entry through the callback it came with. Owns the next
//! free position and this master's term. Keeps INV-1 and INV-4 together with the create-only store: at most one append is
//! in flight, and an object of a newer term found in its way ends this master.
//! Failure: storage that does not answer is tried again for ever with backoff (the reason is visible in
//! the trouble callback); another master's object of this term or a newer one, a broken object or a panic of the append
//! stops the actor, and with it this reign.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use millstream_common::error::chain;
use millstream_common::ids::{JobName, Seq, Term};
use millstream_common::log::{self, Appended, Entry, LogObject};
use millstream_common::mutant::{self, Mutant};
use millstream_common::store::StoreRef;
use millstream_common::task::{Panicked, caught};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, SupervisionEvent};
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
    /// Answered once every entry taken before this is durable.
    Flush(RpcReplyPort<()>),
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
    /// Another master writes under our term or a later one.
    #[error("another master reigns (term {theirs}, ours is {ours}); this one writes no more")]
    Fenced {
        /// The other's term.
        theirs: Term,
        /// Ours.
        ours: Term,
    },
    /// The log went on without this master for so long that its position was collected.
    #[error("the log has been collected past position {seq} while this master slept; it ends")]
    Collected {
        /// Where it wanted to append.
        seq: Seq,
    },
    /// The log holds what no master wrote.
    #[error(transparent)]
    Log(log::Error),
    /// The append ended in a defect; whether it landed is unknown.
    #[error("append to the log: {0}")]
    Panicked(#[from] Panicked),
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
    /// Entries taken so far, and how many of them are durable.
    taken_count: u64,
    durable_count: u64,
    /// Who waits until as many entries are durable.
    flushes: Vec<(u64, RpcReplyPort<()>)>,
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
            taken_count: 0,
            durable_count: 0,
            flushes: Vec::new(),
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
            LogMessage::Append { entry, on_written } => state.take(*entry, on_written),
            LogMessage::Flush(reply) => state.flush(reply),
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
    fn take(&mut self, entry: Entry, on_written: OnWritten) {
        self.taken_count += 1;
        self.waiting.push((entry, on_written));
    }

    fn flush(&mut self, reply: RpcReplyPort<()>) {
        self.flushes.push((self.taken_count, reply));
        self.answer_flushes();
    }

    fn finish(&mut self, landed: Landed) {
        self.config.next = landed.seq.next();
        for on_written in self.in_flight.drain(..) {
            self.durable_count += 1;
            on_written(landed.seq);
        }
        self.answer_flushes();
    }

    fn answer_flushes(&mut self) {
        let durable_count = self.durable_count;
        for (_, reply) in self
            .flushes
            .extract_if(.., |(count, _)| *count <= durable_count)
        {
            // Whoever has stopped waiting needs no answer.
            let _ = reply.send(());
        }
    }

    /// Starts the next append, if none is in flight and something waits.
    fn begin(&mut self, myself: &ActorRef<LogMessage>) {
        if !self.in_flight.is_empty() || self.waiting.is_empty() {
            return;
        }
        while self.tasks.try_join_next().is_some() {}
        let count = object_length(self.waiting.iter().map(|(entry, _)| entry));
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
            let appended = caught(append_until_settled(&store, next, &object, &on_trouble)).await;
            let result = appended.map_err(Stopped::from).flatten();
            // The actor outlives its tasks: they are in its state.
            let _ = myself.cast(LogMessage::Finished(result));
        });
    }
}

/// How many of the entries that wait go into the next object. The position of an assignment is the number of its generation, and that of an
/// entry which sends a sink back tells which generations know of it (INV-4): so an assignment stands in an object behind those of its job.
fn object_length<'a>(waiting: impl Iterator<Item = &'a Entry>) -> usize {
    let mut numbered: BTreeSet<&JobName> = BTreeSet::new();
    let fit = waiting
        .take(ENTRIES_PER_OBJECT_MAX)
        .take_while(|entry| match entry {
            Entry::Assign(assign) => numbered.insert(&assign.job),
            Entry::SinkRewound { job, .. } => {
                numbered.insert(job);
                true
            }
            _ => true,
        });
    fit.count()
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
            Ok(Appended::Collected) => return Err(Stopped::Collected { seq }),
            // An object of our own term that is not ours is another's who took the same term: it was there first.
            Ok(Appended::Taken(other)) if is_fence(other.term, object.term) => {
                return Err(Stopped::Fenced {
                    theirs: other.term,
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

fn is_fence(theirs: Term, ours: Term) -> bool {
    match theirs.cmp(&ours) {
        Ordering::Less => false,
        Ordering::Equal => !mutant::is(Mutant::IgnoreEqualTerm),
        Ordering::Greater => !mutant::is(Mutant::IgnoreNewerTerm),
    }
}

impl Landed {
    /// Where the object stands.
    pub fn seq(self) -> Seq {
        self.seq
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{self, AtomicBool};

    use millstream_common::ids::{Epoch, Incarnation, SinkIndex};
    use millstream_common::log::entry::{AssignEntry, Assignment};
    use ractor::ActorStatus;

    use super::*;
    use crate::testing::{Answers, MemoryStore, soon};

    fn config(store: Arc<MemoryStore>) -> LogConfig {
        LogConfig {
            store,
            term: Term(3),
            next: Seq(1),
            on_trouble: Arc::new(|_| {}),
        }
    }

    fn object(term: u64, nonce: &str) -> LogObject {
        LogObject {
            term: Term(term),
            nonce: nonce.to_owned(),
            entries: Vec::new(),
        }
    }

    fn append(on_written: OnWritten) -> LogMessage {
        let ended = Entry::Ended {
            job: JobName::from("clicks"),
            incarnation: millstream_common::ids::Incarnation::fresh(),
            end: millstream_common::log::entry::JobEnd::Stopped,
        };
        LogMessage::Append {
            entry: Box::new(ended),
            on_written,
        }
    }

    async fn settle(ours: u64, theirs: u64) -> Result<Landed, Stopped> {
        let store: StoreRef = Arc::new(MemoryStore::default());
        let taken = log::append(&store, Seq(1), &object(theirs, "theirs")).await;
        assert_eq!(taken.expect("append"), Appended::Written);
        let quiet: OnTrouble = Arc::new(|_| {});
        append_until_settled(&store, Seq(1), &object(ours, "ours"), &quiet).await
    }

    #[tokio::test]
    async fn another_masters_object_of_our_own_term_fences_us_as_a_later_one_does() {
        for theirs in [2, 3] {
            let stopped = settle(2, theirs)
                .await
                .expect_err("another was there first");
            assert!(matches!(stopped, Stopped::Fenced { .. }), "{stopped:?}");
        }
        assert_eq!(settle(2, 1).await.expect("an older term").seq(), Seq(2));
    }

    #[test]
    fn no_two_generations_of_a_job_have_one_number_and_none_that_of_a_rewind_it_knows_of() {
        let incarnation = Incarnation::fresh();
        let assign = |job: &str| {
            Entry::Assign(Box::new(AssignEntry {
                job: job.into(),
                incarnation,
                restore_from: Epoch(0),
                assignment: Assignment::default(),
                placement: None,
            }))
        };
        let rewound = |job: &str| Entry::SinkRewound {
            job: job.into(),
            incarnation,
            sink: SinkIndex(0),
            to: Epoch(1),
        };
        let length = |entries: &[Entry]| object_length(entries.iter());
        assert_eq!(length(&[assign("a"), assign("b"), assign("a")]), 2);
        assert_eq!(length(&[rewound("a"), assign("b"), assign("a")]), 2);
        // The generation does not know of what comes behind it.
        assert_eq!(length(&[assign("a"), rewound("a"), rewound("a")]), 3);
        let many: Vec<Entry> = (0..100).map(|_| rewound("a")).collect();
        assert_eq!(length(&many), ENTRIES_PER_OBJECT_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flush_is_answered_when_what_was_taken_before_it_is_durable() {
        let store = Arc::new(MemoryStore::default());
        store.answer(Answers::None);
        let (log, _) = Actor::spawn(None, LogActor, config(store.clone()))
            .await
            .expect("spawn");
        let is_durable = Arc::new(AtomicBool::new(false));
        for is_last in [false, true] {
            let told = is_durable.clone();
            let on_written: OnWritten =
                Box::new(move |_| told.store(is_last, atomic::Ordering::Relaxed));
            log.cast(append(on_written)).expect("cast");
        }
        let flush = log.call(LogMessage::Flush, None);
        tokio::pin!(flush);
        let early = tokio::time::timeout(Duration::from_secs(3), &mut flush).await;
        assert!(
            early.is_err(),
            "nothing is durable while storage does not answer"
        );
        store.answer(Answers::All);
        soon(flush).await.expect("call").unwrap();
        assert!(is_durable.load(atomic::Ordering::Relaxed));
        soon(log.call(LogMessage::Flush, None))
            .await
            .expect("call")
            .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_of_an_append_ends_the_actor() {
        let store = Arc::new(MemoryStore::default());
        store.panic_at_create();
        let (log, ended) = Actor::spawn(None, LogActor, config(store))
            .await
            .expect("spawn");
        log.cast(append(Box::new(|_| {}))).expect("cast");
        soon(ended).await.expect("join");
        assert_eq!(log.get_status(), ActorStatus::Stopped);
    }
}
