//! The newest epochs of a job by the log: what a master that takes it over tells again of their traces.
//!
//! A master that is killed takes the spans with it that it has not exported yet, and among them roots of epochs whose workers live on and
//! tell their share. So the next master tells those roots once more: of all epochs up to [`UNSURE_US`] before the last one, for longer no
//! span waits. Folded with the log, kept with its boundaries. Bounded (INV-9). Cannot fail.

use std::collections::VecDeque;

use millstream_common::ids::{Epoch, Generation};
use millstream_common::log::entry::EpochEntry;
use serde::{Deserialize, Serialize};

/// A span waits a second to be exported, unless OTEL_BSP_SCHEDULE_DELAY says otherwise, and then for the collector.
const UNSURE_US: i64 = 5_000_000;
/// Kept of a job: those of 5 s at ten a second, and more than are ever made without a person's asking for it.
const KEPT_MAX: usize = 64;

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

/// The newest epochs of one life of a job, oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NewestEpochs(VecDeque<ToldEpoch>);

impl NewestEpochs {
    /// The next epoch of the chain. Says whether there were older ones, whose spans have left their master for sure.
    pub(crate) fn note(&mut self, entry: &EpochEntry) -> bool {
        let oldest_us = entry.committed_at_us - UNSURE_US;
        self.0.push_back(entry.into());
        let is_full = self.0.len() > KEPT_MAX;
        let sure = self
            .0
            .partition_point(|told| told.committed_at_us < oldest_us);
        let known = sure.max(usize::from(is_full));
        self.0.drain(..known).next().is_some()
    }

    /// Oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &ToldEpoch> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use millstream_common::ids::Incarnation;

    use super::*;

    fn entry(epoch: u64, committed_at_us: i64) -> EpochEntry {
        let life = (&"clicks".into(), Incarnation::fresh());
        EpochEntry {
            committed_at_us,
            ..EpochEntry::empty(life, Epoch(epoch - 1), Epoch(epoch), Generation(2))
        }
    }

    #[test]
    fn epochs_whose_spans_may_never_have_left_their_master_are_known() {
        let mut newest = NewestEpochs::default();
        for (epoch, at_s) in [(1, 10), (2, 20), (3, 24), (4, 25)] {
            let is_sure = newest.note(&entry(epoch, at_s * 1_000_000));
            assert_eq!(is_sure, epoch == 2, "{epoch}");
        }
        let known: Vec<u64> = newest.iter().map(|told| told.epoch.0).collect();
        assert_eq!(known, [2, 3, 4]);
        for epoch in 5..1_000 {
            newest.note(&entry(epoch, 25_000_000));
        }
        assert_eq!(newest.iter().count(), KEPT_MAX, "INV-9");
    }
}
