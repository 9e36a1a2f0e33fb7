//! Plans to and from generated messages, field by field.

use millstream_proto::v1;

use crate::control::{PlanBranchView, PlanOutputView, PlanSinkView, PlanStageView, PlanView};
use crate::ids::JobName;

impl From<PlanView> for v1::GetPlanResponse {
    fn from(view: PlanView) -> Self {
        Self {
            job: view.job.0,
            sql: view.sql,
            explained: view.explained,
            stages: view.stages.into_iter().map(Into::into).collect(),
            outputs: view.outputs.into_iter().map(Into::into).collect(),
            sinks: view.sinks.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<v1::GetPlanResponse> for PlanView {
    fn from(response: v1::GetPlanResponse) -> Self {
        Self {
            job: JobName(response.job),
            sql: response.sql,
            explained: response.explained,
            stages: response.stages.into_iter().map(Into::into).collect(),
            outputs: response.outputs.into_iter().map(Into::into).collect(),
            sinks: response.sinks.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<PlanStageView> for v1::PlanStage {
    fn from(stage: PlanStageView) -> Self {
        Self {
            name: stage.name,
            is_source: stage.is_source,
            words: stage.words,
            sources: stage.sources,
            branches: stage.branches.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<v1::PlanStage> for PlanStageView {
    fn from(stage: v1::PlanStage) -> Self {
        Self {
            name: stage.name,
            is_source: stage.is_source,
            words: stage.words,
            sources: stage.sources,
            branches: stage.branches.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<PlanBranchView> for v1::PlanBranch {
    fn from(branch: PlanBranchView) -> Self {
        Self {
            rows: branch.rows,
            steps: branch.steps,
            to_stage: branch.to_stage,
            to_output: branch.to_output,
        }
    }
}

impl From<v1::PlanBranch> for PlanBranchView {
    fn from(branch: v1::PlanBranch) -> Self {
        Self {
            rows: branch.rows,
            steps: branch.steps,
            to_stage: branch.to_stage,
            to_output: branch.to_output,
        }
    }
}

impl From<PlanOutputView> for v1::PlanOutput {
    fn from(output: PlanOutputView) -> Self {
        Self {
            relation: output.relation,
            emit: output.emit,
            waits_for_windows: output.waits_for_windows,
        }
    }
}

impl From<v1::PlanOutput> for PlanOutputView {
    fn from(output: v1::PlanOutput) -> Self {
        Self {
            relation: output.relation,
            emit: output.emit,
            waits_for_windows: output.waits_for_windows,
        }
    }
}

impl From<PlanSinkView> for v1::PlanSink {
    fn from(sink: PlanSinkView) -> Self {
        Self {
            name: sink.name,
            output: sink.output,
            words: sink.words,
        }
    }
}

impl From<v1::PlanSink> for PlanSinkView {
    fn from(sink: v1::PlanSink) -> Self {
        Self {
            name: sink.name,
            output: sink.output,
            words: sink.words,
        }
    }
}
