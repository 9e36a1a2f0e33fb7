//! The epochs that a sink lacks, in order: those in memory, and those that are a part of the backlog in storage.
//!
//! Owned by `delivery`. What is next is in memory, and so is what was committed lately; what lies between is a reference once
//! the master has stored it, so a sink that is down for days costs a few hundred bytes an hour (INV-9). Pure.

use std::collections::VecDeque;
use std::time::Duration;

use millstream_common::ids::{Epoch, OutputIndex};
use millstream_common::log::backlog::BacklogPart;
use millstream_common::log::entry::CommittedEpoch;
use millstream_common::report::Segment;

/// Epochs in the order of the chain.
#[derive(Debug, Default)]
pub(crate) struct Waiting(VecDeque<Item>);

#[derive(Debug)]
enum Item {
    Epoch(PendingEpoch),
    Part(BacklogPart),
}

/// An epoch in memory.
#[derive(Debug)]
pub(crate) struct PendingEpoch {
    pub(crate) epoch: Epoch,
    /// Of the sink's output.
    pub(crate) segments: Vec<Segment>,
    pub(crate) last: bool,
    /// Monotonic time at which this process learned of it.
    pub(crate) arrived: Duration,
}

/// Where an epoch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is one of those that wait.
    Known,
    /// It may be one of a part: that has to be read.
    InPart,
    /// It is none of them.
    Nowhere,
}

impl PendingEpoch {
    pub(crate) fn new(committed: CommittedEpoch, output: OutputIndex, now: Duration) -> Self {
        let mut segments = committed.segments;
        segments.retain(|segment| segment.output == output);
        Self {
            epoch: committed.epoch,
            segments,
            last: committed.last,
            arrived: now,
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }
}

impl Item {
    fn last(&self) -> Epoch {
        match self {
            Self::Epoch(pending) => pending.epoch,
            Self::Part(part) => part.last,
        }
    }

    fn is_within(&self, part: &BacklogPart) -> bool {
        matches!(self, Self::Epoch(pending) if part.parent < pending.epoch && pending.epoch <= part.last)
    }
}

impl Waiting {
    pub(crate) fn new(backlog: Vec<BacklogPart>) -> Self {
        Self(backlog.into_iter().map(Item::Part).collect())
    }

    pub(crate) fn push(&mut self, pending: PendingEpoch) {
        self.0.push_back(Item::Epoch(pending));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The newest epoch.
    pub(crate) fn head(&self) -> Option<Epoch> {
        self.0.back().map(Item::last)
    }

    /// The next epochs that are in memory.
    pub(crate) fn ready(&self) -> impl Iterator<Item = &PendingEpoch> {
        self.0.iter().map_while(|item| match item {
            Item::Epoch(pending) => Some(pending),
            Item::Part(_) => None,
        })
    }

    /// Whether more waits than the next `count`.
    pub(crate) fn is_longer_than(&self, count: usize) -> bool {
        count < self.0.len()
    }

    /// Whether the last epoch of all waits.
    pub(crate) fn has_last(&self) -> bool {
        let newest = self.0.iter().rev();
        newest
            .map_while(|item| match item {
                Item::Epoch(pending) => Some(pending.last),
                Item::Part(_) => None,
            })
            .any(|is_last| is_last)
    }

    /// The part that has to be read before anything else.
    pub(crate) fn first_part(&self) -> Option<&BacklogPart> {
        self.parts().next()
    }

    /// The part that `epoch` lies in.
    pub(crate) fn part_around(&self, epoch: Epoch) -> Option<&BacklogPart> {
        let mut parts = self.parts();
        parts.find(|part| part.parent < epoch && epoch < part.last)
    }

    fn parts(&self) -> impl Iterator<Item = &BacklogPart> {
        self.0.iter().filter_map(|item| match item {
            Item::Epoch(_) => None,
            Item::Part(part) => Some(part),
        })
    }

    pub(crate) fn find(&self, epoch: Epoch) -> Place {
        let is_end = self.0.iter().any(|item| item.last() == epoch);
        let is_begin = self.parts().any(|part| part.parent == epoch);
        match is_end || is_begin {
            true => Place::Known,
            false if self.part_around(epoch).is_some() => Place::InPart,
            false => Place::Nowhere,
        }
    }

    /// Drops the epochs up to `marker`; of a part that it lies in, they are dropped when it is read.
    pub(crate) fn forget_up_to(&mut self, marker: Epoch) {
        while self.0.front().is_some_and(|first| first.last() <= marker) {
            self.0.pop_front();
        }
    }

    /// The epochs of `part` are in storage: those in memory are dropped, unless they are next.
    pub(crate) fn fold(&mut self, part: BacklogPart) {
        let begin = self.0.iter().position(|item| item.is_within(&part));
        let Some(begin) = begin.filter(|begin| *begin > 0) else {
            return;
        };
        let behind = self.0.iter().skip(begin);
        let end = begin + behind.take_while(|item| item.is_within(&part)).count();
        let is_whole =
            self.0[begin - 1].last() == part.parent && self.0[end - 1].last() == part.last;
        if is_whole {
            self.0.drain(begin..end);
            self.0.insert(begin, Item::Part(part));
        }
    }

    /// Puts the epochs of `part`, which was read, in its place.
    pub(crate) fn unfold(&mut self, part: &BacklogPart, epochs: Vec<PendingEpoch>) {
        let place = self.0.iter().position(|item| match item {
            Item::Epoch(_) => false,
            Item::Part(known) => known == part,
        });
        if let Some(place) = place {
            let behind = self.0.split_off(place);
            self.0.extend(epochs.into_iter().map(Item::Epoch));
            self.0.extend(behind.into_iter().skip(1));
        }
    }
}
