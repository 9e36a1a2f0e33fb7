//! `millstream checkpoints`: the newest epochs of a job, newest first, and its savepoints.

use std::process::ExitCode;

use clap::Args;
use millstream_common::client::ControlClient;
use millstream_common::control::{CheckpointView, SavepointView};
use millstream_common::ids::JobName;
use millstream_common::text;
use serde::Serialize;

use crate::reading::ReadingOfJob;
use crate::savepoint;
use crate::table::{self, Align, Column};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    reading: ReadingOfJob,
    /// How many to list.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let ask = async |client: ControlClient, name: &JobName| {
        Ok(Checkpoints {
            checkpoints: client.checkpoints(name, arguments.limit).await?,
            savepoints: client.savepoints(name).await?,
        })
    };
    let show = |answer: &Checkpoints| {
        let epochs = render(&answer.checkpoints);
        match answer.savepoints.as_slice() {
            [] => epochs,
            savepoints => format!("{epochs}\n{}", savepoint::render(savepoints)),
        }
    };
    arguments.reading.print(ask, show).await
}

/// What can be gone on from.
#[derive(Serialize)]
struct Checkpoints {
    /// Newest first.
    checkpoints: Vec<CheckpointView>,
    /// Oldest first.
    savepoints: Vec<SavepointView>,
}

const COLUMNS: [Column; 8] = [
    ("EPOCH", Align::Right),
    ("PARENT", Align::Right),
    ("GENERATION", Align::Right),
    ("WATERMARK", Align::Left),
    ("ROWS", Align::Right),
    ("SEGMENTS", Align::Right),
    ("STATE", Align::Right),
    ("TOOK", Align::Right),
];

fn render(checkpoints: &[CheckpointView]) -> String {
    if checkpoints.is_empty() {
        return "no epoch is committed since the job was begun or taken over; `millstream job` tells its newest\n".to_owned();
    }
    let rows: Vec<Vec<String>> = checkpoints
        .iter()
        .map(|checkpoint| {
            vec![
                checkpoint.epoch.to_string(),
                checkpoint.parent.to_string(),
                checkpoint.generation.to_string(),
                text::watermark(checkpoint.watermark),
                text::count(checkpoint.rows_read),
                objects(checkpoint.segments, checkpoint.segment_bytes),
                objects(checkpoint.state_parts, checkpoint.state_bytes),
                checkpoint
                    .duration_ms
                    .map(text::duration)
                    .unwrap_or_default(),
            ]
        })
        .collect();
    table::render(&COLUMNS, &rows)
}

fn objects(count: u64, bytes: u64) -> String {
    format!("{} ({})", text::count(count), text::bytes(bytes))
}
