//! `millstream submit`: plans, checks and starts a job on the cluster; `--watch` shows it until it ends. Said again, it changes nothing.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use millstream_common::client::{self, ControlClient};
use millstream_common::control::{ControlError, JobState, JobView, SubmitRequest, Submitted};
use millstream_common::ids::JobName;
use millstream_common::text;
use millstream_common::time::SystemClock;

use crate::arguments::{JobFile, JobText, MasterAddress};
use crate::beginning::Beginning;
use crate::follow::{End, OnInterrupt, follow};
use crate::progress::Progress;
use crate::{interrupts, output};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    master: MasterAddress,
    #[command(flatten)]
    job: JobFile,
    /// The job's name; by default the file's.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    beginning: Beginning,
    /// Show the job until it ends; Ctrl-C ends the watching, not the job.
    #[arg(long)]
    watch: bool,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Some(text) = arguments.job.read()? else {
        return Ok(ExitCode::FAILURE);
    };
    let name = arguments.job.job_name(arguments.name.as_deref())?;
    let client = arguments.master.connect().await?;
    let Some(submitted) = submit(&client, &name, &text, &arguments.beginning).await? else {
        return Ok(ExitCode::FAILURE);
    };
    output::print(&format!("{}\n", began(&submitted)))?;
    if !arguments.watch {
        return Ok(ExitCode::SUCCESS);
    }
    let mut interrupts = interrupts::listen()?;
    let mut progress = Progress::new(Arc::new(SystemClock::new()));
    let end = follow(
        &client,
        &name,
        OnInterrupt::Leave,
        &mut interrupts,
        &mut progress,
    )
    .await;
    progress.finish();
    match end? {
        End::Job(job) => Ok(report_end(&job)),
        End::Stopped(stopped) => Ok(report_end(&stopped.job)),
        End::Left | End::Abandoned => {
            eprintln!("{name} goes on; stop it with `millstream stop {name}`");
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Submits; warnings and problems of the SQL are printed, `None` if there are problems.
pub(crate) async fn submit(
    client: &ControlClient,
    name: &JobName,
    text: &JobText,
    beginning: &Beginning,
) -> Result<Option<Submitted>, client::Error> {
    let request = SubmitRequest {
        name: name.clone(),
        sql: text.sql.clone(),
        file: text.file.clone(),
        fresh: beginning.fresh,
        from: beginning.from(),
        id: None,
    };
    match client.submit(request).await {
        Ok(submitted) => {
            output::print_warnings(&submitted.warnings, &text.file, &text.sql);
            Ok(Some(submitted))
        }
        Err(client::Error::Refused(ControlError::Problems(problems))) => {
            output::print_problems(&problems, &text.file, &text.sql);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What a submission came to, in a line.
pub(crate) fn began(submitted: &Submitted) -> String {
    let name = &submitted.job.name;
    match submitted.resumed_from {
        _ if submitted.unchanged => {
            let state = submitted.job.state;
            format!("{name} is {state}, as it is submitted; nothing changed")
        }
        Some(epoch) => format!("{name} goes on from epoch {epoch}"),
        None => format!("{name} begins"),
    }
}

/// Prints how a job ended by itself; a failed job is a failed command.
pub(crate) fn report_end(job: &JobView) -> ExitCode {
    let rows = format!(
        "{} rows read, {}",
        text::count(job.rows_read),
        text::left_out(job)
    );
    if job.state == JobState::Failed {
        let cause = job.cause.as_deref().unwrap_or("no cause is known");
        eprintln!("error: job {} failed: {cause}", job.name);
        return ExitCode::FAILURE;
    }
    eprintln!(
        "{} {} after epoch {}: {rows}",
        job.name, job.state, job.epoch
    );
    ExitCode::SUCCESS
}
