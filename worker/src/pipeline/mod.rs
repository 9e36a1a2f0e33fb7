//! Pipelines: all tasks of one generation of a job on this worker.
//!
//! [`pipeline_actor`] builds and supervises them, [`wiring`] says who is connected to whom, [`report`] gathers what tasks say at a
//! barrier into one report to the master.

mod build;
pub mod pipeline_actor;
mod refused;
pub mod report;
mod restore;
mod sinks;
#[cfg(test)]
pub(crate) mod told;
pub mod wiring;
