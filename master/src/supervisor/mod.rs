//! The master's root actor: [`supervisor_actor`] receives, and hands on to the three files of what it does.
//!
//! [`submission`] takes jobs in (decided by [`submit`]), [`jobs`] starts their actors, again where one has failed, [`workers`]
//! knows who has joined.

#[cfg(test)]
mod going_on_tests;
pub mod jobs;
mod origin;
#[cfg(test)]
mod quota_tests;
#[cfg(test)]
mod rescale_tests;
#[cfg(test)]
mod rewind_tests;
#[cfg(test)]
mod savepoint_tests;
pub mod submission;
#[cfg(test)]
mod submission_tests;
pub mod submit;
pub mod supervisor_actor;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trace_tests;
pub mod workers;
