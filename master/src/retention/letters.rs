//! The collector's part in dead letters: the oldest go when they are too old or too much, counted and warned about.
//!
//! Called by `collector_actor.rs` within a look. What goes follows from the log, the job's `SET dead_letter_retention` and the wall
//! clock; nothing goes that a sink may still need. A segment is forgotten by the index and deleted in the same look; where the
//! look fails between the two, the next begins from the log again and comes to the same. Failure: that of the look.

use std::collections::{BTreeMap, BTreeSet};

use millstream_common::ids::Generation;
use millstream_common::log;
use millstream_common::log::entry::JobProgress;
use millstream_common::replay_split::ReplayObject;
use millstream_common::report::SplitStatus;
use millstream_common::store::StoreRef;
use tracing::warn;

use super::collector_actor::Collector;
use super::decision::KeptLetters;
use crate::letters::index::Limits;
use crate::letters::pages;
use crate::replay::{Replay, ReplayedJob};

impl Collector {
    /// Drops what is over the retention of each job; the keys of what goes.
    pub(super) async fn drop_old_letters(&mut self) -> Result<Vec<String>, log::Error> {
        let now_us = self.clock.unix_micros();
        let mut keys = Vec::new();
        for (name, job) in &mut self.latest.jobs {
            let limits = Limits::of(job, job.progress.retained_from, now_us);
            let dropped = job.letters.drop_old(&limits);
            for page in &dropped.pages {
                let paged = pages::read(&self.store, page).await?.into_iter();
                keys.extend(paged.map(|letters| letters.segment.path));
                keys.push(page.path.clone());
            }
            let segments = dropped.segments.into_iter();
            keys.extend(segments.map(|letters| letters.segment.path));
            if dropped.row_count > 0 {
                warn!(
                    job = %name, rows = dropped.row_count, since_begin = job.letters.dropped_rows,
                    "dead letters dropped, the oldest first: they were over dead_letter_retention"
                );
            }
        }
        Ok(keys)
    }

    /// Notes when what sinks refused was seen first without an Epoch that names it.
    pub(super) fn see_rejects(&mut self, keys: &[(String, u64)]) {
        for job in self.latest.jobs.values() {
            let Some(seen) = self.lives.get_mut(&job.entry.incarnation) else {
                continue;
            };
            let folder = format!("rejects/{}/", job.entry.incarnation);
            let segments = job.letters.segments.iter();
            let named: BTreeSet<&str> = segments
                .map(|letters| letters.segment.path.as_str())
                .collect();
            let unnamed = keys.iter().map(|(key, _)| key);
            let unnamed =
                unnamed.filter(|key| key.starts_with(&folder) && !named.contains(key.as_str()));
            let before = std::mem::take(&mut seen.unnamed_rejects);
            seen.unnamed_rejects = unnamed
                .map(|key| {
                    let first = before.get(key).copied();
                    (key.clone(), first.unwrap_or(job.generation))
                })
                .collect();
        }
    }
}

/// What is kept of the letters of a job.
pub(super) fn kept(
    job: &ReplayedJob,
    unnamed_rejects: Option<&BTreeMap<String, Generation>>,
) -> KeptLetters {
    let segments = job.letters.segments.iter();
    let pages = job.letters.pages.iter();
    KeptLetters {
        named: segments
            .map(|letters| letters.segment.path.clone())
            .collect(),
        pages: pages.map(|page| page.path.clone()).collect(),
        paged_through: job.letters.paged_through(),
        first: job.letters.first_named(),
        generation: job.generation,
        unnamed_rejects: unnamed_rejects.cloned().unwrap_or_default(),
    }
}

/// The objects of replays that were read to their end and whose letters are as old as any that is kept.
pub(super) fn read_replays(job: &ReplayedJob, now_us: i64) -> BTreeSet<String> {
    let age_us = job
        .entry
        .plan
        .settings
        .dead_letters
        .age_ms
        .saturating_mul(1_000);
    let oldest_us = now_us.saturating_sub(i64::try_from(age_us).unwrap_or(i64::MAX));
    let replays = replays(&job.progress);
    let old = replays.filter(|(object, has_ended)| *has_ended && object.sent_at_us < oldest_us);
    old.map(|(object, _)| object.path.clone()).collect()
}

/// The objects of all replays: of the job, and of whoever goes on from a savepoint.
pub(super) fn named_replays(job: &ReplayedJob) -> BTreeSet<String> {
    let replays = with_savepoints(job).flat_map(replays);
    replays.map(|(object, _)| object.path.clone()).collect()
}

/// Those that a reader is to read yet.
pub(super) fn unread_replays(job: &ReplayedJob) -> BTreeSet<String> {
    let replays = with_savepoints(job).flat_map(replays);
    let unread = replays.filter(|(_, has_ended)| !has_ended);
    unread.map(|(object, _)| object.path.clone()).collect()
}

fn with_savepoints(job: &ReplayedJob) -> impl Iterator<Item = &JobProgress> {
    let savepoints = job.savepoints.values().map(|savepoint| &savepoint.progress);
    savepoints.chain([&job.progress])
}

/// The replays of a job, and whether each was read to its end.
fn replays(progress: &JobProgress) -> impl Iterator<Item = (&ReplayObject, bool)> {
    progress.replays.iter().flat_map(|(source, replays)| {
        let splits = progress.splits.get(source);
        replays.iter().map(move |(split, object)| {
            let read = splits.and_then(|splits| splits.get(split));
            let has_ended = read.is_some_and(|read| read.status == SplitStatus::Ended);
            (object, has_ended)
        })
    })
}

/// Puts the oldest letters of jobs that have many into pages, which the boundary that is being made names.
pub(super) async fn page(
    store: &StoreRef,
    folded: &mut Replay,
    latest: &mut Replay,
) -> Result<(), log::Error> {
    for (name, job) in &mut folded.jobs {
        let life = job.entry.incarnation;
        let paged = pages::page(store, life, folded.through, &mut job.letters).await?;
        let Some((page, paged)) = paged else {
            continue;
        };
        if let Some(same) = latest.jobs.get_mut(name)
            && same.entry.incarnation == life
        {
            same.letters.put_page(page, &paged);
        }
    }
    Ok(())
}
