//! A plan as people read it: stages, exchanges with keys, state, outputs, sinks.
//!
//! Called by `millstream explain`, and by [`super::shown`] for clients of a master. Pure: the text is a function of the plan.

use std::fmt::Write;

use millstream_common::plan::connector::{FileFormat, KafkaEnd, KafkaStart, SourceSpec};
use millstream_common::plan::{
    Branch, Emit, FormatSpec, JobPlan, KeyedKind, KeyedPlan, PlanSchema, Port, SinkPlan, SinkSpec,
    SourcePlan, StageHead, StagePlan, Target, Transform,
};

use super::PlannedJob;
use super::types::type_name;
use super::value::show_micros;

/// The plan as text.
pub fn explain(planned: &PlannedJob) -> String {
    explain_plan(&planned.plan)
}

pub(super) fn explain_plan(plan: &JobPlan) -> String {
    let mut text = String::new();
    let interval = show_millis(plan.settings.checkpoint_interval_ms);
    line(&mut text, 0, format!("an epoch every {interval}"));
    for (index, stage) in plan.stages.iter().enumerate() {
        text.push('\n');
        show_stage(&mut text, plan, index, stage);
    }
    text.push('\n');
    for (index, output) in plan.outputs.iter().enumerate() {
        let emit = show_emit(output.emit);
        line(
            &mut text,
            0,
            format!("output {index}: {}, {emit}", output.relation),
        );
        line(&mut text, 1, show_schema(&output.schema));
    }
    text.push('\n');
    for sink in &plan.sinks {
        show_sink(&mut text, plan, sink);
    }
    text
}

fn line(text: &mut String, depth: usize, content: impl AsRef<str>) {
    let _ = writeln!(text, "{}{}", "  ".repeat(depth), content.as_ref());
}

fn show_stage(text: &mut String, plan: &JobPlan, index: usize, stage: &StagePlan) {
    let kind = match &stage.head {
        StageHead::Source(_) => "source ",
        StageHead::Keyed(_) => "",
    };
    line(text, 0, format!("stage {index}: {kind}{}", stage.name));
    show_head(text, plan, &stage.head);
    for branch in &stage.branches {
        show_branch(text, plan, branch);
    }
}

/// What a stage does, a line each.
pub(super) fn show_head(text: &mut String, plan: &JobPlan, head: &StageHead) {
    match head {
        StageHead::Source(source) => show_source(text, &plan.sources[source.index()]),
        StageHead::Keyed(keyed) => show_keyed(text, keyed),
    }
}

fn show_source(text: &mut String, source: &SourcePlan) {
    let end = if source.bounded {
        "ends by itself"
    } else {
        "never ends"
    };
    line(text, 1, format!("{}; {end}", show_connector(source)));
    line(text, 1, show_schema(&source.schema()));
    for check in &source.checks {
        let name = check
            .name
            .as_ref()
            .map_or(String::new(), |name| format!("{name}: "));
        line(text, 1, format!("check {name}{}", check.condition.text));
    }
    if let Some(watermark) = &source.watermark {
        let column = source.columns[watermark.column].field.name();
        let delay = show_micros(watermark.delay.0);
        line(text, 1, format!("watermark: {column} less {delay}"));
    }
}

fn show_connector(source: &SourcePlan) -> String {
    let format = match &source.format {
        FormatSpec::Json { .. } => "json",
        FormatSpec::Csv { .. } => "csv",
        FormatSpec::Parquet => "parquet",
        FormatSpec::Native => "rows",
    };
    match &source.spec {
        SourceSpec::Kafka(kafka) => {
            let start = match kafka.start {
                KafkaStart::Earliest => "the earliest record".to_owned(),
                KafkaStart::Latest => "the latest record".to_owned(),
                KafkaStart::Timestamp { unix_ms } => show_moment(unix_ms),
            };
            let end = match kafka.end {
                None => String::new(),
                Some(KafkaEnd::Latest) => " to the latest record".to_owned(),
                Some(KafkaEnd::Timestamp { unix_ms }) => format!(" to {}", show_moment(unix_ms)),
            };
            format!("kafka topic {}, {format}, from {start}{end}", kafka.topic)
        }
        SourceSpec::Files(files) => {
            let limit = match files.files_per_epoch_max {
                Some(count) => format!(", at most {count} files an epoch"),
                None => String::new(),
            };
            format!("files in {}, {format}{limit}", files.path)
        }
        SourceSpec::Datagen(datagen) => {
            let rows = match datagen.row_count {
                Some(count) => format!("{count} rows"),
                None => "rows".to_owned(),
            };
            format!("datagen, {rows} from seed {}", datagen.seed)
        }
    }
}

fn show_moment(unix_ms: i64) -> String {
    millstream_common::time::EventTime(unix_ms.saturating_mul(1_000)).to_string()
}

fn show_keyed(text: &mut String, keyed: &KeyedPlan) {
    let fields = keyed.input.0.fields();
    let keys = show_keys(keyed);
    match &keyed.kind {
        KeyedKind::Distinct { time_column } => {
            line(text, 1, format!("keeps the first row of each {keys}"));
            line(
                text,
                1,
                match time_column {
                    Some(column) => {
                        let name = fields[*column].name();
                        format!("state: a key until the watermark passes its {name}")
                    }
                    None => "state: every key, to the end of the input".to_owned(),
                },
            );
        }
        KeyedKind::Aggregate {
            aggregates, window, ..
        } => {
            let calls: Vec<&str> = aggregates
                .iter()
                .map(|call| call.expression.text.as_str())
                .collect();
            line(text, 1, format!("groups by {keys}: {}", calls.join(", ")));
            line(
                text,
                1,
                match window {
                    Some(window) => {
                        let name = fields[window.column].name();
                        let offset = match window.end_offset.0 {
                            0 => String::new(),
                            micros => format!(" + {}", show_micros(micros)),
                        };
                        format!("state: a group until the watermark passes its {name}{offset}")
                    }
                    None => "state: every group, for ever".to_owned(),
                },
            );
        }
    }
}

fn show_keys(keyed: &KeyedPlan) -> String {
    if keyed.key_columns.is_empty() {
        return "nothing (all rows are one group)".to_owned();
    }
    let fields = keyed.input.0.fields();
    let names: Vec<&str> = keyed
        .key_columns
        .iter()
        .map(|column| fields[*column].name().as_str())
        .collect();
    names.join(", ")
}

fn show_branch(text: &mut String, plan: &JobPlan, branch: &Branch) {
    let port = show_port(branch.port);
    let late = if branch.keeps_time {
        ", late ones left out"
    } else {
        ""
    };
    line(text, 1, format!("{port}{late}"));
    for transform in &branch.transforms {
        line(text, 2, show_transform(transform));
    }
    match branch.target {
        Target::Exchange(stage) => {
            let keys = match &plan.stages[stage.index()].head {
                StageHead::Keyed(keyed) => show_keys(keyed),
                StageHead::Source(_) => String::new(),
            };
            line(text, 2, format!("exchange by {keys} to stage {stage}"));
        }
        Target::Output(output) => line(text, 2, format!("to output {output}")),
    }
}

pub(super) fn show_port(port: Port) -> &'static str {
    match port {
        Port::Rows => "rows",
        Port::DeadLetters => "dead letters",
        Port::Final => "final groups",
        Port::Changes => "changed groups",
    }
}

pub(super) fn show_transform(transform: &Transform) -> String {
    match transform {
        Transform::Filter(condition) => format!("filter {}", condition.text),
        Transform::Project(columns) => {
            let shown: Vec<String> = columns
                .iter()
                .map(|column| {
                    let expression = column.expression.text.as_str();
                    let unquoted = expression.trim_matches('"');
                    if unquoted == column.name {
                        column.name.clone()
                    } else {
                        format!("{} = {expression}", column.name)
                    }
                })
                .collect();
            format!("project {}", shown.join(", "))
        }
    }
}

fn show_schema(schema: &PlanSchema) -> String {
    let columns: Vec<String> = schema
        .0
        .fields()
        .iter()
        .map(|field| {
            let not_null = if field.is_nullable() { "" } else { " NOT NULL" };
            format!(
                "{} {}{not_null}",
                field.name(),
                type_name(field.data_type())
            )
        })
        .collect();
    format!("({})", columns.join(", "))
}

pub(super) fn show_emit(emit: Emit) -> String {
    match emit {
        Emit::Final => "each row once".to_owned(),
        Emit::Changes { interval_ms: 0 } => "changes at each epoch".to_owned(),
        Emit::Changes { interval_ms } => format!("changes every {}", show_millis(interval_ms)),
    }
}

fn show_sink(text: &mut String, plan: &JobPlan, sink: &SinkPlan) {
    let relation = &plan.outputs[sink.output.index()].relation;
    line(
        text,
        0,
        format!("sink {}: {}", sink.name, show_target(&sink.spec)),
    );
    line(
        text,
        1,
        format!("reads output {} ({relation})", sink.output),
    );
    for branch in &sink.dead_letters {
        if let Target::Output(output) = branch.target {
            line(text, 1, format!("refused rows to output {output}"));
        }
    }
}

/// Where a sink delivers.
pub(super) fn show_target(spec: &SinkSpec) -> String {
    match spec {
        SinkSpec::Postgres(postgres) if postgres.primary_key.is_empty() => {
            format!("postgres table {}, appended", postgres.table)
        }
        SinkSpec::Postgres(postgres) => format!(
            "postgres table {}, upserted by {}",
            postgres.table,
            postgres.primary_key.join(", ")
        ),
        SinkSpec::Files(files) => {
            let format = match files.format {
                FileFormat::Parquet => "parquet",
                FileFormat::Csv => "csv",
                FileFormat::Json => "json",
            };
            format!("{format} files in {}", files.path)
        }
        SinkSpec::Kafka(kafka) => {
            let how = match (kafka.key.is_empty(), kafka.upsert) {
                (true, _) => ", appended".to_owned(),
                (false, false) => format!(", appended, keyed by {}", kafka.key.join(", ")),
                (false, true) => format!(", upserted by {}", kafka.key.join(", ")),
            };
            format!("kafka topic {}{how}", kafka.topic)
        }
        SinkSpec::Console(_) => "console".to_owned(),
        SinkSpec::Blackhole => "nowhere".to_owned(),
    }
}

pub(super) fn show_millis(millis: u64) -> String {
    show_micros(
        i64::try_from(millis)
            .unwrap_or(i64::MAX / 1_000)
            .saturating_mul(1_000),
    )
}
