//! `millstream sink pause | resume | rewind`: one sink waits, goes on or goes back; the rest of the job does not notice.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use millstream_common::control::{RewindTerms, SinkCommand, SinkView};
use millstream_common::ids::Epoch;

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
    /// Go back to an earlier epoch and deliver again what lies behind it.
    Rewind(Rewind),
}

#[derive(Args)]
struct Rewind {
    #[command(flatten)]
    target: Target,
    /// The epoch that the sink is to hold; by default the oldest whose segments are still kept (`millstream sinks` shows it), or where the sink began.
    #[arg(long, value_name = "EPOCH")]
    to: Option<u64>,
    /// The sink appends: its rows may be there twice.
    #[arg(long)]
    allow_duplicates: bool,
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
    let sink = match arguments.command {
        Command::Pause(target) => tell(&target, SinkCommand::Pause).await?,
        Command::Resume(target) => tell(&target, SinkCommand::Resume).await?,
        Command::Rewind(rewind) => send_back(&rewind).await?,
    };
    output::print(&sinks::render(&[sink]))?;
    Ok(ExitCode::SUCCESS)
}

async fn tell(target: &Target, command: SinkCommand) -> anyhow::Result<SinkView> {
    let client = target.master.connect().await?;
    let name = target.name.as_str().into();
    Ok(client.command_sink(&name, &target.sink, command).await?)
}

async fn send_back(rewind: &Rewind) -> anyhow::Result<SinkView> {
    let target = &rewind.target;
    let client = target.master.connect().await?;
    let name = target.name.as_str().into();
    let terms = RewindTerms {
        to: rewind.to.map(Epoch),
        may_duplicate: rewind.allow_duplicates,
    };
    Ok(client.rewind_sink(&name, &target.sink, terms).await?)
}
