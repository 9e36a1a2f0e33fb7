//! Whether a submission begins a job, goes on with one, or is refused.
//!
//! Pure; asked by the supervisor. A stopped or failed job goes on under the same plan only: state of another plan could not be
//! told apart from lost rows.

use millstream_common::control::ControlError;
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

/// Decides about a submission under the name of `existing`.
pub fn decide(
    job: &JobName,
    plan: &JobPlan,
    fresh: bool,
    existing: Option<Existing<'_>>,
) -> Result<Decision, ControlError> {
    let Some(existing) = existing else {
        return Ok(Decision::Begin);
    };
    match existing.ended {
        None => Err(ControlError::AlreadyRunning {
            name: job.to_string(),
        }),
        Some(_) if fresh => Ok(Decision::Begin),
        Some(JobEnd::Finished) => Err(finished(job)),
        Some(JobEnd::Stopped | JobEnd::Failed { .. }) if existing.plan == plan => {
            Ok(Decision::Resume)
        }
        Some(JobEnd::Stopped | JobEnd::Failed { .. }) => Err(changed(job, existing.plan, plan)),
    }
}

/// A bounded or drained job has nothing left to do.
fn finished(job: &JobName) -> ControlError {
    ControlError::Invalid(format!(
        "job {job} has finished: submit it with --fresh to run it again (append sinks receive rows again)"
    ))
}

fn changed(job: &JobName, before: &JobPlan, now: &JobPlan) -> ControlError {
    let differing = [
        ("settings", before.settings != now.settings),
        ("sources", before.sources != now.sources),
        (
            "views",
            before.stages != now.stages || before.outputs != now.outputs,
        ),
        ("sinks", before.sinks != now.sinks),
    ];
    let names: Vec<&str> = differing
        .iter()
        .filter(|(_, differs)| *differs)
        .map(|(name, _)| *name)
        .collect();
    ControlError::PlanChanged {
        name: job.to_string(),
        difference: format!("other {}", names.join(", ")),
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

    fn submit(
        fresh: bool,
        ended: Option<&JobEnd>,
        interval_ms: u64,
    ) -> Result<Decision, ControlError> {
        let old = plan(1);
        let existing = Existing { plan: &old, ended };
        decide(&"clicks".into(), &plan(interval_ms), fresh, Some(existing))
    }

    #[test]
    fn a_stopped_job_goes_on_under_the_same_plan_only() {
        assert_eq!(
            submit(false, Some(&JobEnd::Stopped), 1),
            Ok(Decision::Resume)
        );
        let changed = submit(false, Some(&JobEnd::Stopped), 2);
        assert!(
            matches!(changed, Err(ControlError::PlanChanged { .. })),
            "{changed:?}"
        );
        assert_eq!(submit(true, Some(&JobEnd::Stopped), 2), Ok(Decision::Begin));
    }

    #[test]
    fn a_running_name_is_refused_even_when_fresh() {
        let refused = submit(true, None, 1);
        assert!(
            matches!(refused, Err(ControlError::AlreadyRunning { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn a_finished_job_is_run_again_only_when_asked_to() {
        let again = submit(false, Some(&JobEnd::Finished), 1);
        assert!(matches!(again, Err(ControlError::Invalid(_))), "{again:?}");
        assert_eq!(
            submit(true, Some(&JobEnd::Finished), 1),
            Ok(Decision::Begin)
        );
    }
}
