//! `millstream savepoint`: keeps an epoch of a job by name; `savepoint drop` lets it go.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use millstream_common::control::{JobState, SavepointView};
use millstream_common::ids::JobName;
use millstream_common::text;

use crate::arguments::{Form, MasterAddress};
use crate::table::{self, Align, Column};
use crate::{follow, output};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    create: Create,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args)]
struct Create {
    #[command(flatten)]
    master: MasterAddress,
    #[command(flatten)]
    form: Form,
    /// The job's name.
    #[arg(required = true, value_name = "JOB")]
    job: Option<String>,
    /// The savepoint's name; by default of its epoch's number.
    #[arg(long)]
    name: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Keep a savepoint no longer: retention may delete what only it needed.
    Drop(Drop),
}

#[derive(Args)]
struct Drop {
    #[command(flatten)]
    master: MasterAddress,
    #[command(flatten)]
    form: Form,
    /// The job's name.
    job: String,
    /// The savepoint's name.
    name: String,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Some(Command::Drop(arguments)) => drop_one(arguments).await,
        None => create(arguments.create).await,
    }
}

async fn create(arguments: Create) -> anyhow::Result<ExitCode> {
    let client = arguments.master.connect().await?;
    let job = JobName(arguments.job.unwrap_or_default());
    let kept = client.create_savepoint(&job, arguments.name.as_deref());
    let savepoint = follow::meanwhile(&client, &job, kept).await?;
    if arguments.form.json {
        output::print_json(&savepoint)?;
        return Ok(ExitCode::SUCCESS);
    }
    // It is made, whether or not the master still answers.
    let state = client.job(&job).await.map(|job| job.state);
    let told = match state {
        Ok(JobState::Stopped | JobState::Failed) => made_at_end(job.as_str(), &savepoint),
        _ => made(job.as_str(), &savepoint),
    };
    output::print(&format!("{told}\n"))?;
    Ok(ExitCode::SUCCESS)
}

async fn drop_one(arguments: Drop) -> anyhow::Result<ExitCode> {
    let client = arguments.master.connect().await?;
    let job = arguments.job.as_str().into();
    let savepoint = client.drop_savepoint(&job, &arguments.name).await?;
    match arguments.form.json {
        true => output::print_json(&savepoint)?,
        false => output::print(&format!(
            "savepoint {} of {job} (epoch {}) is dropped\n",
            savepoint.name, savepoint.epoch
        ))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A savepoint of a job that ended with it, and what it is for, in a line.
pub(crate) fn made_at_end(job: &str, savepoint: &SavepointView) -> String {
    let (name, epoch) = (&savepoint.name, savepoint.epoch);
    format!(
        "savepoint {name} of {job} is epoch {epoch}; go on from it with `millstream submit FILE --name {job} --from-checkpoint {name}`"
    )
}

/// The same of a job that may go on: behind it, sinks hold what another life would send again.
fn made(job: &str, savepoint: &SavepointView) -> String {
    let (name, epoch) = (&savepoint.name, savepoint.epoch);
    format!(
        "savepoint {name} of {job} is epoch {epoch}; begin another job there, with sinks of its own, with \
         `millstream submit FILE --name OTHER --from-checkpoint {job}/{name}`"
    )
}

const COLUMNS: [Column; 4] = [
    ("SAVEPOINT", Align::Left),
    ("EPOCH", Align::Right),
    ("MADE", Align::Left),
    ("STATE", Align::Right),
];

/// A line each.
pub(crate) fn render(savepoints: &[SavepointView]) -> String {
    let rows: Vec<Vec<String>> = savepoints
        .iter()
        .map(|savepoint| {
            let (parts, bytes) = (savepoint.state_parts, savepoint.state_bytes);
            vec![
                savepoint.name.clone(),
                savepoint.epoch.to_string(),
                text::moment(savepoint.made_at_us),
                format!("{} ({})", text::count(parts), text::bytes(bytes)),
            ]
        })
        .collect();
    table::render(&COLUMNS, &rows)
}
