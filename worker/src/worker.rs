//! A worker process from start to end: Flight server, root actor, link.
//!
//! Called by the CLI and by tests. Owns the root actor and the server; both end with [`Worker::shutdown`]. Failure: a start
//! that cannot listen is an error; a master that cannot be reached is not, it is dialled until it answers.

use std::sync::Arc;
use std::time::Duration;

use millstream_common::error::chain;
use millstream_common::http::{self, Probes};
use millstream_common::ids::WorkerId;
use ractor::rpc::CallResult;
use ractor::{Actor, ActorRef};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

use crate::config::WorkerConfig;
use crate::exchange::flight_server;
use crate::exchange::registry::{EdgeRegistry, REGISTER_WAIT};
use crate::figures::Figures;
use crate::health;
use crate::leaving::Left;
use crate::preview::board::TapBoard;
use crate::supervisor_actor::{SupervisorActor, SupervisorConfig, SupervisorMessage};

/// Why a worker could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Its Flight address is taken or wrong.
    #[error("{0}; choose another with --flight-listen")]
    Listen(#[from] std::io::Error),
    /// Its address for HTTP is taken or wrong.
    #[error("{0}; choose another with --http")]
    ListenHttp(#[source] std::io::Error),
    /// Its actors or server ended.
    #[error("run the worker: {0}")]
    Run(String),
}

/// A running worker.
pub struct Worker {
    name: WorkerId,
    supervisor: ActorRef<SupervisorMessage>,
    probes: Arc<dyn Probes>,
    tasks: JoinSet<Result<(), WorkerError>>,
}

impl Worker {
    /// Listens for other workers and dials the master.
    pub async fn start(config: WorkerConfig) -> Result<Self, WorkerError> {
        let name = config.name.clone();
        let listener = config.exchange_net.listen(&config.flight_listen).await?;
        let flight_address = config
            .advertise
            .clone()
            .unwrap_or_else(|| listener.address.clone());
        let edges = EdgeRegistry::new(REGISTER_WAIT);
        let taps = TapBoard::new();
        let (has_joined, joined) = watch::channel(false);
        let figures = Arc::new(Figures::new(
            config.tracer.clone(),
            joined.clone(),
            Arc::clone(&config.spill.budget),
        ));
        let probes: Arc<dyn Probes> = figures.clone();
        let mut tasks = JoinSet::new();
        if let Some(door) = &config.http {
            // Not as workers know each other: who asks for figures is none.
            let listener = config.net.listen_for_pages(&door.listen).await;
            let listener = listener.map_err(WorkerError::ListenHttp)?;
            info!(address = %listener.address, "http listening");
            let router = http::guarded(http::router(probes.clone()), door.guard.clone());
            tasks.spawn(async move {
                http::serve(listener, router).await;
                Err(WorkerError::Run("its http server ended".to_owned()))
            });
        }
        let (reporter, endpoint) = tonic_health::server::health_reporter();
        tasks.spawn(async move {
            health::tell(reporter, joined).await;
            Ok(())
        });
        let flight = flight_server::service(edges.clone(), taps.clone());
        let server = flight_server::serve(listener, flight, endpoint, std::future::pending());
        tasks.spawn(async move {
            server
                .await
                .map_err(|error| WorkerError::Run(chain(&error)))
        });
        let supervisor = SupervisorConfig {
            worker: config,
            flight_address,
            edges,
            taps,
            figures,
            has_joined,
        };
        let spawned = Actor::spawn(None, SupervisorActor, supervisor).await;
        let (supervisor, handle) = spawned.map_err(|error| WorkerError::Run(error.to_string()))?;
        tasks.spawn(async move {
            let ended = handle.await;
            Err(WorkerError::Run(format!("its root actor ended: {ended:?}")))
        });
        Ok(Self {
            name,
            supervisor,
            probes,
            tasks,
        })
    }

    /// Its name in the cluster.
    pub fn id(&self) -> &WorkerId {
        &self.name
    }

    /// What it says of itself over HTTP, for a process that serves that beside other things.
    pub fn probes(&self) -> Arc<dyn Probes> {
        self.probes.clone()
    }

    /// Pends until the worker ends by itself.
    pub async fn finished(&mut self) -> Result<(), WorkerError> {
        match self.tasks.join_next().await {
            Some(Ok(result)) => result,
            Some(Err(error)) => Err(WorkerError::Run(error.to_string())),
            None => Ok(()),
        }
    }

    /// Works on until nothing counts on it any more, or `patience` is over; then it is to be shut down.
    pub async fn leave(&self, patience: Duration) -> Left {
        let left = self
            .supervisor
            .call(SupervisorMessage::Leave, Some(patience));
        match left.await {
            Ok(CallResult::Success(left)) => left,
            Ok(CallResult::Timeout) => Left::TimedOut,
            // Its root actor has ended: nothing runs.
            Ok(CallResult::SenderError) | Err(_) => Left::Idle,
        }
    }

    /// Ends all pipelines and the server; the master rewinds what ran here.
    pub async fn shutdown(mut self) {
        // Waited for, so that the link is closed from this side before the master can end.
        if let Err(error) = self.supervisor.kill_and_wait(None).await {
            tracing::debug!(%error, "end the worker's root actor");
        }
        self.tasks.shutdown().await;
    }
}
