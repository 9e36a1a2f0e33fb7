//! Whether a submission begins a job, goes on with one, or is refused.
//!
//! Pure; asked by the supervisor. A stopped or failed job goes on under the same plan only: state of another plan could not be
//! told apart from lost rows.

use millstream_common::ids::JobName;
use millstream_common::log::entry::JobEnd;
use millstream_common::plan::JobPlan;

/// The job that has the name already.
#[derive(Clone, Copy, Debug)]
pub struct Existing<'a> {
    /// What it runs.
    pub plan: &'a JobPlan,
    /// How it ended; `None` while it has not.
    pub ended: Option<&'a JobEnd>,
}

/// What to do with a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A new life, from nothing.
    Begin,
    /// The old life goes on from its last epoch.
    Resume,
}

/// Why a submission is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitRefused {
    /// The name is taken by a job that has not ended.
    #[error("job {0} is running; stop it first with `millstream stop {0}`, or submit under another name")]
    AlreadyRunning(JobName),
    /// The old life belongs to another plan.
    #[error("the SQL of job {0} has changed since it was stopped: submit under another name, or with --fresh to begin from nothing (append sinks receive rows again)")]
    PlanChanged(JobName),
    /// A bounded or drained job has nothing left to do.
    #[error("job {0} has finished; submit it with --fresh to run it again (append sinks receive rows again)")]
    AlreadyFinished(JobName),
}

/// Decides about a submission under the name of `existing`.
pub fn decide(
    job: &JobName,
    plan: &JobPlan,
    fresh: bool,
    existing: Option<Existing<'_>>,
) -> Result<Decision, SubmitRefused> {
    let Some(existing) = existing else {
        return Ok(Decision::Begin);
    };
    match existing.ended {
        None => Err(SubmitRefused::AlreadyRunning(job.clone())),
        Some(_) if fresh => Ok(Decision::Begin),
        Some(JobEnd::Finished) => Err(SubmitRefused::AlreadyFinished(job.clone())),
        Some(JobEnd::Stopped | JobEnd::Failed { .. }) if existing.plan == plan => Ok(Decision::Resume),
        Some(JobEnd::Stopped | JobEnd::Failed { .. }) => Err(SubmitRefused::PlanChanged(job.clone())),
    }
}

#[cfg(test)]
mod tests {
    use millstream_common::plan::JobSettings;

    use super::*;

    fn plan(interval_ms: u64) -> JobPlan {
        JobPlan {
            settings: JobSettings {
                checkpoint_interval_ms: interval_ms,
                ..JobSettings::default()
            },
            sources: Vec::new(),
            stages: Vec::new(),
            outputs: Vec::new(),
            sinks: Vec::new(),
        }
    }

    fn submit(fresh: bool, ended: Option<&JobEnd>, interval_ms: u64) -> Result<Decision, SubmitRefused> {
        let old = plan(1);
        let existing = Existing { plan: &old, ended };
        decide(&"clicks".into(), &plan(interval_ms), fresh, Some(existing))
    }

    #[test]
    fn a_stopped_job_goes_on_under_the_same_plan_only() {
        assert_eq!(submit(false, Some(&JobEnd::Stopped), 1), Ok(Decision::Resume));
        let changed = submit(false, Some(&JobEnd::Stopped), 2);
        assert_eq!(changed, Err(SubmitRefused::PlanChanged("clicks".into())));
        assert_eq!(submit(true, Some(&JobEnd::Stopped), 2), Ok(Decision::Begin));
    }

    #[test]
    fn a_running_name_is_refused_even_when_fresh() {
        assert_eq!(submit(true, None, 1), Err(SubmitRefused::AlreadyRunning("clicks".into())));
    }

    #[test]
    fn a_finished_job_is_run_again_only_when_asked_to() {
        let again = submit(false, Some(&JobEnd::Finished), 1);
        assert_eq!(again, Err(SubmitRefused::AlreadyFinished("clicks".into())));
        assert_eq!(submit(true, Some(&JobEnd::Finished), 1), Ok(Decision::Begin));
    }
}
