//! A worker that is leaving: it says so to every master, works on, and goes when it is released.
//!
//! In the state of the worker's supervisor actor, which calls it. Two may want it: the process, which is to end
//! ([`Leaving::begin`], answered with how it ended), and a person (`millstream workers drain`), after which the worker is idle
//! until its process ends. Whichever it was, the worker remembers it, for masters do not: a new one learns it from Hello. Failure:
//! without a master nothing can move; after [`MASTER_WAIT`] without one the worker goes, and the next rewinds what it held.

use std::time::Duration;

use millstream_common::link::ToMaster;
use ractor::RpcReplyPort;
use tracing::info;

use crate::supervisor_actor::{SupervisorMessage, SupervisorState};

/// How long a leaving worker that has lost its master waits for another. A standby is there within three seconds; a cluster that is shut
/// down as a whole has none.
pub(crate) const MASTER_WAIT: Duration = Duration::from_secs(5);

/// How a worker came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing counts on it any more.
    Released {
        /// No other worker is there: jobs wait for one.
        is_last: bool,
    },
    /// It had nothing, and no master to ask.
    Idle,
    /// No master was there to move what it had.
    WithoutMaster,
    /// What it had did not move in time.
    TimedOut,
}

/// What is known of its leaving.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    is_leaving: bool,
    waiting: Vec<RpcReplyPort<Left>>,
}

impl Leaving {
    /// For Hello.
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    /// A person wants it to be idle.
    pub(crate) fn drain(&mut self) {
        self.is_leaving = true;
    }

    /// The process is to end.
    pub(crate) fn begin(&mut self, reply: RpcReplyPort<Left>) {
        self.is_leaving = true;
        self.waiting.push(reply);
    }

    /// Whether the process is to end.
    pub(crate) fn is_ending(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Nothing is left to wait for.
    pub(crate) fn end(&mut self, left: Left) {
        for reply in self.waiting.drain(..) {
            // Who does not wait any more ends the process anyway.
            let _ = reply.send(left);
        }
    }
}

impl SupervisorState {
    pub(crate) fn leave(&mut self, reply: RpcReplyPort<Left>) {
        self.leaving.begin(reply);
        if self.attached.is_some() {
            self.send(ToMaster::Leaving);
        } else if self.pipelines.is_empty() {
            self.leaving.end(Left::Idle);
        } else {
            self.leave_soon();
        }
    }

    pub(crate) fn leave_soon(&self) {
        let loss = self.losses;
        let leave = move || SupervisorMessage::LeaveAlone { loss };
        // The timer ends with the actor, which is the only one that waits for it.
        drop(self.myself.send_after(MASTER_WAIT, leave));
    }

    pub(crate) fn leave_alone(&mut self, loss: u64) {
        if loss == self.losses && self.attached.is_none() {
            self.leaving.end(Left::WithoutMaster);
        }
    }

    /// The master: nothing counts on the worker any more.
    pub(crate) fn released(&mut self, is_last: bool) {
        info!(is_last, "nothing counts on this worker any more");
        self.leaving.end(Left::Released { is_last });
    }
}
