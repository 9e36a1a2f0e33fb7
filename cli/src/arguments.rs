//! Arguments that several verbs share, and what they stand for.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use millstream_common::address;
use millstream_common::client::ControlClient;
use millstream_common::ids::JobName;
use millstream_common::net::NetRef;

use crate::parameters;
use crate::protection::{TlsArguments, TokenArguments};

/// Which master a verb talks to.
#[derive(Args)]
pub(crate) struct MasterAddress {
    /// Addresses of the masters, separated by commas; the first that answers is taken.
    #[arg(
        long,
        env = "MILLSTREAM_MASTER",
        default_value = "127.0.0.1:7070",
        value_name = "HOST:PORT",
        value_parser = host_ports
    )]
    pub(crate) master: String,
    #[command(flatten)]
    pub(crate) tls: TlsArguments,
    #[command(flatten)]
    token: TokenArguments,
}

impl MasterAddress {
    /// A client of the first master that answers; a takeover is waited for.
    pub(crate) async fn connect(&self) -> anyhow::Result<ControlClient> {
        Ok(ControlClient::find(self.net()?, &self.master).await?)
    }

    /// The way there.
    pub(crate) fn net(&self) -> anyhow::Result<NetRef> {
        self.tls.net_of_masters(self.token.token()?)
    }
}

/// For people or for programs.
#[derive(Args)]
pub(crate) struct Form {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A job's file and the values of its parameters.
#[derive(Args)]
pub(crate) struct JobFile {
    /// The SQL file; one file is one job.
    pub(crate) file: PathBuf,
    /// The value of a parameter: `${KEY}` outside strings becomes VALUE as a literal.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_and_value)]
    pub(crate) set: Vec<(String, String)>,
}

impl JobFile {
    /// The SQL with its parameters replaced. Problems of the parameters are printed; `None` then.
    pub(crate) fn read(&self) -> anyhow::Result<Option<JobText>> {
        let file = self.file.display().to_string();
        let text =
            std::fs::read_to_string(&self.file).with_context(|| format!("read job {file}"))?;
        match parameters::replace(&text, &self.set) {
            Ok(sql) => Ok(Some(JobText { file, sql })),
            Err(problems) => {
                crate::output::print_problems(&problems, &file, &text);
                Ok(None)
            }
        }
    }

    /// The name given, or the file's stem with what a name may not hold replaced.
    pub(crate) fn job_name(&self, given: Option<&str>) -> anyhow::Result<JobName> {
        if let Some(name) = given {
            return Ok(name.into());
        }
        let stem = self.file.file_stem().unwrap_or_default().to_string_lossy();
        let name: String = stem
            .chars()
            .map(|character| match character {
                '-' | '_' => character,
                _ if character.is_ascii_alphanumeric() => character,
                _ => '_',
            })
            .collect();
        if name.is_empty() {
            bail!("{} has no name; give one with --name", self.file.display());
        }
        Ok(JobName(name))
    }
}

/// What is planned, and how its problems name it.
pub(crate) struct JobText {
    /// The file as the user knows it.
    pub(crate) file: String,
    /// The text with its parameters replaced.
    pub(crate) sql: String,
}

/// An address to listen at.
pub(crate) fn host_port(text: &str) -> Result<String, String> {
    address::check(text).map(|()| text.to_owned())
}

/// An address that others dial. A variable that is set to nothing names none.
pub(crate) fn dialled(text: &str) -> Result<String, String> {
    if !text.is_empty() {
        address::check_dialled(text)?;
    }
    Ok(text.to_owned())
}

/// Addresses that are dialled, separated by commas.
fn host_ports(text: &str) -> Result<String, String> {
    let named = text.split(',').map(str::trim);
    let named: Vec<&str> = named.filter(|address| !address.is_empty()).collect();
    for address in &named {
        address::check_dialled(address)?;
    }
    match named.is_empty() {
        true => Err("no address is given".to_owned()),
        false => Ok(named.join(",")),
    }
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

/// A storage's URL: as given, or of a folder, which is made absolute.
pub(crate) fn storage_url(given: &str) -> anyhow::Result<String> {
    if given.contains("://") {
        return Ok(given.to_owned());
    }
    let path = std::path::absolute(Path::new(given))
        .with_context(|| format!("find storage folder {given}"))?;
    Ok(format!("file://{}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_named_by_its_file_unless_it_is_named() {
        let file = JobFile {
            file: "jobs/page views.v2.sql".into(),
            set: Vec::new(),
        };
        assert_eq!(file.job_name(None).unwrap().as_str(), "page_views_v2");
        assert_eq!(file.job_name(Some("clicks")).unwrap().as_str(), "clicks");
    }

    #[test]
    fn every_address_of_a_list_has_a_port() {
        let list = "one:7070, two:7070,";
        assert_eq!(host_ports(list), Ok("one:7070,two:7070".to_owned()));
        assert!(host_ports("one:7070,two").is_err() && host_ports("").is_err());
        assert!(host_port("7071").is_err() && host_port("one:0").is_ok());
        assert!(dialled("one:0").is_err() && dialled("").is_ok());
    }

    #[test]
    fn a_folder_is_a_storage_too() {
        assert_eq!(storage_url("s3://bucket/x").unwrap(), "s3://bucket/x");
        assert_eq!(storage_url("/var/x").unwrap(), "file:///var/x");
        let relative = storage_url("./.millstream").unwrap();
        assert!(relative.starts_with("file:///") && relative.ends_with("/.millstream"));
    }
}
