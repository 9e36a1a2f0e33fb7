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
    let found = process::check(&job.sql).await?;
    if arguments.form.json {
        output::print_json(&found)?;
    } else {
        output::print_warnings(&found.warnings, &job.file, &job.sql);
        match found.problems.as_slice() {
            [] => output::print(&format!("{}: no problem\n", job.file))?,
            problems => output::print_problems(problems, &job.file, &job.sql),
        }
    }
    match found.problems.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::FAILURE),
    }
}
