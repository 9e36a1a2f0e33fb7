//! What a worker counts of itself, and its answers to probes.
//!
//! Filled by the supervisor and the pipelines, at barriers and when jobs come and go; read when somebody asks over HTTP. One a worker,
//! shared. A job that has been here keeps its counters, so that they do not go back while it comes and goes; of those that have ended
//! only the last ones do, for names are made up for ever (INV-9). Cannot fail.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use millstream_common::http::Probes;
use millstream_common::ids::JobName;
use millstream_common::metrics::{Exposition, catalogue};
use millstream_common::plan::JobPlan;
use millstream_common::trace::TracerRef;
use tokio::sync::watch;

use crate::operator::spill::budget::StateBudget;
use crate::pipeline::report::{Speaker, TaskReport};
use crate::work::Step;

/// Jobs that do not run here any more and are still told: what ran for less than a scrape's interval is seen nevertheless.
const ENDED_KEPT: usize = 32;

/// The figures of one worker.
#[derive(Debug)]
pub struct Figures {
    tracer: TracerRef,
    /// Whether a master counts on the worker; the gRPC health service tells the same.
    has_joined: watch::Receiver<bool>,
    state: Arc<StateBudget>,
    jobs: Mutex<BTreeMap<JobName, JobFigures>>,
}

/// Of one job, since the process began.
#[derive(Debug, Default)]
struct JobFigures {
    is_running: bool,
    /// Counts the ends of jobs here, up to its own.
    ended_as: u64,
    /// Counted by the readers of the running pipeline.
    rows_read: Arc<AtomicU64>,
    /// Of the pipelines before.
    rows_before: u64,
    bytes_read: u64,
    segment_bytes: u64,
    /// By stage: worked, waited for credit.
    stages: BTreeMap<String, (Duration, Duration)>,
    /// By stage, or relation that is shipped: time and rows of each step.
    steps: BTreeMap<(String, Step), (Duration, u64)>,
}

impl Figures {
    /// Of a worker whose spans go to `tracer`, and that has a master while `has_joined` says so.
    pub fn new(
        tracer: TracerRef,
        has_joined: watch::Receiver<bool>,
        state: Arc<StateBudget>,
    ) -> Self {
        Self {
            tracer,
            has_joined,
            state,
            jobs: Mutex::default(),
        }
    }

    /// A pipeline begins; `rows_read` is what its readers count with.
    pub(crate) fn begun(&self, job: &JobName, rows_read: Arc<AtomicU64>) {
        self.of(job, |figures| {
            figures.rows_before += figures.rows_read.load(Ordering::Relaxed);
            figures.rows_read = rows_read;
            figures.is_running = true;
        });
    }

    /// A pipeline has ended.
    pub(crate) fn ended(&self, job: &JobName) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let last = jobs.values().map(|figures| figures.ended_as).max();
        let figures = jobs.entry(job.clone()).or_default();
        figures.is_running = false;
        figures.ended_as = last.unwrap_or_default() + 1;
        let ended = jobs.iter().filter(|(_, figures)| !figures.is_running);
        if ended.clone().count() > ENDED_KEPT {
            let oldest = ended.min_by_key(|(_, figures)| figures.ended_as);
            let oldest = oldest.map(|(job, _)| job.clone());
            if let Some(job) = oldest {
                jobs.remove(&job);
            }
        }
    }

    /// A task of a pipeline has passed a barrier.
    pub(crate) fn reported(&self, job: &JobName, plan: &JobPlan, report: &TaskReport) {
        self.of(job, |figures| {
            match report {
                TaskReport::Read { counters, .. } => figures.bytes_read += counters.bytes,
                TaskReport::Snapshotted { .. } => {}
                TaskReport::Shipped { segments, .. } => {
                    figures.segment_bytes +=
                        segments.iter().map(|segment| segment.bytes).sum::<u64>();
                }
            }
            let name = match report.speaker() {
                Speaker::Task(task) => {
                    let stage = &plan.stages[task.stage.index()].name;
                    let times = figures.stages.entry(stage.clone()).or_default();
                    times.0 += report.work().busy;
                    times.1 += report.work().blocked;
                    stage
                }
                Speaker::Output(output) => &plan.outputs[output.index()].relation,
            };
            for (step, stretch) in &report.work().steps {
                let spent = figures.steps.entry((name.clone(), *step)).or_default();
                spent.0 += stretch.busy;
                spent.1 += stretch.rows;
            }
        });
    }

    fn of(&self, job: &JobName, change: impl FnOnce(&mut JobFigures)) {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        change(jobs.entry(job.clone()).or_default());
    }
}

#[async_trait]
impl Probes for Figures {
    fn ready(&self) -> Result<String, String> {
        match *self.has_joined.borrow() {
            true => Ok("attached to a master".to_owned()),
            false => Err("no master".to_owned()),
        }
    }

    async fn metrics(&self) -> Exposition {
        let mut to = Exposition::of_process("worker");
        to.spans(self.tracer.as_ref());
        let has_joined = *self.has_joined.borrow();
        to.count(&catalogue::WORKER_ATTACHED, &[], u64::from(has_joined));
        to.count(
            &catalogue::WORKER_STATE,
            &["memory"],
            self.state.held_bytes(),
        );
        to.count(&catalogue::WORKER_STATE, &["disk"], self.state.disk_bytes());
        if let Some(limit) = self.state.bytes_limit() {
            to.count(&catalogue::WORKER_STATE_LIMIT, &[], limit);
        }
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let running = jobs.values().filter(|job| job.is_running).count();
        to.count(&catalogue::WORKER_PIPELINES, &[], running as u64);
        for (job, figures) in jobs.iter() {
            let job = job.as_str();
            let rows = figures.rows_before + figures.rows_read.load(Ordering::Relaxed);
            to.count(&catalogue::WORKER_ROWS, &[job], rows);
            to.count(&catalogue::WORKER_BYTES, &[job], figures.bytes_read);
            to.count(&catalogue::WORKER_SEGMENTS, &[job], figures.segment_bytes);
            for (stage, (busy, blocked)) in &figures.stages {
                let labels = [job, stage.as_str()];
                to.set(&catalogue::WORKER_BUSY, &labels, busy.as_secs_f64());
                to.set(&catalogue::WORKER_BLOCKED, &labels, blocked.as_secs_f64());
            }
            for ((stage, step), (time, rows)) in &figures.steps {
                let labels = [job, stage.as_str(), step.as_str()];
                to.set(&catalogue::WORKER_STEP_TIME, &labels, time.as_secs_f64());
                to.count(&catalogue::WORKER_STEP_ROWS, &labels, *rows);
            }
        }
        to
    }
}

#[cfg(test)]
mod tests {
    use millstream_common::trace::NoTracer;

    use super::*;

    #[tokio::test]
    async fn jobs_that_have_ended_are_forgotten_but_the_last_ones_and_those_that_run_are_not() {
        let (_, joined) = watch::channel(true);
        let figures = Figures::new(Arc::new(NoTracer), joined, StateBudget::new(1_000));
        figures.begun(&"runs".into(), Arc::default());
        let count = 2 * ENDED_KEPT;
        for number in 0..count {
            let job = JobName::from(format!("batch-{number}").as_str());
            figures.begun(&job, Arc::default());
            figures.ended(&job);
        }
        let text = figures.metrics().await.encode();
        let told = |job: &str| text.contains(&format!("read_rows_total{{job=\"{job}\"}}"));
        assert!(told("runs") && told(&format!("batch-{}", count - 1)));
        assert!(!told("batch-0"), "{text}");
        let jobs = text.matches("millstream_worker_read_rows_total{").count();
        assert_eq!(jobs, ENDED_KEPT + 1, "INV-9");
    }

    #[tokio::test]
    async fn counters_of_a_job_do_not_go_back_with_its_next_generation() {
        let (has_joined, joined) = watch::channel(false);
        let state = StateBudget::new(1_000);
        let figures = Figures::new(Arc::new(NoTracer), joined, Arc::clone(&state));
        let share = state.join();
        share.note_held(700);
        share.note_disk(5_000);
        let job = JobName::from("clicks");
        figures.begun(&job, Arc::new(AtomicU64::new(7)));
        figures.ended(&job);
        figures.begun(&job, Arc::new(AtomicU64::new(2)));
        let text = figures.metrics().await.encode();
        assert!(text.contains("millstream_worker_read_rows_total{job=\"clicks\"} 9.0"));
        assert!(text.contains("millstream_worker_pipelines 1.0"), "{text}");
        for told in [
            "state_bytes{place=\"memory\"} 700.0",
            "state_bytes{place=\"disk\"} 5000.0",
            "state_limit_bytes 1000.0",
        ] {
            assert!(text.contains(told), "{told}: {text}");
        }
        assert!(figures.ready().is_err(), "no master has said Welcome");
        has_joined.send_replace(true);
        assert!(figures.ready().is_ok());
    }
}
