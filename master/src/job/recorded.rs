//! What a job's actor is told once the log has it, with whoever waits for that.
//!
//! Made where an entry is handed to the log, taken by `lifecycle.rs`. Failure: an entry that is not handed on is refused to whoever
//! waits; one that the log never takes is never told, for then its master reigns no more.

use millstream_common::control::{ControlError, SavepointView, SinkCommand, SinkView};
use millstream_common::ids::SinkIndex;
use millstream_common::log::backlog::BacklogPart;
use millstream_common::log::entry::{Assignment, EpochEntry, JobEnd};
use millstream_common::log::savepoint::Savepoint;
use ractor::RpcReplyPort;

use crate::supervisor::supervisor_actor::answer;

/// What the log has recorded for the job.
pub enum Recorded {
    /// An Assign entry; only the last attempt counts.
    Assign {
        /// Which attempt of this actor.
        attempt: u64,
        /// Who runs what.
        assignment: Box<Assignment>,
    },
    /// An Epoch entry.
    Epoch(Box<EpochEntry>),
    /// A Backlog entry.
    Backlog(Box<BacklogPart>),
    /// A SinkCommanded entry; who waits for it.
    SinkCommanded {
        /// Which sink.
        sink: SinkIndex,
        /// What was said.
        command: SinkCommand,
        /// The sink as it is then.
        reply: RpcReplyPort<Result<SinkView, ControlError>>,
    },
    /// An Ended entry.
    Ended(JobEnd),
    /// A Savepoint entry.
    Savepoint {
        /// Its name.
        name: String,
        /// What is kept.
        savepoint: Box<Savepoint>,
        /// Who asked.
        reply: RpcReplyPort<Result<SavepointView, ControlError>>,
    },
    /// A SavepointDropped entry.
    SavepointDropped {
        /// As it was.
        view: Box<SavepointView>,
        /// Who asked.
        reply: RpcReplyPort<Result<SavepointView, ControlError>>,
    },
}

impl Recorded {
    /// Says to whoever waits for it that it will not be.
    pub(crate) fn refuse(self, refusal: ControlError) {
        match self {
            Self::Savepoint { reply, .. } | Self::SavepointDropped { reply, .. } => {
                answer(reply, Err(refusal));
            }
            Self::SinkCommanded { reply, .. } => answer(reply, Err(refusal)),
            Self::Assign { .. } | Self::Epoch(_) | Self::Backlog(_) | Self::Ended(_) => {}
        }
    }
}
