//! The sum of a job's rows: where each row that was read is, and how many are nowhere.
//!
//! Called by `view.rs`. Readers and keyed tasks count what passes them, epoch by epoch, and the log adds it up. Rows between two
//! tasks are on no side at a barrier, so every count of the chain must close: what a source read, what each stage took and
//! gave, what became segments (INV-10). Pure.

use std::collections::BTreeMap;

use millstream_common::control::{BranchView, StageView};
use millstream_common::ids::{OutputIndex, SinkIndex, SourceIndex, StageIndex};
use millstream_common::log::entry::JobProgress;
use millstream_common::plan::{JobPlan, KeyedKind, Port, StageHead, Target};
use millstream_common::report::{BranchFlow, StageFlow};

/// The rows of each stage, in the order of the plan.
pub(super) fn stage_views(plan: &JobPlan, progress: &JobProgress) -> Vec<StageView> {
    let stages = plan.stages.iter().enumerate();
    let views = stages.map(|(index, stage)| {
        let flow = flow_of(progress, index);
        let branches = stage.branches.iter().zip(branches_of(&flow));
        let branches = branches.map(|(branch, flow)| BranchView {
            to: match branch.target {
                Target::Exchange(stage) => plan.stages[stage.index()].name.clone(),
                Target::Output(output) => plan.outputs[output.index()].relation.clone(),
            },
            given: flow.given,
            late: flow.late,
            filtered: flow.filtered,
            failed: flow.failed,
            sent: flow.sent,
        });
        StageView {
            name: stage.name.clone(),
            received: flow.received,
            late: flow.late,
            duplicates: flow.duplicates,
            folded: flow.folded,
            failed: flow.failed,
            dropped: flow.dropped,
            branches: branches.collect(),
            ..StageView::default()
        }
    });
    views.collect()
}

/// Rows that are missing on one side of a count, or are there twice.
pub(super) fn unaccounted(plan: &JobPlan, progress: &JobProgress) -> u64 {
    let mut sum = Sum::default();
    for (index, stage) in plan.stages.iter().enumerate() {
        let flow = flow_of(progress, index);
        let mut letters = flow.failed;
        let mut rows = flow.received;
        match &stage.head {
            StageHead::Source(source) => letters += sum.of_source(*source, &flow, progress),
            StageHead::Keyed(keyed) => {
                let into = StageIndex(index as u32);
                sum.equal(
                    flow.received,
                    sent_to(plan, progress, Target::Exchange(into)),
                );
                match keyed.kind {
                    KeyedKind::Distinct { .. } => rows = rows.saturating_sub(flow.duplicates),
                    KeyedKind::Aggregate { .. } => sum.equal(flow.received, flow.folded),
                }
            }
        }
        for (branch, counted) in stage.branches.iter().zip(branches_of(&flow)) {
            let gone = counted.late + counted.filtered + counted.failed;
            sum.equal(counted.given, gone + counted.sent);
            match branch.port {
                Port::Rows => sum.equal(counted.given, rows),
                Port::DeadLetters => sum.equal(counted.given, letters),
                // Groups are new rows, made of those that were folded.
                Port::Final | Port::Changes => {}
            }
        }
    }
    sum.of_outputs(plan, progress);
    sum.0
}

#[derive(Default)]
struct Sum(u64);

impl Sum {
    fn equal(&mut self, one: u64, other: u64) {
        self.0 += one.abs_diff(other);
    }

    /// The rows of a source; how many of them are dead letters.
    fn of_source(&mut self, source: SourceIndex, flow: &StageFlow, progress: &JobProgress) -> u64 {
        let counters = progress.counters.get(&source).copied().unwrap_or_default();
        let decoded = counters.accepted + counters.rejected + counters.dropped;
        self.equal(counters.read, decoded);
        self.equal(flow.received, counters.accepted + flow.late);
        counters.rejected
    }

    /// Everything sent to an output is in its segments; what sinks refused is added by the Epochs that name it.
    fn of_outputs(&mut self, plan: &JobPlan, progress: &JobProgress) {
        let mut refused: BTreeMap<OutputIndex, u64> = BTreeMap::new();
        for (index, sink) in plan.sinks.iter().enumerate() {
            let count = progress.refused.get(&SinkIndex(index as u32));
            for branch in &sink.dead_letters {
                let is_whole = branch.transforms.is_empty();
                if let (Target::Output(output), true) = (branch.target, is_whole) {
                    *refused.entry(output).or_default() += count.copied().unwrap_or_default();
                }
            }
        }
        let is_cut = |output: OutputIndex| {
            let mut branches = plan.sinks.iter().flat_map(|sink| &sink.dead_letters);
            branches.any(|branch| {
                branch.target == Target::Output(output) && !branch.transforms.is_empty()
            })
        };
        for index in 0..plan.outputs.len() {
            let output = OutputIndex(index as u32);
            if is_cut(output) {
                continue;
            }
            let shipped = progress.shipped.get(&output).copied().unwrap_or_default();
            let sent = sent_to(plan, progress, Target::Output(output));
            let refused = refused.get(&output).copied().unwrap_or_default();
            self.equal(sent + refused, shipped);
        }
    }
}

fn flow_of(progress: &JobProgress, stage: usize) -> StageFlow {
    let flow = progress.flows.get(&StageIndex(stage as u32));
    flow.cloned().unwrap_or_default()
}

/// The counts of the branches; those that no row has passed yet are zero.
fn branches_of(flow: &StageFlow) -> impl Iterator<Item = BranchFlow> + '_ {
    let counted = flow.branches.iter().copied();
    counted.chain(std::iter::repeat(BranchFlow::default()))
}

fn sent_to(plan: &JobPlan, progress: &JobProgress, target: Target) -> u64 {
    let stages = plan.stages.iter().enumerate();
    let sent = stages.map(|(index, stage)| {
        let flow = flow_of(progress, index);
        let branches = stage.branches.iter().zip(branches_of(&flow));
        let into = branches.filter(|(branch, _)| branch.target == target);
        into.map(|(_, counted)| counted.sent).sum::<u64>()
    });
    sent.sum()
}

#[cfg(test)]
mod tests {
    use millstream_common::report::RowCounters;
    use millstream_common::secret::Environment;

    use super::*;

    const SQL: &str = "CREATE SOURCE clicks (id TEXT NOT NULL, n BIGINT, t TIMESTAMP NOT NULL, \
         WATERMARK FOR t AS t - INTERVAL '1 minute') \
         WITH (connector = 'kafka', brokers = 'b', topic = 't', format = 'json');\n\
         CREATE VIEW ids AS SELECT DISTINCT ON (id) * FROM clicks WHERE n > 0;\n\
         CREATE SINK s FROM ids WITH (connector = 'blackhole');";

    /// 20 records: 2 broken, 1 late; 4 filtered, 3 duplicates; 10 rows in the segments.
    fn right() -> JobProgress {
        let branch = |given, late, filtered, sent| BranchFlow {
            given,
            late,
            filtered,
            failed: 0,
            sent,
        };
        let mut progress = JobProgress::default();
        let read = RowCounters {
            read: 20,
            accepted: 17,
            rejected: 3,
            ..RowCounters::default()
        };
        progress.counters.insert(SourceIndex(0), read);
        let source = StageFlow {
            received: 17,
            branches: vec![branch(3, 0, 0, 3), branch(17, 0, 4, 13)],
            ..StageFlow::default()
        };
        let distinct = StageFlow {
            received: 13,
            duplicates: 3,
            branches: vec![branch(10, 0, 0, 10), BranchFlow::default()],
            ..StageFlow::default()
        };
        progress.flows = [(StageIndex(0), source), (StageIndex(1), distinct)].into();
        progress.shipped = [(OutputIndex(0), 3), (OutputIndex(1), 10)].into();
        progress
    }

    #[test]
    fn the_sum_closes_where_every_row_is_somewhere_and_tells_how_many_are_nowhere() {
        let planned = crate::plan::plan_job(SQL, &Environment).expect("a plan");
        let plan = &planned.plan;
        assert_eq!(unaccounted(plan, &JobProgress::default()), 0);
        assert_eq!(unaccounted(plan, &right()), 0);
        let views = stage_views(plan, &right());
        assert_eq!(views[0].branches[1].to, "ids/distinct/1");
        assert_eq!(views[0].branches[1].filtered, 4);

        let mut lost_on_the_way = right();
        lost_on_the_way
            .flows
            .entry(StageIndex(1))
            .or_default()
            .received = 12;
        assert_ne!(unaccounted(plan, &lost_on_the_way), 0);
        let mut lost_letter = right();
        lost_letter.shipped.insert(OutputIndex(0), 2);
        assert_eq!(unaccounted(plan, &lost_letter), 1);
        let mut not_counted = right();
        not_counted.counters.entry(SourceIndex(0)).or_default().read = 22;
        assert_eq!(unaccounted(plan, &not_counted), 2);
    }
}
