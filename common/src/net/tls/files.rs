//! Certificates and keys as files, and what rustls makes of them.
//!
//! Part of `tls`: read once, when a network is made. Failure: a file that cannot be read or used is named with what stands against it.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::Other;

/// What calls are made in: gRPC takes nothing else.
const CALLS: &[u8] = b"h2";
/// What pages and figures are asked for in; who could speak both would choose the other one.
pub(super) const PAGES: &[u8] = b"http/1.1";

/// The files one process shows and trusts.
#[derive(Clone, Copy, Debug)]
pub struct TlsFiles<'a> {
    /// Certificates (PEM) of the authorities that are trusted.
    pub authority: &'a Path,
    /// Its own certificate, chain first to last, and the key to it (both PEM); whoever listens needs them.
    pub identity: Option<(&'a Path, &'a Path)>,
}

/// Files that make no certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It cannot be read, or holds something else.
    #[error("read {what} in {file}: {cause}; `millstream certificates` makes a set")]
    Unreadable {
        /// What it was to hold.
        what: &'static str,
        /// Its path.
        file: String,
        /// What stands against it.
        cause: String,
    },
    /// They are read, but do not belong together or are of no use.
    #[error("use {file}: {cause}; `millstream certificates` makes a set")]
    Unusable {
        /// The file that is at fault.
        file: String,
        /// What stands against it.
        cause: String,
    },
}

/// A certificate and its key.
pub(super) struct Identity<'a> {
    file: &'a Path,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl<'a> Identity<'a> {
    pub(super) fn read(certificate: &'a Path, key: &Path) -> Result<Self, TlsError> {
        let found = PrivateKeyDer::from_pem_file(key);
        Ok(Self {
            file: certificate,
            chain: certificates("a certificate", certificate)?,
            key: found.map_err(|error| unreadable("a key", key, error.to_string()))?,
        })
    }

    fn unusable(&self, error: &rustls::Error) -> TlsError {
        unusable(self.file, error.to_string())
    }
}

fn unreadable(what: &'static str, file: &Path, cause: String) -> TlsError {
    TlsError::Unreadable {
        what,
        file: file.display().to_string(),
        cause,
    }
}

fn unusable(file: &Path, cause: String) -> TlsError {
    TlsError::Unusable {
        file: file.display().to_string(),
        cause,
    }
}

fn certificates(what: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let found: Vec<_> = read.map_err(|error| unreadable(what, file, error.to_string()))?;
    match found.is_empty() {
        true => Err(unreadable(what, file, "it holds none (PEM)".to_owned())),
        false => Ok(found),
    }
}

pub(super) fn authorities(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("the authority's certificate", file)? {
        let added = roots.add(certificate);
        added.map_err(|error| unusable(file, error.to_string()))?;
    }
    Ok(roots)
}

pub(super) fn client_config(
    provider: &Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    identity: Option<&Identity<'_>>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(Path::new("this build"), error.to_string()))?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder
            .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(|error| identity.unusable(&error))?,
    };
    config.alpn_protocols = vec![CALLS.to_vec()];
    Ok(config)
}

pub(super) fn server_config(
    provider: &Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    identity: &Identity<'_>,
    callers: Other,
) -> Result<ServerConfig, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
    let verifier = match callers {
        Other::Masters => verifier.allow_unauthenticated(),
        Other::Workers => verifier,
    };
    let verifier = verifier
        .build()
        .map_err(|error| unusable(identity.file, error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| identity.unusable(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|error| identity.unusable(&error))?;
    config.alpn_protocols = vec![CALLS.to_vec()];
    Ok(config)
}
