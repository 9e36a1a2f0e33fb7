//! What the model's processes, log and sinks are at one moment. Plain data; `Copy`, for millions are made.
//!
//! Only what can still make a difference is kept, and numbers only as far as they are compared: epochs are counted from the one that
//! the slowest sink holds, generations by rank, terms from the newest. So the states are finitely many although
//! runs have no end: any number of crashes, reigns and epochs (`normal.rs`).

/// The number of masters, workers, splits and sinks.
pub const PAIR: usize = 2;

/// The newest term in a normalised state. An older one is `NEWEST - 1`, one that is not in the log yet `NEWEST + 1`.
pub const NEWEST: u8 = 2;

/// Everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// What replaying the log says.
    pub log: Log,
    /// A create that a master sent before it ended, and that may still arrive while its position is free.
    pub late: Option<Late>,
    /// The masters; `None` has no reign.
    pub masters: [Option<Reign>; PAIR],
    /// The workers.
    pub workers: [Worker; PAIR],
    /// The sinks: the first applies as Postgres does, the second as Kafka.
    pub sinks: [SinkStore; PAIR],
    /// What must never have happened.
    pub wrong: Wrong,
}

/// What replaying the log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Log {
    /// The newest Fence entry.
    pub term: u8,
    /// The newest Assign entry.
    pub generation: u8,
    /// The last Epoch entry of the chain.
    pub head: u8,
}

/// A create without a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Late {
    /// Of a Fence entry.
    Fence,
    /// Of the Epoch entry that follows the head.
    Epoch,
}

/// What has happened and must not, by invariant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wrong {
    /// INV-1: two epochs name one parent.
    pub forked: bool,
    /// INV-1: a master was told that its epoch is written, and the chain does not hold it.
    pub lost_commit: bool,
    /// INV-2: a sink got rows that the log does not hold.
    pub unrecorded: bool,
    /// INV-3: a sink got an epoch twice, or left one out.
    pub not_a_prefix: bool,
    /// INV-4: a deliverer changed a sink that a newer one had fenced.
    pub stale_delivery: bool,
    /// INV-4: an object of an old term stands behind a newer one.
    pub stale_object: bool,
    /// INV-5: an epoch's positions do not begin where those of its parent end.
    pub gap: bool,
}

/// A master that reigns, or is about to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reign {
    /// Its term.
    pub term: u8,
    /// Where the job stands.
    pub phase: Phase,
    /// The generation of the newest assignment; 0 is none.
    pub generation: u8,
    /// The last committed epoch that it knows of.
    pub head: u8,
    /// Workers with a living link, as bits.
    pub joined: u8,
    /// Workers that the assignment counts on.
    pub sessions: u8,
    /// Workers that have reported the epoch behind `head`.
    pub reported: u8,
    /// A report did not begin at `head`.
    pub gap: bool,
    /// What became of the create that is on its way; `Idle` while none is.
    pub append: Append,
}

/// A create of a log object, as its master and the storage see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Append {
    /// None is on its way.
    Idle,
    /// Sent, without effect so far: it may fail and be sent again.
    Sent,
    /// The object stands in the log with this master's nonce, and the master does not know.
    Landed,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// The Fence entry is on its way into the log.
    Fencing,
    /// For workers, or for the answer to an Epoch entry.
    Waiting,
    /// The Assign entry is in the log; the workers in the bits have not answered.
    Deploying(u8),
    /// Epoch after epoch.
    Running,
}

/// A worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Worker {
    /// The master it has dialled; whether that one still knows of it is in [`Reign::joined`].
    pub link: Option<u8>,
    /// What it runs.
    pub pipeline: Option<Pipeline>,
}

/// The tasks and deliverers of one generation on one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pipeline {
    /// The generation.
    pub generation: u8,
    /// The epoch it began with.
    pub restored: u8,
    /// Its splits, as bits.
    pub splits: u8,
    /// How far each of its splits is read, a row an epoch; also what its state holds.
    pub positions: [u8; PAIR],
    /// The last epoch that it has reported.
    pub reported: u8,
    /// The deliverers of the sinks placed here.
    pub deliverers: [Deliverer; PAIR],
}

/// Who delivers to a sink. Its token is the generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Deliverer {
    /// Not here, or refused by the sink.
    #[default]
    None,
    /// Knows nothing of the sink.
    Unfenced,
    /// Has read the marker and not fenced (only a planted mistake comes here).
    Read(u8),
    /// Has fenced the sink and then found this marker.
    Fenced(u8),
}

/// The target of a sink. What it holds is the chain up to its marker; anything else is [`Wrong`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SinkStore {
    /// The greatest token that has fenced it.
    pub token: u8,
    /// The last epoch in it.
    pub marker: u8,
}

/// The bit of process `index`.
pub fn bit(index: u8) -> u8 {
    1 << index
}

impl State {
    /// The first master reigns, both workers have joined, nothing else has happened.
    pub fn first() -> Self {
        let mut reign = Reign::begin(NEWEST, 0, Phase::Waiting);
        reign.joined = bit(0) | bit(1);
        let worker = Worker {
            link: Some(0),
            pipeline: None,
        };
        Self {
            log: Log {
                term: NEWEST,
                generation: 0,
                head: 0,
            },
            late: None,
            masters: [Some(reign), None],
            workers: [worker; PAIR],
            sinks: [SinkStore::default(); PAIR],
            wrong: Wrong::default(),
        }
    }

    /// The master that `worker` has a living link to.
    pub fn master_of(&self, worker: u8) -> Option<u8> {
        let master = self.workers[worker as usize].link?;
        let reign = self.masters[master as usize].as_ref()?;
        (reign.joined & bit(worker) != 0).then_some(master)
    }

    /// A newer master has fenced `reign`, whether it knows or not.
    pub fn is_stale(&self, reign: &Reign) -> bool {
        reign.term < self.log.term
    }

    /// Whether the pipeline's tasks can still come to something: its generation runs, and its link lives.
    pub fn works(&self, worker: u8, pipeline: &Pipeline) -> bool {
        let reign = self
            .master_of(worker)
            .and_then(|master| self.masters[master as usize]);
        reign.is_some_and(|reign| {
            reign.generation == pipeline.generation
                && !self.is_stale(&reign)
                && matches!(reign.phase, Phase::Deploying(_) | Phase::Running)
        })
    }
}

impl Reign {
    /// A reign of `term` that has read the log up to epoch `head`.
    pub fn begin(term: u8, head: u8, phase: Phase) -> Self {
        Self {
            term,
            phase,
            generation: 0,
            head,
            joined: 0,
            sessions: 0,
            reported: 0,
            gap: false,
            append: Append::Idle,
        }
    }

    /// An Epoch entry is on its way.
    pub fn is_committing(&self) -> bool {
        self.append != Append::Idle && self.phase != Phase::Fencing
    }

    /// Ends the generation: no report of it counts any more. An entry on its way stays on its way.
    pub fn abandon(&mut self) {
        self.phase = Phase::Waiting;
        self.sessions = 0;
        self.reported = 0;
    }

    /// Whether `worker` has split and sink `index`: its own if that worker is there, else the other's too.
    pub fn owns(&self, worker: u8, index: u8) -> bool {
        if self.sessions & bit(index) != 0 {
            worker == index
        } else {
            self.sessions & bit(worker) != 0
        }
    }
}
