//! What views become: stages, keys, times, ports.

use millstream_common::plan::connector::{DatagenKind, KafkaStart};
use millstream_common::plan::{
    ColumnOrigin, KeyedPlan, Metadata, OnViolation, SinkSpec, SourceSpec, Target,
};

use super::*;

const CLICKS: &str = "CREATE SOURCE clicks (id TEXT NOT NULL, url TEXT NOT NULL, price BIGINT, \
small INTEGER, ts TIMESTAMP NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '1 minute') \
WITH (connector = 'kafka', brokers = 'b', topic = 't');\n";

fn keyed(planned: &PlannedJob, stage: usize) -> &KeyedPlan {
    match &planned.plan.stages[stage].head {
        StageHead::Keyed(keyed) => keyed,
        StageHead::Source(_) => panic!("stage {stage} is a source"),
    }
}

fn names(schema: &millstream_common::plan::PlanSchema) -> Vec<&str> {
    schema
        .0
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect()
}

fn console(view: &str) -> String {
    format!("{CLICKS}{view};\nCREATE SINK s FROM v WITH (connector = 'console', emit = 'changes');")
}

#[test]
fn a_view_read_by_two_sinks_is_computed_once() {
    let planned = plan(&format!(
        "{CLICKS}CREATE VIEW v AS SELECT window_start, url, count(*) AS n \
         FROM TUMBLE(clicks, ts, INTERVAL '1 minute') GROUP BY window_start, url;\n\
         CREATE SINK a FROM v WITH (connector = 'console');\n\
         CREATE SINK b FROM v WITH (connector = 'blackhole');\n\
         CREATE SINK c FROM v WITH (connector = 'console', emit = 'changes every 10 seconds');"
    ));
    assert_eq!(planned.plan.stages.len(), 2);
    let of_view = planned.plan.outputs.iter();
    let of_view = of_view.filter(|output| output.relation == "v");
    assert_eq!(of_view.count(), 2);
    assert_eq!(planned.plan.sinks[0].output, planned.plan.sinks[1].output);
    assert_eq!(
        planned.plan.outputs[2].emit,
        Emit::Changes {
            interval_ms: 10_000
        }
    );
    let ports: Vec<Port> = planned.plan.stages[1]
        .branches
        .iter()
        .map(|branch| branch.port)
        .collect();
    assert_eq!(ports, [Port::Final, Port::Changes, Port::DeadLetters]);
}

#[test]
fn a_chain_of_views_without_state_is_one_branch_of_its_stage() {
    let planned = plan(&format!(
        "{CLICKS}CREATE VIEW a AS SELECT id, price * 2 AS twice, ts FROM clicks WHERE url <> '';\n\
         CREATE VIEW v AS SELECT id, twice + 1 AS more FROM a WHERE twice > 10;\n\
         CREATE SINK s FROM v WITH (connector = 'blackhole');"
    ));
    assert_eq!(planned.plan.stages.len(), 1);
    let texts: Vec<&str> = planned.plan.stages[0].branches[1]
        .transforms
        .iter()
        .map(|transform| match transform {
            Transform::Filter(condition) => condition.text.as_str(),
            Transform::Project(columns) => columns[1].expression.text.as_str(),
        })
        .collect();
    assert_eq!(texts, ["url <> ''", "(price * 2) > 10", "(price * 2) + 1"]);
}

#[test]
fn an_expression_that_is_used_twice_is_computed_once() {
    let planned = plan(&format!(
        "{CLICKS}CREATE VIEW a AS SELECT id, upper(url) AS loud FROM clicks;\n\
         CREATE VIEW v AS SELECT loud AS x, loud || '!' AS y FROM a;\n\
         CREATE SINK s FROM v WITH (connector = 'blackhole');"
    ));
    let branch = &planned.plan.stages[0].branches[1];
    let widths: Vec<usize> = branch
        .transforms
        .iter()
        .map(|transform| match transform {
            Transform::Project(columns) => columns.len(),
            Transform::Filter(_) => 0,
        })
        .collect();
    assert_eq!(widths, [1, 2], "{}", explain(&planned));
}

#[test]
fn event_time_stays_with_a_distinct_that_does_not_select_it() {
    let planned = plan(&format!(
        "{CLICKS}CREATE VIEW a AS SELECT id, url FROM clicks;\n\
         CREATE VIEW v AS SELECT DISTINCT ON (lower(id)) url FROM a;\n\
         CREATE SINK s FROM v WITH (connector = 'blackhole');"
    ));
    let distinct = keyed(&planned, 1);
    assert_eq!(names(&distinct.input), ["url", "__key", "__time"]);
    assert_eq!(distinct.key_columns, [1]);
    assert_eq!(
        distinct.kind,
        KeyedKind::Distinct {
            time_column: Some(2)
        }
    );
    assert!(planned.plan.sources[0].keeps_time);
    assert!(planned.plan.stages[0].branches[1].keeps_time);
}

#[test]
fn a_plain_distinct_is_keyed_by_all_columns() {
    let planned = plan(&format!(
        "{CLICKS}CREATE VIEW v AS SELECT DISTINCT id, url FROM clicks;\n\
         CREATE SINK s FROM v WITH (connector = 'blackhole');"
    ));
    let distinct = keyed(&planned, 1);
    assert_eq!(names(&distinct.input), ["id", "url", "__time"]);
    assert_eq!(distinct.key_columns, [0, 1]);
    assert_eq!(names(&planned.plan.outputs[1].schema), ["id", "url"]);
}

#[test]
fn bounded_input_without_a_watermark_can_be_deduplicated() {
    let planned = plan(
        "CREATE SOURCE c (id TEXT NOT NULL) WITH (connector = 'files', path = 'p', format = 'csv', watch = false);\n\
         CREATE VIEW v AS SELECT DISTINCT ON (id) * FROM c;\n\
         CREATE SINK s FROM v WITH (connector = 'blackhole');",
    );
    assert_eq!(
        keyed(&planned, 1).kind,
        KeyedKind::Distinct { time_column: None }
    );
    assert!(!planned.plan.sources[0].keeps_time);
}

#[test]
fn sums_of_bigint_are_numeric_and_averages_double() {
    let planned = plan(&console(
        "CREATE VIEW v AS SELECT id, sum(price) AS total, sum(small) AS few, avg(price) AS mean, \
         avg(CAST(small AS NUMERIC(10,2))) AS exact, count(DISTINCT url) AS urls, \
         max(price) FILTER (WHERE url <> '') AS most FROM clicks GROUP BY id",
    ));
    let output = &planned.plan.outputs[1].schema;
    let types: Vec<String> = output
        .0
        .fields()
        .iter()
        .map(|field| types::type_name(field.data_type()))
        .collect();
    assert_eq!(
        types,
        [
            "TEXT",
            "NUMERIC(38,0)",
            "BIGINT",
            "DOUBLE PRECISION",
            "DOUBLE PRECISION",
            "BIGINT",
            "BIGINT"
        ]
    );
    let aggregate = keyed(&planned, 1);
    assert_eq!(aggregate.key_columns, [0]);
    assert!(!planned.plan.stages[0].branches[1].keeps_time);
}

#[test]
fn having_and_expressions_over_aggregates_follow_the_keyed_stage() {
    let planned = plan(&console(
        "CREATE VIEW v AS SELECT upper(id) AS name, sum(price) / count(*) AS mean \
         FROM clicks GROUP BY id HAVING count(*) > 1",
    ));
    let branch = &planned.plan.stages[1].branches[0];
    assert_eq!(branch.port, Port::Changes);
    assert!(
        matches!(&branch.transforms[0], Transform::Filter(condition) if condition.text == "\"count(*)\" > 1")
    );
    assert_eq!(names(&branch.schema), ["name", "mean"]);
}

#[test]
fn all_rows_are_one_group_without_keys() {
    let planned = plan(&console(
        "CREATE VIEW v AS SELECT count(*) AS n FROM clicks",
    ));
    assert!(keyed(&planned, 1).key_columns.is_empty());
}

#[test]
fn a_window_over_a_windowed_aggregate_reads_its_final_groups() {
    let planned = plan(&format!(
        "{CLICKS}CREATE VIEW minutes AS SELECT window_start AS minute, url, count(*) AS n \
         FROM TUMBLE(clicks, ts, INTERVAL '1 minute') GROUP BY window_start, url;\n\
         CREATE VIEW v AS SELECT window_start, sum(n) AS total \
         FROM TUMBLE(minutes, minute, INTERVAL '1 hour') GROUP BY window_start;\n\
         CREATE SINK s FROM v WITH (connector = 'files', path = 'p', format = 'csv');"
    ));
    assert_eq!(planned.plan.stages[1].branches[0].port, Port::Final);
    match &keyed(&planned, 2).kind {
        KeyedKind::Aggregate {
            window: Some(window),
            ..
        } => {
            assert_eq!(window.column, 0);
            assert_eq!(window.end_offset.0, 3_600_000_000);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn union_all_feeds_one_stage_by_a_branch_each() {
    let planned = plan(&format!(
        "{CLICKS}CREATE SOURCE others (id TEXT, ts TIMESTAMP NOT NULL, WATERMARK FOR ts AS ts) \
         WITH (connector = 'kafka', brokers = 'b', topic = 'o');\n\
         CREATE VIEW v AS SELECT DISTINCT ON (id) * FROM \
         (SELECT id, ts FROM clicks UNION ALL SELECT id, ts FROM others) AS both_of_them;\n\
         CREATE SINK s FROM v WITH (connector = 'blackhole');"
    ));
    let stage = &planned.plan.stages[2];
    assert_eq!(stage.sources.len(), 2);
    let into = planned
        .plan
        .stages
        .iter()
        .flat_map(|stage| &stage.branches)
        .filter(|branch| matches!(branch.target, Target::Exchange(stage) if stage.index() == 2));
    assert_eq!(into.count(), 2);
    assert!(keyed(&planned, 2).input.0.field(0).is_nullable());
    assert_eq!(planned.warnings.len(), 1, "{:?}", planned.warnings);
}

#[test]
fn a_common_table_expression_that_is_read_twice_is_computed_once() {
    let planned = plan(&format!(
        "{CLICKS}CREATE VIEW v AS WITH firsts AS (SELECT DISTINCT ON (id) * FROM clicks) \
         SELECT id FROM firsts WHERE price > 1 UNION ALL SELECT id FROM firsts WHERE price < 0;\n\
         CREATE SINK s FROM v WITH (connector = 'blackhole');"
    ));
    assert_eq!(planned.plan.stages.len(), 2);
    let branches = planned.plan.stages[1].branches.iter();
    let rows = branches.filter(|branch| branch.port == Port::Rows);
    assert_eq!(rows.count(), 2);
}

#[test]
fn what_no_sink_reads_is_planned_and_left_out_with_a_warning() {
    let planned = plan(&format!(
        "{CLICKS}CREATE VIEW unread AS SELECT DISTINCT ON (id) * FROM clicks;\n\
         CREATE SINK s FROM clicks WITH (connector = 'blackhole');"
    ));
    assert_eq!(planned.plan.stages.len(), 1);
    assert_eq!(
        planned.warnings[0].message,
        "view unread is read by no view and no sink"
    );
}

#[test]
fn a_fingerprint_changes_with_keys_windows_and_aggregates_only() {
    let fingerprint = |view: &str| {
        let sql = format!(
            "{CLICKS}CREATE VIEW v AS {view};\nCREATE SINK s FROM v WITH (connector = 'console');"
        );
        keyed(&plan(&sql), 1).fingerprint.clone()
    };
    let minutes = "SELECT window_start, count(*) AS n FROM TUMBLE(clicks, ts, INTERVAL '1 minute') GROUP BY window_start";
    let base = fingerprint(minutes);
    assert_eq!(base, fingerprint(&minutes.replace("AS n", "AS other")));
    assert_ne!(base, fingerprint(&minutes.replace("1 minute", "2 minutes")));
    assert_ne!(
        base,
        fingerprint(&minutes.replace("count(*)", "sum(price)"))
    );
    let distinct = fingerprint("SELECT DISTINCT ON (id) id FROM clicks");
    assert_eq!(
        distinct,
        fingerprint("SELECT DISTINCT ON (id) * FROM clicks")
    );
    assert_ne!(
        distinct,
        fingerprint("SELECT DISTINCT ON (url) id FROM clicks")
    );
}

#[test]
fn a_sink_that_shares_its_aggregate_with_a_faster_one_is_warned() {
    let sink = |name: &str, emit: &str| {
        format!(
            "CREATE SINK {name} FROM counts WITH (connector = 'postgres', url = '${{POSTGRES_URL}}', \
             table = '{name}', primary_key = 'id', emit = '{emit}');\n"
        )
    };
    let view = "CREATE VIEW counts AS SELECT id, count(*) AS n FROM clicks GROUP BY id;\n";
    let planned = plan(&format!(
        "{CLICKS}{view}{}{}",
        sink("slow", "changes every 10 seconds"),
        sink("fast", "changes")
    ));
    assert_eq!(planned.warnings.len(), 1, "{:?}", planned.warnings);
    assert_eq!(
        planned.warnings[0].message,
        "sink slow gets changes at each epoch, as sink fast does: both read one aggregate"
    );
    let planned = plan(&format!(
        "{CLICKS}{view}{}{}",
        sink("one", "changes every 10 seconds"),
        sink("other", "changes every 10 seconds")
    ));
    assert!(planned.warnings.is_empty(), "{:?}", planned.warnings);
}

#[test]
fn columns_checks_and_metadata_of_a_source_are_read() {
    let planned = plan(
        "CREATE SOURCE c (\n  \"Id\" TEXT NOT NULL,\n  key BIGINT CHECK (key > 0),\n  millis BIGINT NOT NULL,\n  \
         ts TIMESTAMP NOT NULL AS to_timestamp_millis(millis),\n  INCLUDE partition AS part,\n  \
         INCLUDE header 'trace' AS trace,\n  CONSTRAINT long_id CHECK (length(\"Id\") > 3),\n  \
         WATERMARK FOR ts AS ts - INTERVAL '90' SECOND\n) INCLUDE offset AS position WITH (\n  \
         connector = 'kafka', brokers = 'b', topic = 't', start = '1970-01-01T00:00:01Z',\n  \
         on_violation = 'fail', idle_timeout = 'never', \"kafka.security.protocol\" = 'sasl_plaintext'\n);\n\
         CREATE SINK s FROM c WITH (connector = 'blackhole');",
    );
    let source = &planned.plan.sources[0];
    assert_eq!(
        names(&source.schema()),
        ["Id", "key", "millis", "ts", "part", "trace", "position"]
    );
    assert!(matches!(
        source.columns[3].origin,
        ColumnOrigin::Computed(_)
    ));
    assert_eq!(
        source.columns[5].origin,
        ColumnOrigin::Metadata(Metadata::Header("trace".to_owned()))
    );
    assert_eq!(source.checks[0].condition.text, "key > 0");
    assert_eq!(source.checks[1].name.as_deref(), Some("long_id"));
    assert_eq!(
        source.watermark.map(|watermark| watermark.delay.0),
        Some(90_000_000)
    );
    assert_eq!(
        (source.on_violation, source.idle_timeout_ms),
        (OnViolation::Fail, None)
    );
    match &source.spec {
        SourceSpec::Kafka(kafka) => {
            assert_eq!(kafka.start, KafkaStart::Timestamp { unix_ms: 1_000 });
            assert_eq!(kafka.properties["security.protocol"], "sasl_plaintext");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn times_of_datagen_are_microseconds() {
    let planned = plan(
        "CREATE SOURCE d (n BIGINT, at TIMESTAMP) WITH (connector = 'datagen', rows = '${ROWS:-10}', \
         \"fields.at.start\" = '1970-01-01T00:00:01Z', \"fields.at.step\" = '10 ms');\n\
         CREATE SINK s FROM d WITH (connector = 'blackhole');",
    );
    let SourceSpec::Datagen(datagen) = &planned.plan.sources[0].spec else {
        panic!("no datagen");
    };
    assert_eq!(datagen.row_count, Some(10));
    assert_eq!(
        datagen.fields[0].kind,
        DatagenKind::Sequence { start: 1, step: 1 }
    );
    assert_eq!(
        datagen.fields[1].kind,
        DatagenKind::Sequence {
            start: 1_000_000,
            step: 10_000
        }
    );
    assert!(planned.plan.sources[0].bounded);
}

#[test]
fn dead_letters_can_be_read_by_views_and_sinks() {
    let planned = plan(&format!(
        "{CLICKS}CREATE VIEW v AS SELECT code, reason FROM clicks.dead_letters WHERE code <> 'late';\n\
         CREATE SINK s FROM v WITH (connector = 'blackhole');\n\
         CREATE SINK all_of_them FROM clicks.dead_letters WITH (connector = 'blackhole');"
    ));
    assert_eq!(planned.plan.outputs.len(), 2);
    let ports: Vec<Port> = planned.plan.stages[0]
        .branches
        .iter()
        .map(|branch| branch.port)
        .collect();
    assert_eq!(ports, [Port::DeadLetters, Port::DeadLetters]);
}

#[test]
fn settings_and_the_table_of_a_sink_are_read() {
    let planned = plan(&format!(
        "SET checkpoint_interval = '500 ms';\nSET restart_budget = 3;\n{CLICKS}\
         CREATE SINK s FROM clicks WITH (connector = 'postgres', url = '${{URL}}', table = 'App.\"Clicks\"', \
         primary_key = 'ID');"
    ));
    assert_eq!(planned.plan.settings.checkpoint_interval_ms, 500);
    assert_eq!(planned.plan.settings.restart_budget, 3);
    match &planned.plan.sinks[0].spec {
        SinkSpec::Postgres(postgres) => {
            assert_eq!(postgres.url, "${URL}");
            assert_eq!(postgres.table, "app.\"Clicks\"");
            assert_eq!(postgres.primary_key, ["id"]);
        }
        other => panic!("{other:?}"),
    }
}
