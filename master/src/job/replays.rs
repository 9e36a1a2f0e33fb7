//! Rows that a person sends through a running job again: splits of their source, from a command or from the log.
//!
//! Called by `job_actor.rs`; the clerk (`letters/clerk_actor.rs`) asks first, stores, and sends. A replay is claimed when its entry is
//! handed to the log, which takes entries in order: an Epoch that records its split stands behind it, and where the entry is lost, so is
//! the Epoch (INV-1). From there on it is a split
//! like those an enumerator finds: given out between two epochs, read from where the last Epoch stood, never twice (INV-5), and a job
//! whose input has ended waits for it. Failure: a job that is ending takes none.

use millstream_common::control::ControlError;
use millstream_common::ids::Incarnation;
use millstream_common::log::Entry;
use millstream_common::log::entry::ReplayEntry;
use ractor::RpcReplyPort;
use tracing::info;

use super::claims;
use super::job_actor::{JobState, Phase};
use super::lifecycle::Handled;
use crate::log_actor::LogMessage;
use crate::supervisor::supervisor_actor::answer;

impl JobState {
    /// Replays that the log knows and that no Epoch has recorded.
    pub(super) fn claim_replays(&mut self) {
        for (source, replays) in self.progress.replays.clone() {
            let found = replays
                .into_iter()
                .map(|(split, object)| (split, object.beginning()));
            self.claims.add(source, found, &self.progress);
        }
    }

    pub(super) fn replay(
        &mut self,
        entry: ReplayEntry,
        reply: RpcReplyPort<Result<bool, ControlError>>,
    ) -> Handled {
        if let Err(refused) = self.takes_replays(entry.incarnation) {
            answer(reply, Err(refused));
            return Ok(());
        }
        let (source, split) = (entry.source, entry.split.clone());
        let is_new = self
            .progress
            .add_replay(source, split, entry.object.clone());
        if is_new {
            let rows = entry.object.row_count;
            info!(job = %self.entry.job, split = %entry.split, rows, "send rows again");
            self.claim_replays();
        }
        // Said again while the first entry is on its way, it is answered behind that.
        let on_written = Box::new(move |_| answer(reply, Ok(is_new)));
        self.log.cast(LogMessage::Append {
            entry: Box::new(Entry::Replay(Box::new(entry))),
            on_written,
        })?;
        self.give_new_splits()
    }

    /// Whether rows can be sent through that life of the job.
    pub(super) fn takes_replays(&self, life: Incarnation) -> Result<(), ControlError> {
        let name = self.entry.job.to_string();
        let ending = |state: &str| ControlError::NotRunning {
            name: name.clone(),
            state: state.to_owned(),
        };
        if life != self.entry.incarnation {
            return Err(ControlError::Unavailable {
                cause: format!("job {name} was begun anew meanwhile"),
                active: None,
            });
        }
        match &self.phase {
            Phase::Ended(_) | Phase::Ending | Phase::Delivering(_) => {
                return Err(ending("over, or about to be"));
            }
            Phase::Reattaching { .. }
            | Phase::Waiting
            | Phase::Assigning
            | Phase::Deploying(_)
            | Phase::Running
            | Phase::Recovering => {}
        }
        let has_ended = self.looked.iter().all(|looked| *looked)
            && claims::all_ended(
                &self.entry.plan,
                &self.exhausted,
                &self.claims,
                &self.progress,
            );
        match (self.stop, has_ended || self.progress.drained) {
            (Some(_), _) => Err(ending("being stopped")),
            (None, true) => Err(ending("at the end of its input")),
            (None, false) => Ok(()),
        }
    }
}
