//! `millstream dead-letters`: the rows that sources, views and sinks refused, counted, listed, and sent through the job again.
//!
//! Called by `main.rs`; [`shown`] makes text of what the master answers. The master reads what it keeps, so a job that has ended has
//! its dead letters still. Failure: an unknown job or relation, with the nearest; a file that cannot be read.

mod shown;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use futures::TryStreamExt;
use millstream_common::client::ControlClient;
use millstream_common::control::{
    DeadLetterView, LetterFilter, LetterQuery, LetterTotals, ReplayRequest,
};
use millstream_common::dead_letter::Code;
use millstream_common::ids::JobName;
use millstream_common::time::{Clock, SystemClock};

use crate::arguments::{Form, MasterAddress};
use crate::{output, retention};

/// Letters listed where nobody says how many.
const LIMIT_DEFAULT: u64 = 100;
/// How a relation of dead letters is called in SQL.
const SUFFIX: &str = ".dead_letters";

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    master: MasterAddress,
    #[command(flatten)]
    form: Form,
    /// The job's name.
    name: String,
    /// A source, view or sink of the job; without it, those of all are counted.
    relation: Option<String>,
    /// Only those refused for this.
    #[arg(long, value_parser = PossibleValuesParser::new(Code::ALL.map(Code::as_str)))]
    code: Option<String>,
    /// Received then or later: `2026-01-17T10:15:00Z`, or so long ago: `2h`.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Moment>,
    /// Received before: `2026-01-17T10:15:00Z`, or so long ago: `5m`.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Moment>,
    /// Only from this partition (`topic-3`) or file.
    #[arg(long)]
    origin: Option<String>,
    /// The newest so many [default: 100].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Count them by code, list none.
    #[arg(long, conflicts_with_all = ["limit", "replay"])]
    count: bool,
    /// Send them through the job again, once; those that break a rule again are dead letters again.
    #[arg(long, requires = "relation", conflicts_with = "limit")]
    replay: bool,
    /// Send the lines of this file, one JSON object each, in place of the dead letters.
    #[arg(long, requires = "replay", value_name = "FILE", conflicts_with_all = ["code", "since", "until", "origin"])]
    file: Option<PathBuf>,
    /// Give each row sent the time of this command as its event time; late rows are sent only so.
    #[arg(long, requires = "replay", value_name = "TIME")]
    event_time: Option<GivenTime>,
    /// Send also what was sent before.
    #[arg(long, requires = "replay")]
    again: bool,
}

/// The event time of rows that are sent again.
#[derive(Clone, Copy, ValueEnum)]
enum GivenTime {
    /// That of the command.
    Now,
}

/// A time on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    At(i64),
    Ago(Duration),
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let client = arguments.master.connect().await?;
    let name = JobName::from(arguments.name.as_str());
    match arguments.replay {
        true => replay(&client, &name, arguments).await?,
        false => list(&client, &name, arguments).await?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn filter(&self) -> LetterFilter {
        let now_us = SystemClock::new().unix_micros();
        let owner = self.relation.as_deref();
        LetterFilter {
            owner: owner.map(|name| name.strip_suffix(SUFFIX).unwrap_or(name).to_owned()),
            code: self.code.clone(),
            since_us: self.since.map(|since| since.unix_us(now_us)),
            until_us: self.until.map(|until| until.unix_us(now_us)),
            origin: self.origin.clone(),
        }
    }
}

async fn list(client: &ControlClient, name: &JobName, arguments: Arguments) -> anyhow::Result<()> {
    // Of which relation a letter is does not stand in every column, so those of all are only counted.
    let counts_only = arguments.count || arguments.relation.is_none() && arguments.limit.is_none();
    let query = LetterQuery {
        filter: arguments.filter(),
        limit: match counts_only {
            true => 0,
            false => arguments.limit.unwrap_or(LIMIT_DEFAULT),
        },
    };
    let limit = query.limit;
    let mut parts = client.dead_letters(name, query).await?;
    let mut letters: Vec<DeadLetterView> = Vec::new();
    let mut totals = LetterTotals::default();
    while let Some(part) = parts.try_next().await? {
        letters.extend(part.letters);
        totals = part.totals.unwrap_or(totals);
    }
    match (arguments.form.json, counts_only) {
        (true, true) => output::print_json(&totals)?,
        (true, false) => output::print_json(&letters)?,
        (false, true) => output::print(&shown::counts(&totals))?,
        (false, false) => output::print(&shown::letters(&letters))?,
    }
    let is_cut = !counts_only && letters.len() as u64 >= limit;
    eprint!("{}", shown::left_out(&totals, is_cut.then_some(limit)));
    Ok(())
}

async fn replay(
    client: &ControlClient,
    name: &JobName,
    arguments: Arguments,
) -> anyhow::Result<()> {
    let corrected = match &arguments.file {
        None => None,
        Some(file) => {
            let read = std::fs::read(file);
            Some(records(
                &read.with_context(|| format!("read {}", file.display()))?,
            ))
        }
    };
    let request = ReplayRequest {
        filter: arguments.filter(),
        corrected,
        event_time_now: arguments.event_time.is_some(),
        again: arguments.again,
    };
    let replayed = client.replay(name, request).await?;
    match arguments.form.json {
        true => output::print_json(&replayed)?,
        false => output::print(&shown::replayed(&replayed))?,
    }
    Ok(())
}

/// The records of a file: its lines, without those that are empty.
fn records(content: &[u8]) -> Vec<Vec<u8>> {
    let lines = content.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines
        .filter(|line| !line.is_empty())
        .map(<[u8]>::to_vec)
        .collect()
}

impl Moment {
    fn unix_us(self, now_us: i64) -> i64 {
        match self {
            Self::At(unix_us) => unix_us,
            Self::Ago(ago) => {
                now_us.saturating_sub(i64::try_from(ago.as_micros()).unwrap_or(i64::MAX))
            }
        }
    }
}

fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(moment) = chrono::DateTime::parse_from_rfc3339(text) {
        return Ok(Moment::At(moment.timestamp_micros()));
    }
    if let Ok(day) = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        let midnight = day.and_time(chrono::NaiveTime::MIN);
        return Ok(Moment::At(midnight.and_utc().timestamp_micros()));
    }
    let ago = retention::time(text).map(Moment::Ago);
    ago.map_err(|_| {
        format!(
            "{text} is no time; write 2026-01-17T10:15:00Z, 2026-01-17, or 2h for two hours ago"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_moment_or_so_long_ago() {
        assert_eq!(moment("1970-01-01T00:00:01Z"), Ok(Moment::At(1_000_000)));
        assert_eq!(moment("1970-01-02"), Ok(Moment::At(86_400_000_000)));
        let ago = moment("2s").expect("a time");
        assert_eq!(ago.unix_us(5_000_000), 3_000_000);
        assert!(moment("yesterday").is_err());
    }

    #[test]
    fn the_records_of_a_file_are_its_lines() {
        assert_eq!(
            records(b"{\"a\":1}\r\n\n {\"a\":2}"),
            [b"{\"a\":1}", b"{\"a\":2}"]
        );
        assert!(records(b"").is_empty());
    }
}
