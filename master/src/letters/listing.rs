//! A listing of dead letters: from what the log names to parts that a client takes one by one.
//!
//! Made by [`super::desk`]; polled by the control service. One segment is in memory at a time, and a part has about a megabyte
//! (INV-9). Newest first by epoch, and within a segment from its end. Failure: a segment that cannot be read ends the listing with
//! its name; one that the retention takes meanwhile is passed over.

use std::collections::{BTreeMap, VecDeque};

use futures::stream::{self, BoxStream, StreamExt};
use millstream_common::control::{
    ControlError, DeadLetterView, LetterCount, LetterFilter, LetterPage, LetterQuery, LetterTotals,
};
use millstream_common::grpc::page_bytes;
use millstream_common::ids::OutputIndex;
use millstream_common::store::StoreRef;
use millstream_common::suggest::nearest;

use super::index::{LetterSegment, Letters, owner_of};
use super::pages;
use super::rows::{LetterRows, load};
use crate::replay::ReplayedJob;

/// Letters of a part.
const PART_BYTES_MAX: usize = 1 << 20;
/// Letters were received before their epoch was committed, by a clock that may differ so much from the master's.
const CLOCKS_APART_US: i64 = 3_600_000_000;

/// The parts of a listing.
pub type Listed = BoxStream<'static, Result<LetterPage, ControlError>>;

/// The outputs whose dead letters `filter` wants, with their owners. An owner that has none is refused.
pub(super) fn wanted(
    job: &ReplayedJob,
    filter: &LetterFilter,
) -> Result<BTreeMap<OutputIndex, String>, ControlError> {
    let outputs = job.entry.plan.outputs.iter().enumerate();
    let owners: BTreeMap<OutputIndex, String> = outputs
        .filter_map(|(index, output)| {
            Some((OutputIndex(index as u32), owner_of(output)?.to_owned()))
        })
        .collect();
    let Some(wanted) = &filter.owner else {
        return Ok(owners);
    };
    let found: BTreeMap<_, _> = owners
        .iter()
        .filter(|(_, owner)| *owner == wanted)
        .collect();
    if found.is_empty() {
        let names = || owners.values().map(String::as_str);
        let name = &job.entry.job;
        return Err(ControlError::Invalid(match nearest(wanted, names()) {
            Some(nearest) => {
                format!("job {name} has no {wanted}.dead_letters, did you mean {nearest}?")
            }
            None => format!(
                "job {name} has no {wanted}.dead_letters; it has those of {}",
                names().collect::<Vec<_>>().join(", ")
            ),
        }));
    }
    Ok(found
        .into_iter()
        .map(|(index, owner)| (*index, owner.clone()))
        .collect())
}

/// Whether a segment committed then may hold letters that `filter` wants.
pub(super) fn may_match(filter: &LetterFilter, segment: &LetterSegment) -> bool {
    let newest_us = segment.at_us.saturating_add(CLOCKS_APART_US);
    filter.since_us.is_none_or(|since| newest_us >= since)
}

/// Lists what `query` wants of a job.
pub(super) fn list(
    store: StoreRef,
    job: ReplayedJob,
    query: LetterQuery,
) -> Result<Listed, ControlError> {
    let owners = wanted(&job, &query.filter)?;
    let listing = Listing {
        store,
        owners,
        letters: job.letters,
        unread: VecDeque::new(),
        left: (query.limit > 0).then_some(query.limit),
        filter: query.filter,
        counts: BTreeMap::new(),
        is_over: false,
    };
    let parts = stream::unfold(Some(listing), |listing| async {
        let mut listing = listing?;
        match listing.part().await {
            Ok(part) => Some((Ok(part), Some(listing).filter(|listing| !listing.is_over))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(parts.boxed())
}

struct Listing {
    store: StoreRef,
    /// The outputs that are looked at.
    owners: BTreeMap<OutputIndex, String>,
    /// What has not been looked at.
    letters: Letters,
    /// Read, and not handed out; newest first.
    unread: VecDeque<DeadLetterView>,
    /// How many may still be listed; `None` counts only.
    left: Option<u64>,
    filter: LetterFilter,
    counts: BTreeMap<(String, String), u64>,
    is_over: bool,
}

impl Listing {
    async fn part(&mut self) -> Result<LetterPage, ControlError> {
        let mut page = LetterPage::default();
        let mut bytes = 0;
        loop {
            while let Some(letter) = self.unread.pop_front() {
                bytes += page_bytes(&letter);
                page.letters.push(letter);
                if bytes >= PART_BYTES_MAX {
                    return Ok(page);
                }
            }
            if self.left == Some(0) || !self.read_on().await? {
                self.is_over = true;
                page.totals = Some(self.totals());
                return Ok(page);
            }
        }
    }

    /// Reads the next older segment; false where there is none.
    async fn read_on(&mut self) -> Result<bool, ControlError> {
        let Some(segment) = self.letters.segments.pop_back() else {
            let Some(page) = self.letters.pages.pop_back() else {
                return Ok(false);
            };
            let paged = pages::read(&self.store, &page).await;
            let paged = paged.map_err(|error| ControlError::Internal(error.to_string()))?;
            self.letters.segments = paged.into();
            return Ok(true);
        };
        let Some(owner) = self.owners.get(&segment.segment.output) else {
            return Ok(true);
        };
        if !may_match(&self.filter, &segment) {
            return Ok(true);
        }
        for batch in load(&self.store, &segment.segment).await?.iter().rev() {
            let rows = LetterRows::new(batch)?;
            for row in rows.matching(&self.filter).rev() {
                if self.left == Some(0) {
                    break;
                }
                let key = (owner.clone(), rows.code(row).to_owned());
                *self.counts.entry(key).or_default() += 1;
                if let Some(left) = &mut self.left {
                    *left -= 1;
                    self.unread.push_back(rows.view(row, segment.epoch));
                }
            }
        }
        Ok(true)
    }

    fn totals(&mut self) -> LetterTotals {
        let counts = std::mem::take(&mut self.counts).into_iter();
        let counts = counts.map(|((owner, code), rows)| LetterCount { owner, code, rows });
        LetterTotals {
            counts: counts.collect(),
            dropped: self.letters.dropped_rows,
        }
    }
}
