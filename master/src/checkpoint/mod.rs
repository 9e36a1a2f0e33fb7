//! Checkpoints: when a barrier goes out, what comes back, and what the log's Epoch entry says.
//!
//! Pure; driven by `job/job_actor.rs`. [`coordinator`] gathers the workers' reports of one epoch at a time,
//! [`watermark`] computes the sources' watermarks from the reported splits.

pub mod coordinator;
pub mod watermark;
