//! Whether the certificate that a Postgres server shows is taken.
//!
//! Made by `mod.rs` for each connection, asked by rustls within the handshake. Reads files: make it where that may block. The
//! signature of the handshake is checked in every mode, so that who shows a certificate also holds its key: the
//! login's channel binding rests on that, even where nobody asks who signed the certificate. Failure: a root file that
//! is missing or holds no certificate is told by its name.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::Mode;

/// Takes or refuses the server's certificate.
#[derive(Debug)]
pub(super) struct Verifier {
    /// Who may have signed it; `None`: whoever did.
    authorities: Option<Authorities>,
    /// Whether it has to be for the host of the url.
    checks_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

#[derive(Debug)]
struct Authorities {
    chain: Arc<WebPkiServerVerifier>,
    /// Named one by one in the user's file: a self-signed server's own certificate is trusted by standing there.
    named: Vec<CertificateDer<'static>>,
}

impl Verifier {
    /// For `mode`, with the certificates of `root_file` or of the system.
    pub(super) fn new(mode: Mode, root_file: Option<String>) -> Result<Self, String> {
        let authorities = match mode.verifies() {
            true => Some(Authorities::load(root_file)?),
            false => None,
        };
        Ok(Self {
            authorities,
            checks_name: mode == Mode::VerifyFull,
            algorithms: ring::default_provider().signature_verification_algorithms,
        })
    }
}

impl Authorities {
    fn load(root_file: Option<String>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let named = match &root_file {
            Some(file) => read(file)?,
            None => Vec::new(),
        };
        let what = root_file.map_or("the system's certificates".to_owned(), |file| {
            format!("sslrootcert={file}")
        });
        let trusted = match named.is_empty() {
            true => rustls_native_certs::load_native_certs().certs,
            false => named.clone(),
        };
        roots.add_parsable_certificates(trusted);
        let provider = Arc::new(ring::default_provider());
        let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let chain = built.map_err(|error| {
            format!("read {what}: {error}: name the authority's file with sslrootcert=FILE")
        })?;
        Ok(Self { chain, named })
    }
}

fn read(file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let found: Vec<_> = read.map_err(|error| format!("read sslrootcert={file}: {error}"))?;
    match found.is_empty() {
        true => Err(format!(
            "read sslrootcert={file}: it holds no certificate (PEM)"
        )),
        false => Ok(found),
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(authorities) = &self.authorities else {
            return Ok(ServerCertVerified::assertion());
        };
        if authorities.named.contains(certificate) {
            if self.checks_name {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, host)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        let chain = &authorities.chain;
        let verified =
            chain.verify_server_cert(certificate, intermediates, host, ocsp_response, now);
        match verified {
            // The name is looked at last: all else holds.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.checks_name => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_file_that_is_missing_or_empty_is_told_by_its_name() {
        let missing = Verifier::new(Mode::VerifyFull, Some("/no/such.pem".to_owned()));
        let text = missing.expect_err("no such file");
        assert!(text.contains("sslrootcert=/no/such.pem"), "{text}");
        let empty = tempfile::NamedTempFile::new().expect("a file");
        let path = empty.path().display().to_string();
        let text = Verifier::new(Mode::VerifyCa, Some(path)).expect_err("no certificate");
        assert!(text.contains("holds no certificate"), "{text}");
    }

    #[test]
    fn without_verification_no_file_is_read() {
        assert!(Verifier::new(Mode::Require, Some("/no/such.pem".to_owned())).is_ok());
    }
}
