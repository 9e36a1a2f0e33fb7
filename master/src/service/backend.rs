//! What the control service asks of the master behind it.
//!
//! Implemented on the master's supervisor actor; tests bring their own. Every answer is a snapshot.
//! Failure: a [`ControlError`], which the service maps to a status once.

use async_trait::async_trait;
use millstream_common::control::{
    CheckpointView, ControlError, JobView, LetterQuery, PlanView, ReplayRequest, Replayed,
    RewindTerms, SavepointView, SinkCommand, SinkView, StopMode, Stopped, SubmitRequest, Submitted,
    WatermarksView, WorkerView,
};
use millstream_common::ids::{JobName, WorkerId};

use crate::letters::listing::Listed;
use crate::preview::Previewed;

/// The master as its clients see it. Names of jobs have been checked for their characters.
#[async_trait]
pub trait ControlBackend: Send + Sync + 'static {
    /// Plans, checks and starts a job. Nothing is started where this fails.
    async fn submit(&self, request: SubmitRequest) -> Result<Submitted, ControlError>;
    /// Ends a job; answers when its last epoch is delivered, or after thirty seconds with the sinks
    /// that do not hold it yet.
    async fn stop(&self, name: &JobName, mode: StopMode) -> Result<Stopped, ControlError>;
    /// One job as it is now.
    async fn get(&self, name: &JobName) -> Result<JobView, ControlError>;
    /// Pauses or resumes a sink of a job; the sink as it is then.
    async fn command_sink(
        &self,
        name: &JobName,
        sink: &str,
        command: SinkCommand,
    ) -> Result<SinkView, ControlError>;
    /// Sends a sink of a job back to an earlier epoch; the sink as it is then.
    async fn rewind_sink(
        &self,
        name: &JobName,
        sink: &str,
        terms: RewindTerms,
    ) -> Result<SinkView, ControlError>;
    /// All jobs, by name.
    async fn list(&self) -> Result<Vec<JobView>, ControlError>;
    /// The workers that have joined, by name.
    async fn workers(&self) -> Result<Vec<WorkerView>, ControlError>;
    /// How far time has come in a job, and who holds it back.
    async fn watermarks(&self, name: &JobName) -> Result<WatermarksView, ControlError>;
    /// The SQL of a job and what it was planned to.
    async fn plan(&self, name: &JobName) -> Result<PlanView, ControlError>;
    /// Where the dashboard of the active master is, where that is another one and known.
    fn dashboard_of_active(&self) -> Option<String>;
    /// Keeps the job's next epoch by name; without one it is named after the epoch.
    async fn create_savepoint(
        &self,
        name: &JobName,
        savepoint: Option<String>,
    ) -> Result<SavepointView, ControlError>;
    /// The savepoints of a job, oldest first.
    async fn savepoints(&self, name: &JobName) -> Result<Vec<SavepointView>, ControlError>;
    /// Keeps a savepoint no longer; as it was.
    async fn drop_savepoint(
        &self,
        name: &JobName,
        savepoint: &str,
    ) -> Result<SavepointView, ControlError>;
    /// Gives a worker no more tasks; the worker as it is then.
    async fn drain_worker(&self, worker: &WorkerId) -> Result<WorkerView, ControlError>;
    /// The newest `limit` epochs of a job, newest first.
    async fn checkpoints(
        &self,
        name: &JobName,
        limit: usize,
    ) -> Result<Vec<CheckpointView>, ControlError>;
    /// The dead letters that are kept of a job, newest first, part by part.
    async fn dead_letters(
        &self,
        name: &JobName,
        query: LetterQuery,
    ) -> Result<Listed, ControlError>;
    /// The rows of a relation of a running job, as they flow.
    async fn preview(&self, name: &JobName, relation: &str) -> Result<Previewed, ControlError>;
    /// Sends rows through a job again; answers when the log has it.
    async fn replay(
        &self,
        name: &JobName,
        request: ReplayRequest,
    ) -> Result<Replayed, ControlError>;
}
