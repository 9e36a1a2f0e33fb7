//! Exchange: rows to the tasks that own their vnodes, in this process or over Arrow Flight.
//!
//! Between a stage's branches and the tasks of the next stage. A branch hands its batches to an
//! [`sender::ExchangeSender`]: it hashes and routes rows (`route.rs`), splits what is large (`split.rs`), waits for
//! credit (`credit.rs`) and sends, to an actor of this process or to another worker (`flight_client.rs`,
//! `flight_server.rs`, `registry.rs`). The receiving task passes every message of every edge through
//! [`align::Alignment`]. Keeps INV-9: bytes on an edge, in mailboxes included, never exceed its credits.
//! Failure: nothing is resent; a lost peer ends the pipeline and the master rewinds the job.

pub mod align;
pub mod credit;
pub mod flight_client;
pub mod flight_server;
pub mod message;
pub mod registry;
pub mod route;
pub mod sender;
mod split;
pub(crate) mod wire;

#[cfg(test)]
mod testing;
