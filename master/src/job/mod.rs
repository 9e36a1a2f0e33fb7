//! Jobs: one actor each, from submission to its end.
//!
//! [`job_actor`] receives, [`lifecycle`] moves the job from phase to phase, `discovery` looks for splits, [`claims`] knows which
//! are whose, `refused` brings rows that sinks refused into the log, [`restart`] decides about failures, [`reattach`] about going on under a
//! new master, [`recovery_time`] measures what both take, [`deploy`] builds what workers are sent, [`sinks`] knows how far behind each sink
//! is by `lag`, `rewind` sends them back, `quotas` acts as `quota` decides, `ending` says who keeps the job from its end, `placed` tells what
//! runs where, `recorded` goes on with what the log has, [`view`] is what people see, `figures` what is scraped, with the sum of the rows
//! from `row_sum`.

mod backlog;
mod barrier_pace;
pub mod claims;
mod commit;
mod deploy;
mod discovery;
mod ending;
pub mod enumerator_actor;
mod epochs;
pub(crate) mod figures;
pub mod job_actor;
pub(crate) mod lag;
mod lifecycle;
mod paces;
pub(crate) mod placed;
mod quota;
mod quotas;
pub(crate) mod reattach;
pub mod recorded;
mod recovery_time;
mod refused;
mod replays;
mod rescale;
pub mod restart;
pub mod rewind;
mod row_sum;
pub(crate) mod savepoint;
mod sinks;
mod takeover;
pub(crate) mod traces;
mod view;
mod watermarks;
mod why;
