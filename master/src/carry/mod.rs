//! What a job has come to under one plan, carried over to another one.
//!
//! Pure; asked by the supervisor when a job is submitted from a checkpoint. Everything is matched by name: sources, sinks and outputs
//! by their own, state by the id of its operator. State goes on only where its fingerprint is the same: of keys, types, window and
//! aggregates; what merely stands around it (filters, views, sinks) may change. Failure: each thing that does not fit is refused with its
//! name and the reason; state that nothing takes is refused too, unless it is to be dropped.

#[cfg(test)]
mod again_tests;
mod besides;
pub(crate) mod outputs;
mod places;
mod refuse;
mod starts;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use millstream_common::ids::{OutputIndex, SinkIndex, SourceIndex};
use millstream_common::log::entry::{CommittedEpoch, JobProgress};
use millstream_common::plan::JobPlan;
use millstream_common::report::RefusedRows;

use self::starts::Starts;
use crate::job::lag::lag;

/// How to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// The job's life goes on, and with it the sinks that stay; otherwise all begin behind the checkpoint.
    pub(crate) goes_on: bool,
    /// State that nothing takes is dropped.
    pub(crate) may_drop: bool,
}

/// What was carried.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Carried {
    /// What the job begins with, in terms of the new plan.
    pub(crate) progress: JobProgress,
    /// What a person should know.
    pub(crate) notes: Vec<String>,
}

/// Carries `progress` of a job that ran `old` over to `new`, whose outputs are numbered as those of `old` ([`outputs::numbered_as`]). The error
/// names everything that does not fit.
pub(crate) fn carry(
    old: &JobPlan,
    new: &JobPlan,
    progress: &JobProgress,
    terms: Terms,
) -> Result<Carried, Vec<String>> {
    let mut refusals = refuse::sources(old, new, progress);
    refusals.extend(refuse::operators(old, new));
    if terms.goes_on {
        refusals.extend(refuse::sinks(old, new, progress));
    }
    let starts = starts::starts(old, new, progress, terms);
    refusals.extend(starts.refusals.iter().cloned());
    let dropped = refuse::dropped(old, new, progress);
    if !terms.may_drop {
        refusals.extend(dropped.iter().map(|what| {
            format!(
                "{what} would be dropped: keep it in the SQL, or drop it with --allow-dropped-state"
            )
        }));
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let mut notes: Vec<String> = match terms.may_drop {
        true => dropped
            .iter()
            .map(|what| format!("{what} is dropped"))
            .collect(),
        false => Vec::new(),
    };
    notes.extend(beginnings(old, new, progress));
    if terms.goes_on {
        notes.extend(outputs::led_notes(old, new, progress.epoch));
    }
    notes.extend(starts.notes.iter().cloned());
    Ok(Carried {
        progress: carried(old, new, progress, (terms, starts)),
        notes,
    })
}

/// What begins with nothing although the job does not.
fn beginnings(old: &JobPlan, new: &JobPlan, progress: &JobProgress) -> Vec<String> {
    let known: Vec<_> = refuse::keyed(old).map(|keyed| &keyed.operator).collect();
    let fresh = refuse::keyed(new).filter(|keyed| !known.contains(&&keyed.operator));
    let begins = fresh.map(|keyed| {
        format!(
            "{} begins empty behind epoch {}",
            keyed.operator, progress.epoch
        )
    });
    begins.collect()
}

/// The new number of each source.
fn source_numbers(old: &JobPlan, new: &JobPlan) -> BTreeMap<SourceIndex, SourceIndex> {
    let numbered = old.sources.iter().enumerate().filter_map(|(was, source)| {
        let is = new
            .sources
            .iter()
            .position(|other| other.name == source.name)?;
        Some((SourceIndex(was as u32), SourceIndex(is as u32)))
    });
    numbered.collect()
}

/// The new number of each sink.
fn sink_numbers(old: &JobPlan, new: &JobPlan) -> BTreeMap<SinkIndex, SinkIndex> {
    let numbered = old.sinks.iter().enumerate().filter_map(|(was, sink)| {
        let is = new.sinks.iter().position(|other| other.name == sink.name)?;
        Some((SinkIndex(was as u32), SinkIndex(is as u32)))
    });
    numbered.collect()
}

/// The new number of each sink that the job keeps.
fn staying_sinks(old: &JobPlan, new: &JobPlan, terms: Terms) -> BTreeMap<SinkIndex, SinkIndex> {
    match terms.goes_on {
        true => sink_numbers(old, new),
        false => BTreeMap::new(),
    }
}

/// Of [`staying_sinks`], the new numbers of those that go on from their markers. A sink that is led to another output has all of its old
/// one, and begins with the new one where a new sink would: what lies before the checkpoint is not for it, wherever its marker was known
/// to be.
fn sinks_that_go_on(
    old: &JobPlan,
    new: &JobPlan,
    staying: &BTreeMap<SinkIndex, SinkIndex>,
) -> BTreeSet<SinkIndex> {
    let outputs = outputs::numbers(old, new);
    let goes_on = staying.iter().filter(|(was, is)| {
        let was = old.sinks[was.index()].output;
        outputs.get(&was) == Some(&new.sinks[is.index()].output)
    });
    goes_on.map(|(_, is)| *is).collect()
}

fn renamed<K: Ord + Copy, V: Clone>(
    map: &BTreeMap<K, V>,
    numbers: &BTreeMap<K, K>,
) -> BTreeMap<K, V> {
    let kept = map
        .iter()
        .filter_map(|(was, value)| Some((*numbers.get(was)?, value.clone())));
    kept.collect()
}

fn carried(
    old: &JobPlan,
    new: &JobPlan,
    progress: &JobProgress,
    (terms, starts): (Terms, Starts),
) -> JobProgress {
    let sources = source_numbers(old, new);
    let sinks = staying_sinks(old, new, terms);
    let mut sink_markers = renamed(&progress.sink_markers, &sinks);
    let mut sink_starts = renamed(&progress.sink_starts, &sinks);
    sink_markers.extend(&starts.epochs);
    sink_starts.extend(&starts.epochs);
    let outputs = outputs::numbers(old, new);
    let operators: Vec<_> = refuse::keyed(new).map(|keyed| &keyed.operator).collect();
    let parts = progress.parts.iter();
    let parts = parts.filter(|(operator, _)| operators.contains(operator));
    let recent = match terms.goes_on {
        true => progress.recent.iter(),
        false => [].iter(),
    };
    let recent = recent.map(|epoch| renumbered(epoch, &outputs, &sinks));
    let still = |known: &BTreeSet<SinkIndex>| -> BTreeSet<SinkIndex> {
        let staying = known.iter().filter_map(|sink| sinks.get(sink).copied());
        staying.collect()
    };
    let (backlog, mut left_out) = match terms.goes_on {
        true => (progress.backlog.clone(), progress.left_out.clone()),
        false => (Vec::new(), Vec::new()),
    };
    left_out.retain_mut(|refused| is_renumbered(refused, &sinks));
    let mut carried = JobProgress {
        epoch: progress.epoch,
        splits: renamed(&progress.splits, &sources),
        watermarks: renamed(&progress.watermarks, &sources),
        acted_watermarks: renamed(&progress.acted_watermarks, &sources),
        parts: parts
            .map(|(operator, parts)| (operator.clone(), parts.clone()))
            .collect(),
        sink_markers,
        sink_starts,
        sink_rewinds: renamed(&progress.sink_rewinds, &sinks),
        retained_from: match terms.goes_on {
            true => progress.retained_from,
            false => progress.epoch,
        },
        counted_drops: renamed(&progress.counted_drops, &sinks),
        output_starts: besides::output_starts(old, new, progress, &outputs),
        former_sinks: besides::former_sinks(old, new, progress, terms),
        snapshots: besides::snapshots(new, progress, terms, &starts),
        recent: recent.collect(),
        backlog,
        left_out,
        paused_sinks: still(&progress.paused_sinks),
        suspended_sinks: still(&progress.suspended_sinks),
        excused_sinks: besides::excused_sinks(progress, &sinks, &starts),
        replays: renamed(&progress.replays, &sources),
        // Rows are counted anew: the sum of what passes another plan does not close with that of the old one (INV-10).
        ..JobProgress::default()
    };
    carried.note_delivered(new.sinks.len());
    carried.owed = owed(new, &carried);
    carried
}

/// What sinks lack they get under the new plan, whose counting begins here.
fn owed(new: &JobPlan, carried: &JobProgress) -> BTreeMap<SinkIndex, u64> {
    let sinks = new.sinks.iter().enumerate().map(|(index, sink)| {
        let index = SinkIndex(index as u32);
        let lacked = lag(carried, sink.output, carried.marker(index));
        (index, lacked.row_count)
    });
    sinks.filter(|(_, row_count)| *row_count > 0).collect()
}

/// An epoch of the old plan as sinks of the new one are told of it.
fn renumbered(
    epoch: &CommittedEpoch,
    outputs: &BTreeMap<OutputIndex, OutputIndex>,
    sinks: &BTreeMap<SinkIndex, SinkIndex>,
) -> CommittedEpoch {
    let mut epoch = epoch.clone();
    epoch.segments.retain_mut(|segment| {
        let number = outputs.get(&segment.output);
        segment.output = number.copied().unwrap_or(segment.output);
        number.is_some()
    });
    epoch
        .refused
        .retain_mut(|refused| is_renumbered(refused, sinks));
    epoch
}

/// Gives the rows the new number of their sink; false if it has gone.
fn is_renumbered(refused: &mut RefusedRows, sinks: &BTreeMap<SinkIndex, SinkIndex>) -> bool {
    let number = sinks.get(&refused.sink);
    refused.sink = number.copied().unwrap_or(refused.sink);
    number.is_some()
}
