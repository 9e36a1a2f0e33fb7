//! Words that every crate of Millstream shares: ids, times, plans, log entries, and the edges to the
//! outside world (network, storage, blocking work, clock) as traits.
//!
//! Nothing here knows a driver: no Kafka, no Postgres, no SQL text. Failure: every fallible call
//! returns a typed error with a kind and says whether a retry may help ([`error`]).

pub mod address;
pub mod blocking;
pub mod client;
pub mod control;
pub mod datagen;
pub mod dead_letter;
pub mod error;
pub mod file_pattern;
pub mod grpc;
pub mod http;
pub mod ids;
pub mod ipc;
pub mod link;
pub mod log;
pub mod metrics;
pub mod mutant;
pub mod net;
pub mod plan;
pub mod preview;
pub mod problem;
pub mod replay_split;
pub mod report;
pub mod row_bytes;
pub mod secret;
pub mod store;
pub mod suggest;
pub mod task;
pub mod text;
pub mod time;
pub mod trace;
