//! The relation that a person names, found in a running job.
//!
//! Sources, what sinks get and dead letters are in the plan that runs. Views are not: they are found by planning the job's SQL again, as
//! long as that comes to the same stages. Pure. Failure: a name that is no relation, with the nearest; a relation whose rows are nowhere,
//! with those that can be shown.

use arrow::datatypes::SchemaRef;
use millstream_common::control::ControlError;
use millstream_common::ids::{OutputIndex, StageIndex};
use millstream_common::plan::{Emit, JobPlan, PlanSchema, Port, StageHead, Target};
use millstream_common::preview::Tap;
use millstream_common::suggest::nearest;

use crate::job::placed::Placed;
use crate::plan::{PlannedJob, RelationTaps, Tapped};

/// Names in an error text.
const NAMES_MAX: usize = 20;

/// The relation `name` of a job, by its exact name.
pub(super) fn find(
    placed: &Placed,
    planned: Option<&PlannedJob>,
    name: &str,
) -> Result<(String, Tapped), ControlError> {
    let known = relations(&placed.plan, planned);
    let folded = name.to_lowercase();
    let mut exact = known.iter().filter(|known| known.relation == name);
    let mut as_folded = known.iter().filter(|known| known.relation == folded);
    let found = exact.next().or_else(|| as_folded.next());
    let why = match found.map(|found| (&found.relation, &found.rows)) {
        Some((relation, Ok(tapped))) => return Ok((relation.clone(), tapped.clone())),
        Some((relation, Err(reason))) => format!("{relation} cannot be previewed: {reason}"),
        None => {
            let names = known.iter().map(|known| known.relation.as_str());
            let meant = nearest(name, names).map(|name| format!(", did you mean {name}?"));
            let job = &placed.job;
            let meant = meant.unwrap_or_default();
            format!("job {job} has no relation {name}{meant}")
        }
    };
    let comma = if why.ends_with('?') { "" } else { ";" };
    let offered = offered(&known);
    Err(ControlError::Invalid(format!("{why}{comma} {offered}")))
}

fn offered(known: &[RelationTaps]) -> String {
    let shown = known.iter().filter(|known| known.rows.is_ok());
    let names: Vec<&str> = shown.map(|known| known.relation.as_str()).collect();
    let more = match names.len() > NAMES_MAX {
        true => format!(" and {} more", names.len() - NAMES_MAX),
        false => String::new(),
    };
    let first = &names[..names.len().min(NAMES_MAX)];
    format!("these can be previewed: {}{more}", first.join(", "))
}

/// Everything that can be named, relations before sinks.
fn relations(plan: &JobPlan, planned: Option<&PlannedJob>) -> Vec<RelationTaps> {
    let mut known = match planned {
        Some(planned) if runs_same_stages(&planned.plan, plan) => planned.relations.clone(),
        _ => sources(plan),
    };
    let outputs = plan.outputs.iter().enumerate();
    let outputs = outputs.map(|(index, output)| RelationTaps {
        relation: output.relation.clone(),
        rows: output_taps(plan, OutputIndex(index as u32)),
    });
    let sinks = plan.sinks.iter().map(|sink| RelationTaps {
        relation: sink.name.clone(),
        rows: output_taps(plan, sink.output),
    });
    for relation in outputs.chain(sinks) {
        if !known
            .iter()
            .any(|other| other.relation == relation.relation)
        {
            known.push(relation);
        }
    }
    known
}

/// Taps of one plan are those of the other.
fn runs_same_stages(planned: &JobPlan, running: &JobPlan) -> bool {
    let heads = |plan: &JobPlan| {
        let stages = plan.stages.iter();
        let heads = stages.map(|stage| (stage.name.clone(), stage.head.clone()));
        heads.collect::<Vec<_>>()
    };
    let columns = |plan: &JobPlan| {
        let sources = plan.sources.iter();
        sources.map(|source| source.schema()).collect::<Vec<_>>()
    };
    heads(planned) == heads(running) && columns(planned) == columns(running)
}

fn sources(plan: &JobPlan) -> Vec<RelationTaps> {
    let stages = plan.stages.iter().enumerate();
    let sources = stages.filter_map(|(index, stage)| {
        let StageHead::Source(source) = stage.head else {
            return None;
        };
        let source = &plan.sources[source.index()];
        let tap = Tap {
            stage: StageIndex(index as u32),
            port: Port::Rows,
            transforms: Vec::new(),
            schema: source.schema(),
        };
        Some(RelationTaps {
            relation: source.name.clone(),
            rows: Ok(Tapped {
                taps: vec![tap],
                is_changelog: false,
                left_out: Vec::new(),
            }),
        })
    });
    sources.collect()
}

/// Where the rows come from that an output ships.
fn output_taps(plan: &JobPlan, output: OutputIndex) -> Result<Tapped, String> {
    let schema: &SchemaRef = &plan.outputs[output.index()].schema.0;
    let mut taps = Vec::new();
    for (index, stage) in plan.stages.iter().enumerate() {
        let leading = stage.branches.iter();
        let leading = leading.filter(|branch| branch.target == Target::Output(output));
        taps.extend(leading.map(|branch| Tap {
            stage: StageIndex(index as u32),
            port: branch.port,
            transforms: branch.transforms.clone(),
            schema: PlanSchema(schema.clone()),
        }));
    }
    if taps.is_empty() {
        let text =
            "its rows are made by a sink, where no task is: `millstream dead-letters` lists them";
        return Err(text.to_owned());
    }
    Ok(Tapped {
        taps,
        is_changelog: matches!(plan.outputs[output.index()].emit, Emit::Changes { .. }),
        left_out: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millstream_common::ids::Generation;
    use millstream_common::secret;

    use super::*;
    use crate::plan::plan_job;

    const JOB: &str = "
        CREATE SOURCE clicks (id TEXT NOT NULL, url TEXT NOT NULL) WITH (connector = 'datagen', rows_per_second = '1');
        CREATE VIEW seen AS SELECT url FROM clicks WHERE id <> '';
        CREATE VIEW pages AS SELECT url, count(*) AS views FROM seen GROUP BY url;
        CREATE SINK counts FROM pages WITH (connector = 'blackhole', emit = 'changes');
        CREATE SINK letters FROM clicks.dead_letters WITH (connector = 'blackhole');";

    fn job() -> (Placed, PlannedJob) {
        let planned = plan_job(JOB, &secret::Environment).expect("a plan");
        let placed = Placed {
            job: "views".into(),
            generation: Generation(3),
            sql: JOB.to_owned(),
            plan: planned.plan.clone(),
            workers: BTreeMap::new(),
        };
        (placed, planned)
    }

    fn refusal(placed: &Placed, planned: Option<&PlannedJob>, name: &str) -> String {
        let refused = find(placed, planned, name).expect_err("refused");
        assert!(matches!(refused, ControlError::Invalid(_)));
        refused.to_string()
    }

    #[test]
    fn sources_views_sinks_and_dead_letters_are_found_by_their_names() {
        let (placed, planned) = job();
        for name in [
            "clicks",
            "seen",
            "pages",
            "counts",
            "letters",
            "clicks.dead_letters",
            "pages.dead_letters",
        ] {
            let (relation, tapped) = find(&placed, Some(&planned), name).expect(name);
            assert_eq!((relation.as_str(), tapped.taps.len()), (name, 1));
            assert_eq!(tapped.is_changelog, ["pages", "counts"].contains(&name));
        }
        let (relation, _) = find(&placed, Some(&planned), "CLICKS").expect("folded as in SQL");
        assert_eq!(relation, "clicks");
    }

    #[test]
    fn a_name_that_is_none_comes_back_with_the_nearest_and_with_all_that_can_be_shown() {
        let (placed, planned) = job();
        let text = refusal(&placed, Some(&planned), "click");
        assert!(
            text.starts_with("job views has no relation click, did you mean clicks?"),
            "{text}"
        );
        assert!(
            text.contains("clicks? these can be previewed: clicks, "),
            "{text}"
        );
        assert!(text.contains("seen"), "{text}");
    }

    #[test]
    fn rows_that_a_sink_refuses_are_at_no_task() {
        let (placed, planned) = job();
        let text = refusal(&placed, Some(&planned), "counts.dead_letters");
        assert!(text.contains("`millstream dead-letters`"), "{text}");
    }

    #[test]
    fn what_the_running_plan_says_by_itself_is_found_although_the_sql_is_planned_otherwise_now() {
        let (placed, mut planned) = job();
        planned.plan.stages[1].name = "another".to_owned();
        for known in [None, Some(&planned)] {
            for name in ["clicks", "pages", "counts", "clicks.dead_letters"] {
                assert!(find(&placed, known, name).is_ok(), "{name}");
            }
            let text = refusal(&placed, known, "seen");
            assert!(text.starts_with("job views has no relation seen"), "{text}");
        }
    }
}
