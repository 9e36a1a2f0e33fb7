//! What a master is started with.
//!
//! Filled by the CLI, by `run`, and by tests with their own network, storage and clock.

use millstream_common::blocking::BlockingRef;
use millstream_common::net::NetRef;
use millstream_common::store::StoreRef;
use millstream_common::time::ClockRef;

use crate::retention::Retention;

/// A master's surroundings.
#[derive(Clone)]
pub struct MasterConfig {
    /// Where it listens and dials.
    pub net: NetRef,
    /// Where its log is.
    pub store: StoreRef,
    /// What workers are told to open.
    pub storage_url: String,
    /// Time.
    pub clock: ClockRef,
    /// For clients that block.
    pub blocking: BlockingRef,
    /// `host:port` of its gRPC services; port 0 takes a free one.
    pub listen: String,
    /// Its name in the log, for people.
    pub name: String,
    /// How long what is not needed any more is kept.
    pub retention: Retention,
}
