//! The data plane: what a worker process runs.
//!
//! A row's path, in order: [`consume`], [`decode`], [`exchange`], [`operator`], [`ship`], [`snapshot`]; [`transform`] runs behind decode
//! and operator, in front of what their rows go to; [`failed_rows`] are those on which it fails. Whoever looks sees rows by [`preview`].
//! The rest is the frame: [`worker`] starts, `link` talks to the master, [`supervisor_actor`] keeps one [`pipeline`] a job.

pub mod branch;
pub mod config;
pub mod consume;
pub mod decode;
mod deploying;
pub mod exchange;
pub mod failed_rows;
pub mod figures;
pub mod health;
mod holding;
pub mod leaving;
mod link;
pub mod operator;
pub mod pipeline;
pub mod preview;
pub mod ship;
pub mod snapshot;
pub mod spans;
pub mod supervisor_actor;
pub mod transform;
pub mod work;
pub mod worker;

pub use config::{RealConnectors, RealStores, WorkerConfig};
pub use worker::{Worker, WorkerError};
