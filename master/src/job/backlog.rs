//! Epochs that are kept for long, put away into storage so that the master's memory, its boundaries and a Deploy stay bounded however
//! long a sink is down, and however far back one may be sent (INV-9).
//!
//! Called by `commit.rs` behind each epoch; `common::log::backlog` decides what goes and writes it. First the object, in a
//! task of the job's actor, then the entry that names it (INV-8), then everybody forgets the epochs: the fold is the same for
//! whoever reads the log. Failure: storage that does not answer leaves the epochs where they are; the next epoch tries again. A job that
//! has ended puts nothing away any more.

use millstream_common::error::chain;
use millstream_common::link::ToWorker;
use millstream_common::log::Entry;
use millstream_common::log::backlog::{self, BacklogPart};
use millstream_common::task::caught;
use tracing::{info, warn};

use super::job_actor::{JobMessage, JobState};
use super::lifecycle::Handled;
use super::recorded::Recorded;

impl JobState {
    /// Writes the oldest epochs to storage, if there are too many and none are on their way.
    pub(super) fn put_away(&mut self) {
        while self.puts_away.try_join_next().is_some() {}
        if self.is_putting_away {
            return;
        }
        let Some(epochs) = backlog::foldable(&self.progress.recent, self.recent_weight_max) else {
            return;
        };
        self.is_putting_away = true;
        let epochs = epochs.to_vec();
        let (store, incarnation) = (self.store.clone(), self.entry.incarnation);
        let myself = self.myself.clone();
        self.puts_away.spawn(async move {
            let stored = caught(backlog::store(&store, incarnation, &epochs)).await;
            let stored = match stored {
                Ok(Ok(part)) => Ok(part),
                Ok(Err(error)) => Err(chain(&error)),
                Err(panicked) => Err(panicked.to_string()),
            };
            // The actor outlives its tasks: they are in its state.
            let _ = myself.cast(JobMessage::PutAway(stored.map(|part| part.map(Box::new))));
        });
    }

    pub(super) fn stored(&mut self, stored: Result<Option<Box<BacklogPart>>, String>) -> Handled {
        match stored {
            // What goes on with the job begins from what was said of its end: an entry behind that would be of another plan, or
            // put the same epochs away twice. The object is collected with its epochs.
            Ok(Some(_)) if self.is_over() => {
                self.is_putting_away = false;
                Ok(())
            }
            Ok(Some(part)) => {
                let entry = Entry::Backlog {
                    job: self.entry.job.clone(),
                    incarnation: self.entry.incarnation,
                    part: part.clone(),
                };
                self.append(entry, Recorded::Backlog(part))
            }
            Ok(None) => {
                self.is_putting_away = false;
                Ok(())
            }
            Err(cause) => {
                warn!(job = %self.entry.job, %cause, "put away epochs that are kept; trying on");
                self.is_putting_away = false;
                Ok(())
            }
        }
    }

    pub(super) fn put_away_recorded(&mut self, part: BacklogPart) -> Handled {
        info!(job = %self.entry.job, from = %part.parent, to = %part.last, "epochs that are kept are put away");
        self.is_putting_away = false;
        self.progress.fold(&part);
        self.send_all(&ToWorker::Backlog(self.at(), vec![part]))
    }
}
