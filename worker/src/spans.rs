//! The spans of a pipeline: what its tasks did of an epoch, kept until the epoch is in the log.
//!
//! Fed by the pipeline's actor with what its tasks report anyway, emptied by the worker's supervisor when the master says
//! EpochCommitted: an epoch that is never committed has no trace, so none lacks its root. One a pipeline, shared by the two and by
//! the observers of its sinks. Holds the one epoch in flight, and nothing while no collector is configured (INV-9); a few that are in
//! flight outlive their pipelines, for an epoch that is on its way into the log gets there whatever becomes of its generation.
//! Cannot fail.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millstream_common::ids::{Epoch, Incarnation, OutputIndex, SourceIndex, TaskId, WorkerId};
use millstream_common::link::{Deploy, JobGeneration};
use millstream_common::plan::JobPlan;
use millstream_common::time::ClockRef;
use millstream_common::trace::{Span, TraceContext, TraceId, TracerRef, Value};
use millstream_sinks::delivery::DeliveredEpoch;

use crate::config::WorkerConfig;
use crate::pipeline::report::TaskReport;
use crate::work::{Step, Stretch};

/// The spans of one pipeline.
#[derive(Debug)]
pub struct PipelineSpans {
    tracer: TracerRef,
    clock: ClockRef,
    at: JobGeneration,
    incarnation: Incarnation,
    worker: WorkerId,
    /// Of the placement that built the pipeline, if it is kept.
    placement: Option<TraceContext>,
    pending: Mutex<InFlight>,
}

/// Of pipelines that have ended with an epoch in flight: one that nobody commits is never told.
#[derive(Debug, Default)]
pub(crate) struct EndedSpans(VecDeque<Arc<PipelineSpans>>);

/// Pipelines that end in one moment, and then some (INV-9).
const ENDED_KEPT: usize = 64;

impl EndedSpans {
    /// A pipeline has ended.
    pub(crate) fn keep(&mut self, spans: Arc<PipelineSpans>) {
        if spans.has_pending() {
            self.0.push_back(spans);
        }
        if self.0.len() > ENDED_KEPT {
            self.0.pop_front();
        }
    }

    /// An epoch of a pipeline that may be among them is in the log.
    pub(crate) fn committed(&self, at: &JobGeneration, epoch: Epoch, trace: Option<TraceContext>) {
        for spans in self.0.iter().filter(|spans| spans.at == *at) {
            spans.committed(epoch, trace);
        }
    }
}

/// What tasks did of the epoch in flight. Of those before it whatever is not in the log by now never will be: EpochCommitted comes
/// before the next barrier, and an epoch in which nothing changed is never committed.
#[derive(Debug, Default)]
struct InFlight(BTreeMap<Epoch, Vec<Pending>>);

impl InFlight {
    fn add(&mut self, epoch: Epoch, pending: Vec<Pending>) {
        self.0 = self.0.split_off(&epoch);
        self.0.entry(epoch).or_default().extend(pending);
    }

    fn take(&mut self, epoch: Epoch) -> Vec<Pending> {
        let later = self.0.split_off(&epoch.next());
        let mut done = std::mem::replace(&mut self.0, later);
        done.remove(&epoch).unwrap_or_default()
    }
}

/// What a task did of one step, without its trace.
#[derive(Debug)]
struct Pending {
    step: Step,
    /// The task, or the output.
    who: String,
    times: (i64, i64),
    attributes: Vec<(&'static str, Value)>,
    links: Vec<TraceContext>,
}

impl PipelineSpans {
    /// Of the pipeline that `deploy` is about.
    pub fn new(deploy: &Deploy, worker: &WorkerConfig) -> Self {
        Self {
            tracer: worker.tracer.clone(),
            clock: worker.clock.clone(),
            at: deploy.at.clone(),
            incarnation: deploy.incarnation,
            worker: worker.name.clone(),
            placement: deploy.trace,
            pending: Mutex::default(),
        }
    }

    /// Whether anybody wants spans.
    pub fn is_on(&self) -> bool {
        self.tracer.is_on()
    }

    fn has_pending(&self) -> bool {
        let in_flight = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        !in_flight.0.is_empty()
    }

    /// A task has said what it did of an epoch.
    pub(crate) fn reported(&self, plan: &JobPlan, report: &TaskReport) {
        if !self.is_on() {
            return;
        }
        let now = self.now();
        let work = report.work();
        let pending = work.steps.iter().map(|(step, stretch)| {
            let mut attributes = described(plan, report);
            if *step == Step::Consume {
                attributes.push(("splits", split_count(report).into()));
            }
            attributes.extend([
                ("rows", stretch.rows.into()),
                ("bytes", stretch.bytes.into()),
                ("busy_us", (stretch.busy.as_micros() as u64).into()),
            ]);
            if *step == Step::Exchange {
                let blocked = work.blocked.as_micros() as u64;
                attributes.push(("blocked_us", blocked.into()));
            }
            Pending {
                step: *step,
                who: speaker(report),
                times: now.of(stretch),
                attributes,
                links: match step {
                    Step::Consume => work.links.clone(),
                    _ => Vec::new(),
                },
            }
        });
        let pending: Vec<Pending> = pending.collect();
        let mut in_flight = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        in_flight.add(report.epoch(), pending);
    }

    /// An epoch is in the log; `trace` is the root of its trace, if that is kept. What lies before it has come to nothing.
    pub(crate) fn committed(&self, epoch: Epoch, trace: Option<TraceContext>) {
        if !self.is_on() {
            return;
        }
        let done = {
            let mut in_flight = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            in_flight.take(epoch)
        };
        let Some(trace) = trace else {
            return;
        };
        // A task may do one step in two places, and spans of one id are one: an operator folds rows in front of an exchange too.
        let mut told = BTreeMap::new();
        for pending in done {
            let name = pending.step.as_str();
            let task = format!("{}/{}", self.worker, pending.who);
            let count = told.entry((name, task.clone())).or_insert(0_u32);
            let who = match *count {
                0 => task,
                _ => format!("{task}/{count}"),
            };
            *count += 1;
            let mut span = self.of_job(Span::child(trace, name, &who, pending.times));
            span = span.with("epoch", epoch.0);
            span.attributes.extend(pending.attributes);
            span.links = pending.links;
            self.tracer.record(span);
        }
    }

    /// The tasks are built, or could not be; begun at monotonic time `begun`.
    pub(crate) fn restored(&self, deploy: &Deploy, begun: Duration, error: Option<String>) {
        let Some(placement) = self.placement.filter(|_| self.is_on()) else {
            return;
        };
        let times = self.since(begun);
        let parts = deploy.restore.parts.values().flatten();
        let tasks = deploy.assignment.tasks.iter();
        let here = tasks.filter(|task| task.worker == self.worker).count();
        let span = Span::child(placement, "restore", &self.who(self.worker.as_str()), times)
            .with("epoch", deploy.restore.epoch.0)
            .with("tasks", here as u64)
            .with("parts", parts.clone().count() as u64)
            .with("bytes", parts.map(|part| part.bytes).sum::<u64>());
        let mut span = self.of_job(span);
        span.error = error;
        self.tracer.record(span);
    }

    /// A sink is ready to be delivered to, since monotonic time `begun`.
    pub(crate) fn fenced(&self, sink: &str, begun: Duration) {
        let Some(placement) = self.placement.filter(|_| self.is_on()) else {
            return;
        };
        let span = Span::child(placement, "fence", &self.who(sink), self.since(begun));
        self.tracer.record(self.of_job(span).with("sink", sink));
    }

    /// The context of a sink's delivery of an epoch, if it is kept.
    pub(crate) fn delivery(&self, sink: &str, epoch: Epoch) -> Option<TraceContext> {
        let trace = TraceId::of_epoch(self.incarnation, epoch);
        let root = self.tracer.root(trace)?;
        Some(root.child(DELIVER, &self.who(sink)))
    }

    /// A sink holds these epochs, as one run that began at monotonic time `begun`.
    pub(crate) fn delivered(&self, sink: &str, epochs: &[DeliveredEpoch], begun: Duration) {
        if !self.is_on() {
            return;
        }
        let times = self.since(begun);
        for delivered in epochs {
            let trace = TraceId::of_epoch(self.incarnation, delivered.epoch);
            if let Some(root) = self.tracer.root(trace) {
                let span = Span::child(root, DELIVER, &self.who(sink), times)
                    .with("epoch", delivered.epoch.0)
                    .with("sink", sink)
                    .with("rows", delivered.rows)
                    .with("bytes", delivered.bytes)
                    .with("run_epochs", epochs.len() as u64);
                self.tracer.record(self.of_job(span));
            }
        }
    }

    /// What is done again by another generation is another span.
    fn who(&self, name: &str) -> String {
        format!("{name}/{}", self.at.generation)
    }

    fn of_job(&self, span: Span) -> Span {
        span.with("job", self.at.job.as_str())
            .with("generation", self.at.generation.0)
            .with("worker", self.worker.as_str())
    }

    fn since(&self, begun: Duration) -> (i64, i64) {
        let stretch = Stretch {
            begun: Some(begun),
            ended: self.clock.monotonic(),
            ..Stretch::default()
        };
        self.now().of(&stretch)
    }

    fn now(&self) -> Now {
        Now {
            monotonic: self.clock.monotonic(),
            unix_us: self.clock.unix_micros(),
        }
    }
}

/// What the spans of deliveries are called.
const DELIVER: &str = "deliver";

/// One moment on both clocks.
struct Now {
    monotonic: Duration,
    unix_us: i64,
}

impl Now {
    fn of(&self, stretch: &Stretch) -> (i64, i64) {
        let unix = |at: Duration| {
            let ago = self.monotonic.saturating_sub(at).as_micros() as i64;
            self.unix_us - ago
        };
        let ended = unix(stretch.ended);
        (stretch.begun.map_or(ended, unix), ended)
    }
}

fn speaker(report: &TaskReport) -> String {
    match report {
        TaskReport::Read { task, .. } | TaskReport::Snapshotted { task, .. } => task.to_string(),
        TaskReport::Shipped { output, .. } => format!("output {output}"),
    }
}

/// Where in the plan a report comes from.
fn described(plan: &JobPlan, report: &TaskReport) -> Vec<(&'static str, Value)> {
    let stage = |task: TaskId| Value::from(plan.stages[task.stage.index()].name.as_str());
    let source = |source: SourceIndex| Value::from(plan.sources[source.index()].name.as_str());
    let output = |output: OutputIndex| Value::from(plan.outputs[output.index()].relation.as_str());
    match report {
        TaskReport::Read {
            task, source: of, ..
        } => vec![
            ("stage", stage(*task)),
            ("task", u64::from(task.index).into()),
            ("source", source(*of)),
        ],
        TaskReport::Snapshotted { task, .. } => vec![
            ("stage", stage(*task)),
            ("task", u64::from(task.index).into()),
        ],
        TaskReport::Shipped { output: of, .. } => vec![("relation", output(*of))],
    }
}

fn split_count(report: &TaskReport) -> u64 {
    match report {
        TaskReport::Read { splits, .. } => splits.len() as u64,
        TaskReport::Snapshotted { .. } | TaskReport::Shipped { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use millstream_common::ids::Generation;
    use millstream_common::time::SystemClock;
    use millstream_common::trace::{SpanCounts, Tracer};

    use super::*;

    /// Keeps every trace.
    #[derive(Debug, Default)]
    struct Kept(Mutex<Vec<Span>>);

    impl Tracer for Kept {
        fn keeps(&self, _: TraceId) -> bool {
            true
        }

        fn record(&self, span: Span) {
            self.0.lock().expect("no panic").push(span);
        }

        fn counts(&self) -> Option<SpanCounts> {
            Some(SpanCounts::default())
        }
    }

    fn spans(kept: &Arc<Kept>, generation: u64, epoch: Option<u64>) -> Arc<PipelineSpans> {
        let spans = PipelineSpans {
            tracer: kept.clone(),
            clock: Arc::new(SystemClock::new()),
            at: JobGeneration {
                job: "clicks".into(),
                generation: Generation(generation),
            },
            incarnation: Incarnation::fresh(),
            worker: "w".into(),
            placement: None,
            pending: Mutex::default(),
        };
        if let Some(epoch) = epoch {
            let mut in_flight = spans.pending.lock().expect("no panic");
            in_flight.add(Epoch(epoch), vec![pending()]);
            drop(in_flight);
        }
        Arc::new(spans)
    }

    #[test]
    fn what_a_pipeline_did_of_an_epoch_is_told_although_it_ended_before_the_epoch_was_in_the_log() {
        let kept = Arc::new(Kept::default());
        let told = || kept.0.lock().expect("no panic").len();
        let ended_pipeline = spans(&kept, 7, Some(4));
        let at = ended_pipeline.at.clone();
        let trace = Some(TraceContext::root(TraceId(1)));
        let mut ended = EndedSpans::default();
        ended.keep(ended_pipeline);
        ended.keep(spans(&kept, 9, None));
        assert_eq!(ended.0.len(), 1, "the other had nothing in flight");
        ended.committed(&spans(&kept, 9, None).at, Epoch(4), trace);
        assert_eq!(told(), 0, "of another generation");
        ended.committed(&at, Epoch(4), trace);
        ended.committed(&at, Epoch(4), trace);
        assert_eq!(told(), 1);
        for generation in 10..1_000 {
            ended.keep(spans(&kept, generation, Some(4)));
        }
        assert_eq!(ended.0.len(), ENDED_KEPT, "INV-9");
    }

    fn pending() -> Pending {
        Pending {
            step: Step::Operator,
            who: "1.0".to_owned(),
            times: (0, 1),
            attributes: Vec::new(),
            links: Vec::new(),
        }
    }

    #[test]
    fn a_task_that_does_one_step_in_two_places_tells_two_spans() {
        let kept = Arc::new(Kept::default());
        let pipeline = spans(&kept, 7, None);
        let mut in_flight = pipeline.pending.lock().expect("no panic");
        in_flight.add(Epoch(4), vec![pending(), pending()]);
        drop(in_flight);
        pipeline.committed(Epoch(4), Some(TraceContext::root(TraceId(1))));
        let told = kept.0.lock().expect("no panic");
        assert_eq!(told.len(), 2);
        assert_ne!(told[0].context.span, told[1].context.span);
    }

    #[test]
    fn epochs_that_are_never_committed_leave_nothing_behind() {
        let mut in_flight = InFlight::default();
        for epoch in 1..=1_000 {
            in_flight.add(Epoch(epoch), vec![pending()]);
            in_flight.add(Epoch(epoch), vec![pending()]);
        }
        assert_eq!(in_flight.0.len(), 1);
        assert_eq!(in_flight.take(Epoch(1_000)).len(), 2);
        assert!(in_flight.0.is_empty());
    }
}
