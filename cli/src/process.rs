//! The processes behind the verbs: a master, a worker, the SQL front end. The one place that knows
//! how they are started.

use std::convert::Infallible;

use anyhow::bail;
use millstream_common::plan::JobPlan;
use millstream_common::problem::Problem;
use millstream_master::config::MasterConfig;
use millstream_worker::config::WorkerConfig;
use serde::Serialize;

/// A running master.
pub(crate) struct Master(Infallible);

impl Master {
    /// Where it really listens.
    pub(crate) fn address(&self) -> &str {
        match self.0 {}
    }

    /// Pends until it ends by itself.
    pub(crate) async fn finished(&mut self) -> anyhow::Result<()> {
        match self.0 {}
    }

    /// Ends it; jobs go on with the next one.
    pub(crate) async fn shutdown(self) {
        match self.0 {}
    }
}

/// A running worker.
pub(crate) struct Worker(Infallible);

impl Worker {
    /// Its name in the cluster.
    pub(crate) fn id(&self) -> &str {
        match self.0 {}
    }

    /// Pends until it ends by itself.
    pub(crate) async fn finished(&mut self) -> anyhow::Result<()> {
        match self.0 {}
    }

    /// Ends it; the master rewinds what ran here.
    pub(crate) async fn shutdown(self) {
        match self.0 {}
    }
}

/// Starts a master.
pub(crate) async fn start_master(_: MasterConfig) -> anyhow::Result<Master> {
    bail!("this binary is built without a master")
}

/// Starts a worker.
pub(crate) async fn start_worker(_: WorkerConfig) -> anyhow::Result<Worker> {
    bail!("this binary is built without a worker")
}

/// A job as it would run.
pub(crate) struct Explained {
    /// For people.
    pub(crate) text: String,
    /// For programs.
    pub(crate) plan: JobPlan,
}

/// What a check came to.
#[derive(Serialize)]
pub(crate) struct Findings {
    /// What keeps the job from running: of its SQL, and of what it refers to outside.
    pub(crate) problems: Vec<Problem>,
    /// What is allowed, but may not be meant.
    pub(crate) warnings: Vec<Problem>,
}

/// Looks at a job and at what it refers to outside.
pub(crate) async fn check(_: &str) -> anyhow::Result<Findings> {
    bail!("this binary is built without the SQL front end")
}

/// The stages of a job, or the problems of its SQL.
pub(crate) fn explain(_: &str) -> anyhow::Result<Result<Explained, Vec<Problem>>> {
    bail!("this binary is built without the SQL front end")
}
