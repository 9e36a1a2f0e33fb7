//! A master process from start to end: listen, stand by or reign, serve.
//!
//! Called by the CLI and by tests. Owns the server and the office, which goes from standing by to reigning and back; both end with
//! [`Master::shutdown`]. Failure: a start that cannot reach its storage or address is an error; so is a log that cannot be
//! understood, at any time ([`Master::finished`]).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use millstream_common::address;
use millstream_common::error::chain;
use millstream_common::http::{self, Probes};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use tracing::info;

use crate::backend::Backend;
use crate::cluster::link::LinkService;
use crate::config::MasterConfig;
use crate::dashboard;
use crate::figures::MasterProbes;
use crate::letters::desk::Desk;
use crate::preview::PreviewDesk;
use crate::reign::cluster_name;
use crate::reign::office::Office;
use crate::reign::trail::TrailError;
use crate::service::access::AccessLayer;
use crate::service::{self, ControlBackend};

/// Why a master could not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// The storage is another cluster's.
    #[error(transparent)]
    Cluster(#[from] cluster_name::Error),
    /// The log cannot be read, or holds epochs that do not form a chain.
    #[error("read the log: {0}")]
    Log(#[from] TrailError),
    /// It would have to take the reign of a master that lives.
    #[error(
        "master {master:?} at {address} reigns over this storage: submit the job to it with `millstream submit`, end it, or \
         give this one a --storage of its own"
    )]
    Reigned {
        /// Its name.
        master: String,
        /// Where it serves.
        address: String,
    },
    /// This master may not write the log.
    #[error("{0}")]
    Fenced(#[from] crate::log_actor::Stopped),
    /// Its address is taken or wrong.
    #[error("{0}; choose another with --listen")]
    Listen(#[from] std::io::Error),
    /// Its address for HTTP is taken or wrong.
    #[error("{0}; choose another with --http")]
    ListenHttp(#[source] std::io::Error),
    /// Its actors or server ended.
    #[error("run the master: {0}")]
    Run(String),
}

/// When a master begins to reign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// As soon as it is known that nobody else does; where somebody does, not at all, and it ends with its reign. For one process
    /// that is its own cluster.
    Alone,
    /// When nobody else does; until then, and afterwards, it stands by.
    WhenVacant,
}

/// How a master takes its place among others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidacy {
    /// When it begins to reign.
    pub entrance: Entrance,
    /// The cluster that the storage has to belong to.
    pub cluster: String,
    /// Where clients and workers reach it, if that is not where it listens.
    pub advertise: Option<String>,
    /// Where people reach its dashboard, if that is not beside it.
    pub http_advertise: Option<String>,
}

/// The cluster of those who name none.
pub const CLUSTER_DEFAULT: &str = "default";
/// How long a reign may take to be laid down.
const RESIGN_PATIENCE: Duration = Duration::from_secs(2);

/// A running master.
pub struct Master {
    address: String,
    http_address: Option<String>,
    stop_serving: Option<oneshot::Sender<()>>,
    leave_office: Option<oneshot::Sender<()>>,
    probes: Arc<dyn Probes>,
    pages: Router,
    server: JoinSet<Result<(), MasterError>>,
    office: JoinSet<Result<(), MasterError>>,
}

impl Master {
    /// Takes the reign and serves.
    pub async fn start(config: MasterConfig) -> Result<Self, MasterError> {
        let candidacy = Candidacy {
            entrance: Entrance::Alone,
            cluster: CLUSTER_DEFAULT.to_owned(),
            advertise: None,
            http_advertise: None,
        };
        Self::stand(config, candidacy).await
    }

    /// Serves; reigns as soon as `candidacy` allows it.
    pub async fn stand(config: MasterConfig, candidacy: Candidacy) -> Result<Self, MasterError> {
        cluster_name::check(&config.store, &candidacy.cluster).await?;
        let listener = config.net.listen(&config.listen).await?;
        let address = listener.address.clone();
        let http = match &config.http_listen {
            Some(listen) => {
                let listener = config.net.listen_for_pages(listen).await;
                Some(listener.map_err(MasterError::ListenHttp)?)
            }
            None => None,
        };
        let http_address = http.as_ref().map(|http| http.address.clone());
        let (clock, tracer) = (config.clock.clone(), config.tracer.clone());
        let advertised = candidacy.advertise.unwrap_or_else(|| address.clone());
        let (blocking, probe) = (config.blocking.clone(), config.connectors.probe());
        let letters = Desk::new(config.store.clone(), config.clock.clone());
        let previews = PreviewDesk::new(config.workers_net.clone());
        let storage_url = config.storage_url.clone();
        let access = AccessLayer {
            access: config.access.clone(),
            clock: config.clock.clone(),
        };
        let guard = Arc::new(access.clone());
        let beside = |http: &String| address::seen_from_outside(http, &advertised);
        let dashboard = http_address
            .as_ref()
            .map(|http| candidacy.http_advertise.unwrap_or_else(|| beside(http)));
        let opened = Office::open(config, advertised, dashboard, candidacy.entrance);
        let (office, roles) = opened.await?;
        let link = LinkService {
            roles: roles.clone(),
            storage_url,
        };
        let probes: Arc<dyn Probes> = Arc::new(MasterProbes {
            roles: roles.clone(),
            clock: clock.clone(),
            tracer: tracer.clone(),
        });
        let backend = Backend::new(roles, blocking, probe, (letters, previews));
        let backend: Arc<dyn ControlBackend> = Arc::new(backend.traced(tracer, clock.clone()));
        let pages = dashboard::router(backend.clone(), clock);
        let (stop_serving, stopped) = oneshot::channel();
        let (leave_office, told) = oneshot::channel();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let stopped = async { drop(stopped.await) };
            let served = service::serve(listener, backend, link, access, stopped).await;
            served.map_err(|error| MasterError::Run(chain(&error)))
        });
        if let Some(http) = http {
            info!(address = %http.address, "http listening");
            let router = http::guarded(http::router(probes.clone()).merge(pages.clone()), guard);
            server.spawn(async move {
                http::serve(http, router).await;
                Err(MasterError::Run("its http server ended".to_owned()))
            });
        }
        let mut running = JoinSet::new();
        running.spawn(office.run(told));
        Ok(Self {
            address,
            http_address,
            stop_serving: Some(stop_serving),
            leave_office: Some(leave_office),
            probes,
            pages,
            server,
            office: running,
        })
    }

    /// `host:port` of its gRPC services.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `host:port` of its HTTP server, if it has one.
    pub fn http_address(&self) -> Option<&str> {
        self.http_address.as_deref()
    }

    /// What it says of itself over HTTP, for a process that serves that beside other things.
    pub fn probes(&self) -> Arc<dyn Probes> {
        self.probes.clone()
    }

    /// The pages of its dashboard, for the same.
    pub fn pages(&self) -> Router {
        self.pages.clone()
    }

    /// Pends until the master ends by itself: its log cannot be understood, or its server failed.
    pub async fn finished(&mut self) -> Result<(), MasterError> {
        let ended = tokio::select! {
            ended = self.office.join_next() => ended,
            ended = self.server.join_next() => ended,
        };
        ended.map_or(Ok(()), flatten)
    }

    /// Ends the server and the actors. Jobs are not stopped: they go on from the log, with the next master.
    pub async fn shutdown(mut self) {
        let signals = [self.stop_serving.take(), self.leave_office.take()];
        for signal in signals.into_iter().flatten() {
            // Who has ended needs no telling.
            let _ = signal.send(());
        }
        // What is not laid down in time is found out by whoever stands by.
        drop(tokio::time::timeout(RESIGN_PATIENCE, self.office.join_next()).await);
        self.office.shutdown().await;
        self.server.shutdown().await;
    }
}

fn flatten(ended: Result<Result<(), MasterError>, JoinError>) -> Result<(), MasterError> {
    ended.unwrap_or_else(|error| Err(MasterError::Run(error.to_string())))
}
