//! `millstream sink pause | resume`: one sink waits, or goes on; the rest of the job does not notice.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use millstream_common::control::SinkCommand;

use crate::arguments::MasterAddress;
use crate::{output, sinks};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Deliver nothing to the sink until it is resumed; what it lacks waits in storage.
    Pause(Target),
    /// Deliver again; a sink that waits for its next try is tried now.
    Resume(Target),
}

#[derive(Args)]
struct Target {
    #[command(flatten)]
    master: MasterAddress,
    /// The job's name.
    name: String,
    /// The sink's name.
    sink: String,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let (target, command) = match arguments.command {
        Command::Pause(target) => (target, SinkCommand::Pause),
        Command::Resume(target) => (target, SinkCommand::Resume),
    };
    let client = target.master.connect().await?;
    let name = target.name.as_str().into();
    let sink = client.command_sink(&name, &target.sink, command).await?;
    output::print(&sinks::render(&[sink]))?;
    Ok(ExitCode::SUCCESS)
}
