//! The control plane: plans jobs, assigns their tasks and splits to workers, commits their epochs. Keeps no row: those that a person wants to see it
//! passes on ([`preview`]).
//!
//! In reading order: a submission is planned ([`plan`]), its splits are found (`enumerate`), placed ([`assign`]), run by
//! a [`job`], committed epoch by epoch ([`checkpoint`]) in the log ([`log_actor`]), while this master is the one
//! that reigns ([`reign`]). What nothing needs any more is collected ([`retention`]).

pub mod assign;
pub mod backend;
mod carry;
pub mod checkpoint;
pub mod cluster;
pub mod config;
mod dashboard;
pub mod enumerate;
mod figures;
pub mod job;
pub mod letters;
pub mod log_actor;
pub mod master;
pub mod plan;
pub mod preview;
pub mod probe;
pub mod reign;
pub mod replay;
pub mod retention;
pub mod service;
mod submission_trace;
pub mod supervisor;
#[cfg(test)]
mod testing;

pub use config::{MasterConfig, RealConnectors};
pub use master::{Candidacy, Entrance, Master, MasterError};
