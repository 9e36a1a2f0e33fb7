//! Numbers of outputs, kept over plans: segments in storage are of numbers.
//!
//! Called before a plan is compared with that of a job that goes on, or takes its place. An output is a relation with a way of
//! emitting it. Those that stay keep their numbers and new ones take the next. One that goes stays in the list, with nothing that feeds
//! it: what is stored of it, like its dead letters, is still told by its number, which nobody else ever gets. Pure.

use std::collections::BTreeMap;

use millstream_common::ids::{Epoch, OutputIndex};
use millstream_common::plan::{Branch, Emit, JobPlan, OutputPlan, Target};

/// Whether both are the same output.
pub(crate) fn are_one(one: &OutputPlan, other: &OutputPlan) -> bool {
    one.relation == other.relation && way(one.emit) == way(other.emit)
}

/// How an output is emitted, whatever the interval.
pub(super) fn way(emit: Emit) -> &'static str {
    match emit {
        Emit::Final => "final",
        Emit::Changes { .. } => "changes",
    }
}

/// By number in `old`, the place in `new` of the same output.
fn places(old: &JobPlan, new: &JobPlan) -> Vec<Option<usize>> {
    let mut places: Vec<Option<usize>> = vec![None; old.outputs.len()];
    let mut rest: Vec<usize> = (0..new.outputs.len()).collect();
    // Two changes of one relation differ in their intervals only: each is taken once, the equal ones first.
    for is_exact in [true, false] {
        for (place, was) in places.iter_mut().zip(&old.outputs) {
            let is_same = |now: &&usize| {
                let now = &new.outputs[**now];
                are_one(was, now) && (!is_exact || was.emit == now.emit)
            };
            if place.is_none()
                && let Some(found) = rest.iter().find(is_same).copied()
            {
                rest.retain(|now| *now != found);
                *place = Some(found);
            }
        }
    }
    places
}

/// The new number of each output that stays.
pub(super) fn numbers(old: &JobPlan, new: &JobPlan) -> BTreeMap<OutputIndex, OutputIndex> {
    let places = places(old, new).into_iter().enumerate();
    let numbered = places.filter_map(|(was, is)| {
        let is = OutputIndex(is? as u32);
        Some((OutputIndex(was as u32), is))
    });
    numbered.collect()
}

/// What a person should know of sinks that read another relation now.
pub(super) fn led_notes(old: &JobPlan, new: &JobPlan, epoch: Epoch) -> Vec<String> {
    let pairs = new.sinks.iter().filter_map(|is| {
        let was = old.sinks.iter().find(|was| was.name == is.name)?;
        let was = &old.outputs[was.output.index()].relation;
        let relation = &new.outputs[is.output.index()].relation;
        (was != relation).then(|| {
            let name = &is.name;
            format!(
                "sink {name} reads {relation} behind epoch {epoch}; what it holds of {was} stays"
            )
        })
    });
    pairs.collect()
}

/// `plan` with its outputs numbered as in `old`, as far as they are the same; equal to `old` if it was planned from the same SQL.
pub(crate) fn numbered_as(old: &JobPlan, mut plan: JobPlan) -> JobPlan {
    let places = places(old, &plan);
    let is_new = |now: &usize| !places.contains(&Some(*now));
    let behind: Vec<usize> = (0..plan.outputs.len()).filter(is_new).collect();
    let mut numbers = vec![OutputIndex(0); plan.outputs.len()];
    let mut outputs = old.outputs.clone();
    for (number, now) in places.iter().enumerate() {
        if let Some(now) = now {
            numbers[*now] = OutputIndex(number as u32);
            outputs[number] = plan.outputs[*now].clone();
        }
    }
    for now in behind {
        numbers[now] = OutputIndex(outputs.len() as u32);
        outputs.push(plan.outputs[now].clone());
    }
    plan.outputs = outputs;
    let of_stages = plan.stages.iter_mut().flat_map(|stage| &mut stage.branches);
    let of_sinks = plan
        .sinks
        .iter_mut()
        .flat_map(|sink| &mut sink.dead_letters);
    for branch in of_stages.chain(of_sinks) {
        renumber(branch, &numbers);
    }
    for sink in &mut plan.sinks {
        sink.output = numbers[sink.output.index()];
    }
    plan
}

fn renumber(branch: &mut Branch, numbers: &[OutputIndex]) {
    if let Target::Output(output) = &mut branch.target {
        *output = numbers[output.index()];
    }
}
