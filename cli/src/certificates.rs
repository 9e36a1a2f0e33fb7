//! `millstream certificates`: an authority of its own for one cluster, and a certificate for each kind of process.
//!
//! For clusters without a certificate authority at hand. Keys are readable by their owner alone. Failure: a file that is there is
//! never written over, so a set is not mixed with another.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use chrono::Datelike;
use clap::Args;
use millstream_common::net::tls::{MASTER_NAME, WORKER_NAME};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::token::in_days;
use crate::{output, secret_file};

/// In every master's certificate, for clients beside it.
const LOOPBACK: [&str; 2] = ["localhost", "127.0.0.1"];

#[derive(Args)]
pub(crate) struct Arguments {
    /// The folder to write them into.
    folder: PathBuf,
    /// A name or address by which masters are dialled, besides localhost; may be repeated.
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// They hold so many days.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
}

/// Signs the others; its key is only needed to make more.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    days: u32,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let folder = &arguments.folder;
    fs::create_dir_all(folder).with_context(|| format!("create folder {}", folder.display()))?;
    let held = folder.join("ca.pem").try_exists();
    if held.with_context(|| format!("look into {}", folder.display()))? {
        bail!(
            "{} holds a set already: certificates of two authorities do not know each other; name another folder",
            folder.display()
        );
    }
    let authority = Authority::create(folder, arguments.days)?;
    let loopback = LOOPBACK.map(str::to_owned);
    let names = loopback.into_iter().chain([MASTER_NAME.to_owned()]);
    let subjects: Vec<String> = arguments.hosts.into_iter().chain(names).collect();
    authority.issue(folder, "master", subjects)?;
    authority.issue(folder, "worker", vec![WORKER_NAME.to_owned()])?;
    authority.issue(folder, "client", Vec::new())?;
    output::print(&format!(
        "{0}/ca.pem      the authority: --tls-ca of every process and client\n\
         {0}/ca.key      its key: keep it away from the cluster\n\
         {0}/master.pem  and .key: --tls-cert and --tls-key of masters\n\
         {0}/worker.pem  and .key: of workers\n\
         {0}/client.pem  and .key: of clients, where no tokens are used\n",
        folder.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

impl Authority {
    fn create(folder: &Path, days: u32) -> anyhow::Result<Self> {
        let mut params = params("authority", Vec::new(), days)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().context("make the authority's key")?;
        let certificate = params
            .self_signed(&key)
            .context("sign the authority's certificate")?;
        secret_file::create(&folder.join("ca.key"), &key.serialize_pem())?;
        secret_file::create_public(&folder.join("ca.pem"), &certificate.pem())?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            days,
        })
    }

    fn issue(&self, folder: &Path, name: &str, subjects: Vec<String>) -> anyhow::Result<()> {
        let mut params = params(name, subjects, self.days)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Workers dial and are dialled; so are masters.
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().with_context(|| format!("make the key of {name}"))?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("sign the certificate of {name}"))?;
        secret_file::create(&folder.join(format!("{name}.key")), &key.serialize_pem())?;
        secret_file::create_public(&folder.join(format!("{name}.pem")), &certificate.pem())
    }
}

fn params(name: &str, subjects: Vec<String>, days: u32) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(subjects.clone())
        .with_context(|| format!("use {} in a certificate", subjects.join(", ")))?;
    let full_name = format!("millstream {name}");
    params
        .distinguished_name
        .push(DnType::CommonName, full_name);
    let end = in_days(days)?;
    params.not_after = rcgen::date_time_ymd(end.year(), end.month() as u8, end.day() as u8);
    Ok(params)
}
