//! Whether the counters of an epoch close: every row that was read is on one side of each count (INV-10).
//!
//! Asked by the ledger at each Epoch, whose barrier has left no row between two tasks. By the plan and the entry alone, with none of the
//! production's sums. Pure. Failure: the first count that is open, as a sentence.

use std::collections::BTreeMap;

use millstream_common::ids::{OutputIndex, StageIndex};
use millstream_common::log::entry::EpochEntry;
use millstream_common::plan::{JobPlan, StageHead, Target};
use millstream_common::report::BranchFlow;

/// What does not close in an epoch of a job with that plan.
pub(super) fn open_count(plan: &JobPlan, entry: &EpochEntry) -> Option<String> {
    decoded(entry)
        .or_else(|| branches(entry))
        .or_else(|| exchanged(plan, entry))
        .or_else(|| shipped(plan, entry))
}

/// Records are accepted, rejected or dropped.
fn decoded(entry: &EpochEntry) -> Option<String> {
    let mut counters = entry.counters.iter();
    let open =
        counters.find(|(_, count)| count.read != count.accepted + count.rejected + count.dropped);
    open.map(|(source, count)| format!("source {source} counts {count:?}"))
}

/// What a branch is given is late, filtered, failed or sent.
fn branches(entry: &EpochEntry) -> Option<String> {
    let is_open = |flow: &&BranchFlow| {
        let gone = flow.late + flow.filtered + flow.failed;
        flow.given != gone + flow.sent
    };
    let mut flows = entry.flows.iter();
    flows.find_map(|(stage, flow)| {
        let open = flow.branches.iter().find(is_open)?;
        Some(format!("a branch of stage {stage} counts {open:?}"))
    })
}

/// What a stage has received others have sent it.
fn exchanged(plan: &JobPlan, entry: &EpochEntry) -> Option<String> {
    let sent = sent(plan, entry);
    let keyed = plan.stages.iter().enumerate();
    let mut keyed = keyed.filter(|(_, stage)| matches!(stage.head, StageHead::Keyed(_)));
    keyed.find_map(|(index, _)| {
        let stage = StageIndex(index as u32);
        let received = entry.flows.get(&stage).map_or(0, |flow| flow.received);
        let sent = sent.stages.get(&stage).copied().unwrap_or_default();
        (received != sent).then(|| format!("stage {stage} received {received} of {sent} rows"))
    })
}

/// What was sent to an output is in its segments, and so is what sinks refused.
fn shipped(plan: &JobPlan, entry: &EpochEntry) -> Option<String> {
    let mut wanted = sent(plan, entry).outputs;
    for refused in &entry.refused {
        for letters in &plan.sinks[refused.sink.index()].dead_letters {
            if let Target::Output(output) = letters.target {
                *wanted.entry(output).or_default() += refused.count() as i64;
            }
        }
    }
    for segment in &entry.segments {
        let rows = wanted.entry(segment.output).or_default();
        *rows -= segment.row_count as i64;
    }
    let mut wanted = wanted.into_iter();
    let open = wanted.find(|(_, rows)| *rows != 0);
    open.map(|(output, rows)| format!("segments of output {output} lack {rows} rows"))
}

#[derive(Default)]
struct Sent {
    stages: BTreeMap<StageIndex, u64>,
    outputs: BTreeMap<OutputIndex, i64>,
}

fn sent(plan: &JobPlan, entry: &EpochEntry) -> Sent {
    let mut sent = Sent::default();
    for (index, stage) in plan.stages.iter().enumerate() {
        let Some(flow) = entry.flows.get(&StageIndex(index as u32)) else {
            continue;
        };
        for (branch, flow) in stage.branches.iter().zip(&flow.branches) {
            match branch.target {
                Target::Exchange(stage) => *sent.stages.entry(stage).or_default() += flow.sent,
                Target::Output(output) => {
                    *sent.outputs.entry(output).or_default() += flow.sent as i64;
                }
            }
        }
    }
    sent
}
