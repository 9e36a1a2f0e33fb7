//! `millstream token`: a new token for a caller, and the line that lets it in.
//!
//! The token goes into a file for whoever will show it; the line, which only holds its hash, is printed for the master's tokens file.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use clap::Args;
use millstream_common::time::{Clock, SystemClock};
use millstream_master::service::access::{Role, Token, hash};
use rand::TryRngCore;
use rand::rngs::OsRng;

use crate::{output, secret_file};

/// Marks the secret where it turns up by mistake.
const PREFIX: &str = "mst_";
const RANDOM_BYTES: usize = 32;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Args)]
pub(crate) struct Arguments {
    /// Whose it is, for people.
    name: String,
    /// What it allows: read, submit or admin; each allows what those before it do.
    #[arg(long, value_parser = role)]
    role: Role,
    /// The file to write it into; it is shown nowhere else.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// It holds so many days; for good if not given.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    expires_days: Option<u32>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let is_plain = |name: &str| !name.contains(|c: char| c.is_whitespace() || c == '#');
    if arguments.name.is_empty() || !is_plain(&arguments.name) {
        bail!("a name has no blanks and no '#'");
    }
    let mut random = [0; RANDOM_BYTES];
    OsRng
        .try_fill_bytes(&mut random)
        .context("ask the system for random bytes")?;
    let text = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(random));
    let expires = arguments.expires_days.map(in_days).transpose()?;
    let token = Token {
        name: arguments.name,
        role: arguments.role,
        expires,
    };
    secret_file::create(&arguments.out, &format!("{text}\n"))?;
    output::print(&format!("{}\n", token.line(&hash(&text))))?;
    Ok(ExitCode::SUCCESS)
}

/// That many days from now.
pub(crate) fn in_days(days: u32) -> anyhow::Result<DateTime<Utc>> {
    let now = DateTime::from_timestamp_micros(SystemClock::new().unix_micros());
    let then =
        now.and_then(|now| now.checked_add_signed(chrono::TimeDelta::from_std(DAY * days).ok()?));
    then.context("the calendar ends before that day")
}

fn role(name: &str) -> Result<Role, String> {
    Role::of(name).ok_or_else(|| "read, submit and admin are roles".to_owned())
}
