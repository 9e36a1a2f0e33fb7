//! The trace of a submission, from the call to its entry in the log; its job adds what comes after (`job/traces`).
//!
//! Begun by the backend and handed on with the submission, because a caller that hangs up ends the call, but not what it has set going:
//! whoever settles the submission tells its root. One that nobody settles is told as given up. Costs nothing while no trace is kept.

use std::sync::Arc;

use millstream_common::control::ControlError;
use millstream_common::ids::{Epoch, JobName};
use millstream_common::log::entry::JobEntry;
use millstream_common::time::{ClockRef, SystemClock};
use millstream_common::trace::{NoTracer, Span, TraceId, TracerRef};

use crate::job::traces::SUBMIT;

/// What happened of one submission, and where its spans go.
#[derive(Debug)]
pub struct SubmissionTrace {
    tracer: TracerRef,
    clock: ClockRef,
    job: JobName,
    begun_us: i64,
    /// When its SQL was planned and checked.
    planned_us: Option<i64>,
    is_told: bool,
}

/// One that nobody wants.
impl Default for SubmissionTrace {
    fn default() -> Self {
        let clock: ClockRef = Arc::new(SystemClock::new());
        Self::begin(Arc::new(NoTracer), clock, &JobName::from(""))
    }
}

impl SubmissionTrace {
    /// A submission has come.
    pub(crate) fn begin(tracer: TracerRef, clock: ClockRef, job: &JobName) -> Self {
        Self {
            begun_us: clock.unix_micros(),
            tracer,
            clock,
            job: job.clone(),
            planned_us: None,
            is_told: false,
        }
    }

    /// It is planned and checked.
    pub(crate) fn planned(&mut self) {
        self.planned_us = Some(self.clock.unix_micros());
    }

    /// It is in the log: the job goes on behind epoch `from`.
    pub(crate) fn recorded(mut self, entry: &JobEntry, from: Epoch) {
        let trace = TraceId::of_submission(entry.incarnation, entry.submitted_at_us, from);
        self.tell(trace, Ok(Some(from)));
    }

    /// What it asks for is there already. That is a trace of its own.
    pub(crate) fn unchanged(mut self) {
        self.tell(TraceId::of_refused(&self.job, self.begun_us), Ok(None));
    }

    /// It is not taken. That is a trace of its own.
    pub(crate) fn refused(mut self, refused: &ControlError) {
        self.tell_refused(refused.to_string());
    }

    fn tell_refused(&mut self, cause: String) {
        self.tell(TraceId::of_refused(&self.job, self.begun_us), Err(cause));
    }

    fn tell(&mut self, trace: TraceId, outcome: Result<Option<Epoch>, String>) {
        if std::mem::replace(&mut self.is_told, true) {
            return;
        }
        let Some(root) = self.tracer.root(trace) else {
            return;
        };
        let now_us = self.clock.unix_micros();
        let planned_us = self.planned_us.unwrap_or(now_us);
        let step = |name, times: (i64, i64)| {
            let span = Span::child(root, name, "", times);
            self.tracer.record(span.with("job", self.job.as_str()));
        };
        step("plan", (self.begun_us, planned_us));
        if let Ok(Some(_)) = outcome {
            step("record", (planned_us, now_us));
        }
        let mut span = Span::root(SUBMIT, root, self.begun_us, now_us);
        span = span.with("job", self.job.as_str());
        match outcome {
            Ok(Some(from)) => span = span.with("epoch", from.0),
            Ok(None) => span = span.with("outcome", "unchanged"),
            Err(cause) => span.error = Some(cause),
        }
        self.tracer.record(span);
    }
}

/// The caller has hung up before anything was set going, or the master ends.
impl Drop for SubmissionTrace {
    fn drop(&mut self) {
        self.tell_refused("given up: nobody waits for it, or the master ended".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::KeptSpans;

    #[test]
    fn a_submission_that_nobody_settles_is_told_as_given_up_and_one_that_is_settled_once() {
        let kept = Arc::new(KeptSpans::default());
        let clock: ClockRef = Arc::new(SystemClock::new());
        let begin = || SubmissionTrace::begin(kept.clone(), clock.clone(), &"clicks".into());
        begin().refused(&ControlError::Invalid("no".to_owned()));
        assert_eq!(kept.names(), ["plan", SUBMIT]);
        drop(begin());
        assert_eq!(kept.names(), ["plan", SUBMIT, "plan", SUBMIT]);
        let spans = kept.spans();
        let given_up = spans[3].error.as_deref().unwrap_or_default();
        assert!(given_up.contains("given up"), "{given_up}");
        assert_eq!(spans[2].parent, spans[3].context.span);
    }
}
