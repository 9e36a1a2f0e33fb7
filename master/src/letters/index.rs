//! Which dead letters of a job's life are kept, oldest first, as its Epochs named them.
//!
//! Part of what the log comes to ([`crate::replay::ReplayedJob`]): folded entry by entry, written into boundaries, never told to
//! the job's actor. Only segments that an Epoch names are here, so what a lost worker left behind is not listed. Pure. Keeps
//! INV-9: what is old is in pages ([`super::pages`]), and the retention drops the oldest, counted.

use std::collections::VecDeque;

use millstream_common::ids::Epoch;
use millstream_common::log::entry::EpochEntry;
use millstream_common::plan::{JobPlan, LetterRetention, OutputPlan, SinkPlan};
use millstream_common::report::Segment;
use serde::{Deserialize, Serialize};

use crate::replay::ReplayedJob;

/// Segments dropped at once: each is a request to the storage.
const DROPPED_MAX: usize = 1_000;

/// How the relation of an output with dead letters ends.
pub const SUFFIX: &str = ".dead_letters";

/// The source, view or sink whose dead letters the output holds, if it holds all of somebody's.
pub fn owner_of(output: &OutputPlan) -> Option<&str> {
    output.relation.strip_suffix(SUFFIX)
}

/// A segment with dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterSegment {
    /// The epoch that named it.
    pub epoch: Epoch,
    /// When that was committed: wall clock of the master, microseconds since 1970 UTC.
    pub at_us: i64,
    /// Itself.
    pub segment: Segment,
}

impl LetterSegment {
    /// The epoch in its name: at most the one that named it.
    pub fn named_epoch(&self) -> Epoch {
        let name = self.segment.path.rsplit('/').next().unwrap_or_default();
        let digits = name.split('-').next().unwrap_or_default();
        digits.parse().map_or(Epoch(0), Epoch)
    }
}

/// An object with a part of the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterPage {
    /// Its key.
    pub path: String,
    /// CRC-32C of it (INV-8).
    pub checksum: u32,
    /// The epoch that named the newest segment in it.
    pub epoch: Epoch,
    /// When that was committed.
    pub at_us: i64,
    /// Sizes of its segments.
    pub bytes: u64,
    /// Rows of its segments.
    pub row_count: u64,
    /// The least epoch in the names of its segments.
    pub first_named: Epoch,
    /// The greatest.
    pub last_named: Epoch,
}

/// The dead letters of one life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letters {
    /// The older part.
    pub pages: VecDeque<LetterPage>,
    /// The newer part.
    pub segments: VecDeque<LetterSegment>,
    /// Rows that the retention has dropped since the life began.
    pub dropped_rows: u64,
}

/// What may be dropped, and what must be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long letters are kept.
    pub retention: LetterRetention,
    /// Wall clock, microseconds since 1970 UTC.
    pub now_us: i64,
    /// What is newer may be needed by a sink.
    pub delivered: Epoch,
    /// Segments dropped at once.
    pub count_max: usize,
}

impl Limits {
    /// Of a job's letters. What a sink reads stays until it has been `delivered` for long enough, as all segments do.
    pub fn of(job: &ReplayedJob, delivered: Epoch, now_us: i64) -> Self {
        let plan = &job.entry.plan;
        let reads_letters =
            |sink: &SinkPlan| owner_of(&plan.outputs[sink.output.index()]).is_some();
        let delivered = match plan.sinks.iter().any(reads_letters) {
            true => delivered,
            false => job.progress.epoch,
        };
        Self {
            retention: plan.settings.dead_letters,
            now_us,
            delivered,
            count_max: DROPPED_MAX,
        }
    }
}

/// What was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// With all that they name.
    pub pages: Vec<LetterPage>,
    /// One by one.
    pub segments: Vec<LetterSegment>,
    /// In both.
    pub row_count: u64,
}

impl Letters {
    /// Takes what the next Epoch of the life names.
    pub fn note(&mut self, plan: &JobPlan, entry: &EpochEntry) {
        let is_letters = |segment: &&Segment| {
            let output = plan.outputs.get(segment.output.index());
            output.is_some_and(|output| owner_of(output).is_some())
        };
        let named = entry.segments.iter().filter(is_letters);
        self.segments.extend(named.map(|segment| LetterSegment {
            epoch: entry.epoch,
            at_us: entry.committed_at_us,
            segment: segment.clone(),
        }));
    }

    /// Sizes of all that is kept.
    pub fn bytes(&self) -> u64 {
        let paged: u64 = self.pages.iter().map(|page| page.bytes).sum();
        let segments = self.segments.iter().map(|letters| letters.segment.bytes);
        paged + segments.sum::<u64>()
    }

    /// The least epoch in the names of what is kept.
    pub fn first_named(&self) -> Option<Epoch> {
        let paged = self.pages.iter().map(|page| page.first_named);
        paged
            .chain(self.segments.iter().map(LetterSegment::named_epoch))
            .min()
    }

    /// Names up to this epoch may stand in a page.
    pub fn paged_through(&self) -> Epoch {
        let last = self.pages.iter().map(|page| page.last_named);
        last.max().unwrap_or_default()
    }

    /// Drops the oldest while they are too old, or all are too much. Pages go whole.
    pub fn drop_old(&mut self, limits: &Limits) -> Dropped {
        let mut bytes = self.bytes();
        let age_us = i64::try_from(limits.retention.age_ms.saturating_mul(1_000));
        let oldest_us = limits.now_us.saturating_sub(age_us.unwrap_or(i64::MAX));
        let goes = |epoch: Epoch, at_us: i64, bytes: u64| {
            epoch <= limits.delivered && (at_us < oldest_us || bytes > limits.retention.bytes)
        };
        let mut dropped = Dropped::default();
        if let Some(page) = self
            .pages
            .pop_front_if(|page| goes(page.epoch, page.at_us, bytes))
        {
            // One at a time: it has to be read for the names of its segments.
            bytes -= page.bytes;
            dropped.row_count += page.row_count;
            dropped.pages.push(page);
        }
        while self.pages.is_empty() && dropped.segments.len() < limits.count_max {
            let oldest = self.segments.front();
            let Some(oldest) = oldest.filter(|letters| goes(letters.epoch, letters.at_us, bytes))
            else {
                break;
            };
            bytes -= oldest.segment.bytes;
            dropped.row_count += oldest.segment.row_count;
            dropped.segments.extend(self.segments.pop_front());
        }
        self.dropped_rows += dropped.row_count;
        dropped
    }

    /// Drops what `newer` has: the same letters as of a later epoch.
    pub fn drop_with(&mut self, newer: &Self) {
        let is_paged = |page: &LetterPage| newer.pages.iter().any(|kept| kept.path == page.path);
        while let Some(page) = self.pages.pop_front_if(|page| !is_paged(page)) {
            self.dropped_rows += page.row_count;
        }
        let first = newer.segments.front().map(|first| &first.segment.path);
        let is_first = |letters: &LetterSegment| Some(&letters.segment.path) == first;
        while let Some(letters) = self.segments.pop_front_if(|letters| !is_first(letters)) {
            self.dropped_rows += letters.segment.row_count;
        }
    }

    /// Takes the oldest `count` segments out, for a page.
    pub fn take_oldest(&mut self, count: usize) -> Vec<LetterSegment> {
        self.segments
            .drain(..count.min(self.segments.len()))
            .collect()
    }

    /// Puts a page in the place of the segments that it holds.
    pub fn put_page(&mut self, page: LetterPage, paged: &[LetterSegment]) {
        self.segments.retain(|letters| {
            !paged
                .iter()
                .any(|gone| gone.segment.path == letters.segment.path)
        });
        self.pages.push_back(page);
    }
}
