//! The processes behind the verbs: a master, a worker, the SQL front end. The one place that knows
//! how they are started.

use std::sync::Arc;

use millstream_common::blocking::{BlockingRef, ThreadPool};
use millstream_common::plan::JobPlan;
use millstream_common::problem::Problem;
use millstream_common::secret;
use millstream_common::time::ClockRef;
use millstream_master::Candidacy;
pub(crate) use millstream_master::Master;
use millstream_master::config::{ConnectorsRef, MasterConfig, RealConnectors};
use millstream_master::plan;
use millstream_master::probe::RealProbe;
pub(crate) use millstream_worker::Worker;
use millstream_worker::config::WorkerConfig;
use serde::Serialize;

/// Tells this machine from all others, and this container from others on it: the kernel's random number of this boot, and the
/// name. Where there is none every process counts as a machine, which costs a restarted master a short wait.
pub(crate) fn host() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    match (host_name(), boot) {
        (Some(name), Some(boot)) => format!("{name}/{}", boot.trim()),
        _ => millstream_common::ids::nonce(),
    }
}

/// The name of this machine, or of this container.
pub(crate) fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned())
}

/// Starts a master that reigns when no other does.
pub(crate) async fn stand_as_master(
    config: MasterConfig,
    candidacy: Candidacy,
) -> anyhow::Result<Master> {
    Ok(Master::stand(config, candidacy).await?)
}

/// Starts a master that reigns at once.
pub(crate) async fn start_master(config: MasterConfig) -> anyhow::Result<Master> {
    Ok(Master::start(config).await?)
}

/// Starts a worker.
pub(crate) async fn start_worker(config: WorkerConfig) -> anyhow::Result<Worker> {
    Ok(Worker::start(config).await?)
}

/// A job as it would run.
pub(crate) struct Explained {
    /// For people.
    pub(crate) text: String,
    /// For programs.
    pub(crate) plan: JobPlan,
}

/// A master's ways to real services.
pub(crate) fn master_connectors(blocking: &BlockingRef, clock: &ClockRef) -> ConnectorsRef {
    Arc::new(RealConnectors {
        blocking: blocking.clone(),
        clock: clock.clone(),
    })
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
pub(crate) async fn check(sql: &str) -> anyhow::Result<Findings> {
    let drafted = plan::draft_job(sql, &secret::Environment);
    let warnings = match &drafted.planned {
        Ok(planned) => planned.warnings.clone(),
        Err(_) => Vec::new(),
    };
    let probe = RealProbe::new(Arc::new(ThreadPool));
    let checked = plan::check_job(drafted, &probe).await;
    Ok(Findings {
        problems: checked.err().unwrap_or_default(),
        warnings,
    })
}

/// The stages of a job, or the problems of its SQL.
pub(crate) fn explain(sql: &str) -> Result<Explained, Vec<Problem>> {
    let planned = plan::plan_job(sql, &secret::Environment)?;
    Ok(Explained {
        text: plan::explain(&planned),
        plan: planned.plan,
    })
}
