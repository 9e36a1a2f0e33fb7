//! Jobs: one actor each, from submission to its end.
//!
//! [`job_actor`] receives, [`lifecycle`] moves the job from phase to phase, [`claims`] knows which splits are
//! whose, [`restart`] decides about failures, [`recovery_time`] measures them, [`deploy`] builds what workers are sent, [`sinks`] knows how far behind
//! each sink is, [`view`] is what people see.

pub mod claims;
mod commit;
mod deploy;
pub mod enumerator_actor;
pub mod job_actor;
mod lifecycle;
mod recovery_time;
pub mod restart;
mod sinks;
mod view;
