//! `millstream job`: one job with its sources and sinks, and what hinders them; or its SQL, or what that was planned to.

use std::process::ExitCode;

use clap::Args;
use millstream_common::client::ControlClient;
use millstream_common::control::{GapView, JobView, PlanView, SinkView, SourceView};
use millstream_common::ids::JobName;
use millstream_common::text;

use crate::reading::ReadingOfJob;
use crate::sinks;
use crate::table::{self, Align, Column};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    reading: ReadingOfJob,
    /// Show the plan that it runs, as `millstream explain` would print it; with --json stage by stage, and the SQL.
    #[arg(long)]
    plan: bool,
    /// Print its SQL as it was submitted, for another `submit`.
    #[arg(long, conflicts_with_all = ["plan", "json"])]
    sql: bool,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let reading = &arguments.reading;
    let ask_plan = async |client: ControlClient, name: &JobName| client.plan(name).await;
    if arguments.sql {
        return reading.print(ask_plan, as_submitted).await;
    }
    if arguments.plan {
        let explained = |plan: &PlanView| plan.explained.clone();
        return reading.print(ask_plan, explained).await;
    }
    let ask = async |client: ControlClient, name: &JobName| client.job(name).await;
    reading.print(ask, render).await
}

/// A file ends with a line.
fn as_submitted(plan: &PlanView) -> String {
    match plan.sql.ends_with('\n') {
        true => plan.sql.clone(),
        false => format!("{}\n", plan.sql),
    }
}

/// The job, then a table of its sources and one of its sinks.
pub(crate) fn render(job: &JobView) -> String {
    let mut rows = format!(
        "{} read, {}",
        text::count(job.rows_read),
        text::left_out(job)
    );
    if let Some(rate) = text::job_rate(job) {
        rows.push_str(&format!(", {rate} a second"));
    }
    match text::job_lag(job) {
        Some(lag) if job.lag_records.is_none() => rows.push_str(&format!(", lag {lag}")),
        Some(lag) => rows.push_str(&format!(", {lag} behind")),
        None => {}
    }
    let restarts = match (job.restarts, job.last_recovery_ms) {
        (0, _) => String::new(),
        (count, None) => count.to_string(),
        (count, Some(took)) => format!("{count}, the last took {}", text::duration(took)),
    };
    let interval = text::duration(job.checkpoint_interval_ms);
    let dropped = job.storage.filter(|used| used.dead_letters_dropped > 0);
    let letters = dropped.map_or_else(String::new, |used| {
        let kept = text::bytes(used.dead_letter_bytes);
        let dropped = text::count(used.dead_letters_dropped);
        format!("{kept} kept, {dropped} dropped (SET dead_letter_retention)")
    });
    let head = table::pairs(&[
        ("job", job.name.to_string()),
        ("state", job.state.to_string()),
        ("cause", job.cause.clone().unwrap_or_default()),
        ("epoch", format!("{}, one every {interval}", job.epoch)),
        ("watermark", text::watermark(job.watermark)),
        ("rows", rows),
        ("dead letters", letters),
        ("gaps", gaps(job)),
        ("restarts", restarts),
        ("generation", job.generation.to_string()),
        ("incarnation", job.incarnation.clone()),
        ("submitted", text::moment(job.submitted_at_us)),
    ]);
    let sources: Vec<Vec<String>> = job.sources.iter().map(source_row).collect();
    let sinks: Vec<Vec<String>> = job.sinks.iter().map(sink_row).collect();
    format!(
        "{head}\n{}\n{}",
        table::render(&SOURCE_COLUMNS, &sources),
        table::render(&SINK_COLUMNS, &sinks)
    )
}

/// What was gone before it was read.
fn gaps(job: &JobView) -> String {
    let gaps = job.sources.iter().flat_map(|source| &source.gaps);
    let texts = gaps.map(|gap| {
        let GapView {
            split,
            count,
            positions,
            from,
            to,
        } = gap;
        let last = match count {
            1 => format!("offsets {from} to {}", to - 1),
            _ => format!("{count} times, the last offsets {from} to {}", to - 1),
        };
        format!("{} records of {split} ({last})", text::count(*positions))
    });
    let texts: Vec<String> = texts.collect();
    match texts.is_empty() {
        true => String::new(),
        false => format!("{} were gone and passed over (on_gap)", texts.join(", ")),
    }
}

const SOURCE_COLUMNS: [Column; 6] = [
    ("SOURCE", Align::Left),
    ("CONNECTOR", Align::Left),
    ("SPLITS", Align::Left),
    ("READ", Align::Right),
    ("REJECTED", Align::Right),
    ("WATERMARK", Align::Left),
];

fn source_row(source: &SourceView) -> Vec<String> {
    let splits = match source.splits_ended {
        0 => source.splits.to_string(),
        ended => format!("{}, {ended} ended", source.splits),
    };
    vec![
        source.name.clone(),
        source.connector.clone(),
        splits,
        text::count(source.rows_read),
        text::count(source.rows_rejected),
        text::watermark(source.watermark),
    ]
}

const SINK_COLUMNS: [Column; 8] = [
    ("SINK", Align::Left),
    ("CONNECTOR", Align::Left),
    ("RELATION", Align::Left),
    ("EPOCH", Align::Right),
    ("BEHIND", Align::Right),
    ("ROWS", Align::Right),
    ("WORKER", Align::Left),
    ("CAUSE", Align::Left),
];

fn sink_row(sink: &SinkView) -> Vec<String> {
    vec![
        sink.name.clone(),
        sink.connector.clone(),
        sink.relation.clone(),
        sink.marker.to_string(),
        text::count(sink.lag_epochs),
        text::count(sink.rows_delivered),
        sink.worker
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        sinks::cause(sink),
    ]
}
