//! What does not fit between two plans of a job, by name and with the reason.
//!
//! Called by [`super::carry`]. Pure; each function returns one text for each thing that does not fit.

use millstream_common::ids::{SinkIndex, SourceIndex};
use millstream_common::log::entry::JobProgress;
use millstream_common::plan::{
    JobPlan, KeyedKind, KeyedPlan, SinkPlan, SourcePlan, StageHead, WatermarkPlan,
};

use super::{outputs, places};

/// The keyed operators of a plan.
pub(super) fn keyed(plan: &JobPlan) -> impl Iterator<Item = &KeyedPlan> {
    plan.stages.iter().filter_map(|stage| match &stage.head {
        StageHead::Keyed(keyed) => Some(keyed),
        StageHead::Source(_) => None,
    })
}

/// Sources whose positions mean something else now.
pub(super) fn sources(old: &JobPlan, new: &JobPlan, progress: &JobProgress) -> Vec<String> {
    let mut refusals = Vec::new();
    for (index, was) in old.sources.iter().enumerate() {
        let Some(is) = new.sources.iter().find(|is| is.name == was.name) else {
            continue;
        };
        let has_positions = progress.splits.contains_key(&SourceIndex(index as u32));
        let (place, other) = (places::of_source(&was.spec), places::of_source(&is.spec));
        if has_positions && let Some(difference) = places::difference(&place, &other) {
            let name = &was.name;
            refusals.push(format!(
                "source {name}: its positions are of another place: {difference}; give the new source another name"
            ));
        }
        if let (Some(old), Some(new)) = (&was.watermark, &is.watermark)
            && (time_column(was, old) != time_column(is, new))
        {
            refusals.push(format!(
                "source {}: its watermark was of column {} and is of {}",
                was.name,
                time_column(was, old),
                time_column(is, new)
            ));
        }
    }
    refusals
}

fn time_column<'a>(source: &'a SourcePlan, watermark: &WatermarkPlan) -> &'a str {
    source.columns[watermark.column].field.name()
}

/// Operators whose state means something else now.
pub(super) fn operators(old: &JobPlan, new: &JobPlan) -> Vec<String> {
    let mut refusals = Vec::new();
    for is in keyed(new) {
        let was = keyed(old).find(|was| was.operator == is.operator);
        if let Some(was) = was.filter(|was| was.fingerprint != is.fingerprint) {
            refusals.push(format!(
                "operator {}: its state does not fit: {}; give the view another name to begin without it",
                is.operator,
                difference(was, is)
            ));
        }
    }
    refusals
}

/// Why the states of two operators do not fit.
fn difference(was: &KeyedPlan, is: &KeyedPlan) -> String {
    let keys = |keyed: &KeyedPlan| {
        let fields = keyed.input.0.fields();
        let keys = keyed.key_columns.iter().map(|key| {
            let field = &fields[*key];
            format!("{} {}", field.name(), field.data_type())
        });
        keys.collect::<Vec<_>>().join(", ")
    };
    let (old_keys, new_keys) = (keys(was), keys(is));
    if old_keys != new_keys {
        return format!("its keys were ({old_keys}) and are ({new_keys})");
    }
    let (KeyedKind::Aggregate { .. }, KeyedKind::Aggregate { .. }) = (&was.kind, &is.kind) else {
        return "it was another kind of operator".to_owned();
    };
    let (old_calls, new_calls) = (calls(&was.kind), calls(&is.kind));
    match old_calls == new_calls {
        true => "its window or the types of its aggregates are others".to_owned(),
        false => format!("its aggregates were ({old_calls}) and are ({new_calls})"),
    }
}

fn calls(kind: &KeyedKind) -> String {
    let KeyedKind::Aggregate { aggregates, .. } = kind else {
        return String::new();
    };
    let texts = aggregates.iter().map(|call| call.expression.text.as_str());
    texts.collect::<Vec<_>>().join(", ")
}

/// State and positions that the new plan has no place for.
pub(super) fn dropped(old: &JobPlan, new: &JobPlan, progress: &JobProgress) -> Vec<String> {
    let operators = keyed(old).filter(|was| {
        let is_there = keyed(new).any(|is| is.operator == was.operator);
        let parts = progress.parts.get(&was.operator);
        !is_there && parts.is_some_and(|parts| !parts.is_empty())
    });
    let sources = old.sources.iter().enumerate().filter(|(index, was)| {
        let is_there = new.sources.iter().any(|is| is.name == was.name);
        let splits = progress.splits.get(&SourceIndex(*index as u32));
        !is_there && splits.is_some_and(|splits| !splits.is_empty())
    });
    let states = operators.map(|was| format!("the state of operator {}", was.operator));
    let positions = sources.map(|(_, was)| format!("the positions of source {}", was.name));
    states.chain(positions).collect()
}

/// Sinks that cannot go on from their markers.
pub(super) fn sinks(old: &JobPlan, new: &JobPlan, progress: &JobProgress) -> Vec<String> {
    let mut refusals = Vec::new();
    for (index, was) in old.sinks.iter().enumerate() {
        let Some(is) = new.sinks.iter().find(|is| is.name == was.name) else {
            continue;
        };
        let (place, other) = (places::of_sink(&was.spec), places::of_sink(&is.spec));
        if let Some(difference) = places::difference(&place, &other) {
            refusals.push(format!(
                "sink {}: what it holds is in another place: {difference}; give the new sink another name",
                was.name
            ));
            continue;
        }
        let (old_output, new_output) = (
            &old.outputs[was.output.index()],
            &new.outputs[is.output.index()],
        );
        let (old_way, new_way) = (outputs::way(old_output.emit), outputs::way(new_output.emit));
        if old_way != new_way {
            refusals.push(format!(
                "sink {}: its emit was '{old_way}' and is '{new_way}'; give the new sink another name",
                was.name
            ));
        } else if old_output.relation == new_output.relation
            && outputs::numbers(old, new).get(&was.output) != Some(&is.output)
        {
            // Changes that wait for the next round of the one were sent by the other long ago.
            refusals.push(format!(
                "sink {}: its changes came at an interval of its own and are to come with those of another sink; give the new sink another \
                 name, or keep its emit",
                was.name
            ));
        } else if old_output.relation != new_output.relation
            || old_output.schema != new_output.schema
            // Epochs that were put away into storage are of numbers.
            || (was.output != is.output && !progress.backlog.is_empty())
        {
            refusals.extend(lagging(SinkIndex(index as u32), was, progress));
        }
    }
    refusals
}

/// A sink whose relation is another one now, and that still lacks rows of the old one.
fn lagging(index: SinkIndex, sink: &SinkPlan, progress: &JobProgress) -> Option<String> {
    let marker = progress.sink_markers.get(&index).copied();
    let marker = marker.unwrap_or_default();
    let lacks = progress.recent.iter().any(|epoch| {
        let mut segments = epoch.segments.iter();
        epoch.epoch > marker && segments.any(|segment| segment.output == sink.output)
    });
    let (name, head) = (&sink.name, progress.epoch);
    let mut backlog = progress.backlog.iter();
    let lacks =
        lacks || backlog.any(|part| part.last > marker && part.outputs.contains_key(&sink.output));
    lacks.then(|| {
        format!(
            "sink {name}: it holds epoch {marker} and lacks rows up to {head} of the relation that it read before; go on with the old SQL until it holds them"
        )
    })
}
