//! Dead letters as relations: whose there are, who may read them, and that they are shipped, read or not.

use millstream_common::ids::StageIndex;
use millstream_common::plan::{SinkPlan, Target};

use super::*;

const CLICKS: &str = "CREATE SOURCE clicks (id TEXT NOT NULL, n BIGINT, t TIMESTAMP NOT NULL, \
                      WATERMARK FOR t AS t - INTERVAL '1 minute') \
                      WITH (connector = 'kafka', brokers = 'b', topic = 't', format = 'json');\n";
const TABLE: &str = "CREATE SINK rows_kept FROM clicks \
                     WITH (connector = 'postgres', url = '${URL}', table = 't');\n";
const NOWHERE: &str = "WITH (connector = 'blackhole');\n";

fn relation<'a>(planned: &'a PlannedJob, sink: &str) -> &'a str {
    let plan = &planned.plan;
    let found = plan.sinks.iter().find(|known| known.name == sink);
    &plan.outputs[found.expect("the sink").output.index()].relation
}

fn kept_in(sink: &SinkPlan, plan: &JobPlan) -> Vec<String> {
    let targets = sink.dead_letters.iter().map(|branch| branch.target);
    let outputs = targets.map(|target| match target {
        Target::Output(output) => plan.outputs[output.index()].relation.clone(),
        Target::Exchange(stage) => panic!("stage {stage}"),
    });
    outputs.collect()
}

#[test]
fn what_a_sink_refuses_is_shipped_read_or_not() {
    let planned = plan(&format!("{CLICKS}{TABLE}"));
    let kept = kept_in(&planned.plan.sinks[0], &planned.plan);
    assert_eq!(kept, ["rows_kept.dead_letters"]);
    assert_eq!(planned.plan.stages.len(), 1, "no task makes them");
}

#[test]
fn what_a_sink_refuses_can_be_read_by_sinks_and_by_views_without_state() {
    let planned = plan(&format!(
        "{CLICKS}{TABLE}\
         CREATE VIEW reasons AS SELECT reason, payload FROM rows_kept.dead_letters WHERE code = 'sink_rejected';\n\
         CREATE VIEW ids AS SELECT DISTINCT ON (id) * FROM clicks;\n\
         CREATE SINK refused FROM rows_kept.dead_letters {NOWHERE}\
         CREATE SINK refused_reasons FROM reasons {NOWHERE}\
         CREATE SINK distinct_ids FROM ids {NOWHERE}"
    ));
    assert_eq!(relation(&planned, "refused"), "rows_kept.dead_letters");
    let plan = &planned.plan;
    let kept = kept_in(&plan.sinks[0], plan);
    assert_eq!(kept, ["rows_kept.dead_letters", "reasons"]);
    assert!(plan.sinks[1].reads_dead_letters && plan.sinks[2].reads_dead_letters);
    assert!(
        kept_in(&plan.sinks[1], plan).is_empty(),
        "no dead letters of dead letters"
    );
    assert_eq!(plan.stages.len(), 2);
    let target = plan.stages[0].branches.iter().map(|branch| branch.target);
    assert!(
        target
            .into_iter()
            .any(|target| target == Target::Exchange(StageIndex(1)))
    );
}

#[test]
fn a_view_with_a_keyed_operator_has_dead_letters_of_its_own() {
    let planned = plan(&format!(
        "{CLICKS}CREATE VIEW ids AS SELECT DISTINCT ON (id) * FROM clicks;\n\
         CREATE VIEW unread AS SELECT DISTINCT ON (n) * FROM clicks;\n\
         CREATE VIEW shares AS SELECT id, 10 / n AS share FROM ids;\n\
         CREATE SINK shares_kept FROM shares {NOWHERE}\
         CREATE SINK failed FROM ids.dead_letters {NOWHERE}"
    ));
    assert_eq!(relation(&planned, "failed"), "ids.dead_letters");
    let ports: Vec<Port> = planned.plan.stages[1]
        .branches
        .iter()
        .map(|branch| branch.port)
        .collect();
    assert_eq!(ports, [Port::Rows, Port::DeadLetters]);
    assert_eq!(
        planned.plan.stages.len(),
        2,
        "dead letters keep no unread view"
    );
}

#[test]
fn a_view_without_a_keyed_operator_has_none_because_its_source_has_them() {
    let problems = problems_of(&format!(
        "{CLICKS}CREATE VIEW shares AS SELECT 10 / n AS share FROM clicks;\n\
         CREATE SINK shares_kept FROM shares {NOWHERE}\
         CREATE SINK failed FROM shares.dead_letters {NOWHERE}"
    ));
    assert!(
        problems[0].message.contains("shares.dead_letters"),
        "{problems:?}"
    );
}

#[test]
fn counting_what_a_sink_refused_is_refused_by_name() {
    for query in [
        "SELECT reason, count(*) AS c FROM rows_kept.dead_letters GROUP BY reason",
        "SELECT DISTINCT reason FROM rows_kept.dead_letters",
    ] {
        let problems = problems_of(&format!(
            "{CLICKS}{TABLE}CREATE VIEW v AS {query};\nCREATE SINK s FROM v {NOWHERE}"
        ));
        let message = &problems[0].message;
        assert!(
            message.contains("over the rows that a sink refused"),
            "{message}"
        );
        let hint = problems[0].hint.as_deref().unwrap_or_default();
        assert!(hint.contains("rows_kept.dead_letters"), "{hint}");
    }
}

#[test]
fn dead_letters_that_nobody_makes_cannot_be_read() {
    for (options, reason) in [
        (", on_violation = 'drop'", "keeps nothing"),
        (", on_violation = 'fail'", "suspends"),
    ] {
        let problems = problems_of(&format!(
            "{CLICKS}CREATE SINK a FROM clicks WITH (connector = 'blackhole'{options});\n\
             CREATE SINK b FROM a.dead_letters {NOWHERE}"
        ));
        let hint = problems[0].hint.as_deref().unwrap_or_default();
        assert!(hint.contains(reason), "{problems:?}");
    }
    let problems = problems_of(&format!(
        "{CLICKS}CREATE SINK a FROM b.dead_letters {NOWHERE}\
         CREATE SINK b FROM a.dead_letters {NOWHERE}"
    ));
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0]
            .message
            .contains("dead_letters is read, but there is none")
    );
}
