//! `millstream explain`: the stages of a job, nothing started. Runs in this process.

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
    match process::explain(&job.sql) {
        Ok(explained) => {
            match arguments.form.json {
                true => output::print_json(&explained.plan)?,
                false => output::print(&explained.text)?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            output::print_problems(&problems, &job.file, &job.sql);
            Ok(ExitCode::FAILURE)
        }
    }
}
