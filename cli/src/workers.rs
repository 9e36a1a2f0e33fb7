//! `millstream workers`: the workers that have joined, a line each; `drain` is in `drain.rs`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use millstream_common::client::ControlClient;
use millstream_common::control::WorkerView;
use millstream_common::text;

use crate::drain;
use crate::reading::Reading;
use crate::table::{self, Align, Column};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    reading: Reading,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Give a worker no more tasks and move those it has, without reading a row twice; it stays, idle.
    Drain(drain::Arguments),
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if let Some(Command::Drain(arguments)) = arguments.command {
        return drain::run(arguments).await;
    }
    let ask = async |client: ControlClient| client.workers().await;
    let reading = &arguments.reading;
    reading.print(ask, |workers| render(workers)).await
}

const COLUMNS: [Column; 10] = [
    ("WORKER", Align::Left),
    ("STATE", Align::Left),
    ("SLOTS", Align::Right),
    ("TASKS", Align::Right),
    ("SPLITS", Align::Right),
    ("JOBS", Align::Left),
    ("JOINED", Align::Right),
    ("HEARTBEAT", Align::Right),
    ("FLIGHT", Align::Left),
    ("VERSION", Align::Left),
];

fn render(workers: &[WorkerView]) -> String {
    if workers.is_empty() {
        return "no workers; start one with `millstream worker --master HOST:7070`\n".to_owned();
    }
    let rows: Vec<Vec<String>> = workers
        .iter()
        .map(|worker| {
            let jobs: Vec<&str> = worker.jobs.iter().map(|name| name.as_str()).collect();
            vec![
                worker.id.to_string(),
                worker.state.to_string(),
                worker.slots.to_string(),
                worker.tasks.to_string(),
                worker.splits.to_string(),
                jobs.join(","),
                format!("{} ago", text::duration(worker.age_ms)),
                format!("{} ago", text::duration(worker.heartbeat_age_ms)),
                worker.flight_address.clone(),
                worker.version.clone(),
            ]
        })
        .collect();
    table::render(&COLUMNS, &rows)
}
