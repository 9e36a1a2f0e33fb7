//! Jobs: one actor each, from submission to its end.
//!
//! [`job_actor`] receives, [`lifecycle`] moves the job from phase to phase, [`claims`] knows which splits are
//! whose, `refused` brings rows that sinks refused into the log, [`restart`] decides about failures, [`recovery_time`] measures
//! them, [`deploy`] builds what workers are sent, [`view`] is what people see, with the sum of the rows from `row_sum`.

pub mod claims;
mod commit;
mod deploy;
pub mod enumerator_actor;
pub mod job_actor;
mod lifecycle;
mod recovery_time;
mod refused;
pub mod restart;
mod row_sum;
mod view;
