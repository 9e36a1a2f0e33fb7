//! Numbers of outputs, kept over plans: segments in storage are of numbers.
//!
//! Called before a plan is compared with that of a job that goes on, or takes its place. An output is a relation with a way of
//! emitting it. Those that stay keep their numbers; new ones take the numbers of those that go, then the next. Pure.

use std::collections::BTreeMap;

use millstream_common::ids::OutputIndex;
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

/// `plan` with its outputs numbered as in `old`, as far as they are the same; equal to `old` if it was planned from the same SQL.
pub(crate) fn numbered_as(old: &JobPlan, mut plan: JobPlan) -> JobPlan {
    // By new number, the number of now.
    let mut places = places(old, &plan);
    let rest = (0..plan.outputs.len()).filter(|now| !places.contains(&Some(*now)));
    let mut rest = rest.collect::<Vec<_>>().into_iter();
    for place in &mut places {
        if place.is_none() {
            *place = rest.next();
        }
    }
    // Holes that nothing fills close up.
    let order: Vec<usize> = places.into_iter().flatten().chain(rest).collect();
    let mut numbers = vec![OutputIndex(0); order.len()];
    for (new, now) in order.iter().enumerate() {
        numbers[*now] = OutputIndex(new as u32);
    }
    plan.outputs = order.iter().map(|now| plan.outputs[*now].clone()).collect();
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
