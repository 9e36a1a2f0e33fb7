//! Where sinks begin that a job did not have before: `start = 'now' | 'retained' | 'snapshot'`.
//!
//! Called by [`super::carry`]. `now`: with the rows behind the checkpoint. `retained`: with those of the epochs that are kept, if another sink
//! read the same output all the while, and no sink of that name was there before; segments of dead letters go by rules of their own
//! where none does. `snapshot`: with the groups
//! that the operator in front of it holds, each once as an upsert in the first epoch, then with their changes; the default where rows change.
//! Sinks of the same output see those upserts too, which change nothing for them. Pure. Failure: what cannot be is refused by name.

use std::collections::{BTreeMap, BTreeSet};

use millstream_common::ids::{Epoch, OperatorId, OutputIndex, SinkIndex};
use millstream_common::log::entry::JobProgress;
use millstream_common::plan::{Emit, JobPlan, KeyedKind, SinkPlan, SinkStart, StageHead, Target};

use super::{Terms, outputs, refuse, sinks_that_go_on, staying_sinks};

/// How the new sinks of a plan begin.
#[derive(Debug, Default)]
pub(super) struct Starts {
    /// Behind which epoch each does.
    pub(super) epochs: BTreeMap<SinkIndex, Epoch>,
    /// The operators that emit what they hold.
    pub(super) snapshots: BTreeSet<OperatorId>,
    /// What a person should know.
    pub(super) notes: Vec<String>,
    /// What cannot be.
    pub(super) refusals: Vec<String>,
}

/// How the sinks of `new` begin that do not go on from their markers.
pub(super) fn starts(old: &JobPlan, new: &JobPlan, progress: &JobProgress, terms: Terms) -> Starts {
    let staying = staying_sinks(old, new, terms);
    let going_on = sinks_that_go_on(old, new, &staying);
    let staying: BTreeSet<SinkIndex> = staying.into_values().collect();
    let mut starts = Starts::default();
    for (index, sink) in new.sinks.iter().enumerate() {
        let index = SinkIndex(index as u32);
        if going_on.contains(&index) {
            continue;
        }
        let start = match effective(new, sink) {
            SinkStart::Default | SinkStart::Now => Ok(progress.epoch),
            // Its marker is of the other relation, and may be ahead of where it would begin.
            SinkStart::Retained if staying.contains(&index) => Err(format!(
                "sink {}: start = 'retained': it holds rows of another relation; give the new sink another name, or use start = 'now'",
                sink.name
            )),
            // Its marker is still in the place that it writes to, and may be ahead too.
            SinkStart::Retained if progress.former_sinks.contains(&sink.name) => Err(format!(
                "sink {}: start = 'retained': the job had a sink of that name before, which may hold rows of what is kept; give the new \
                 sink another name, or use start = 'now'",
                sink.name
            )),
            SinkStart::Retained => retained(old, new, sink, terms).map(|()| {
                // Outputs that stay keep their numbers.
                let (name, oldest) = (&sink.name, progress.oldest_of(sink.output));
                let note = format!("sink {name} begins with what is kept behind epoch {oldest}");
                starts.notes.push(note);
                oldest
            }),
            SinkStart::Snapshot => starts.snapshot(old, new, sink).map(|()| progress.epoch),
        };
        match start {
            Ok(epoch) => drop(starts.epochs.insert(index, epoch)),
            Err(refusal) => starts.refusals.push(refusal),
        }
    }
    starts
}

impl Starts {
    /// Has the operator emit what it holds.
    fn snapshot(&mut self, old: &JobPlan, new: &JobPlan, sink: &SinkPlan) -> Result<(), String> {
        let name = &sink.name;
        let Some(operator) = holder(new, sink.output) else {
            return Err(format!(
                "sink {name}: start = 'snapshot': no operator holds the rows of {}; use start = 'now'",
                new.outputs[sink.output.index()].relation
            ));
        };
        // One that begins with the sink holds nothing yet.
        if refuse::keyed(old).any(|was| was.operator == *operator) {
            let note = format!("sink {name} begins with what operator {operator} holds");
            self.notes.push(note);
            self.snapshots.insert(operator.clone());
        }
        Ok(())
    }
}

/// What the sink says, or the default of its output.
fn effective(new: &JobPlan, sink: &SinkPlan) -> SinkStart {
    match (sink.start, new.outputs[sink.output.index()].emit) {
        (SinkStart::Default, Emit::Changes { .. }) if holder(new, sink.output).is_some() => {
            SinkStart::Snapshot
        }
        (start, _) => start,
    }
}

fn retained(old: &JobPlan, new: &JobPlan, sink: &SinkPlan, terms: Terms) -> Result<(), String> {
    let name = &sink.name;
    if !terms.goes_on {
        return Err(format!(
            "sink {name}: start = 'retained': a new life has shipped nothing yet; use start = 'now'"
        ));
    }
    let numbers = outputs::numbers(old, new);
    let is_same = |was: &SinkPlan| {
        let schema = &old.outputs[was.output.index()].schema;
        numbers.get(&was.output) == Some(&sink.output)
            && *schema == new.outputs[sink.output.index()].schema
    };
    match old.sinks.iter().any(is_same) {
        true => Ok(()),
        false => Err(format!(
            "sink {name}: start = 'retained': no sink has read {} as it is now, so nothing is kept of it; use start = 'now'",
            new.outputs[sink.output.index()].relation
        )),
    }
}

/// The operator whose groups the changes of `output` are of.
fn holder(plan: &JobPlan, output: OutputIndex) -> Option<&OperatorId> {
    if plan.outputs[output.index()].emit == Emit::Final {
        return None;
    }
    plan.stages.iter().find_map(|stage| {
        let mut branches = stage.branches.iter();
        let feeds = branches.any(|branch| branch.target == Target::Output(output));
        match &stage.head {
            StageHead::Keyed(keyed)
                if feeds && matches!(keyed.kind, KeyedKind::Aggregate { .. }) =>
            {
                Some(&keyed.operator)
            }
            StageHead::Keyed(_) | StageHead::Source(_) => None,
        }
    })
}
