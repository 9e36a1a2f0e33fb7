//! What a worker is started with.
//!
//! Filled by the CLI, by `run`, and by tests with their own network, storage, clock and connectors.

use std::sync::Arc;

use async_trait::async_trait;
use millstream_common::blocking::BlockingRef;
use millstream_common::http::GuardRef;
use millstream_common::ids::WorkerId;
use millstream_common::net::NetRef;
use millstream_common::plan::SourcePlan;
use millstream_common::store::{self, StoreRef};
use millstream_common::time::ClockRef;
use millstream_common::trace::TracerRef;
use millstream_sinks::factory::{self, SinkSetup};
use millstream_sinks::sink::{Sink, SinkError};

use crate::consume::{self, ConsumeError, ReaderContext, SourceReader};
use crate::operator::spill::Spill;

/// Opens the storage that the master names.
#[async_trait]
pub trait OpenStore: Send + Sync {
    /// The storage behind `url`.
    async fn open(&self, url: &str) -> Result<StoreRef, store::Error>;
}

/// Opens real storage.
pub struct RealStores {
    /// For storage in a folder.
    pub blocking: BlockingRef,
}

#[async_trait]
impl OpenStore for RealStores {
    async fn open(&self, url: &str) -> Result<StoreRef, store::Error> {
        store::open(url, self.blocking.clone()).await
    }
}

/// Opens the ends of a pipeline: what rows come from, and what they go to.
pub trait Connectors: Send + Sync {
    /// The reader of a source task; nothing is read before its first splits.
    fn open_reader(
        &self,
        plan: &SourcePlan,
        context: ReaderContext,
    ) -> Result<Box<dyn SourceReader>, ConsumeError>;
    /// A sink that nothing is connected to yet.
    fn build_sink(&self, setup: &SinkSetup) -> Result<Box<dyn Sink>, SinkError>;
}

/// The connectors to real services.
pub struct RealConnectors;

impl Connectors for RealConnectors {
    fn open_reader(
        &self,
        plan: &SourcePlan,
        context: ReaderContext,
    ) -> Result<Box<dyn SourceReader>, ConsumeError> {
        consume::open(plan, context)
    }

    fn build_sink(&self, setup: &SinkSetup) -> Result<Box<dyn Sink>, SinkError> {
        factory::build(setup)
    }
}

/// Where a worker serves HTTP.
#[derive(Clone)]
pub struct HttpDoor {
    /// `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Who may see what.
    pub guard: GuardRef,
}

/// A worker's surroundings.
#[derive(Clone)]
pub struct WorkerConfig {
    /// The way to masters.
    pub net: NetRef,
    /// The way between workers: where it listens for rows, and dials to send them.
    pub exchange_net: NetRef,
    /// Opens the storage that the master names.
    pub stores: Arc<dyn OpenStore>,
    /// Sources and sinks.
    pub connectors: Arc<dyn Connectors>,
    /// Time.
    pub clock: ClockRef,
    /// Where spans go.
    pub tracer: TracerRef,
    /// For clients that block.
    pub blocking: BlockingRef,
    /// Memory for keyed state, and where more than that goes.
    pub spill: Spill,
    /// `host:port` of the masters, separated by commas.
    pub master: String,
    /// Tasks of each stage that it runs; at least 1.
    pub slots: u32,
    /// `host:port` of its Flight server; port 0 takes a free one.
    pub flight_listen: String,
    /// Its HTTP server; `None` serves none.
    pub http: Option<HttpDoor>,
    /// How other workers reach its Flight server; by default where it listens, or, if that is everywhere, the address from which
    /// it dials the master.
    pub advertise: Option<String>,
    /// Its name in the cluster.
    pub name: WorkerId,
}
