//! What the verbs that only read have in common: ask a master, print the answer for people or programs.
//!
//! Called by `jobs`, `workers`, and those that are about one job. Failure: no master answers, or it refuses.

use std::process::ExitCode;

use clap::Args;
use millstream_common::client::{self, ControlClient};
use millstream_common::ids::JobName;
use serde::Serialize;

use crate::arguments::{Form, MasterAddress};
use crate::output;

/// Whom to ask, and how to print the answer.
#[derive(Args)]
pub(crate) struct Reading {
    #[command(flatten)]
    master: MasterAddress,
    #[command(flatten)]
    form: Form,
}

/// The same of the verbs that are about one job.
#[derive(Args)]
pub(crate) struct ReadingOfJob {
    #[command(flatten)]
    reading: Reading,
    /// The job's name.
    name: String,
}

impl ReadingOfJob {
    /// Asks about the job, and prints the answer as JSON or as `render` puts it.
    pub(crate) async fn print<Answer: Serialize>(
        &self,
        ask: impl AsyncFnOnce(ControlClient, &JobName) -> Result<Answer, client::Error>,
        render: impl FnOnce(&Answer) -> String,
    ) -> anyhow::Result<ExitCode> {
        let name = JobName::from(self.name.as_str());
        let ask = async |client| ask(client, &name).await;
        self.reading.print(ask, render).await
    }
}

impl Reading {
    /// Asks, and prints the answer as JSON or as `render` puts it.
    pub(crate) async fn print<Answer: Serialize>(
        &self,
        ask: impl AsyncFnOnce(ControlClient) -> Result<Answer, client::Error>,
        render: impl FnOnce(&Answer) -> String,
    ) -> anyhow::Result<ExitCode> {
        let answer = ask(self.master.connect().await?).await?;
        match self.form.json {
            true => output::print_json(&answer)?,
            false => output::print(&render(&answer))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
