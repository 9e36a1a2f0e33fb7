//! What a master that takes a job over tells again of its traces: the newest epochs, the newest placements and the submission.
//!
//! A master that is killed takes the spans with it that it has not exported yet, and among them roots of traces whose workers live on and
//! tell their share. So the next master tells those roots once more: of everything up to [`UNSURE_US`] before the last epoch, for longer no
//! span waits. Folded with the log, kept with its boundaries. Bounded (INV-9). Cannot fail.

use std::collections::VecDeque;

use millstream_common::ids::{Epoch, Generation};
use millstream_common::log::entry::{EpochEntry, Placement};
use serde::{Deserialize, Serialize};

/// A span waits a second to be exported, unless OTEL_BSP_SCHEDULE_DELAY says otherwise, and then for the collector.
const UNSURE_US: i64 = 5_000_000;
/// Epochs kept of a job: those of 5 s at ten a second, and more than are ever made without a person's asking for it.
const EPOCHS_MAX: usize = 64;
/// Placements kept of a job: more than follow one another in 5 s.
const PLACEMENTS_MAX: usize = 8;

/// An epoch, as its trace tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ToldEpoch {
    pub(crate) epoch: Epoch,
    pub(crate) parent: Epoch,
    pub(crate) generation: Generation,
    /// Microseconds since 1970, of the master that wrote it.
    pub(crate) committed_at_us: i64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) splits: u64,
}

impl From<&EpochEntry> for ToldEpoch {
    fn from(entry: &EpochEntry) -> Self {
        let counters = entry.counters.values();
        let splits = entry.splits.values().map(|splits| splits.len() as u64);
        Self {
            epoch: entry.epoch,
            parent: entry.parent,
            generation: entry.generation,
            committed_at_us: entry.committed_at_us,
            rows: counters.clone().map(|count| count.read).sum(),
            bytes: counters.map(|count| count.bytes).sum(),
            splits: splits.sum(),
        }
    }
}

/// Of one life of a job, what may have gone with its last master.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Retold {
    /// Oldest first.
    pub(crate) epochs: VecDeque<ToldEpoch>,
    /// Oldest first, with the generation that each has placed.
    pub(crate) placements: VecDeque<(Generation, Placement)>,
    /// The epoch behind which its last submission goes on.
    pub(crate) begun_behind: Option<Epoch>,
}

impl Retold {
    /// The life begins, or goes on, behind an epoch.
    pub(crate) fn begun(&mut self, behind: Epoch) {
        self.begun_behind = Some(behind);
    }

    /// The job is placed. The first placement of a submission is told with that.
    pub(crate) fn placed(&mut self, generation: Generation, placement: Option<&Placement>) {
        let placed = placement.map(|placement| (generation, placement.clone()));
        self.placements.extend(placed);
        let surplus = self.placements.len().saturating_sub(PLACEMENTS_MAX);
        self.placements.drain(..surplus);
    }

    /// The next epoch of the chain. Spans of epochs long before it have left their master for sure, and so has whatever came before
    /// such an epoch.
    pub(crate) fn note(&mut self, entry: &EpochEntry) {
        let oldest_us = entry.committed_at_us - UNSURE_US;
        self.epochs.push_back(entry.into());
        let is_full = self.epochs.len() > EPOCHS_MAX;
        let sure = self
            .epochs
            .partition_point(|told| told.committed_at_us < oldest_us);
        let Some(sure) = self
            .epochs
            .drain(..sure.max(usize::from(is_full)))
            .next_back()
        else {
            return;
        };
        self.begun_behind = self.begun_behind.filter(|behind| *behind >= sure.epoch);
        self.placements
            .retain(|(generation, _)| *generation > sure.generation);
    }
}

#[cfg(test)]
mod tests {
    use millstream_common::ids::Incarnation;
    use millstream_common::log::entry::PlacementCause;

    use super::*;

    fn entry(epoch: u64, generation: u64, committed_at_s: i64) -> EpochEntry {
        let life = (&"clicks".into(), Incarnation::fresh());
        let generation = Generation(generation);
        EpochEntry {
            committed_at_us: committed_at_s * 1_000_000,
            ..EpochEntry::empty(life, Epoch(epoch - 1), Epoch(epoch), generation)
        }
    }

    fn placement() -> Placement {
        Placement {
            cause: PlacementCause::Recovery,
            before: Generation(2),
            begun_at_us: 7,
        }
    }

    #[test]
    fn epochs_whose_spans_may_never_have_left_their_master_are_known() {
        let mut retold = Retold::default();
        for (epoch, at_s) in [(1, 10), (2, 20), (3, 24), (4, 25)] {
            retold.note(&entry(epoch, 2, at_s));
        }
        let known: Vec<u64> = retold.epochs.iter().map(|told| told.epoch.0).collect();
        assert_eq!(known, [2, 3, 4]);
        for epoch in 5..1_000 {
            retold.note(&entry(epoch, 2, 25));
        }
        assert_eq!(retold.epochs.len(), EPOCHS_MAX, "INV-9");
    }

    #[test]
    fn a_submission_and_a_placement_are_known_until_an_epoch_behind_them_is_long_ago() {
        let mut retold = Retold::default();
        retold.note(&entry(1, 2, 10));
        retold.begun(Epoch(1));
        retold.placed(Generation(4), Some(&placement()));
        // The epochs of before are long ago, the placement is not.
        retold.note(&entry(2, 4, 100));
        assert_eq!(retold.begun_behind, Some(Epoch(1)));
        assert_eq!(retold.placements, [(Generation(4), placement())]);
        retold.note(&entry(3, 4, 106));
        assert_eq!(retold.begun_behind, None);
        assert!(retold.placements.is_empty());
        for generation in 5..100 {
            retold.placed(Generation(generation), Some(&placement()));
        }
        assert_eq!(retold.placements.len(), PLACEMENTS_MAX, "INV-9");
        retold.placed(Generation(100), None);
        assert_eq!(retold.placements.len(), PLACEMENTS_MAX);
    }
}
