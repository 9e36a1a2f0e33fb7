//! Assignment: which worker runs which task, which task reads which split, which worker holds which sink.
//!
//! Pure; called by a job's actor for each generation and for splits found while it runs. Every stage has one
//! task a slot, in worker order, so that the tasks of one index stand on one worker and edges between them stay in
//! the process. Splits go to the reader with the fewest; sinks go round the workers.

use std::collections::{BTreeMap, BTreeSet};

use millstream_common::ids::{
    SinkIndex, SourceIndex, SplitId, StageIndex, TaskId, VNODE_COUNT, WorkerId,
};
use millstream_common::log::entry::{Assignment, SinkPlacement, SplitPlacement, TaskPlacement};
use millstream_common::plan::JobPlan;

/// A worker that can be given tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub worker: WorkerId,
    /// Tasks of each stage that it runs; at least 1.
    pub slots: u32,
}

/// Splits by source.
pub type SplitsBySource = BTreeMap<SourceIndex, Vec<SplitId>>;

/// Places everything on `candidates` (at least one, in a stable order).
pub fn assign(plan: &JobPlan, candidates: &[Candidate], splits: &SplitsBySource) -> Assignment {
    let slots = slots_of(candidates);
    let mut assignment = Assignment::default();
    for stage in 0..plan.stages.len() {
        for (index, worker) in slots.iter().enumerate() {
            assignment.tasks.push(TaskPlacement {
                task: TaskId {
                    stage: StageIndex(stage as u32),
                    index: index as u32,
                },
                worker: (*worker).clone(),
            });
        }
    }
    for (source, found) in splits {
        add_splits(&mut assignment, slots.len() as u32, *source, found);
    }
    for (index, candidate) in (0..plan.sinks.len()).zip(candidates.iter().cycle()) {
        assignment.sinks.push(SinkPlacement {
            sink: SinkIndex(index as u32),
            worker: candidate.worker.clone(),
        });
    }
    assignment
}

/// The workers whose reports complete an epoch. With more slots than vnodes some workers have no task, and say nothing.
pub fn workers_with_tasks(assignment: &Assignment) -> BTreeSet<WorkerId> {
    let tasks = assignment.tasks.iter();
    tasks.map(|placement| placement.worker.clone()).collect()
}

/// Gives each of `found` to the reader of `source` with the fewest splits; returns the new placements, which
/// are in `assignment` too.
pub fn add_splits(
    assignment: &mut Assignment,
    task_count: u32,
    source: SourceIndex,
    found: &[SplitId],
) -> Vec<SplitPlacement> {
    let mut loads = vec![0_u32; task_count as usize];
    for placement in assignment
        .splits
        .iter()
        .filter(|placement| placement.source == source)
    {
        loads[placement.task_index as usize] += 1;
    }
    let mut placed = Vec::with_capacity(found.len());
    for split in found {
        let lightest = (0..loads.len())
            .min_by_key(|index| loads[*index])
            .unwrap_or_default();
        loads[lightest] += 1;
        placed.push(SplitPlacement {
            source,
            split: split.clone(),
            task_index: lightest as u32,
        });
    }
    assignment.splits.extend(placed.iter().cloned());
    placed
}

/// The worker of each task index: slots are taken from all workers in turn, so that few tasks are spread wide.
fn slots_of(candidates: &[Candidate]) -> Vec<&WorkerId> {
    let most = candidates
        .iter()
        .map(|candidate| candidate.slots.max(1))
        .max()
        .unwrap_or(1);
    let mut slots = Vec::new();
    for round in 0..most {
        for candidate in candidates {
            if round < candidate.slots.max(1) {
                slots.push(&candidate.worker);
            }
        }
    }
    slots.truncate(VNODE_COUNT as usize);
    slots
}

#[cfg(test)]
mod tests {
    use millstream_common::plan::{Branch, JobSettings, StageHead, StagePlan};

    use super::*;

    fn plan(stages: usize) -> JobPlan {
        let stage = StagePlan {
            name: "clicks".to_owned(),
            head: StageHead::Source(SourceIndex(0)),
            sources: vec![SourceIndex(0)],
            branches: Vec::<Branch>::new(),
        };
        JobPlan {
            settings: JobSettings::default(),
            sources: Vec::new(),
            stages: vec![stage; stages],
            outputs: Vec::new(),
            sinks: Vec::new(),
        }
    }

    fn candidates(slots: &[u32]) -> Vec<Candidate> {
        let named = slots.iter().enumerate().map(|(index, slots)| Candidate {
            worker: WorkerId(format!("w{index}")),
            slots: *slots,
        });
        named.collect()
    }

    fn splits(count: usize) -> SplitsBySource {
        let ids = (0..count)
            .map(|index| SplitId(format!("topic-{index}")))
            .collect();
        BTreeMap::from([(SourceIndex(0), ids)])
    }

    #[test]
    fn every_stage_has_one_task_a_slot_and_equal_indexes_share_a_worker() {
        let assignment = assign(&plan(2), &candidates(&[2, 1]), &splits(0));
        let worker = |stage, index| {
            let task = TaskId {
                stage: StageIndex(stage),
                index,
            };
            let placement = assignment
                .tasks
                .iter()
                .find(|placement| placement.task == task);
            placement.map(|placement| placement.worker.as_str().to_owned())
        };
        assert_eq!(assignment.tasks.len(), 6);
        for index in 0..3 {
            assert_eq!(worker(0, index), worker(1, index));
        }
        assert_eq!(worker(0, 0).as_deref(), Some("w0"));
        assert_eq!(worker(0, 1).as_deref(), Some("w1"));
        assert_eq!(worker(0, 2).as_deref(), Some("w0"));
    }

    #[test]
    fn a_worker_beyond_the_last_vnode_has_no_task() {
        let assignment = assign(&plan(1), &candidates(&[1; 257]), &splits(0));
        let busy = workers_with_tasks(&assignment);
        assert_eq!(busy.len(), VNODE_COUNT as usize);
        assert!(!busy.contains(&WorkerId::from("w256")));
    }

    #[test]
    fn splits_are_spread_evenly_and_new_ones_go_where_few_are() {
        let mut assignment = assign(&plan(1), &candidates(&[1, 1]), &splits(4));
        let load = |assignment: &Assignment, index| {
            assignment
                .splits
                .iter()
                .filter(|placement| placement.task_index == index)
                .count()
        };
        assert_eq!((load(&assignment, 0), load(&assignment, 1)), (2, 2));
        assignment
            .splits
            .retain(|placement| placement.task_index == 1);
        let placed = add_splits(&mut assignment, 2, SourceIndex(0), &["new".into()]);
        assert_eq!(placed[0].task_index, 0);
        assert_eq!(load(&assignment, 0), 1);
    }
}
