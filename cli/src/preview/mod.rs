//! `millstream preview`: the rows of a relation as they flow, until somebody has seen enough.
//!
//! Called by `main.rs`; [`shown`] makes text of what comes. Rows go to stdout, everything about them to stderr. A preview is of one
//! generation of the job: when the job is placed anew, or another master reigns, it is asked for again, and that is said. Failure: an
//! unknown job or relation, with those there are; a job that does not come back within [`RETRIES_MAX`] tries.

mod shown;
mod table;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use millstream_common::client::{self, ControlClient};
use millstream_common::control::ControlError;
use millstream_common::ids::JobName;
use millstream_common::preview::rows;

use self::shown::Shown;
use crate::arguments::{Form, MasterAddress};
use crate::{interrupts, output};

/// How long and how often a preview that has ended is asked for again: as long as a job takes to come back.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
const RETRIES_MAX: u32 = 60;

const ABOUT_ROWS: &str = "\
What is shown are the rows of running tasks, from now on:
- they belong to epochs that may not be committed, and come again after a recovery: for each there may be several lines;
- a reader that is slower than they come does not hold up the job: it misses rows, and is told how many.
A relation of groups shows how they change, at each epoch: +U is the new row of a group, -D says that it is gone. Rows of other
relations are only ever added, and have no operation. A sink's name shows what that sink gets. Ctrl-C ends it.";

#[derive(Args)]
#[command(after_help = ABOUT_ROWS)]
pub(crate) struct Arguments {
    #[command(flatten)]
    master: MasterAddress,
    #[command(flatten)]
    form: Form,
    /// The job's name.
    name: String,
    /// A source, view or sink of the job, or `X.dead_letters` of a source or view.
    relation: String,
    /// End after so many rows.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut interrupts = interrupts::listen()?;
    let client = arguments.master.connect().await?;
    let watch = Watch {
        client,
        name: JobName::from(arguments.name.as_str()),
        relation: arguments.relation,
    };
    let mut shown = Shown::new(arguments.form.json, arguments.limit);
    tokio::select! {
        ended = watch.run(&mut shown) => ended?,
        _ = interrupts.next() => {}
    }
    note(&shown.summary());
    Ok(ExitCode::SUCCESS)
}

fn note(text: &str) {
    eprintln!("{text}");
}

/// One preview, over as many calls as it takes.
struct Watch {
    client: ControlClient,
    name: JobName,
    relation: String,
}

/// Why rows come no more.
enum End {
    /// As many as were wanted have come.
    Enough,
    /// The master has ended the call without a word, as when it goes down.
    Silent,
}

impl Watch {
    async fn run(mut self, shown: &mut Shown) -> anyhow::Result<()> {
        let mut retry_count = 0;
        loop {
            let rows_before = shown.row_count();
            match self.once(shown).await {
                Ok(End::Enough) => return Ok(()),
                Ok(End::Silent) => {}
                Err(Ended::Here(error)) => return Err(error),
                Err(Ended::There(client::Error::Refused(ControlError::NotRunning {
                    state,
                    ..
                }))) if shown.has_begun() => {
                    note(&format!("the job is {state}"));
                    return Ok(());
                }
                Err(Ended::There(error)) => {
                    if !error.kind().is_retryable() || retry_count == RETRIES_MAX {
                        return Err(error.into());
                    }
                    if retry_count == 0 {
                        note(&waiting(&error));
                    }
                }
            }
            retry_count = match shown.row_count() == rows_before {
                true => retry_count + 1,
                false => 0,
            };
            tokio::time::sleep(RETRY_INTERVAL).await;
            // Another master may reign now; where none answers, the old one is asked again.
            if let Ok(client) = self.client.reconnect().await {
                self.client = client;
            }
        }
    }

    /// One call: to the end of a generation.
    async fn once(&self, shown: &mut Shown) -> Result<End, Ended> {
        let (header, mut parts) = self.client.preview(&self.name, &self.relation).await?;
        note(&shown.begin(&self.name, &header));
        while let Some(part) = parts.next().await {
            let part = part?;
            let rows = rows::read(&part.arrow_stream, header.is_changelog);
            let rows = rows.map_err(anyhow::Error::from)?;
            output::print(&shown.rows(&rows)).map_err(anyhow::Error::from)?;
            if let Some(text) = shown.skipped(part.skipped_rows) {
                note(&text);
            }
            if shown.is_enough() {
                return Ok(End::Enough);
            }
        }
        Ok(End::Silent)
    }
}

/// What is said while nothing comes.
fn waiting(error: &client::Error) -> String {
    match error {
        client::Error::Refused(ControlError::Unavailable { cause, .. }) => {
            format!("no rows for the moment: {cause}; waiting")
        }
        error => format!("no rows for the moment: {error}; waiting"),
    }
}

/// Why a call failed.
enum Ended {
    /// Nobody reads on, or what came cannot be read.
    Here(anyhow::Error),
    /// The master says so, or cannot be reached.
    There(client::Error),
}

impl From<anyhow::Error> for Ended {
    fn from(error: anyhow::Error) -> Self {
        Self::Here(error)
    }
}

impl From<client::Error> for Ended {
    fn from(error: client::Error) -> Self {
        Self::There(error)
    }
}
