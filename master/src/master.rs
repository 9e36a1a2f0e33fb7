//! A master process from start to end: fence, read the log, start the actors, serve.
//!
//! Called by the CLI and by tests. Owns the root actor and the server; both end with [`Master::shutdown`]. Keeps INV-4: the
//! Fence entry is in the log before the log is read for the last time, so nothing an older master writes later counts.
//! Failure: a start that cannot reach its storage or address is an error; a newer master ends this one
//! ([`Master::finished`]).

use std::sync::Arc;

use millstream_common::error::chain;
use millstream_common::ids::{Seq, Term, nonce};
use millstream_common::log::{Entry, LogObject};
use millstream_common::store::StoreRef;
use ractor::{Actor, ActorRef};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::info;

use crate::backend::Backend;
use crate::cluster::link::LinkService;
use crate::config::MasterConfig;
use crate::log_actor::{LogActor, LogConfig, OnTrouble, append_until_settled};
use crate::retention::collector_actor::{CollectorActor, CollectorConfig};
use crate::retention::history::{HistoryError, read_history};
use crate::service;
use crate::supervisor::supervisor_actor::{SupervisorActor, SupervisorConfig, SupervisorMessage};

/// Why a master could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// The log cannot be read, or holds epochs that do not form a chain.
    #[error("read the log: {0}")]
    Log(#[from] HistoryError),
    /// This master may not write the log.
    #[error("{0}")]
    Fenced(#[from] crate::log_actor::Stopped),
    /// Its address is taken or wrong.
    #[error("{0}; choose another with --listen")]
    Listen(#[from] std::io::Error),
    /// Its actors or server ended.
    #[error("run the master: {0}")]
    Run(String),
}

/// A running master.
pub struct Master {
    address: String,
    supervisor: ActorRef<SupervisorMessage>,
    stop_serving: Option<oneshot::Sender<()>>,
    tasks: JoinSet<Result<(), MasterError>>,
}

impl Master {
    /// Takes the reign and serves.
    pub async fn start(config: MasterConfig) -> Result<Self, MasterError> {
        let (term, next) = take_reign(&config.store, &config.name).await?;
        let jobs = read_history(&config.store).await?.jobs;
        info!(%term, log = next.0 - 1, jobs = jobs.len(), "master starts");

        let listener = config.net.listen(&config.listen).await?;
        let address = listener.address.clone();
        let (supervisor, mut tasks) = start_actors(&config, term, next, jobs).await?;
        let link = LinkService {
            supervisor: supervisor.clone(),
            term,
            storage_url: config.storage_url.clone(),
        };
        let backend = Backend::new(supervisor.clone(), config.blocking.clone());
        let (stop_serving, stopped) = oneshot::channel();
        tasks.spawn(async move {
            let stopped = async { drop(stopped.await) };
            let served = service::serve(listener, Arc::new(backend), link, stopped).await;
            served.map_err(|error| MasterError::Run(chain(&error)))
        });
        Ok(Self {
            address,
            supervisor,
            stop_serving: Some(stop_serving),
            tasks,
        })
    }

    /// `host:port` of its gRPC services.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Pends until the master ends by itself: it was fenced, or its server failed.
    pub async fn finished(&mut self) -> Result<(), MasterError> {
        match self.tasks.join_next().await {
            Some(Ok(result)) => result,
            Some(Err(error)) => Err(MasterError::Run(error.to_string())),
            None => Ok(()),
        }
    }

    /// Ends the server and the actors. Jobs are not stopped: they go on from the log.
    pub async fn shutdown(mut self) {
        if let Some(stop) = self.stop_serving.take() {
            // A server that has ended needs no telling.
            let _ = stop.send(());
        }
        self.supervisor.kill();
        self.tasks.shutdown().await;
    }
}

async fn start_actors(
    config: &MasterConfig,
    term: Term,
    next: Seq,
    jobs: std::collections::BTreeMap<millstream_common::ids::JobName, crate::replay::ReplayedJob>,
) -> Result<
    (
        ActorRef<SupervisorMessage>,
        JoinSet<Result<(), MasterError>>,
    ),
    MasterError,
> {
    let failed = |error: ractor::SpawnErr| MasterError::Run(error.to_string());
    let (trouble_sender, trouble_receiver) = tokio::sync::watch::channel(None);
    let on_trouble: OnTrouble = Arc::new(move |trouble| {
        // Nobody listens any more when the master ends.
        let _ = trouble_sender.send_if_modified(|known| {
            let is_news = *known != trouble;
            *known = trouble;
            is_news
        });
    });
    let log_config = LogConfig {
        store: config.store.clone(),
        term,
        next,
        on_trouble,
    };
    let (log, _) = Actor::spawn(None, LogActor, log_config)
        .await
        .map_err(failed)?;
    let supervisor_config = SupervisorConfig {
        store: config.store.clone(),
        log,
        jobs,
        clock: config.clock.clone(),
        blocking: config.blocking.clone(),
    };
    let spawned = Actor::spawn(None, SupervisorActor, supervisor_config).await;
    let (supervisor, handle) = spawned.map_err(failed)?;
    let collector = CollectorConfig {
        store: config.store.clone(),
        clock: config.clock.clone(),
        retention: config.retention,
        supervisor: supervisor.clone(),
    };
    let parent = supervisor.get_cell();
    let spawned = Actor::spawn_linked(None, CollectorActor, collector, parent).await;
    spawned.map_err(failed)?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let ended = handle.await;
        Err(MasterError::Run(format!(
            "its root actor ended ({ended:?}); another master may reign"
        )))
    });
    tasks.spawn(tell_trouble(supervisor.clone(), trouble_receiver));
    Ok((supervisor, tasks))
}

/// Carries news of the log's trouble to the jobs, for people to see.
async fn tell_trouble(
    supervisor: ActorRef<SupervisorMessage>,
    mut trouble: tokio::sync::watch::Receiver<Option<String>>,
) -> Result<(), MasterError> {
    while trouble.changed().await.is_ok() {
        let news = trouble.borrow_and_update().clone();
        if supervisor
            .cast(SupervisorMessage::LogTroubled(news))
            .is_err()
        {
            break;
        }
    }
    // Whoever joins the tasks waits for the root actor or the server, not for this.
    std::future::pending().await
}

/// Appends the Fence entry; returns the new term and the first free position behind it. Of two masters that want the same
/// term one gets it, and the other is fenced (INV-4).
async fn take_reign(store: &StoreRef, name: &str) -> Result<(Term, Seq), MasterError> {
    let history = read_history(store).await?;
    let term = history.term.next();
    let object = LogObject {
        term,
        nonce: nonce(),
        entries: vec![Entry::Fence {
            term,
            master: name.to_owned(),
        }],
    };
    let quiet: OnTrouble = Arc::new(|_| {});
    let landed = append_until_settled(store, history.through.next(), &object, &quiet).await?;
    Ok((term, landed.seq().next()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::memory;

    #[tokio::test(start_paused = true)]
    async fn of_two_masters_that_start_at_the_same_moment_exactly_one_reigns() {
        let store: StoreRef = memory();
        let (one, other) = tokio::join!(take_reign(&store, "one"), take_reign(&store, "other"));
        let reigning = [&one, &other].into_iter().filter(|reign| reign.is_ok());
        assert_eq!(reigning.count(), 1, "{one:?} {other:?}");
        let fenced = [one, other].into_iter().find_map(Result::err);
        assert!(matches!(fenced, Some(MasterError::Fenced(_))), "{fenced:?}");
    }
}
