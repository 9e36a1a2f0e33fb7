//! The control API's words on the wire: views to and from generated messages, errors to and from
//! gRPC statuses with rich details.
//!
//! Called by the master's service and by `client` alone; generated types stop there. Failure: a
//! message that lacks what the contract promises is a [`Malformed`], never a guess.

mod dead_letters;
mod plan;
mod preview;
mod savepoint;
mod status;
mod view;
mod watermarks;
mod worker;

pub use dead_letters::{page_bytes, replay_request, replay_requests};
pub use status::{from_status, in_plain_words, to_status, to_status_about};
pub(crate) use view::job;

/// A message of the other side that the contract does not allow.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed answer: {0}; is the other side of another version?")]
pub struct Malformed(pub &'static str);
