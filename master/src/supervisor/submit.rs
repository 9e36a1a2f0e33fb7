//! Whether a submission begins a job, goes on with one, or is refused.
//!
//! Pure; asked by the supervisor. A stopped or failed job goes on under the same plan only: state of another plan could not be
//! told apart from lost rows. What runs as it is submitted is left as it is, so that whoever has lost the answer may ask again.

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
    /// The submission that it runs by, as its client named it.
    pub submission: Option<&'a str>,
}

/// What is asked for, beside the name.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// What is to run.
    pub plan: &'a JobPlan,
    /// As a new life.
    pub fresh: bool,
    /// From a checkpoint that is named.
    pub is_from: bool,
    /// The submission, as its client names it in each try.
    pub submission: Option<&'a str>,
}

impl Wanted<'_> {
    /// Whether a job that runs is what is asked for: by this very submission, or the same by one that does not say how it is to begin.
    pub fn is_running_as(&self, running: Existing<'_>) -> bool {
        let is_plain = !self.fresh && !self.is_from;
        self.is_retry_of(running) || (is_plain && self.plan == running.plan)
    }

    fn is_retry_of(&self, existing: Existing<'_>) -> bool {
        self.submission.is_some() && self.submission == existing.submission
    }
}

/// What to do with a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A new life, from nothing.
    Begin,
    /// The old life goes on from its last epoch.
    Resume,
    /// It runs, as it is asked for.
    Leave,
}

/// Decides about a submission under the name of `existing`.
pub fn decide(
    job: &JobName,
    wanted: Wanted<'_>,
    existing: Option<Existing<'_>>,
) -> Result<Decision, ControlError> {
    let plan = wanted.plan;
    let Some(existing) = existing else {
        return Ok(Decision::Begin);
    };
    match existing.ended {
        // A short job may have come to its end before its client tries again.
        Some(_) if wanted.is_retry_of(existing) => Ok(Decision::Leave),
        None if wanted.is_running_as(existing) => Ok(Decision::Leave),
        None => Err(ControlError::AlreadyRunning {
            name: job.to_string(),
        }),
        Some(_) if wanted.fresh => Ok(Decision::Begin),
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
        submit_as("another", fresh, ended, interval_ms)
    }

    fn submit_as(
        submission: &str,
        fresh: bool,
        ended: Option<&JobEnd>,
        interval_ms: u64,
    ) -> Result<Decision, ControlError> {
        let (old, new) = (plan(1), plan(interval_ms));
        let existing = Existing {
            plan: &old,
            ended,
            submission: Some("first"),
        };
        let wanted = Wanted {
            plan: &new,
            fresh,
            is_from: false,
            submission: Some(submission),
        };
        decide(&"clicks".into(), wanted, Some(existing))
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
        for refused in [submit(true, None, 1), submit(false, None, 2)] {
            assert!(
                matches!(refused, Err(ControlError::AlreadyRunning { .. })),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn what_runs_as_it_is_submitted_is_left_as_it_is() {
        assert_eq!(submit(false, None, 1), Ok(Decision::Leave));
        let again = submit_as("first", true, None, 1);
        assert_eq!(again, Ok(Decision::Leave), "its answer was lost");
        let ended = submit_as("first", true, Some(&JobEnd::Finished), 1);
        assert_eq!(ended, Ok(Decision::Leave), "and it was short");
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
