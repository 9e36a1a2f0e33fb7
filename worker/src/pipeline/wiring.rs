//! Wiring: who is connected to whom in a generation, seen from one worker.
//!
//! Pure; used by `build`. Every stage has the same number of tasks; a branch that ends in an exchange connects each task of its stage with
//! each task of the target stage; a branch that ends in an output connects each task with its own worker's ship actor.

use std::collections::{BTreeMap, BTreeSet};

use millstream_common::ids::{OutputIndex, SinkIndex, StageIndex, TaskId, WorkerId};
use millstream_common::log::entry::Assignment;
use millstream_common::plan::{JobPlan, StageHead, StagePlan, Target};

use super::report::Speaker;
use crate::exchange::message::EdgeId;

/// One worker's view of a generation.
pub struct Wiring<'a> {
    plan: &'a JobPlan,
    worker: &'a WorkerId,
    workers: BTreeMap<TaskId, &'a WorkerId>,
    assignment: &'a Assignment,
}

impl<'a> Wiring<'a> {
    /// The view of `worker`.
    pub fn new(plan: &'a JobPlan, assignment: &'a Assignment, worker: &'a WorkerId) -> Self {
        let placements = assignment.tasks.iter();
        Self {
            plan,
            worker,
            workers: placements
                .map(|placement| (placement.task, &placement.worker))
                .collect(),
            assignment,
        }
    }

    /// The tasks that run here, last stage first: each finds what it sends to already built.
    pub fn local_tasks(&self) -> Vec<TaskId> {
        let local = self
            .workers
            .iter()
            .filter(|(_, worker)| **worker == self.worker);
        local.map(|(task, _)| *task).rev().collect()
    }

    /// The worker of a task; `None` is here.
    pub fn remote_worker(&self, task: TaskId) -> Option<&'a WorkerId> {
        self.workers
            .get(&task)
            .copied()
            .filter(|worker| *worker != self.worker)
    }

    /// Tasks of each stage.
    pub fn task_count(&self) -> u32 {
        self.tasks_of(StageIndex(0)).count() as u32
    }

    /// The tasks of a stage, by index.
    pub fn tasks_of(&self, stage: StageIndex) -> impl Iterator<Item = TaskId> + '_ {
        self.workers
            .keys()
            .copied()
            .filter(move |task| task.stage == stage)
    }

    /// The edges on which a keyed task receives.
    pub fn inputs_of(&self, task: TaskId) -> Vec<EdgeId> {
        let mut inputs = Vec::new();
        for (stage_index, stage) in self.plan.stages.iter().enumerate() {
            for (branch, _) in stage
                .branches
                .iter()
                .enumerate()
                .filter(|(_, branch)| branch.target == Target::Exchange(task.stage))
            {
                let senders = self.tasks_of(StageIndex(stage_index as u32));
                inputs.extend(senders.map(|from| EdgeId {
                    from,
                    to: task,
                    branch: branch as u32,
                }));
            }
        }
        inputs
    }

    /// The edges on which this worker's ship actor of an output receives; none if no task here feeds it.
    pub fn ship_inputs(&self, output: OutputIndex) -> Vec<EdgeId> {
        let mut inputs = Vec::new();
        for task in self.local_tasks() {
            let branches = self.plan.stages[task.stage.index()]
                .branches
                .iter()
                .enumerate();
            let feeding = branches.filter(|(_, branch)| branch.target == Target::Output(output));
            inputs.extend(feeding.map(|(branch, _)| ship_edge(task, branch as u32, output)));
        }
        inputs
    }

    /// The sinks that are placed here.
    pub fn local_sinks(&self) -> Vec<SinkIndex> {
        let placements = self.assignment.sinks.iter();
        let local = placements.filter(|placement| placement.worker == *self.worker);
        local.map(|placement| placement.sink).collect()
    }

    /// Who has to speak before an epoch is reported.
    pub fn speakers(&self) -> BTreeSet<Speaker> {
        let tasks = self.local_tasks().into_iter().map(Speaker::Task);
        let outputs = (0..self.plan.outputs.len()).map(|index| OutputIndex(index as u32));
        let shipping = outputs.filter(|output| !self.ship_inputs(*output).is_empty());
        tasks.chain(shipping.map(Speaker::Output)).collect()
    }

    /// A stage of the plan.
    pub fn stage(&self, stage: StageIndex) -> &'a StagePlan {
        &self.plan.stages[stage.index()]
    }

    /// For texts: the stage's name and the task's index.
    pub fn name_of(&self, task: TaskId) -> String {
        format!(
            "{}.{}",
            self.plan.stages[task.stage.index()].name,
            task.index
        )
    }

    /// Whether some branch of a source stage wants late rows.
    pub fn late_rows_needed(&self, stage: StageIndex) -> bool {
        let stage = &self.plan.stages[stage.index()];
        let is_source = matches!(stage.head, StageHead::Source(_));
        is_source
            && stage.branches.iter().any(|branch| {
                branch.port == millstream_common::plan::Port::Rows && !branch.keeps_time
            })
    }
}

/// The edge from a task to the ship actor of its worker.
pub fn ship_edge(from: TaskId, branch: u32, output: OutputIndex) -> EdgeId {
    EdgeId {
        from,
        to: TaskId {
            stage: StageIndex(u32::MAX),
            index: output.0,
        },
        branch,
    }
}
