//! What the control service asks of dead letters, answered from storage alone.
//!
//! Called by the master's backend, and by the clerk ([`super::clerk_actor`]) for a job as the log tells it. What there is follows from
//! the log, so no actor is asked and none waits.
//! Failure: an unknown job or relation is named with the nearest; storage that does not answer is `Unavailable`.

use millstream_common::control::{ControlError, LetterQuery};
use millstream_common::error::chain;
use millstream_common::ids::JobName;
use millstream_common::store::StoreRef;
use millstream_common::suggest::nearest;
use millstream_common::time::ClockRef;

use super::index::{Dropped, Limits};
use super::listing::{self, Listed};
use crate::replay::ReplayedJob;
use crate::retention::history::read_history;

/// Answers about dead letters.
pub struct Desk {
    store: StoreRef,
    clock: ClockRef,
}

impl Desk {
    /// Over the storage with the log.
    pub fn new(store: StoreRef, clock: ClockRef) -> Self {
        Self { store, clock }
    }

    /// Lists dead letters of a job.
    pub async fn list(&self, name: &JobName, query: LetterQuery) -> Result<Listed, ControlError> {
        let job = self.job(name).await?;
        listing::list(self.store.clone(), job, query)
    }

    /// What the retention does not keep is not shown, whether the collector has come to it or not.
    fn leave_out_old(&self, job: &mut ReplayedJob) {
        let delivered = job.progress.delivered;
        let limits = Limits {
            count_max: usize::MAX,
            ..Limits::of(job, delivered, self.clock.unix_micros())
        };
        while job.letters.drop_old(&limits) != Dropped::default() {}
    }

    /// A job, with the letters that are kept of it.
    pub(super) async fn job(&self, name: &JobName) -> Result<ReplayedJob, ControlError> {
        let mut history =
            read_history(&self.store)
                .await
                .map_err(|error| ControlError::Unavailable {
                    cause: format!("read the log: {}", chain(&error)),
                    active: None,
                })?;
        match history.jobs.remove(name) {
            Some(mut job) => {
                self.leave_out_old(&mut job);
                Ok(job)
            }
            None => Err(ControlError::NotFound {
                name: name.to_string(),
                nearest: nearest(name.as_str(), history.jobs.keys().map(JobName::as_str))
                    .map(str::to_owned),
            }),
        }
    }
}
