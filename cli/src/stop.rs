//! `millstream stop`: a last, delivered epoch, resumable; or `--drain` to the job's end.

use std::process::ExitCode;

use clap::Args;
use millstream_common::control::{StopMode, Stopped};

use crate::arguments::MasterAddress;
use crate::{follow, output, savepoint};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    master: MasterAddress,
    /// The job's name.
    name: String,
    /// End its sources and let all windows fire: the job is finished and cannot go on.
    #[arg(long)]
    drain: bool,
    /// Keep its last epoch by this name.
    #[arg(long, value_name = "NAME", conflicts_with = "drain")]
    savepoint: Option<String>,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let client = arguments.master.connect().await?;
    let mode = match arguments.drain {
        true => StopMode::Drain,
        false => StopMode::Stop,
    };
    let name = arguments.name.as_str().into();
    let stopped = follow::meanwhile(&client, &name, client.stop(&name, mode)).await?;
    output::print(&format!("{}\n", told(&stopped)))?;
    if let Some(name) = arguments.savepoint.as_deref() {
        let job = stopped.job.name;
        let savepoint = client.create_savepoint(&job, Some(name)).await?;
        output::print(&format!(
            "{}\n",
            savepoint::made_at_end(job.as_str(), &savepoint)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// How a stopped job stands, in a line.
pub(crate) fn told(stopped: &Stopped) -> String {
    let job = &stopped.job;
    if !job.state.is_over() {
        return format!(
            "{} is still {}: its last epoch is not committed yet; look at it with `millstream job {}`",
            job.name, job.state, job.name
        );
    }
    let end = format!("{} {} after epoch {}", job.name, job.state, job.epoch);
    match stopped.lagging_sinks.as_slice() {
        [] => format!("{end}, delivered to every sink"),
        sinks => format!(
            "{end}; not delivered yet: {} (they get the rest when the job goes on)",
            sinks.join(", ")
        ),
    }
}
