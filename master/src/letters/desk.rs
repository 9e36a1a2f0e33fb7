//! What the control service asks of dead letters, answered from storage alone.
//!
//! Called by the master's backend. What there is follows from the log, so no actor is asked and none waits. Rows are sent
//! again by one call at a time: which letters were sent before is looked up in the log, and the next call has to see it.
//! Failure: an unknown job or relation is named with the nearest; storage that does not answer is `Unavailable`.

use millstream_common::control::{ControlError, LetterQuery, ReplayRequest};
use millstream_common::error::chain;
use millstream_common::ids::JobName;
use millstream_common::store::StoreRef;
use millstream_common::suggest::nearest;
use millstream_common::time::ClockRef;
use tokio::sync::{Mutex, MutexGuard};

use super::index::{Dropped, Limits};
use super::listing::{self, Listed};
use super::resend::{self, Prepared};
use crate::replay::ReplayedJob;
use crate::retention::history::read_history;

/// Answers about dead letters.
pub struct Desk {
    store: StoreRef,
    clock: ClockRef,
    one_at_a_time: Mutex<()>,
}

impl Desk {
    /// Over the storage with the log.
    pub fn new(store: StoreRef, clock: ClockRef) -> Self {
        Self {
            store,
            clock,
            one_at_a_time: Mutex::new(()),
        }
    }

    /// Lists dead letters of a job.
    pub async fn list(&self, name: &JobName, query: LetterQuery) -> Result<Listed, ControlError> {
        let job = self.job(name).await?;
        listing::list(self.store.clone(), job, query)
    }

    /// To be held from before [`Self::prepare`] until the log has what was prepared.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.one_at_a_time.lock().await
    }

    /// Stores the rows that are to go through the job again; they do once the log names them.
    pub async fn prepare(
        &self,
        name: &JobName,
        request: ReplayRequest,
    ) -> Result<Prepared, ControlError> {
        let job = self.job(name).await?;
        resend::prepare(&self.store, &job, request, self.clock.unix_micros()).await
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

    async fn job(&self, name: &JobName) -> Result<ReplayedJob, ControlError> {
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
