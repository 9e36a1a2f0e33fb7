//! Roots that a killed master may have taken with it, told once more by the next one.
//!
//! Called as a job's actor begins, with what the log says of its life ([`Retold`]). A span has its id from what it is of, so whoever collects
//! both has the same one twice; [`AGAIN`] tells them apart. Pure, but for the spans that it hands on.

use millstream_common::ids::Epoch;
use millstream_common::log::entry::{JobEntry, Placement};
use millstream_common::trace::{Span, TraceId};

use super::{JobTraces, SUBMIT, name_of};
use crate::replay::retold::Retold;

/// Tells of a span that it may have been told by another process already.
pub(super) const AGAIN: &str = "told_again";
/// Whoever has lived so long after a span was recorded has exported it.
pub(super) const LONG_AGO_US: i64 = 60_000_000;

impl JobTraces {
    /// Roots that the last master may have recorded and not exported; where it has, they are told twice. Of a job that has ended
    /// long ago the last master has had the time.
    pub(super) fn tell_again(&self, retold: &Retold, has_ended: bool, now_us: i64) {
        let is_sure = |at_us: i64| has_ended && now_us - at_us > LONG_AGO_US;
        let newest = retold.epochs.back();
        if newest.is_some_and(|told| !is_sure(told.committed_at_us)) || !has_ended {
            let placements = retold.placements.iter();
            placements.for_each(|(_, placement)| self.tell_placement_again(placement));
        }
        let mut begun_us = None;
        for told in &retold.epochs {
            let at_us = told.committed_at_us;
            if let Some(root) = self.of_epoch(told.epoch).filter(|_| !is_sure(at_us)) {
                let times = (begun_us.unwrap_or(at_us), at_us);
                self.tell_once_more(self.epoch_span(root, told, times));
            }
            begun_us = Some(at_us);
        }
    }

    /// The root of a recovery, or of whatever else made the last master place the job.
    fn tell_placement_again(&self, placement: &Placement) {
        let (cause, at_us) = (placement.cause, placement.begun_at_us);
        let trace = self.of_cause(cause, placement.before, at_us);
        if let Some(root) = self.tracer.root(trace) {
            let span = Span::root(name_of(Some(cause)), root, at_us, at_us)
                .with("job", self.job.as_str())
                .with("generation", placement.before.0);
            self.tell_once_more(span);
        }
    }

    /// The root of a submission that the last master has taken, likewise. What came before it in the life has no part in it.
    pub(super) fn tell_submission_again(&self, entry: &JobEntry, retold: &Retold, now_us: i64) {
        let Some(from) = retold.begun_behind else {
            return;
        };
        let first = retold.epochs.iter().find(|told| told.epoch > from);
        let at_us = match from {
            Epoch(0) => entry.submitted_at_us,
            _ => first.map_or(now_us, |told| told.committed_at_us),
        };
        let trace = TraceId::of_submission(entry.incarnation, entry.submitted_at_us, from);
        let Some(root) = self.tracer.root(trace) else {
            return;
        };
        if now_us - at_us > LONG_AGO_US {
            return;
        }
        let span = Span::root(SUBMIT, root, at_us, at_us)
            .with("job", self.job.as_str())
            .with("epoch", from.0);
        self.tell_once_more(span);
    }

    fn tell_once_more(&self, span: Span) {
        self.tracer.record(span.with(AGAIN, "by the next master"));
    }
}
