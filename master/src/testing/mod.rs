//! What tests of the master share: storage in memory that can be held up, and workers that answer as they are told.

mod kept_spans;
mod told_log;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use millstream_common::blocking::ThreadPool;
use millstream_common::ids::{Epoch, Generation, Seq, SinkIndex, SourceIndex, Term, WorkerId};
use millstream_common::link::{
    BarrierCommand, Deploy, Held, JobGeneration, ToMaster, ToWorker, WorkerHello,
};
use millstream_common::log::backlog::RECENT_WEIGHT_MAX;
use millstream_common::log::entry::{JobEntry, JobProgress};
use millstream_common::log::savepoint::Savepoints;
use millstream_common::log::{self, Entry};
use millstream_common::plan::JobPlan;
use millstream_common::report::{PipelineReport, RowCounters};
use millstream_common::secret;
use millstream_common::store::{Error, Store, StoreRef};
use millstream_common::time::{ClockRef, SystemClock};
use millstream_common::trace::{NoTracer, TracerRef};
use ractor::{Actor, ActorRef, call};
use tokio::sync::{mpsc, watch};

pub(crate) use self::kept_spans::KeptSpans;
pub(crate) use self::told_log::ToldLog;
use crate::cluster::registry::Session;
use crate::config::RealConnectors;
use crate::letters::clerk_actor::{Clerk, ClerkConfig};
use crate::letters::index::Letters;
use crate::log_actor::{LogActor, LogConfig};
use crate::reign::role::{Active, Role, Roles};
use crate::replay::{ReplayedJob, ReplayedJobs};
use crate::retention::history::read_history;
use crate::supervisor::supervisor_actor::{SupervisorActor, SupervisorConfig, SupervisorMessage};

/// Ends a test that waits for what does not come; the clock of such tests is paused, and skips what nobody works in.
const PATIENCE: Duration = Duration::from_secs(120);

/// What `future` comes to.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it comes soon")
}

/// The plan of `sql`.
pub(crate) fn plan(sql: &str) -> JobPlan {
    let planned = crate::plan::plan_job(sql, &secret::Environment);
    planned.expect("a plan").plan
}

/// Rows for ever, into nothing.
pub(crate) const ENDLESS: &str = "\
    CREATE SOURCE numbers (n BIGINT NOT NULL) WITH (connector = 'datagen', rows_per_second = '10');\
    CREATE SINK nowhere FROM numbers WITH (connector = 'blackhole');";

/// A supervisor over jobs that the log tells of.
pub(crate) async fn supervise(
    store: &Arc<MemoryStore>,
    entries: Vec<JobEntry>,
) -> ActorRef<SupervisorMessage> {
    let begun = entries.into_iter().map(|entry| ReplayedJob {
        entry,
        progress: JobProgress::default(),
        end: None,
        generation: Generation::default(),
        assignment: None,
        letters: Letters::default(),
        retold: Default::default(),
        savepoints: Savepoints::new(),
    });
    supervise_begun(store, begun.collect()).await
}

/// A supervisor over what the log tells.
pub(crate) async fn supervise_log(store: &Arc<MemoryStore>) -> ActorRef<SupervisorMessage> {
    let store: StoreRef = store.clone();
    let history = read_history(&store).await.expect("a log");
    let next = history.through.next();
    supervise_from(store, next, history.jobs, Arc::new(NoTracer)).await
}

/// A supervisor over jobs that the last master has run.
pub(crate) async fn supervise_begun(
    store: &Arc<MemoryStore>,
    jobs: Vec<ReplayedJob>,
) -> ActorRef<SupervisorMessage> {
    supervise_as(store, jobs, Arc::new(NoTracer)).await
}

/// The same, with every span that it tells.
pub(crate) async fn supervise_traced(
    store: &Arc<MemoryStore>,
    jobs: Vec<ReplayedJob>,
) -> (ActorRef<SupervisorMessage>, Arc<KeptSpans>) {
    let kept = Arc::new(KeptSpans::default());
    (supervise_as(store, jobs, kept.clone()).await, kept)
}

async fn supervise_as(
    store: &Arc<MemoryStore>,
    jobs: Vec<ReplayedJob>,
    tracer: TracerRef,
) -> ActorRef<SupervisorMessage> {
    let store: StoreRef = store.clone();
    let object = log::LogObject {
        term: Term(1),
        nonce: "jobs".to_owned(),
        entries: jobs
            .iter()
            .map(|job| Entry::Job(Box::new(job.entry.clone())))
            .collect(),
    };
    log::append(&store, Seq(1), &object).await.expect("append");
    let named = jobs.into_iter().map(|job| (job.entry.job.clone(), job));
    supervise_from(store, Seq(2), named.collect(), tracer).await
}

async fn supervise_from(
    store: StoreRef,
    next: Seq,
    jobs: ReplayedJobs,
    tracer: TracerRef,
) -> ActorRef<SupervisorMessage> {
    let log = LogConfig {
        store: store.clone(),
        term: Term(1),
        next,
        on_trouble: Arc::new(|_| {}),
    };
    let (log, _) = Actor::spawn(None, LogActor, log).await.expect("spawn");
    let clock: ClockRef = Arc::new(SystemClock::new());
    let connectors = RealConnectors {
        blocking: Arc::new(ThreadPool),
        clock: clock.clone(),
    };
    let config = SupervisorConfig {
        store,
        log,
        jobs,
        clock,
        tracer,
        connectors: Arc::new(connectors),
        recent_weight_max: RECENT_WEIGHT_MAX,
    };
    let (supervisor, _) = Actor::spawn(None, SupervisorActor, config)
        .await
        .expect("spawn");
    supervisor
}

/// The role of a master that reigns with `supervisor`.
pub(crate) async fn reigning(store: StoreRef, supervisor: ActorRef<SupervisorMessage>) -> Roles {
    let active = Active {
        term: Term(1),
        clerk: clerk(store, Arc::new(SystemClock::new()), &supervisor).await,
        supervisor,
    };
    Roles(watch::channel(Role::Active(active)).1)
}

/// The clerk beside `supervisor`.
pub(crate) async fn clerk(
    store: StoreRef,
    clock: ClockRef,
    supervisor: &ActorRef<SupervisorMessage>,
) -> Clerk {
    let config = ClerkConfig {
        store,
        clock,
        term: Term(1),
        supervisor: supervisor.clone(),
    };
    let clerk = Clerk::start(config, supervisor.get_cell()).await;
    clerk.expect("spawn")
}

/// Which calls of a [`MemoryStore`] are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    All,
    /// All but writes under this folder.
    AllBut(&'static str),
    Reads,
    None,
}

/// Objects in memory. A call that is not answered waits until it is.
pub(crate) struct MemoryStore {
    objects: Mutex<BTreeMap<String, Bytes>>,
    answers: watch::Sender<Answers>,
    panics_at_create: AtomicBool,
    listed: AtomicUsize,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self {
            objects: Mutex::default(),
            answers: watch::channel(Answers::All).0,
            panics_at_create: AtomicBool::new(false),
            listed: AtomicUsize::new(0),
        }
    }
}

impl MemoryStore {
    pub(crate) fn answer(&self, answers: Answers) {
        self.answers.send_replace(answers);
    }

    pub(crate) fn panic_at_create(&self) {
        self.panics_at_create.store(true, Ordering::Relaxed);
    }

    /// How often it was asked for the keys of a folder.
    pub(crate) fn listed(&self) -> usize {
        self.listed.load(Ordering::Relaxed)
    }

    async fn wait(&self, is_answered: impl Fn(&Answers) -> bool) {
        let mut answers = self.answers.subscribe();
        answers
            .wait_for(is_answered)
            .await
            .expect("the store lives");
        // Whoever calls at the same moment has its turn before the effect.
        tokio::task::yield_now().await;
    }

    async fn may_write(&self, key: &str) {
        self.wait(|answers| match answers {
            Answers::All => true,
            Answers::AllBut(folder) => !key.starts_with(folder),
            Answers::Reads | Answers::None => false,
        })
        .await;
    }

    async fn may_read(&self) {
        self.wait(|answers| *answers != Answers::None).await;
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn create(&self, key: &str, value: Bytes) -> Result<(), Error> {
        assert!(!self.panics_at_create.load(Ordering::Relaxed), "as told");
        self.may_write(key).await;
        let mut objects = self.objects.lock().unwrap();
        if objects.contains_key(key) {
            return Err(Error::Exists {
                key: key.to_owned(),
            });
        }
        objects.insert(key.to_owned(), value);
        Ok(())
    }

    async fn put(&self, key: &str, value: Bytes) -> Result<(), Error> {
        self.may_write(key).await;
        self.objects.lock().unwrap().insert(key.to_owned(), value);
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, Error> {
        self.may_read().await;
        Ok(self.objects.lock().unwrap().get(key).cloned())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, Error> {
        self.may_read().await;
        self.listed.fetch_add(1, Ordering::Relaxed);
        let objects = self.objects.lock().unwrap();
        let keys = objects.keys().filter(|key| key.starts_with(prefix));
        Ok(keys.cloned().collect())
    }

    async fn delete(&self, key: &str) -> Result<(), Error> {
        self.may_write(key).await;
        self.objects.lock().unwrap().remove(key);
        Ok(())
    }
}

/// A worker that a test speaks for.
pub(crate) struct FakeWorker {
    name: WorkerId,
    frames: mpsc::Receiver<ToWorker>,
    session: Session,
    supervisor: ActorRef<SupervisorMessage>,
}

impl FakeWorker {
    pub(crate) async fn join(supervisor: &ActorRef<SupervisorMessage>, name: &str) -> Self {
        Self::join_holding(supervisor, name, Vec::new()).await
    }

    /// Joins with pipelines that it has kept.
    pub(crate) async fn join_holding(
        supervisor: &ActorRef<SupervisorMessage>,
        name: &str,
        held: Vec<Held>,
    ) -> Self {
        let hello = WorkerHello {
            worker: name.into(),
            process: name.to_owned(),
            flight_address: format!("{name}:1"),
            slots: 1,
            version: "0".to_owned(),
            held,
            is_leaving: false,
        };
        Self::join_as(supervisor, hello).await
    }

    /// Joins with this Hello.
    pub(crate) async fn join_as(
        supervisor: &ActorRef<SupervisorMessage>,
        hello: WorkerHello,
    ) -> Self {
        let (sender, frames) = mpsc::channel(64);
        let name = hello.worker.clone();
        let session = call!(supervisor, |reply| SupervisorMessage::Joined {
            hello,
            frames: sender,
            reply
        });
        Self {
            name,
            frames,
            session: session.expect("call").expect("joined"),
            supervisor: supervisor.clone(),
        }
    }

    /// Why its session is over, once it is.
    pub(crate) async fn over(&mut self) -> String {
        let over = soon(&mut self.session.over).await;
        over.expect("the supervisor lives")
    }

    pub(crate) fn leave(self) {
        let left = SupervisorMessage::Left {
            worker: self.name,
            session: self.session.number,
        };
        self.supervisor.cast(left).expect("the supervisor lives");
    }

    pub(crate) fn say(&self, frame: ToMaster) {
        let said = SupervisorMessage::Frame {
            worker: self.name.clone(),
            session: self.session.number,
            frame: Box::new(frame),
        };
        self.supervisor.cast(said).expect("the supervisor lives");
    }

    /// The next frame of which `pick` makes something.
    pub(crate) async fn frame<T>(&mut self, pick: impl Fn(ToWorker) -> Option<T>) -> T {
        soon(async {
            loop {
                let frame = self.frames.recv().await.expect("the session goes on");
                if let Some(picked) = pick(frame) {
                    return picked;
                }
            }
        })
        .await
    }

    /// Waits to be deployed, and says that it has built everything.
    pub(crate) async fn deployed(&mut self) -> Deploy {
        let deploy = self
            .frame(|frame| match frame {
                ToWorker::Deploy(deploy) => Some(*deploy),
                _ => None,
            })
            .await;
        self.say(ToMaster::Deployed(deploy.at.clone()));
        deploy
    }

    /// Waits for the next barrier.
    pub(crate) async fn barrier(&mut self) -> (JobGeneration, BarrierCommand) {
        self.frame(|frame| match frame {
            ToWorker::Barrier(at, barrier) => Some((at, barrier)),
            _ => None,
        })
        .await
    }

    /// Reports `read` rows up to a barrier, which may be none.
    pub(crate) fn report(&self, at: &JobGeneration, epoch: Epoch, read: u64) {
        let counters = RowCounters {
            read,
            ..RowCounters::default()
        };
        let report = PipelineReport {
            epoch,
            worker: self.name.clone(),
            splits: BTreeMap::new(),
            parts: BTreeMap::new(),
            segments: Vec::new(),
            counters: BTreeMap::from([(SourceIndex(0), counters)]),
            flows: BTreeMap::new(),
            troubles: BTreeMap::new(),
            figures: Default::default(),
        };
        self.say(ToMaster::Snapshotted(at.clone(), Box::new(report)));
    }

    /// Passes every barrier with a row; its only sink holds each epoch as soon as it is committed.
    pub(crate) async fn pass_for_ever(&mut self) {
        loop {
            let (at, passed) = self
                .frame(|frame| match frame {
                    ToWorker::Barrier(at, barrier) => Some((at, Ok(barrier.epoch))),
                    ToWorker::EpochCommitted { at, epoch, .. } => Some((at, Err(epoch.epoch))),
                    _ => None,
                })
                .await;
            match passed {
                Ok(epoch) => self.report(&at, epoch, 1),
                Err(marker) => self.say(ToMaster::SinkAdvanced {
                    at,
                    sink: SinkIndex(0),
                    marker,
                    dropped_count: 0,
                }),
            }
        }
    }

    /// Waits until an epoch is committed.
    pub(crate) async fn committed(&mut self) -> (Generation, Epoch) {
        self.frame(|frame| match frame {
            ToWorker::EpochCommitted { at, epoch, .. } => Some((at.generation, epoch.epoch)),
            _ => None,
        })
        .await
    }
}

/// Storage in memory, shared.
pub(crate) fn memory() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::default())
}
