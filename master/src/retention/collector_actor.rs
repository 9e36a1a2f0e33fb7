//! The collector: looks at storage from time to time, folds the log into a boundary, deletes what nothing needs.
//!
//! Child of the master's supervisor, which it tells how much each job uses. One look at a time, in a task; the actor itself only
//! waits. What a look believes comes from storage alone, so that of two masters that both look neither can do harm: keys first, then the
//! log to its end, then [`super::decision`]. Failure: a look that fails deletes nothing and is made again; a log that is not understood is
//! never collected.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use millstream_common::control::StorageUse;
use millstream_common::error::chain;
use millstream_common::ids::{Epoch, Generation, Incarnation, JobName, Seq};
use millstream_common::log::boundary::Boundary;
use millstream_common::log::{LogObject, read_from};
use millstream_common::mutant::{self, Mutant};
use millstream_common::store::StoreRef;
use millstream_common::task::caught;
use millstream_common::time::ClockRef;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::decision::{Life, Needed, keep_boundaries};
use super::held_since::HeldSince;
use super::history::{HistoryError, read_boundary, write_boundary};
use super::letters;
use super::{Looked, Retention};
use crate::letters::index::owner_of;
use crate::replay::{Replay, ReplayedJob};
use crate::supervisor::supervisor_actor::SupervisorMessage;

/// What the collector takes.
pub enum CollectorMessage {
    /// It is time for a look.
    Look,
    /// A look has ended; what it knows comes back.
    Looked(Box<Result<Collector, String>>),
}

/// What a collector begins with.
pub struct CollectorConfig {
    /// What to collect in.
    pub store: StoreRef,
    /// Time.
    pub clock: ClockRef,
    /// What is kept.
    pub retention: Retention,
    /// Told how much jobs use.
    pub supervisor: ActorRef<SupervisorMessage>,
}

/// What is looked through.
const FOLDERS: [&str; 8] = [
    "backlog/",
    "boundary/",
    "letters/",
    "log/",
    "rejects/",
    "replays/",
    "segments/",
    "state/",
];

/// The state of the collector's actor.
pub struct CollectorState {
    config: CollectorConfig,
    /// `None` while a look is under way.
    collector: Option<Collector>,
    tasks: JoinSet<()>,
}

/// The actor.
pub struct CollectorActor;

impl Actor for CollectorActor {
    type Msg = CollectorMessage;
    type State = CollectorState;
    type Arguments = CollectorConfig;

    async fn pre_start(
        &self,
        myself: ActorRef<CollectorMessage>,
        config: CollectorConfig,
    ) -> Result<CollectorState, ActorProcessingErr> {
        drop(myself.send_interval(config.retention.interval, || CollectorMessage::Look));
        Ok(CollectorState {
            collector: Some(Collector::new(&config)),
            config,
            tasks: JoinSet::new(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<CollectorMessage>,
        message: CollectorMessage,
        state: &mut CollectorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            CollectorMessage::Look => state.look(&myself),
            CollectorMessage::Looked(result) => state.looked(*result),
        }
        Ok(())
    }
}

impl CollectorState {
    fn look(&mut self, myself: &ActorRef<CollectorMessage>) {
        while self.tasks.try_join_next().is_some() {}
        let Some(mut collector) = self.collector.take() else {
            return;
        };
        let supervisor = self.config.supervisor.clone();
        let myself = myself.clone();
        self.tasks.spawn(async move {
            let looked = caught(async {
                match collector.look().await {
                    Ok(looked) => {
                        // A supervisor that is gone takes the collector with it.
                        let _ = supervisor.cast(SupervisorMessage::Looked(looked));
                    }
                    Err(error) => {
                        warn!(error = %chain(&error), "look for what can be collected");
                        collector.folded = None;
                    }
                }
                collector
            });
            let result = looked.await.map_err(|panicked| panicked.to_string());
            let _ = myself.cast(CollectorMessage::Looked(Box::new(result)));
        });
    }

    fn looked(&mut self, result: Result<Collector, String>) {
        let collector = result.unwrap_or_else(|cause| {
            warn!(%cause, "the collector begins anew");
            Collector::new(&self.config)
        });
        self.collector = Some(collector);
    }
}

/// What the collector knows of the log.
pub struct Collector {
    pub(super) store: StoreRef,
    pub(super) clock: ClockRef,
    pub(super) retention: Retention,
    /// The log as of the last boundary that this collector knows; `None` before the first look and after one that failed.
    pub(super) folded: Option<Replay>,
    /// The objects behind.
    pub(super) behind: VecDeque<(Seq, LogObject)>,
    /// The log to its end.
    pub(super) latest: Replay,
    pub(super) lives: BTreeMap<Incarnation, Seen>,
}

/// What was seen of one life of a job.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The state of its newest epochs, oldest first. Those from before this master began are not counted.
    checkpoints: VecDeque<(Epoch, BTreeSet<String>)>,
    /// When every sink held which epoch, by monotonic time.
    delivered: HeldSince,
    /// What sinks refused and no Epoch names, with the newest assignment when it was first seen.
    pub(super) unnamed_rejects: BTreeMap<String, Generation>,
}

impl Collector {
    fn new(config: &CollectorConfig) -> Self {
        Self {
            store: config.store.clone(),
            clock: config.clock.clone(),
            retention: config.retention,
            folded: None,
            behind: VecDeque::new(),
            latest: Replay::default(),
            lives: BTreeMap::new(),
        }
    }

    /// Looks once; returns what each job uses afterwards, and what it may forget.
    pub(super) async fn look(&mut self) -> Result<BTreeMap<JobName, Looked>, HistoryError> {
        let mut keys = Vec::new();
        for folder in FOLDERS {
            keys.extend(self.store.list_sized(folder).await?);
        }
        // Only now: see the header of `decision.rs`.
        self.read_on().await?;
        self.see_rejects(&keys);
        let dropped = self.drop_old_letters().await?;
        let mut boundaries: BTreeSet<Boundary> = keys
            .iter()
            .filter_map(|(key, _)| Boundary::from_key(key))
            .collect();
        boundaries.extend(self.fold().await?);
        let needed = self.needed(&boundaries);
        let garbage = needed.garbage(
            keys.iter().map(|(key, _)| key.as_str()),
            self.retention.deletes_max,
        );
        let mut garbage: BTreeSet<String> = garbage.into_iter().map(str::to_owned).collect();
        garbage.extend(dropped);
        if garbage.iter().any(|key| key.starts_with("log/")) {
            self.check_newest(&needed).await?;
        }
        // A page goes behind what it names: where this breaks off, the next look finds the rest by it.
        let (pages, named): (Vec<_>, Vec<_>) =
            garbage.iter().partition(|key| key.starts_with("letters/"));
        for key in named.into_iter().chain(pages) {
            self.store.delete(key).await?;
        }
        if !garbage.is_empty() {
            debug!(count = garbage.len(), "collected");
        }
        keys.retain(|(key, _)| !garbage.contains(key));
        Ok(self.used(&keys))
    }

    async fn read_on(&mut self) -> Result<(), HistoryError> {
        if self.folded.is_none() {
            let newest = Boundary::newest(&self.store).await?;
            let folded = match newest {
                Some(boundary) => {
                    let folded = read_boundary(&self.store, &boundary).await?;
                    let gone = || boundary.broken("it was collected meanwhile".to_owned());
                    folded.ok_or_else(gone)?
                }
                None => Replay::default(),
            };
            self.latest = folded.clone();
            self.folded = Some(folded);
            self.behind.clear();
            self.see();
        }
        for (seq, object) in read_from(&self.store, self.latest.through.next()).await? {
            self.latest.take(seq, &object)?;
            self.behind.push_back((seq, object));
            self.see();
        }
        Ok(())
    }

    /// Notes what the log now says of each job.
    fn see(&mut self) {
        let now = self.clock.monotonic();
        let jobs = &self.latest.jobs;
        self.lives
            .retain(|life, _| jobs.values().any(|job| job.entry.incarnation == *life));
        for job in jobs.values() {
            let seen = self.lives.entry(job.entry.incarnation).or_default();
            seen.note(job, now, &self.retention);
        }
    }

    /// Makes a boundary if enough lies behind the last. The newest objects stay out of it.
    async fn fold(&mut self) -> Result<Option<Boundary>, HistoryError> {
        let kept = self.retention.checkpoints;
        let Some(folded) = &mut self.folded else {
            return Ok(None);
        };
        if self.behind.len() < self.retention.objects_per_boundary + kept {
            return Ok(None);
        }
        let mut next = folded.clone();
        let count = self.behind.len() - kept;
        for (seq, object) in self.behind.iter().take(count) {
            next.take(*seq, object)?;
        }
        for (name, job) in &mut next.jobs {
            let life = job.entry.incarnation;
            let newest = self.latest.jobs.get(name);
            if let Some(newest) = newest.filter(|newest| newest.entry.incarnation == life) {
                // Looks drop at a pace of their own, and a boundary names nothing that they have deleted.
                job.letters.drop_with(&newest.letters);
            }
        }
        let made_at_us = self.clock.unix_micros();
        letters::page(&self.store, &mut next, &mut self.latest).await?;
        let boundary = write_boundary(&self.store, &next, made_at_us).await?;
        *folded = next;
        self.behind.drain(..count);
        Ok(Some(boundary))
    }

    /// Log objects go only while the boundary that stands for them can be read.
    async fn check_newest(&self, needed: &Needed) -> Result<(), HistoryError> {
        if let Some(newest) = needed.boundaries.last() {
            let folded = read_boundary(&self.store, newest).await?;
            folded.ok_or_else(|| newest.broken("it is missing".to_owned()))?;
        }
        Ok(())
    }

    fn needed(&self, boundaries: &BTreeSet<Boundary>) -> Needed {
        let now_us = self.clock.unix_micros();
        let (boundaries, log_floor) = keep_boundaries(boundaries, &self.retention, now_us);
        let lives = self.latest.jobs.values().map(|job| {
            let life = self.life(job);
            (job.entry.incarnation.to_string(), life)
        });
        let log_floor = match mutant::is(Mutant::CollectWithoutBoundary) {
            true => Some(self.latest.through),
            false => log_floor,
        };
        Needed {
            lives: lives.collect(),
            term: self.latest.term,
            log_floor,
            boundaries,
        }
    }

    fn life(&self, job: &ReplayedJob) -> Life {
        let outputs = job.entry.plan.outputs.iter().enumerate();
        let kept_outputs = outputs
            .filter(|(_, output)| owner_of(output).is_some())
            .map(|(index, _)| index.to_string());
        let seen = self.lives.get(&job.entry.incarnation);
        let checkpoints = seen.into_iter().flat_map(|seen| &seen.checkpoints);
        let checkpoints = checkpoints.flat_map(|(_, parts)| parts.clone());
        let savepoints = job.savepoints.values();
        let savepoints = savepoints.flat_map(|savepoint| savepoint.progress.parts.values());
        let savepoints = savepoints.flatten().map(|part| part.path.clone());
        Life {
            head: job.progress.epoch,
            parts: match mutant::is(Mutant::CollectLiveState) {
                true => BTreeSet::new(),
                false => checkpoints.chain(savepoints).collect(),
            },
            forgotten: match mutant::is(Mutant::CollectUnforgotten) {
                true => self.forgettable(job),
                false => job.progress.retained_from,
            },
            kept_outputs: kept_outputs.collect(),
            letters: letters::kept(job, seen.map(|seen| &seen.unnamed_rejects)),
            read_replays: letters::read_replays(job, self.clock.unix_micros()),
            named_replays: letters::named_replays(job),
            unread_replays: letters::unread_replays(job),
        }
    }

    /// What every sink has held for long enough.
    fn forgettable(&self, job: &ReplayedJob) -> Epoch {
        let own = job.entry.plan.settings.segment_retention_ms;
        let retention = own.map_or(self.retention.segments, Duration::from_millis);
        let seen = self.lives.get(&job.entry.incarnation);
        seen.map_or(Epoch(0), |seen| {
            seen.delivered.before(self.clock.monotonic(), retention)
        })
    }

    fn used(&self, keys: &[(String, u64)]) -> BTreeMap<JobName, Looked> {
        let sum = |prefix: String| -> u64 {
            let of_prefix = keys.iter().filter(|(key, _)| key.starts_with(&prefix));
            of_prefix.map(|(_, bytes)| bytes).sum()
        };
        let log_bytes = sum("log/".to_owned()) + sum("boundary/".to_owned());
        let jobs = self.latest.jobs.iter().map(|(name, job)| {
            let life = job.entry.incarnation;
            let used = StorageUse {
                log_bytes,
                state_bytes: sum(format!("state/{life}/")),
                segment_bytes: ["segments", "rejects", "backlog"]
                    .map(|folder| sum(format!("{folder}/{life}/")))
                    .iter()
                    .sum(),
                dead_letter_bytes: job.letters.bytes(),
                dead_letters_dropped: job.letters.dropped_rows,
            };
            let looked = Looked {
                used,
                life,
                forgettable: self.forgettable(job),
            };
            (name.clone(), looked)
        });
        jobs.collect()
    }
}

impl Seen {
    fn note(&mut self, job: &ReplayedJob, now: Duration, retention: &Retention) {
        let epoch = job.progress.epoch;
        if self
            .checkpoints
            .back()
            .is_none_or(|(last, _)| *last < epoch)
        {
            let parts = job.progress.parts.values().flatten();
            let parts = parts.map(|part| part.path.clone()).collect();
            self.checkpoints.push_back((epoch, parts));
            // The head is always kept, whatever was asked for.
            while self.checkpoints.len() > retention.checkpoints.max(1) {
                self.checkpoints.pop_front();
            }
        }
        let own = job.entry.plan.settings.segment_retention_ms;
        let kept = own.map_or(retention.segments, Duration::from_millis);
        self.delivered.note(job.progress.delivered, now, kept);
    }
}
