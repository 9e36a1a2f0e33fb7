//! `millstream check`: all problems of a job at once, nothing started. Runs in this process.

use std::process::ExitCode;

use clap::Args;

use crate::arguments::{Form, JobFile};
use crate::{output, process};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    job: JobFile,
    #[command(flatten)]
    form: Form,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Some(job) = arguments.job.read()? else {
        return Ok(ExitCode::FAILURE);
    };
    let problems = process::check(&job.sql).await?;
    match arguments.form.json {
        true => output::print_json(&problems)?,
        false if problems.is_empty() => output::print(&format!("{}: no problem\n", job.file))?,
        false => output::print_problems(&problems, &job.file, &job.sql),
    }
    match problems.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::FAILURE),
    }
}
