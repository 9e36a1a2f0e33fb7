//! A named step of the protocol at which something is done to a host: before the step, between its effect and the answer, or
//! after the answer.
//!
//! Set by the step matrix and by ambushes, looked at by every call to a service. Pure. Springs once; a trap that never springs
//! fails its case of the matrix.

use std::time::Duration;

/// Where in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The request never arrives.
    Before,
    /// The request arrives, perhaps behind others that are made after it; the answer never does.
    Sent,
    /// The service has done it; the answer never arrives.
    Applied,
    /// The caller knows.
    Answered,
}

/// Waits for one step.
#[derive(Clone, Debug)]
pub(crate) struct Trap {
    /// Such as `create log epoch`.
    pub(crate) step: &'static str,
    /// Which of them, from 1.
    pub(crate) count: u32,
    pub(crate) moment: Moment,
    /// Steps before this are not counted.
    pub(crate) armed_at: Duration,
    /// Whether the caller is stopped in its step; otherwise the step goes on.
    pub(crate) stops: bool,
    seen: u32,
    /// Who made the step, and to whom it spoke, once it has sprung.
    pub(crate) sprung: Option<(String, Option<String>)>,
}

impl Trap {
    pub(crate) fn new(
        step: &'static str,
        count: u32,
        moment: Moment,
        armed_at: Duration,
        stops: bool,
    ) -> Self {
        Self {
            step,
            count,
            moment,
            armed_at,
            stops,
            seen: 0,
            sprung: None,
        }
    }

    /// A step is about to be made; whether it is the one.
    pub(crate) fn is_met_by(&mut self, step: &str, now: Duration) -> bool {
        if step != self.step || now < self.armed_at {
            return false;
        }
        self.seen += 1;
        self.seen == self.count
    }
}
