//! A plan as clients of a master see it: the same words as `millstream explain`, stage by stage.
//!
//! Called by a job's actor with the plan in the log. Pure.

use millstream_common::control::{
    PlanBranchView, PlanOutputView, PlanSinkView, PlanStageView, PlanView,
};
use millstream_common::ids::JobName;
use millstream_common::plan::{Branch, Emit, JobPlan, Port, StageHead, StagePlan, Target};

use super::explain;

/// The plan of a job, beside the SQL that it was made of.
pub(crate) fn view(job: &JobName, sql: &str, plan: &JobPlan) -> PlanView {
    let outputs = plan.outputs.iter().enumerate();
    let sinks = plan.sinks.iter();
    PlanView {
        job: job.clone(),
        sql: sql.to_owned(),
        explained: explain::explain_plan(plan),
        stages: plan.stages.iter().map(|each| stage(plan, each)).collect(),
        outputs: outputs
            .map(|(index, output)| PlanOutputView {
                relation: output.relation.clone(),
                emit: explain::show_emit(output.emit),
                waits_for_windows: output.emit == Emit::Final && is_of_windows(plan, index),
            })
            .collect(),
        sinks: sinks
            .map(|sink| PlanSinkView {
                name: sink.name.clone(),
                output: sink.output.0,
                words: explain::show_target(&sink.spec),
            })
            .collect(),
    }
}

fn stage(plan: &JobPlan, stage: &StagePlan) -> PlanStageView {
    let mut words = String::new();
    explain::show_head(&mut words, plan, &stage.head);
    PlanStageView {
        name: stage.name.clone(),
        is_source: matches!(stage.head, StageHead::Source(_)),
        words: words.lines().map(|line| line.trim().to_owned()).collect(),
        sources: stage.sources.iter().map(|source| source.0).collect(),
        branches: stage.branches.iter().map(branch).collect(),
    }
}

fn branch(branch: &Branch) -> PlanBranchView {
    let (to_stage, to_output) = match branch.target {
        Target::Exchange(stage) => (Some(stage.0), None),
        Target::Output(output) => (None, Some(output.0)),
    };
    PlanBranchView {
        rows: explain::show_port(branch.port).to_owned(),
        steps: branch
            .transforms
            .iter()
            .map(explain::show_transform)
            .collect(),
        to_stage,
        to_output,
    }
}

/// Groups come to it, once, when their window has closed.
fn is_of_windows(plan: &JobPlan, output: usize) -> bool {
    let mut branches = plan.stages.iter().flat_map(|stage| &stage.branches);
    branches.any(|branch| {
        let leads_here =
            matches!(branch.target, Target::Output(target) if target.index() == output);
        leads_here && branch.port == Port::Final
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ENDLESS, plan};

    #[test]
    fn clients_see_the_stages_and_sinks_in_the_words_of_explain() {
        let view = view(&"numbers".into(), ENDLESS, &plan(ENDLESS));
        assert_eq!(view.sql, ENDLESS);
        assert_eq!(view.stages.len(), 1);
        assert!(view.stages[0].is_source);
        for words in &view.stages[0].words {
            assert!(view.explained.contains(words), "{words}");
        }
        assert_eq!(view.sinks[0].words, "nowhere");
        let output = &view.outputs[view.sinks[0].output as usize];
        assert_eq!(output.relation, "numbers");
        assert!(!output.waits_for_windows);
        let to = &view.stages[0].branches;
        assert!(
            to.iter()
                .any(|branch| branch.to_output == Some(view.sinks[0].output))
        );
    }
}
