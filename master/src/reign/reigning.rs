//! One reign: the actors of an active master, its heartbeat, and how it ends.
//!
//! Begun by the office once the Fence entry is in the log. Owns the actors: dropped, all of them are killed, and with them every
//! stream to a worker, so that a master that has lost its reign has no effect any more (INV-4).

use std::sync::Arc;

use millstream_common::ids::{Seq, Term};
use ractor::{Actor, ActorCell, ActorRef, SpawnErr};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::heartbeat::{Heartbeat, beat};
use crate::config::MasterConfig;
use crate::letters::clerk_actor::{Clerk, ClerkConfig};
use crate::log_actor::{LogActor, LogConfig, OnTrouble};
use crate::replay::ReplayedJobs;
use crate::retention::collector_actor::{CollectorActor, CollectorConfig};
use crate::supervisor::supervisor_actor::{SupervisorActor, SupervisorConfig, SupervisorMessage};

/// How a reign ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The root actor has ended: the log fenced it, or a defect.
    Root,
    /// A later heartbeat was seen.
    Deposed,
}

/// The actors of a reign.
pub(super) struct Reign {
    pub(super) term: Term,
    pub(super) supervisor: ActorRef<SupervisorMessage>,
    pub(super) clerk: Clerk,
    _actors: [KillOnDrop; 2],
    tasks: JoinSet<Ended>,
}

struct KillOnDrop(ActorCell);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill();
    }
}

impl Reign {
    /// Starts the actors of reign `term`, whose log goes on at `next`.
    pub(super) async fn begin(
        config: &MasterConfig,
        heartbeat: Heartbeat,
        next: Seq,
        jobs: ReplayedJobs,
    ) -> Result<Self, SpawnErr> {
        let (trouble_sender, trouble) = watch::channel(None);
        let on_trouble: OnTrouble = Arc::new(move |trouble| {
            // Nobody listens any more when the master ends.
            let _ = trouble_sender.send_if_modified(|known| {
                let is_news = *known != trouble;
                *known = trouble;
                is_news
            });
        });
        let term = heartbeat.term;
        let log_config = LogConfig {
            store: config.store.clone(),
            term,
            next,
            on_trouble,
        };
        let (log, _) = Actor::spawn(None, LogActor, log_config).await?;
        let log_guard = KillOnDrop(log.get_cell());
        let supervisor_config = SupervisorConfig {
            store: config.store.clone(),
            log,
            jobs,
            clock: config.clock.clone(),
            tracer: config.tracer.clone(),
            connectors: config.connectors.clone(),
            recent_weight_max: config.retention.recent_weight_max,
        };
        let (supervisor, root) = Actor::spawn(None, SupervisorActor, supervisor_config).await?;
        let collector = CollectorConfig {
            store: config.store.clone(),
            clock: config.clock.clone(),
            retention: config.retention,
            supervisor: supervisor.clone(),
        };
        let parent = supervisor.get_cell();
        Actor::spawn_linked(None, CollectorActor, collector, parent.clone()).await?;
        let clerk = ClerkConfig {
            store: config.store.clone(),
            clock: config.clock.clone(),
            term,
            supervisor: supervisor.clone(),
        };
        let clerk = Clerk::start(clerk, parent).await?;
        let mut reign = Self {
            term,
            supervisor: supervisor.clone(),
            clerk,
            _actors: [KillOnDrop(supervisor.get_cell()), log_guard],
            tasks: JoinSet::new(),
        };
        reign.tasks.spawn(async move {
            // Why is in the log of the process; how does not matter.
            drop(root.await);
            Ended::Root
        });
        reign.tasks.spawn(tell_trouble(supervisor, trouble));
        let store = config.store.clone();
        reign.tasks.spawn(async move {
            beat(store, heartbeat).await;
            Ended::Deposed
        });
        Ok(reign)
    }

    /// Pends until the reign is over.
    pub(super) async fn ended(&mut self) -> Ended {
        match self.tasks.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(_)) | None => Ended::Root,
        }
    }
}

/// Carries news of the log's trouble to the jobs, for people to see.
async fn tell_trouble(
    supervisor: ActorRef<SupervisorMessage>,
    mut trouble: watch::Receiver<Option<String>>,
) -> Ended {
    while trouble.changed().await.is_ok() {
        let news = trouble.borrow_and_update().clone();
        if supervisor
            .cast(SupervisorMessage::LogTroubled(news))
            .is_err()
        {
            break;
        }
    }
    // The end of the root actor is told by the task that waits for it.
    std::future::pending().await
}
