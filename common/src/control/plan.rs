//! What a job's SQL was planned to, as a client sees it.
//!
//! Filled by the master from the plan in the log, shown by the dashboard and the command line. Pure data.

use serde::Serialize;

use crate::ids::JobName;

/// The SQL of a job and its plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanView {
    /// The job.
    pub job: JobName,
    /// As submitted; secrets are references in it.
    pub sql: String,
    /// As `millstream explain` prints it.
    pub explained: String,
    /// In topological order; those of the job's view, one by one.
    pub stages: Vec<PlanStageView>,
    /// What sinks read.
    pub outputs: Vec<PlanOutputView>,
    /// In the order of the file.
    pub sinks: Vec<PlanSinkView>,
}

/// A run of operators with no exchange inside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PlanStageView {
    /// The source, or the operator.
    pub name: String,
    /// It begins with a source, not with an operator that keeps state.
    pub is_source: bool,
    /// What it does, a line each.
    pub words: Vec<String>,
    /// The sources whose rows reach it, as places in the order of the file.
    pub sources: Vec<u32>,
    /// Where its rows go.
    pub branches: Vec<PlanBranchView>,
}

/// A way out of a stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PlanBranchView {
    /// `rows`, `dead letters`, `final groups` or `changed groups`.
    pub rows: String,
    /// What is done to them on the way, a line each.
    pub steps: Vec<String>,
    /// The stage that it leads to,
    pub to_stage: Option<u32>,
    /// or the output.
    pub to_output: Option<u32>,
}

/// A relation with an emit mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanOutputView {
    /// Its name.
    pub relation: String,
    /// How its rows come, in words.
    pub emit: String,
    /// Its rows come once, when their window has closed.
    pub waits_for_windows: bool,
}

/// A sink of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanSinkView {
    /// Its name.
    pub name: String,
    /// The output that it reads.
    pub output: u32,
    /// Where it delivers, in words.
    pub words: String,
}
