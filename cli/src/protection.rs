//! What protects a process: its certificates, and the token or tokens it shows or asks for.
//!
//! Arguments that the services and every verb share, and the networks they make of them. Failure: files that cannot be used end the
//! verb with what makes them; a tokens file that goes bad later is reported and the one before it holds on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use clap::Args;
use millstream_common::blocking::{self, BlockingRef};
use millstream_common::net::tls::{TlsFiles, TlsNet};
use millstream_common::net::{NetRef, TcpNet};
use millstream_master::service::access::{Access, SharedTokens, Tokens};
use tokio::task::JoinSet;

/// A changed tokens file holds within this.
const TOKENS_LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// TLS, on as soon as an authority is named.
#[derive(Args, Default)]
pub(crate) struct TlsArguments {
    /// Certificates (PEM) of the cluster's authority; turns TLS on.
    #[arg(long, env = "MILLSTREAM_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// The certificate to show (PEM); masters and workers need one.
    #[arg(long, env = "MILLSTREAM_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The key of that certificate (PEM).
    #[arg(long, env = "MILLSTREAM_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
}

impl TlsArguments {
    /// With nothing but an authority.
    #[cfg(test)]
    pub(crate) fn trusting(authority: &str) -> Self {
        Self {
            tls_ca: Some(authority.into()),
            ..Self::default()
        }
    }

    /// Connections are encrypted.
    pub(crate) fn is_on(&self) -> bool {
        given(&self.tls_ca).is_some()
    }

    /// The way to masters, or a master's own door; `token` is shown with every call.
    pub(crate) fn net_of_masters(&self, token: Option<String>) -> anyhow::Result<NetRef> {
        match self.files()? {
            Some(files) => Ok(Arc::new(TlsNet::of_masters(
                Arc::new(TcpNet),
                files,
                token,
            )?)),
            None if token.is_some() => bail!(
                "a token would be sent in clear text: name the cluster's authority with --tls-ca, or leave the token out"
            ),
            None => Ok(Arc::new(TcpNet)),
        }
    }

    /// The way between workers.
    pub(crate) fn net_of_workers(&self) -> anyhow::Result<NetRef> {
        match self.files()? {
            Some(files) => Ok(Arc::new(TlsNet::of_workers(Arc::new(TcpNet), files)?)),
            None => Ok(Arc::new(TcpNet)),
        }
    }

    /// For processes that others dial.
    pub(crate) fn check_service(&self) -> anyhow::Result<()> {
        if self.is_on() && given(&self.tls_cert).is_none() {
            bail!(
                "TLS needs a certificate to show: name it with --tls-cert and --tls-key; `millstream certificates` makes a set"
            );
        }
        Ok(())
    }

    fn files(&self) -> anyhow::Result<Option<TlsFiles<'_>>> {
        let identity = match (given(&self.tls_cert), given(&self.tls_key)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => bail!("--tls-cert needs its key: name it with --tls-key"),
            (None, Some(_)) => bail!("--tls-key needs its certificate: name it with --tls-cert"),
        };
        match given(&self.tls_ca) {
            Some(authority) => Ok(Some(TlsFiles {
                authority,
                identity,
            })),
            None if identity.is_some() => {
                bail!("--tls-cert needs the authority it is from: name it with --tls-ca")
            }
            None => Ok(None),
        }
    }
}

/// A variable that is set to nothing names no file.
fn given(path: &Option<PathBuf>) -> Option<&Path> {
    path.as_deref().filter(|path| !path.as_os_str().is_empty())
}

/// What a caller shows.
#[derive(Args)]
pub(crate) struct TokenArguments {
    /// The file with the token to show; a token itself may stand in MILLSTREAM_TOKEN.
    #[arg(long, env = "MILLSTREAM_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    // Without an option: whoever lists processes sees those.
    #[arg(
        long = "token-from-environment",
        env = "MILLSTREAM_TOKEN",
        hide = true,
        hide_env_values = true
    )]
    token: Option<String>,
}

impl TokenArguments {
    /// The token, if there is one.
    pub(crate) fn token(&self) -> anyhow::Result<Option<String>> {
        if let Some(file) = given(&self.token_file) {
            let text = fs::read_to_string(file)
                .with_context(|| format!("read token in {}", file.display()))?;
            return Ok(Some(text.trim().to_owned()));
        }
        let token = self.token.as_deref().map(str::trim);
        Ok(token.filter(|token| !token.is_empty()).map(str::to_owned))
    }
}

/// What a master asks of callers, and master and worker of whoever looks at them over HTTP.
#[derive(Args)]
pub(crate) struct AccessArguments {
    /// The tokens that callers must show one of, a line each as `millstream token` prints it; read anew as soon as it changes.
    #[arg(long, env = "MILLSTREAM_TOKENS", value_name = "FILE")]
    tokens: Option<PathBuf>,
}

impl AccessArguments {
    /// Who may call. `tasks` get one that keeps the tokens up to date.
    pub(crate) fn access(
        &self,
        tls: &TlsArguments,
        blocking: &BlockingRef,
        tasks: &mut JoinSet<()>,
    ) -> anyhow::Result<Access> {
        let Some(file) = given(&self.tokens) else {
            return Ok(match tls.is_on() {
                true => Access::Certificates,
                false => Access::Open,
            });
        };
        if !tls.is_on() {
            bail!(
                "tokens would be sent in clear text: name the cluster's authority with --tls-ca; `millstream certificates` makes one"
            );
        }
        let read = read_tokens(file)?;
        let shared = SharedTokens::default();
        let count = read.tokens.count();
        shared.replace(read.tokens);
        tracing::info!(count, file = %file.display(), "tokens read");
        tasks.spawn(keep_up(
            file.to_owned(),
            read.changed,
            shared.clone(),
            blocking.clone(),
        ));
        Ok(Access::Tokens(shared))
    }
}

struct ReadTokens {
    tokens: Tokens,
    changed: SystemTime,
}

fn read_tokens(file: &Path) -> anyhow::Result<ReadTokens> {
    let read = || -> anyhow::Result<ReadTokens> {
        Ok(ReadTokens {
            // Before it is read: what changes in between is read again.
            changed: fs::metadata(file)?.modified()?,
            tokens: Tokens::read(&fs::read_to_string(file)?)?,
        })
    };
    read().with_context(|| format!("read tokens in {}", file.display()))
}

async fn keep_up(
    file: PathBuf,
    mut known: SystemTime,
    shared: SharedTokens,
    blocking: BlockingRef,
) {
    loop {
        tokio::time::sleep(TOKENS_LOOK_INTERVAL).await;
        let path = file.clone();
        let look = move || -> anyhow::Result<Option<ReadTokens>> {
            let changed = fs::metadata(&path).and_then(|found| found.modified());
            match changed.is_ok_and(|changed| changed == known) {
                true => Ok(None),
                false => read_tokens(&path).map(Some),
            }
        };
        match blocking::run(&blocking, look).await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(read))) => {
                known = read.changed;
                tracing::info!(count = read.tokens.count(), "tokens read anew");
                shared.replace(read.tokens);
            }
            Ok(Err(error)) => {
                let cause = format!("{error:#}");
                tracing::warn!(cause, "tokens file: those read before hold on");
            }
            Err(panicked) => tracing::warn!(%panicked, "tokens file"),
        }
    }
}
