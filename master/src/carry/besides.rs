//! What a job takes along to another plan beside its chain, or leaves: snapshots that are pending, which outputs are whole, which names of
//! sinks are used up, which sinks may catch up.
//!
//! Called by [`super::carry`]. Pure.

use std::collections::{BTreeMap, BTreeSet};

use millstream_common::ids::{Epoch, OperatorId, OutputIndex, SinkIndex};
use millstream_common::log::entry::JobProgress;
use millstream_common::plan::JobPlan;

use super::starts::Starts;
use super::{Terms, refuse};

/// The operators that emit what they hold in the next epoch: for sinks that begin now, and for those of an earlier plan that have not
/// got it yet, because nothing has come since.
pub(super) fn snapshots(
    new: &JobPlan,
    progress: &JobProgress,
    terms: Terms,
    starts: &Starts,
) -> BTreeSet<OperatorId> {
    let mut snapshots = starts.snapshots.clone();
    if terms.goes_on {
        let pending = progress.snapshots.iter();
        let is_there =
            |pending: &&OperatorId| refuse::keyed(new).any(|keyed| keyed.operator == **pending);
        snapshots.extend(pending.filter(is_there).cloned());
    }
    snapshots
}

/// The epochs behind which outputs are whole: here for those that no sink has read under the old plan, for they were shipped to nobody,
/// and for those of other columns; `outputs` are the new numbers.
pub(super) fn output_starts(
    old: &JobPlan,
    new: &JobPlan,
    progress: &JobProgress,
    outputs: &BTreeMap<OutputIndex, OutputIndex>,
) -> BTreeMap<OutputIndex, Epoch> {
    let is_whole = |(was, is): &(&OutputIndex, &OutputIndex)| {
        let is_read = old.sinks.iter().any(|sink| sink.output == **was);
        is_read && old.outputs[was.index()].schema == new.outputs[is.index()].schema
    };
    let whole: BTreeMap<OutputIndex, OutputIndex> = outputs
        .iter()
        .filter(is_whole)
        .map(|(was, is)| (*is, *was))
        .collect();
    let starts = (0..new.outputs.len()).filter_map(|is| {
        let is = OutputIndex(is as u32);
        match whole.get(&is) {
            Some(was) => Some((is, *progress.output_starts.get(was)?)),
            None => Some((is, progress.epoch)),
        }
    });
    starts.collect()
}

/// Names that the life has used for sinks which it has no more.
pub(super) fn former_sinks(
    old: &JobPlan,
    new: &JobPlan,
    progress: &JobProgress,
    terms: Terms,
) -> BTreeSet<String> {
    if !terms.goes_on {
        return BTreeSet::new();
    }
    let used = old.sinks.iter().map(|sink| &sink.name);
    let used = used.chain(&progress.former_sinks);
    let is_gone = |name: &&String| new.sinks.iter().all(|sink| sink.name != **name);
    used.filter(is_gone).cloned().collect()
}

/// Sinks of the new plan that may be behind: those that may already, and those that begin with what is kept.
pub(super) fn excused_sinks(
    progress: &JobProgress,
    sinks: &BTreeMap<SinkIndex, SinkIndex>,
    starts: &Starts,
) -> BTreeSet<SinkIndex> {
    let already = progress.excused_sinks.iter();
    let already = already.filter_map(|sink| sinks.get(sink).copied());
    let begin = starts.epochs.iter();
    let begin = begin.filter(|(_, start)| **start < progress.epoch);
    already.chain(begin.map(|(sink, _)| *sink)).collect()
}
