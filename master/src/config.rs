//! What a master is started with.
//!
//! Filled by the CLI, by `run`, and by tests with their own network, storage, clock and connectors.

use std::sync::Arc;

use millstream_common::blocking::BlockingRef;
use millstream_common::net::NetRef;
use millstream_common::plan::SourcePlan;
use millstream_common::store::StoreRef;
use millstream_common::time::ClockRef;
use millstream_common::trace::TracerRef;

use crate::enumerate::{EnumerateError, Enumerator, enumerator_for};
use crate::plan::check::ExternalProbe;
use crate::probe::RealProbe;
use crate::retention::Retention;
use crate::service::access::Access;

/// Asks the outside what it holds: splits of sources, and whether what a job names is there.
pub trait Connectors: Send + Sync {
    /// Finds the splits of a source.
    fn enumerator(&self, plan: &SourcePlan) -> Result<Box<dyn Enumerator>, EnumerateError>;
    /// Looks at topics, tables and folders before a job is taken.
    fn probe(&self) -> Arc<dyn ExternalProbe>;
}

/// A shared way to the outside.
pub type ConnectorsRef = Arc<dyn Connectors>;

/// The connectors to real services.
pub struct RealConnectors {
    /// For clients that block.
    pub blocking: BlockingRef,
    /// Tells when a file has stood still.
    pub clock: ClockRef,
}

impl Connectors for RealConnectors {
    fn enumerator(&self, plan: &SourcePlan) -> Result<Box<dyn Enumerator>, EnumerateError> {
        enumerator_for(plan, self.blocking.clone(), self.clock.clone())
    }

    fn probe(&self) -> Arc<dyn ExternalProbe> {
        Arc::new(RealProbe::new(self.blocking.clone()))
    }
}

/// A master's surroundings.
#[derive(Clone)]
pub struct MasterConfig {
    /// Where it listens and dials.
    pub net: NetRef,
    /// The way to workers, to look at rows.
    pub workers_net: NetRef,
    /// Who may call what.
    pub access: Access,
    /// Where its log is.
    pub store: StoreRef,
    /// What workers are told to open.
    pub storage_url: String,
    /// Time.
    pub clock: ClockRef,
    /// Where spans go.
    pub tracer: TracerRef,
    /// For planning.
    pub blocking: BlockingRef,
    /// Sources and sinks, as a job names them.
    pub connectors: ConnectorsRef,
    /// `host:port` of its gRPC services; port 0 takes a free one.
    pub listen: String,
    /// `host:port` of its HTTP server; port 0 takes a free one, `None` serves none.
    pub http_listen: Option<String>,
    /// Its name in the log, for people.
    pub name: String,
    /// Tells its machine from all others: equal addresses on two machines are two places.
    pub host: String,
    /// How long what is not needed any more is kept.
    pub retention: Retention,
}
