//! The master's part of a job's traces: the root of every epoch, and what a placement takes.
//!
//! Told by the job's actor what happens anyway; each word of it costs nothing while no trace is kept. A placement is what begins a
//! generation, or goes on with one: a submission, a recovery from a loss, a move of shares, or a takeover by another master; its trace
//! lasts until the first epoch behind it. Losses during a recovery or a takeover prolong it. What workers and sinks did in between they
//! add themselves, below the contexts that go with Deploy and EpochCommitted.
//! No trace is without its root: a placement that the actor does not see to its end is told when the actor goes, and roots that a killed
//! master may have taken with it are told again by the next one: those of epochs and, by what its Assign entry says, of a placement, whose
//! own steps are told with the root and not before. Pure, but for the spans that it hands on.

mod again;

use std::time::Duration;

use millstream_common::ids::{Epoch, Generation, Incarnation, JobName};
use millstream_common::log::entry::{self, EpochEntry, JobEntry, PlacementCause};
use millstream_common::time::ClockRef;
use millstream_common::trace::{Span, TraceContext, TraceId, TracerRef};
use tracing::info;

use super::job_actor::{JobConfig, JobState};
use crate::replay::retold::ToldEpoch;

/// The traces that one job is in.
#[derive(Debug)]
pub(super) struct JobTraces {
    tracer: TracerRef,
    /// For a placement that nobody ends.
    clock: ClockRef,
    job: JobName,
    incarnation: Incarnation,
    /// Where the epoch that is being read began: at the last barrier, or the start of the generation.
    cut_us: Option<i64>,
    /// The barrier under way.
    open: Option<Cut>,
    /// The epoch on its way into the log, which gets there whatever becomes of its generation.
    appended: Option<Appended>,
    placement: Option<Placement>,
}

/// A barrier.
#[derive(Debug)]
struct Cut {
    /// When the epoch that it ends began.
    begun_us: i64,
    sent_us: i64,
    /// When all workers had passed it.
    collected_us: Option<i64>,
}

/// An epoch that is being committed.
#[derive(Debug)]
struct Appended {
    /// Its barrier, if it has one.
    cut: Option<Cut>,
    at_us: i64,
}

/// A generation that is being begun.
#[derive(Debug)]
struct Placement {
    /// `None` for a submission.
    cause: Option<PlacementCause>,
    /// The generation before it.
    before: Generation,
    root: Option<TraceContext>,
    begun_us: i64,
    /// When the step that it is in began.
    step_us: i64,
    /// What has happened, in words.
    reason: Option<String>,
    /// The steps that are over; at most [`STEPS_MAX`] (INV-9).
    steps: Vec<Span>,
}

impl JobTraces {
    /// Of a job whose actor begins.
    pub(super) fn begin(config: &JobConfig) -> Self {
        let (tracer, clock) = (config.tracer.clone(), config.clock.clone());
        let now_us = clock.unix_micros();
        let mut traces = Self::new(tracer, clock, &config.entry);
        if config.end.is_none() && config.lasting.is_none() {
            traces.submitted(&config.entry, config.progress.epoch, now_us);
        }
        traces.tell_again(&config.retold, config.end.is_some(), now_us);
        traces.tell_submission_again(&config.entry, &config.retold, now_us);
        traces
    }

    fn new(tracer: TracerRef, clock: ClockRef, entry: &JobEntry) -> Self {
        Self {
            tracer,
            clock,
            job: entry.job.clone(),
            incarnation: entry.incarnation,
            cut_us: None,
            open: None,
            appended: None,
            placement: None,
        }
    }

    /// The job is begun by a submission under this master, behind an epoch.
    fn submitted(&mut self, entry: &JobEntry, from: Epoch, now_us: i64) {
        let trace = TraceId::of_submission(entry.incarnation, entry.submitted_at_us, from);
        self.place(None, trace, Generation::default(), now_us, None);
    }

    /// The root of an epoch's trace, if it is kept.
    pub(super) fn of_epoch(&self, epoch: Epoch) -> Option<TraceContext> {
        let trace = TraceId::of_epoch(self.incarnation, epoch);
        self.tracer.root(trace)
    }

    /// Why the job is being placed, for the log.
    pub(super) fn placement(&self) -> Option<entry::Placement> {
        let placement = self.placement.as_ref()?;
        Some(entry::Placement {
            cause: placement.cause?,
            before: placement.before,
            begun_at_us: placement.begun_us,
        })
    }

    fn of_cause(&self, cause: PlacementCause, before: Generation, begun_us: i64) -> TraceId {
        match cause {
            PlacementCause::Recovery => TraceId::of_recovery(self.incarnation, before),
            PlacementCause::Rescale => TraceId::of_rescale(self.incarnation, before),
            PlacementCause::Takeover => TraceId::of_takeover(self.incarnation, begun_us),
        }
    }

    /// What workers build their share below.
    pub(super) fn of_placement(&self) -> Option<TraceContext> {
        self.placement.as_ref()?.root
    }

    /// Everything that is read from now on belongs to the next epoch.
    pub(super) fn barrier_sent(&mut self, now_us: i64) {
        let begun_us = self.cut_us.replace(now_us).unwrap_or(now_us);
        self.open = Some(Cut {
            begun_us,
            sent_us: now_us,
            collected_us: None,
        });
    }

    /// All workers have passed the barrier.
    pub(super) fn collected(&mut self, now_us: i64) {
        if let Some(cut) = &mut self.open {
            cut.collected_us = Some(now_us);
        }
    }

    /// Nothing has changed up to the barrier: it makes no epoch.
    pub(super) fn found_empty(&mut self) {
        self.open = None;
    }

    /// An epoch is on its way into the log.
    pub(super) fn appended(&mut self, entry: &EpochEntry, now_us: i64) {
        let cut = match entry.without_barrier {
            true => None,
            false => self.open.take(),
        };
        self.appended = Some(Appended { cut, at_us: now_us });
    }

    /// The epoch is in the log. One without a barrier has only its commit.
    pub(super) fn committed(&mut self, entry: &EpochEntry, now_us: i64) {
        let appended = self.appended.take();
        let Some(root) = self.of_epoch(entry.epoch) else {
            return;
        };
        let at_us = appended.as_ref().map_or(now_us, |appended| appended.at_us);
        let cut = appended.and_then(|appended| appended.cut);
        let begun_us = cut.as_ref().map_or(at_us, |cut| cut.begun_us);
        let collected_us = cut.as_ref().and_then(|cut| cut.collected_us);
        let collected_us = collected_us.unwrap_or(at_us);
        if let Some(cut) = cut {
            let collect = Span::child(root, "collect", "", (cut.sent_us, collected_us));
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
        let epoch = self.epoch_span(root, &entry.into(), (begun_us, now_us));
        self.tracer.record(epoch);
    }

    fn epoch_span(&self, root: TraceContext, told: &ToldEpoch, times: (i64, i64)) -> Span {
        Span::root("epoch", root, times.0, times.1)
            .with("job", self.job.as_str())
            .with("generation", told.generation.0)
            .with("epoch", told.epoch.0)
            .with("parent", told.parent.0)
            .with("rows", told.rows)
            .with("bytes", told.bytes)
            .with("splits", told.splits)
    }

    fn of_entry(&self, span: Span, entry: &EpochEntry) -> Span {
        span.with("job", self.job.as_str())
            .with("generation", entry.generation.0)
            .with("epoch", entry.epoch.0)
    }

    /// The generation is lost: what was lost spoke last at `heard_us`.
    pub(super) fn lost(&mut self, lost: Generation, cause: &str, heard_us: i64, now_us: i64) {
        self.cut_us = None;
        self.open = None;
        let placement = self.placement.as_mut();
        match placement.map(|placement| (placement.cause, &mut placement.begun_us)) {
            // Several are told of one loss, and one of them knows since when.
            Some((Some(PlacementCause::Recovery), begun_us)) => *begun_us = heard_us.min(*begun_us),
            // Its begin names its trace.
            Some((Some(PlacementCause::Takeover), _)) => {}
            _ => {
                let trace = TraceId::of_recovery(self.incarnation, lost);
                let reason = Some(cause.to_owned());
                self.place(
                    Some(PlacementCause::Recovery),
                    trace,
                    lost,
                    heard_us,
                    reason,
                );
            }
        }
        // A generation may be lost again while the next one is being placed.
        let who = format!("{lost}/{now_us}");
        self.step("detect", &who, (heard_us, now_us), |span| {
            span.with("generation", lost.0).with("cause", cause)
        });
    }

    fn is_recovering(&self) -> bool {
        let cause = self
            .placement
            .as_ref()
            .and_then(|placement| placement.cause);
        matches!(
            cause,
            Some(PlacementCause::Recovery | PlacementCause::Takeover)
        )
    }

    /// The job is found in the log, and waits for the workers that ran its generation under the last master.
    pub(super) fn taken_over(&mut self, generation: Generation, now_us: i64) {
        let trace = TraceId::of_takeover(self.incarnation, now_us);
        let cause = Some(PlacementCause::Takeover);
        self.place(cause, trace, generation, now_us, None);
    }

    /// They are there, and the generation goes on.
    pub(super) fn reattached(&mut self, generation: Generation, now_us: i64) {
        let placement = self.placement.as_ref();
        self.cut_us = placement.map(|placement| placement.begun_us);
        self.timed_step("reattach", generation, now_us);
    }

    /// The shares of the generation move, without a loss.
    pub(super) fn moves(&mut self, before: Generation, now_us: i64) {
        self.cut_us = None;
        let trace = TraceId::of_rescale(self.incarnation, before);
        let cause = Some(PlacementCause::Rescale);
        self.place(cause, trace, before, now_us, None);
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

    /// The generation has committed its first epoch; without one there was nothing to commit, and the step tells none.
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
                let span = span.with("generation", generation.0);
                match epoch {
                    Some(epoch) => span.with("epoch", epoch.0),
                    None => span,
                }
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
        cause: Option<PlacementCause>,
        trace: TraceId,
        before: Generation,
        begun_us: i64,
        reason: Option<String>,
    ) {
        self.finish(
            Some("another placement took its place".to_owned()),
            begun_us,
        );
        self.placement = Some(Placement {
            cause,
            before,
            root: self.tracer.root(trace),
            begun_us,
            step_us: begun_us,
            reason,
            steps: Vec::new(),
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
            match placement.cause {
                // Its root is told already.
                None => self.tracer.record(tell(span)),
                Some(_) => placement.steps.push(tell(span)),
            }
        }
        if placement.steps.len() > STEPS_MAX {
            let steps = placement.steps.drain(..);
            steps.for_each(|step| self.tracer.record(step));
        }
    }

    /// Ends the placement. The root of a submission is told by who takes it, for there it begins.
    fn finish(&mut self, error: Option<String>, now_us: i64) {
        let Some(placement) = self.placement.take() else {
            return;
        };
        let steps = placement.steps.into_iter();
        steps.for_each(|step| self.tracer.record(step));
        let Some(root) = placement.root.filter(|_| placement.cause.is_some()) else {
            return;
        };
        let name = name_of(placement.cause);
        if error.is_none() {
            info!(job = %self.job, trace = %root.trace, "{name} is over");
        }
        let mut span = Span::root(name, root, placement.begun_us, now_us)
            .with("job", self.job.as_str())
            .with("generation", placement.before.0);
        if let Some(reason) = placement.reason {
            span = span.with("cause", reason);
        }
        span.error = error;
        self.tracer.record(span);
    }
}

/// Also where the actor is killed with its master, or fails.
impl Drop for JobTraces {
    fn drop(&mut self) {
        let now_us = self.clock.unix_micros();
        let cause = "its master ended, or the job's actor";
        self.finish(Some(cause.to_owned()), now_us);
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
/// Steps of a placement that wait for its end: more than one without endless losses has.
const STEPS_MAX: usize = 64;

/// What the root of a placement is called.
fn name_of(cause: Option<PlacementCause>) -> &'static str {
    match cause {
        None => SUBMIT,
        Some(PlacementCause::Recovery) => "recovery",
        Some(PlacementCause::Rescale) => "rescale",
        Some(PlacementCause::Takeover) => "takeover",
    }
}

#[cfg(test)]
mod tests;
