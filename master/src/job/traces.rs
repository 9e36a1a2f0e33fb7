//! The master's part of a job's traces: the root of every epoch, and what a placement takes.
//!
//! Told by the job's actor what happens anyway; each word of it costs nothing while no trace is kept. A placement is what begins a
//! generation: a submission, a recovery from a loss, or a move of shares; its trace lasts until the first epoch behind it. Losses
//! during a recovery prolong it. What workers and sinks did in between they add themselves, below the contexts that go with Deploy
//! and EpochCommitted. Pure, but for the spans that it hands on.

use std::time::Duration;

use millstream_common::ids::{Epoch, Generation, Incarnation, JobName};
use millstream_common::log::entry::{EpochEntry, JobEntry};
use millstream_common::trace::{Span, TraceContext, TraceId, TracerRef};
use tracing::info;

use super::job_actor::{JobConfig, JobState};

/// The traces that one job is in.
#[derive(Debug)]
pub(super) struct JobTraces {
    tracer: TracerRef,
    job: JobName,
    incarnation: Incarnation,
    /// Where the epoch that is being read began: at the last barrier, or the start of the generation.
    cut_us: Option<i64>,
    /// When the epoch of the barrier under way began, when that was sent, and when all workers had passed it.
    begun_us: Option<i64>,
    barrier_us: Option<i64>,
    collected_us: Option<i64>,
    placement: Option<Placement>,
}

/// A generation that is being begun.
#[derive(Debug)]
struct Placement {
    name: &'static str,
    /// The one before it.
    before: Generation,
    root: Option<TraceContext>,
    begun_us: i64,
    /// When the step that it is in began.
    step_us: i64,
    cause: Option<String>,
}

impl JobTraces {
    /// Of a job whose actor begins.
    pub(super) fn begin(config: &JobConfig) -> Self {
        let is_submitted = config.end.is_none() && config.lasting.is_none();
        let tracer = config.tracer.clone();
        let now_us = config.clock.unix_micros();
        Self::new(tracer, &config.entry, is_submitted, now_us)
    }

    /// Of a job that is begun by a submission under this master, or found in the log by it.
    pub(super) fn new(
        tracer: TracerRef,
        entry: &JobEntry,
        is_submitted: bool,
        now_us: i64,
    ) -> Self {
        let mut traces = Self {
            tracer,
            job: entry.job.clone(),
            incarnation: entry.incarnation,
            cut_us: None,
            begun_us: None,
            barrier_us: None,
            collected_us: None,
            placement: None,
        };
        if is_submitted {
            let trace = TraceId::of_submission(entry.incarnation, entry.submitted_at_us);
            traces.place(SUBMIT, trace, Generation::default(), now_us, None);
        }
        traces
    }

    /// The root of an epoch's trace, if it is kept.
    pub(super) fn of_epoch(&self, epoch: Epoch) -> Option<TraceContext> {
        let trace = TraceId::of_epoch(self.incarnation, epoch);
        self.tracer.root(trace)
    }

    /// What workers build their share below.
    pub(super) fn of_placement(&self) -> Option<TraceContext> {
        self.placement.as_ref()?.root
    }

    /// Everything that is read from now on belongs to the next epoch.
    pub(super) fn barrier_sent(&mut self, now_us: i64) {
        let begun = self.cut_us.replace(now_us);
        self.begun_us = Some(begun.unwrap_or(now_us));
        self.barrier_us = Some(now_us);
        self.collected_us = None;
    }

    /// All workers have passed the barrier.
    pub(super) fn collected(&mut self, now_us: i64) {
        self.collected_us = Some(now_us);
    }

    /// The epoch is in the log. One without a barrier has only its commit.
    pub(super) fn committed(&mut self, entry: &EpochEntry, now_us: i64) {
        let barrier_us = self.barrier_us.take();
        let collected_us = self.collected_us.take().unwrap_or(now_us);
        let begun_us = self.begun_us.take().unwrap_or(collected_us);
        let Some(root) = self.of_epoch(entry.epoch) else {
            return;
        };
        if let Some(barrier_us) = barrier_us {
            let collect = Span::child(root, "collect", "", (barrier_us, collected_us));
            self.tracer.record(self.of_entry(collect, entry));
        }
        let segments = entry.segments.iter();
        let rows = segments.clone().map(|segment| segment.row_count);
        let bytes = segments.map(|segment| segment.bytes);
        let commit = Span::child(root, "commit", "", (collected_us, now_us));
        let commit = self.of_entry(commit, entry);
        let commit = commit.with("segments", entry.segments.len() as u64);
        let commit = commit.with("rows", rows.sum::<u64>());
        self.tracer.record(commit.with("bytes", bytes.sum::<u64>()));
        let counters = entry.counters.values();
        let splits = entry.splits.values().map(|splits| splits.len() as u64);
        let rows = counters.clone().map(|count| count.read).sum::<u64>();
        let bytes = counters.map(|count| count.bytes).sum::<u64>();
        let epoch = self.of_entry(Span::root("epoch", root, begun_us, now_us), entry);
        let epoch = epoch.with("parent", entry.parent.0).with("rows", rows);
        let epoch = epoch.with("bytes", bytes);
        self.tracer
            .record(epoch.with("splits", splits.sum::<u64>()));
    }

    fn of_entry(&self, span: Span, entry: &EpochEntry) -> Span {
        span.with("job", self.job.as_str())
            .with("generation", entry.generation.0)
            .with("epoch", entry.epoch.0)
    }

    /// The generation is lost: what was lost spoke last at `heard_us`.
    pub(super) fn lost(&mut self, lost: Generation, cause: &str, heard_us: i64, now_us: i64) {
        self.cut_us = None;
        self.begun_us = None;
        self.barrier_us = None;
        let placement = self.placement.as_mut();
        match placement.filter(|placement| placement.name == RECOVERY) {
            // Several are told of one loss, and one of them knows since when.
            Some(recovery) => recovery.begun_us = recovery.begun_us.min(heard_us),
            None => {
                let trace = TraceId::of_recovery(self.incarnation, lost);
                let cause = Some(cause.to_owned());
                self.place(RECOVERY, trace, lost, heard_us, cause);
            }
        }
        // A generation may be lost again while the next one is being placed.
        let who = format!("{lost}/{now_us}");
        self.step("detect", &who, (heard_us, now_us), |span| {
            span.with("generation", lost.0).with("cause", cause)
        });
    }

    fn is_recovering(&self) -> bool {
        let placement = self.placement.as_ref();
        placement.is_some_and(|placement| placement.name == RECOVERY)
    }

    /// The shares of the generation move, without a loss.
    pub(super) fn moves(&mut self, before: Generation, now_us: i64) {
        self.cut_us = None;
        let trace = TraceId::of_rescale(self.incarnation, before);
        self.place("rescale", trace, before, now_us, None);
    }

    /// The Assign entry of a generation is in the log.
    pub(super) fn assigned(&mut self, generation: Generation, now_us: i64) {
        self.timed_step("assign", generation, now_us);
    }

    /// All workers have built their share.
    pub(super) fn deployed(&mut self, generation: Generation, now_us: i64) {
        self.timed_step("deploy", generation, now_us);
        self.cut_us = Some(now_us);
    }

    /// The generation has committed its first epoch, or there was nothing to commit.
    pub(super) fn settled(&mut self, epoch: Option<Epoch>, generation: Generation, now_us: i64) {
        if self.placement.is_none() {
            return;
        }
        let link = epoch.and_then(|epoch| self.of_epoch(epoch));
        let since = self
            .placement
            .as_ref()
            .map_or(now_us, |placement| placement.step_us);
        self.step(
            "first_epoch",
            &generation.to_string(),
            (since, now_us),
            |mut span| {
                span.links.extend(link);
                span.with("generation", generation.0)
                    .with("epoch", epoch.unwrap_or_default().0)
            },
        );
        self.finish(None, now_us);
    }

    /// The job has ended before that.
    pub(super) fn ended(&mut self, now_us: i64) {
        self.finish(Some("the job ended".to_owned()), now_us);
    }

    fn place(
        &mut self,
        name: &'static str,
        trace: TraceId,
        before: Generation,
        begun_us: i64,
        cause: Option<String>,
    ) {
        self.finish(
            Some("another placement took its place".to_owned()),
            begun_us,
        );
        self.placement = Some(Placement {
            name,
            before,
            root: self.tracer.root(trace),
            begun_us,
            step_us: begun_us,
            cause,
        });
    }

    fn timed_step(&mut self, name: &'static str, generation: Generation, now_us: i64) {
        if let Some(placement) = &mut self.placement {
            let since = std::mem::replace(&mut placement.step_us, now_us);
            let who = generation.to_string();
            self.step(name, &who, (since, now_us), |span| {
                span.with("generation", generation.0)
            });
        }
    }

    fn step(
        &mut self,
        name: &'static str,
        who: &str,
        times: (i64, i64),
        tell: impl FnOnce(Span) -> Span,
    ) {
        let Some(placement) = &mut self.placement else {
            return;
        };
        placement.step_us = times.1;
        if let Some(root) = placement.root {
            let span = Span::child(root, name, who, times).with("job", self.job.as_str());
            self.tracer.record(tell(span));
        }
    }

    /// Ends the placement. The root of a submission is told by who takes it, for there it begins.
    fn finish(&mut self, error: Option<String>, now_us: i64) {
        let Some(placement) = self.placement.take() else {
            return;
        };
        let Some(root) = placement.root.filter(|_| placement.name != SUBMIT) else {
            return;
        };
        if error.is_none() {
            info!(job = %self.job, trace = %root.trace, "{} is over", placement.name);
        }
        let mut span = Span::root(placement.name, root, placement.begun_us, now_us)
            .with("job", self.job.as_str())
            .with("generation", placement.before.0);
        if let Some(cause) = placement.cause {
            span = span.with("cause", cause);
        }
        span.error = error;
        self.tracer.record(span);
    }
}

impl JobState {
    /// The generation is lost: because of a worker that was heard last some time ago, or of what it said just now.
    pub(super) fn trace_loss(&mut self, cause: &str) {
        let now_us = self.clock.unix_micros();
        let silence = match self.observed.heard_us.take() {
            None => Duration::ZERO,
            Some(heard_us) => {
                let heard = Duration::from_micros(heard_us);
                self.clock.monotonic().saturating_sub(heard)
            }
        };
        let heard_us = now_us - silence.as_micros() as i64;
        self.traces.lost(self.generation, cause, heard_us, now_us);
    }

    /// Nothing more is lost, but a recovery that is under way may have begun before others told of it.
    pub(super) fn trace_same_loss(&mut self, cause: &str) {
        match self.traces.is_recovering() {
            true => self.trace_loss(cause),
            false => self.observed.heard_us = None,
        }
    }
}

/// What the trace of a submission is called.
pub(crate) const SUBMIT: &str = "submit";
const RECOVERY: &str = "recovery";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use millstream_common::trace::{SpanCounts, Tracer};

    use super::*;
    use crate::testing::{ENDLESS, plan};

    fn job_entry() -> JobEntry {
        JobEntry {
            job: "numbers".into(),
            incarnation: Incarnation::fresh(),
            sql: String::new(),
            plan: plan(ENDLESS),
            submitted_at_us: 10,
            submission: None,
        }
    }

    fn epoch_entry(job: &JobEntry) -> EpochEntry {
        EpochEntry {
            job: job.job.clone(),
            incarnation: job.incarnation,
            epoch: Epoch(2),
            parent: Epoch(0),
            committed_at_us: 0,
            generation: Generation(2),
            splits: BTreeMap::new(),
            watermarks: BTreeMap::new(),
            parts: BTreeMap::new(),
            segments: Vec::new(),
            counters: BTreeMap::new(),
            flows: BTreeMap::new(),
            sink_markers: BTreeMap::new(),
            refused: Vec::new(),
            dropped: Default::default(),
            drained: false,
            without_barrier: false,
        }
    }

    /// Keeps every span.
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

    fn names(kept: &Kept) -> Vec<&'static str> {
        let spans = kept.0.lock().expect("no panic");
        spans.iter().map(|span| span.name).collect()
    }

    #[test]
    fn a_loss_during_a_recovery_prolongs_it_and_the_trace_is_whole() {
        let kept = Arc::new(Kept::default());
        let mut traces = JobTraces::new(kept.clone(), &job_entry(), false, 0);
        traces.lost(Generation(3), "worker w1 is lost", 100, 900);
        let placement = traces.of_placement();
        traces.assigned(Generation(5), 950);
        traces.lost(Generation(5), "worker w2 is lost", 960, 970);
        assert_eq!(traces.of_placement(), placement, "it is the same recovery");
        traces.assigned(Generation(7), 980);
        traces.deployed(Generation(7), 990);
        traces.settled(Some(Epoch(8)), Generation(7), 1_000);
        traces.settled(Some(Epoch(9)), Generation(7), 2_000);
        assert_eq!(
            names(&kept),
            [
                "detect",
                "assign",
                "detect",
                "assign",
                "deploy",
                "first_epoch",
                "recovery"
            ]
        );
        let spans = kept.0.lock().expect("no panic");
        let root = spans.last().expect("the root");
        assert_eq!((root.parent, root.start_us, root.end_us), (0, 100, 1_000));
        for span in spans.iter().take(spans.len() - 1) {
            assert_eq!(span.parent, root.context.span, "{span:?}");
        }
        let first = &spans[spans.len() - 2];
        assert_eq!(first.links, Vec::from_iter(traces.of_epoch(Epoch(8))));
    }

    #[test]
    fn a_submission_is_told_by_who_takes_it_and_an_epoch_begins_where_the_last_one_ended() {
        let kept = Arc::new(Kept::default());
        let entry = job_entry();
        let mut traces = JobTraces::new(kept.clone(), &entry, true, 10);
        traces.assigned(Generation(2), 20);
        traces.deployed(Generation(2), 30);
        traces.barrier_sent(80);
        traces.collected(90);
        traces.barrier_sent(180);
        traces.collected(190);
        let committed = epoch_entry(&entry);
        traces.committed(&committed, 200);
        traces.settled(Some(committed.epoch), Generation(2), 200);
        assert_eq!(
            names(&kept),
            [
                "assign",
                "deploy",
                "collect",
                "commit",
                "epoch",
                "first_epoch"
            ]
        );
        let spans = kept.0.lock().expect("no panic");
        let (collect, commit, epoch) = (&spans[2], &spans[3], &spans[4]);
        assert_eq!((epoch.start_us, epoch.end_us), (80, 200));
        assert_eq!((collect.start_us, collect.end_us), (180, 190));
        assert_eq!((commit.start_us, commit.parent), (190, epoch.context.span));
    }
}
