//! Rows that sinks refused, on their way into the log: those that are dead letters by place, those that are dropped by number.
//!
//! Called by `lifecycle.rs` when a deliverer says what its sink refused, and by `commit.rs` for each Epoch. The next Epoch
//! names them; when the input has ended and no barrier comes any more, they are an Epoch of their own. Keeps INV-10: a row is
//! named once, also where a deliverer gave up on a try and began another. Failure: what a generation has not recorded by
//! its end is forgotten; its sinks are asked again by the next one.

use std::collections::BTreeMap;

use millstream_common::ids::SinkIndex;
use millstream_common::log::entry::{EpochEntry, JobProgress};
use millstream_common::mutant::{self, Mutant};
use millstream_common::report::{Refusal, RefusedRows};

use super::job_actor::{JobState, Phase};
use super::lifecycle::Handled;

/// What deliverers of the running generation have said and no Epoch names yet: at most one try a sink.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    waiting: Vec<Refusal>,
    /// Rows that sinks dropped and no Epoch counts yet. They outlast the generation: what is left out of a sink stays out.
    dropped: BTreeMap<SinkIndex, u64>,
    /// The same that an Epoch on its way into the log counts.
    being_counted: BTreeMap<SinkIndex, u64>,
}

impl Refusals {
    /// Takes what a deliverer says; a later try of a sink takes the place of the one before.
    pub(super) fn add(&mut self, refusal: Refusal) {
        self.waiting
            .retain(|known| known.refused.sink != refusal.refused.sink);
        self.waiting.push(refusal);
    }

    /// Takes the count of rows that a sink has dropped.
    pub(super) fn add_dropped(&mut self, sink: SinkIndex, count: u64) {
        if count > 0 {
            *self.dropped.entry(sink).or_default() += count;
        }
    }

    /// Rows that a sink dropped and no Epoch of the log counts yet.
    pub(super) fn dropped_by(&self, sink: SinkIndex) -> u64 {
        let counts = [&self.dropped, &self.being_counted];
        counts.iter().filter_map(|count| count.get(&sink)).sum()
    }

    /// What the next Epoch is to count.
    pub(super) fn take_dropped(&mut self) -> BTreeMap<SinkIndex, u64> {
        self.being_counted = std::mem::take(&mut self.dropped);
        self.being_counted.clone()
    }

    /// The Epoch that counts them is in the log.
    pub(super) fn dropped_counted(&mut self) {
        self.being_counted.clear();
    }

    /// What the next Epoch is to name: without rows that an earlier one names, of which their sink will hear.
    pub(super) fn take(&mut self, progress: &JobProgress) -> Vec<Refusal> {
        self.drop_named(progress);
        std::mem::take(&mut self.waiting)
    }

    /// Drops what the log names by now: said again, it would be named again once its sink holds the epoch that names it.
    pub(super) fn drop_named(&mut self, progress: &JobProgress) {
        let is_done = |refusal: &Refusal| is_named(&refusal.refused, progress);
        self.waiting
            .retain(|refusal| !is_done(refusal) || mutant::is(Mutant::NameRefusalsTwice));
    }

    /// The generation is over: what its deliverers wait for will not come.
    pub(super) fn forget(&mut self) {
        self.waiting.clear();
    }
}

/// Whether one of the rows is in the log already. An epoch that names rows is kept at least until their sink holds it.
fn is_named(refused: &RefusedRows, progress: &JobProgress) -> bool {
    let named = progress.recent.iter().flat_map(|epoch| &epoch.refused);
    let named = named.chain(&progress.left_out);
    let mut of_sink = named.filter(|named| named.sink == refused.sink);
    of_sink.any(|named| {
        let in_both = |(epoch, rows): (_, &Vec<u64>)| {
            let known = named.rows.get(epoch);
            known.is_some_and(|known| rows.iter().any(|row| known.contains(row)))
        };
        refused.rows.iter().any(in_both)
    })
}

impl JobState {
    pub(super) fn sink_refused(&mut self, refusal: Refusal) -> Handled {
        self.refusals.add(refusal);
        self.refusals.drop_named(&self.progress);
        self.record_refusals()
    }

    /// While the job runs the next barrier takes them along; behind the last one they are an Epoch without a barrier.
    pub(super) fn record_refusals(&mut self) -> Handled {
        if self.committing || !matches!(self.phase, Phase::Delivering(_)) {
            return Ok(());
        }
        let refusals = self.refusals.take(&self.progress);
        let dropped = self.refusals.take_dropped();
        if refusals.is_empty() && dropped.is_empty() {
            return Ok(());
        }
        let (refused, segments): (Vec<_>, Vec<_>) = refusals
            .into_iter()
            .map(|refusal| (refusal.refused, refusal.segments))
            .unzip();
        let life = (&self.entry.job, self.entry.incarnation);
        let epoch = self.coordinator.skip_barrier();
        let entry = EpochEntry {
            segments: segments.concat(),
            sink_markers: self.progress.sink_markers.clone(),
            refused,
            dropped,
            drained: self.progress.drained,
            without_barrier: true,
            ..EpochEntry::empty(life, self.progress.epoch, epoch, self.generation)
        };
        self.commit(entry)
    }
}

#[cfg(test)]
mod tests {
    use millstream_common::ids::Epoch;
    use millstream_common::log::entry::CommittedEpoch;

    use super::*;

    fn refusal(sink: u32, attempt: &str, rows: &[u64]) -> Refusal {
        Refusal {
            refused: RefusedRows {
                sink: SinkIndex(sink),
                attempt: attempt.to_owned(),
                rows: [(Epoch(3), rows.to_vec())].into(),
            },
            segments: Vec::new(),
        }
    }

    fn attempts(refusals: &[Refusal]) -> Vec<&str> {
        let attempts = refusals.iter();
        attempts
            .map(|refusal| refusal.refused.attempt.as_str())
            .collect()
    }

    #[test]
    fn what_is_said_again_or_tried_again_is_named_once() {
        let mut refusals = Refusals::default();
        for said in [
            refusal(0, "a", &[1]),
            refusal(1, "b", &[1]),
            refusal(0, "a", &[1]),
            refusal(0, "c", &[1, 2]),
        ] {
            refusals.add(said);
        }
        let taken = refusals.take(&JobProgress::default());
        assert_eq!(attempts(&taken), ["b", "c"]);
        assert!(refusals.take(&JobProgress::default()).is_empty());
    }

    #[test]
    fn rows_that_a_sink_dropped_are_counted_also_while_their_epoch_is_on_its_way() {
        let sink = SinkIndex(0);
        let mut refusals = Refusals::default();
        refusals.add_dropped(sink, 3);
        assert_eq!(refusals.take_dropped(), [(sink, 3)].into());
        refusals.add_dropped(sink, 1);
        assert_eq!(refusals.dropped_by(sink), 4);
        refusals.dropped_counted();
        assert_eq!(refusals.dropped_by(sink), 1);
    }

    #[test]
    fn what_is_said_again_while_its_epoch_is_on_its_way_is_not_named_once_that_is_delivered() {
        let mut progress = JobProgress::default();
        let mut refusals = Refusals::default();
        refusals.add(refusal(0, "a", &[1]));
        let named = refusals.take(&progress);
        refusals.add(refusal(0, "a", &[1]));
        progress.recent.push(CommittedEpoch {
            epoch: Epoch(4),
            parent: Epoch(3),
            segments: Vec::new(),
            refused: named.into_iter().map(|named| named.refused).collect(),
            last: false,
        });
        refusals.drop_named(&progress);
        progress.recent.clear();
        assert!(refusals.take(&progress).is_empty());
    }

    #[test]
    fn rows_that_an_earlier_epoch_names_are_not_named_again() {
        let mut progress = JobProgress::default();
        progress.recent.push(CommittedEpoch {
            epoch: Epoch(4),
            parent: Epoch(3),
            segments: Vec::new(),
            refused: vec![refusal(0, "a", &[1, 5]).refused],
            last: false,
        });
        let mut refusals = Refusals::default();
        refusals.add(refusal(0, "late", &[5]));
        refusals.add(refusal(1, "of another sink", &[5]));
        let taken = refusals.take(&progress);
        assert_eq!(attempts(&taken), ["of another sink"]);
        refusals.add(refusal(0, "other rows", &[6]));
        assert_eq!(attempts(&refusals.take(&progress)), ["other rows"]);
    }
}
