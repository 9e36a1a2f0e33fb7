//! Ship: rows of an output become segments in storage, and wait in memory for the sinks of this worker.
//!
//! Last step of the path before the commit. [`ship_actor`] gathers one output's rows of an epoch from all tasks here; [`segment`] names and
//! reads segments. Keeps INV-2: a segment is stored before the Epoch entry that fixes it.

pub mod segment;
pub mod ship_actor;

#[cfg(test)]
mod tests;
