//! The trace of a submission, from the call to its answer; its job adds what comes after (`job/traces.rs`).
//!
//! Told by the backend. Cannot fail; costs nothing while no trace is kept.

use std::sync::Arc;

use millstream_common::control::{ControlError, Submitted};
use millstream_common::ids::{Incarnation, JobName};
use millstream_common::time::{ClockRef, SystemClock};
use millstream_common::trace::{NoTracer, Span, TraceContext, TraceId, TracerRef};

use crate::job::traces::SUBMIT;

/// Where spans of submissions go.
pub(crate) struct SubmissionTraces {
    tracer: TracerRef,
    clock: ClockRef,
}

/// When what happened of one submission.
pub(crate) struct SubmissionTimes {
    job: JobName,
    begun_us: i64,
    planned_us: Option<i64>,
}

impl Default for SubmissionTraces {
    fn default() -> Self {
        Self::new(Arc::new(NoTracer), Arc::new(SystemClock::new()))
    }
}

impl SubmissionTraces {
    pub(crate) fn new(tracer: TracerRef, clock: ClockRef) -> Self {
        Self { tracer, clock }
    }

    /// A submission has come.
    pub(crate) fn begin(&self, job: &JobName) -> SubmissionTimes {
        SubmissionTimes {
            job: job.clone(),
            begun_us: self.clock.unix_micros(),
            planned_us: None,
        }
    }

    /// It is planned and checked.
    pub(crate) fn planned(&self, times: &mut SubmissionTimes) {
        times.planned_us = Some(self.clock.unix_micros());
    }

    /// It is answered. One that is refused is a trace of its own.
    pub(crate) fn end(&self, times: SubmissionTimes, submitted: &Result<Submitted, ControlError>) {
        let trace = match submitted {
            Ok(submitted) => trace_of(submitted),
            Err(_) => Some(TraceId::of_refused(&times.job, times.begun_us)),
        };
        let Some(root) = trace.and_then(|trace| self.tracer.root(trace)) else {
            return;
        };
        let now_us = self.clock.unix_micros();
        let planned_us = times.planned_us.unwrap_or(now_us);
        self.step(root, "plan", (times.begun_us, planned_us));
        if submitted.is_ok() {
            self.step(root, "record", (planned_us, now_us));
        }
        let mut span = Span::root(SUBMIT, root, times.begun_us, now_us);
        span = span.with("job", times.job.as_str());
        match submitted {
            Ok(submitted) => {
                let epoch = submitted.resumed_from.unwrap_or_default();
                span = span.with("epoch", epoch.0);
            }
            Err(error) => span.error = Some(error.to_string()),
        }
        self.tracer.record(span);
    }

    fn step(&self, root: TraceContext, name: &'static str, times: (i64, i64)) {
        self.tracer.record(Span::child(root, name, "", times));
    }
}

fn trace_of(submitted: &Submitted) -> Option<TraceId> {
    let incarnation = submitted.job.incarnation.parse().ok()?;
    let submitted_at_us = submitted.job.submitted_at_us;
    Some(TraceId::of_submission(
        Incarnation(incarnation),
        submitted_at_us,
    ))
}
