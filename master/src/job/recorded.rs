//! Entries of a job on their way into the log, and what follows once they are there.
//!
//! Called by everything in this folder that has something to record, with whoever waits for that. An entry has no effect before it is
//! durable: the log actor answers with the position of its object, and only then the actor goes on with it. Failure: an entry that is not
//! handed on is refused to whoever waits; one that the log never takes is never told, for then its master reigns no more; an actor that
//! is gone by then is started anew from the log, which holds the entry.

use millstream_common::control::{ControlError, SavepointView, SinkCommand, SinkView};
use millstream_common::ids::{Epoch, Seq, SinkIndex};
use millstream_common::log::Entry;
use millstream_common::log::backlog::BacklogPart;
use millstream_common::log::entry::{Assignment, EpochEntry, JobEnd};
use millstream_common::log::savepoint::Savepoint;
use ractor::RpcReplyPort;

use super::job_actor::{JobMessage, JobState};
use super::lifecycle::Handled;
use crate::log_actor::LogMessage;
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
        /// The sink as it is then; nobody waits where its quota said it.
        reply: Option<RpcReplyPort<Result<SinkView, ControlError>>>,
    },
    /// A SinkRewound entry; who waits for it.
    SinkRewound {
        /// Which sink.
        sink: SinkIndex,
        /// The epoch that it is to hold.
        to: Epoch,
        /// The sink as it is then.
        reply: RpcReplyPort<Result<SinkView, ControlError>>,
    },
    /// A Forgotten entry: nobody waits for it.
    Forgotten,
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
            Self::SinkRewound { reply, .. }
            | Self::SinkCommanded {
                reply: Some(reply), ..
            } => answer(reply, Err(refusal)),
            Self::Assign { .. }
            | Self::Epoch(_)
            | Self::Backlog(_)
            | Self::SinkCommanded { .. }
            | Self::Forgotten
            | Self::Ended(_) => {}
        }
    }
}

impl JobState {
    pub(super) fn recorded(&mut self, recorded: Recorded, seq: Seq) -> Handled {
        match recorded {
            Recorded::Assign {
                attempt,
                assignment,
            } => self.assigned(attempt, *assignment, seq),
            Recorded::Epoch(entry) => self.epoch_recorded(*entry),
            Recorded::Backlog(part) => self.put_away_recorded(*part),
            Recorded::Ended(end) => self.ended(end),
            Recorded::Savepoint {
                name,
                savepoint,
                reply,
            } => self.savepoint_recorded(name, *savepoint, reply),
            Recorded::SavepointDropped { view, reply } => self.savepoint_dropped(*view, reply),
            Recorded::SinkCommanded {
                sink,
                command,
                reply: Some(reply),
            } => self.sink_commanded(sink, command, reply),
            Recorded::SinkCommanded { sink, command, .. } => self.said_by_quota(sink, command),
            Recorded::SinkRewound { sink, to, reply } => self.sink_rewound(sink, to, seq, reply),
            Recorded::Forgotten => Ok(()),
        }
    }

    pub(super) fn append(&self, entry: Entry, recorded: Recorded) -> Handled {
        let myself = self.myself.clone();
        let on_written = Box::new(move |seq| {
            // A job whose actor is gone is started anew from the log, which holds the entry.
            let _ = myself.cast(JobMessage::Recorded(recorded, seq));
        });
        self.log.cast(LogMessage::Append {
            entry: Box::new(entry),
            on_written,
        })?;
        Ok(())
    }
}
