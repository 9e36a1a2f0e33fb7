//! From the draft of a job to its plan: what nothing reads is left out, expressions are encoded.
//!
//! Called last by `plan_job`. Every source stays, with its dead letters; a view that no sink reads costs nothing. Views vanish into the
//! stages that compute them; [`taps`] says where a person who wants to see one has to look.

mod encode;
mod prune;
pub(super) mod taps;

use datafusion::error::DataFusionError;
use millstream_common::ids::SourceIndex;
use millstream_common::plan::{
    JobPlan, JobSettings, OutputPlan, PlanSchema, SinkPlan, SourcePlan, StagePlan, expression,
};

use self::taps::{RelationTaps, Tapping};
use super::catalog::Catalog;
use super::graph::{DraftHead, DraftKind, DraftTarget, Graph};

/// A plan that cannot be carried to workers: a defect, or an expression that cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Expression(#[from] expression::Error),
    #[error("{}", .0.strip_backtrace())]
    DataFusion(#[from] DataFusionError),
}

/// The plan of `graph`, and where the rows of each relation are in it.
pub(super) fn finish(
    settings: JobSettings,
    mut sources: Vec<SourcePlan>,
    mut graph: Graph,
    mut sinks: Vec<SinkPlan>,
    catalog: &Catalog,
) -> Result<(JobPlan, Vec<RelationTaps>), Error> {
    let numbers = prune::unread_stages(&mut graph);
    prune::unread_columns(&mut graph);
    let keeps_time = keeps_time(&graph);
    let mut stages = Vec::with_capacity(graph.stages.len());
    for (index, stage) in graph.stages.iter().enumerate() {
        let branches = encode::branches(&graph, index, &keeps_time, sinks.len())?;
        if let DraftHead::Sink(sink) = stage.head {
            sinks[sink].dead_letters = branches;
            continue;
        }
        if let DraftHead::Source(source) = stage.head {
            sources[source].keeps_time = branches.iter().any(|branch| branch.keeps_time);
        }
        stages.push(StagePlan {
            name: stage.name.clone(),
            head: encode::head(stage)?,
            sources: stage
                .sources
                .iter()
                .map(|index| SourceIndex(*index as u32))
                .collect(),
            branches,
        });
    }
    let tapping = Tapping {
        graph: &graph,
        numbers: &numbers,
        sink_count: sinks.len(),
    };
    let relations = tapping.relations(catalog);
    let outputs = graph
        .outputs
        .into_iter()
        .map(|output| OutputPlan {
            relation: output.relation,
            emit: output.emit,
            schema: PlanSchema::from_fields(output.fields),
        })
        .collect();
    let plan = JobPlan {
        settings,
        sources,
        stages,
        outputs,
        sinks,
    };
    Ok((plan, relations))
}

/// Which stages keep time, or lead to one that does.
fn keeps_time(graph: &Graph) -> Vec<bool> {
    let mut keeps = vec![false; graph.stages.len()];
    for (index, stage) in graph.stages.iter().enumerate().rev() {
        let own = match &stage.head {
            DraftHead::Keyed {
                kind: DraftKind::Distinct { time, .. },
                ..
            } => time.is_some(),
            DraftHead::Keyed {
                kind: DraftKind::Aggregate { window, .. },
                ..
            } => window.is_some(),
            DraftHead::Source(_) | DraftHead::Sink(_) => false,
        };
        let behind = stage.branches.iter().any(|branch| match branch.target {
            DraftTarget::Exchange(target) => keeps[target],
            DraftTarget::Output(_) => false,
        });
        keeps[index] = own || behind;
    }
    keeps
}
