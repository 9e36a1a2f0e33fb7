//! Sinks that get changes more often than they ask for.
//!
//! Called by the planner once the stages are known. An aggregate remembers of each group only whether it changed since it
//! was last emitted, so all outputs of one aggregate get its changes at the least of their intervals. That is right for
//! every sink, only not as rare as written: a warning says so. Pure.

use std::collections::BTreeSet;

use millstream_common::plan::{Emit, JobPlan, SinkPlan, Target};

use super::explain::show_millis;
use super::{Problem, StatementPlaces};

/// A warning for each sink whose interval is above the least of its aggregate. `places` are of the sinks, in order.
pub(super) fn shared(plan: &JobPlan, places: &[StatementPlaces]) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for stage in &plan.stages {
        let outputs = stage
            .branches
            .iter()
            .filter_map(|branch| match branch.target {
                Target::Output(output) => Some(output),
                Target::Exchange(_) => None,
            });
        let outputs: BTreeSet<_> = outputs.collect();
        let sinks = plan.sinks.iter().zip(places);
        let asking: Vec<_> = sinks
            .filter(|(sink, _)| outputs.contains(&sink.output))
            .filter_map(|(sink, places)| Some((interval(plan, sink)?, sink, places)))
            .collect();
        let Some((least, fastest, _)) = asking.iter().min_by_key(|(interval, ..)| *interval) else {
            continue;
        };
        for (interval, sink, places) in &asking {
            if interval > least {
                let message = format!(
                    "sink {} gets changes {}, as sink {} does: both read one aggregate",
                    sink.name,
                    how_often(*least),
                    fastest.name
                );
                let hint = "write the same emit on both, or let one read a view of its own";
                warnings.push(Problem::at(places.option("emit"), message).hint(hint));
            }
        }
    }
    warnings
}

fn interval(plan: &JobPlan, sink: &SinkPlan) -> Option<u64> {
    match plan.outputs[sink.output.index()].emit {
        Emit::Changes { interval_ms } => Some(interval_ms),
        Emit::Final => None,
    }
}

fn how_often(interval_ms: u64) -> String {
    match interval_ms {
        0 => "at each epoch".to_owned(),
        millis => format!("every {}", show_millis(millis)),
    }
}
