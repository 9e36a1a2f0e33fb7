//! Whether a job goes on under a new master as it ran under the last one, or is rewound.
//!
//! Pure; asked by a job's actor while it waits for the workers of the latest assignment. They have kept their pipelines,
//! and say how far each has come. Going on is safe only if nothing that lies behind the log's head is lost or comes twice:
//!
//! - INV-4: only the latest generation of the log goes on, whole: every worker that it was assigned holds it.
//! - INV-5, INV-7: each task stands at the head, or behind one and the same barrier after it. A barrier is sent when
//!   the one before it is recorded or was found to hold nothing, so at most the last one (E) is open. Its rows are in
//!   segments, state parts and counters that only reports of E name. So E is collected to its end, never skipped: workers
//!   that have passed it say their report again, the others are sent it again, with the same watermarks,
//!   which the head in the log determines. An E that nobody has seen never was: its number is used anew.
//! - INV-1: the entry of E then names the head as its parent, as the last master's would have.
//! - Splits that readers have and the log does not know would be found and given out once more: rewind.
//! - A barrier that ends the input belongs to a stop or a new placement that the last master had in mind: rewind.

use std::collections::BTreeMap;

use millstream_common::ids::{Epoch, Generation, Incarnation, SourceIndex, SplitId, WorkerId};
use millstream_common::link::{BarrierCommand, BarrierKind, Held};
use millstream_common::log::entry::{Assignment, JobProgress, SplitPlacement};
use millstream_common::mutant::{self, Mutant};
use millstream_common::report::SplitStatus;

/// What a job was when its last master was lost, by the log.
#[derive(Clone, Debug)]
pub(crate) struct Lasting {
    /// Its life.
    pub(crate) incarnation: Incarnation,
    /// Its latest generation.
    pub(crate) generation: Generation,
    /// Who ran what in it.
    pub(crate) assignment: Assignment,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not all workers have joined.
    Wait,
    /// Place the job anew from the log's head.
    Rewind(String),
    /// Go on with the generation.
    GoOn(Resumption),
}

/// How to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resumption {
    /// The last epoch that a barrier was sent for.
    pub(crate) triggered: Epoch,
    /// That barrier, if it has to be collected still.
    pub(crate) open: Option<BarrierCommand>,
    /// Splits given out after the assignment.
    pub(crate) given: Vec<SplitPlacement>,
}

/// Decides by what the workers that have joined hold of the job.
pub(crate) fn decide(
    lasting: &Lasting,
    progress: &JobProgress,
    joined: &BTreeMap<WorkerId, Option<&Held>>,
) -> Verdict {
    let mut all_held = Vec::new();
    let mut all_joined = true;
    for worker in lasting.assignment.workers() {
        match joined.get(&worker) {
            None => all_joined = false,
            Some(Some(held)) if is_latest(lasting, held) => all_held.push(*held),
            Some(_) => {
                let generation = lasting.generation;
                return Verdict::Rewind(format!("{worker} has lost generation {generation}"));
            }
        }
    }
    if !all_joined {
        return Verdict::Wait;
    }
    let mut given: Vec<SplitPlacement> = Vec::new();
    for placed in all_held.iter().flat_map(|held| &held.given) {
        // Every worker is told of every split.
        if !given.contains(placed) {
            given.push(placed.clone());
        }
    }
    let assigned = lasting.assignment.splits.iter().chain(&given);
    let unrecorded = assigned
        .filter(|placed| !is_recorded(progress, placed.source, &placed.split))
        .count();
    if unrecorded > 0 {
        return Verdict::Rewind(format!("{unrecorded} splits are in no epoch yet"));
    }
    match open_barrier(progress, &all_held) {
        Ok((triggered, open)) => Verdict::GoOn(Resumption {
            triggered,
            open,
            given,
        }),
        Err(cause) => Verdict::Rewind(cause),
    }
}

fn is_latest(lasting: &Lasting, held: &Held) -> bool {
    held.incarnation == lasting.incarnation && held.at.generation == lasting.generation
}

/// Whether an epoch knows that a reader has the split.
fn is_recorded(progress: &JobProgress, source: SourceIndex, split: &SplitId) -> bool {
    let splits = progress.splits.get(&source);
    let progress = splits.and_then(|splits| splits.get(split));
    progress.is_some_and(|progress| progress.status != SplitStatus::Expected)
}

/// The last barrier sent, and itself if it is open.
fn open_barrier(
    progress: &JobProgress,
    all_held: &[&Held],
) -> Result<(Epoch, Option<BarrierCommand>), String> {
    let head = progress.epoch;
    let Some(foremost) = all_held.iter().max_by_key(|held| held.passed()) else {
        return Err("no worker has any task".to_owned());
    };
    let last = foremost.passed();
    let stands_at = |held: &&Held, epoch: Epoch| held.passed() == epoch;
    let reads_on = |held: &&Held| {
        let barrier = held.barrier.as_ref();
        barrier.is_none_or(|barrier| barrier.kind == BarrierKind::Checkpoint)
    };
    if !all_held.iter().all(reads_on) {
        return Err(format!("epoch {last} was to be the generation's last"));
    }
    if last <= head {
        return match all_held.iter().all(|held| stands_at(held, head)) {
            true => Ok((head, None)),
            false => Err(format!(
                "a pipeline has not passed epoch {head}, the log's head"
            )),
        };
    }
    let Some(barrier) = &foremost.barrier else {
        return Err(format!("a pipeline began behind the log's head, {head}"));
    };
    if barrier.watermarks != progress.watermarks {
        return Err(format!(
            "epoch {last} acts on other watermarks than the log's"
        ));
    }
    let fits = |held: &&Held| {
        let has_passed = held.barrier.as_ref() == Some(barrier);
        has_passed || held.passed().next() == last
    };
    match all_held.iter().all(fits) {
        true if mutant::is(Mutant::SkipOpenEpoch) => Ok((last, None)),
        true => Ok((last, Some(barrier.clone()))),
        false => Err(format!(
            "pipelines stand behind different barriers before {last}"
        )),
    }
}

#[cfg(test)]
mod tests;
