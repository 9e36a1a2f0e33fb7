//! What a job runs and where, for whoever wants to look at its rows.
//!
//! Answered by `job_actor.rs`, read by [`crate::preview`]. Failure: a job that is not placed at the moment, or never will be again.

use std::collections::BTreeMap;

use millstream_common::control::{ControlError, JobState as State};
use millstream_common::ids::{Generation, JobName, WorkerId};
use millstream_common::plan::JobPlan;

use super::job_actor::JobState;

/// A job whose tasks run.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its name.
    pub job: JobName,
    /// The running generation.
    pub generation: Generation,
    /// As submitted.
    pub sql: String,
    /// What that was planned to.
    pub plan: JobPlan,
    /// The workers that have tasks, with the addresses of their Flight servers.
    pub workers: BTreeMap<WorkerId, String>,
}

impl JobState {
    pub(super) fn placed(&self) -> Result<Placed, ControlError> {
        let job = self.entry.job.clone();
        let state = self.view().state;
        match state {
            State::Running => {}
            State::Stopping | State::Stopped | State::Finished | State::Failed => {
                return Err(ControlError::NotRunning {
                    name: job.0,
                    state: state.to_string(),
                });
            }
            State::Waiting | State::Deploying | State::Recovering => {
                return Err(ControlError::Unavailable {
                    cause: format!("job {job} is {state}: its tasks do not run"),
                    active: None,
                });
            }
        }
        let tasks = self.assignment.tasks.iter();
        let workers = tasks.filter_map(|placement| {
            let handle = self.workers.get(&placement.worker)?;
            Some((placement.worker.clone(), handle.flight_address.clone()))
        });
        Ok(Placed {
            workers: workers.collect(),
            job,
            generation: self.generation,
            sql: self.entry.sql.clone(),
            plan: self.entry.plan.clone(),
        })
    }
}
