//! How a connection to Postgres is encrypted: `sslmode` and `sslrootcert` of the url, as psql knows them.
//!
//! Used by `session.rs` only. [`Tls::split`] takes the two out of the url, because the driver knows neither the verifying
//! modes nor the file; [`Tls::connect`] makes the connection they ask for. `prefer` is what a url without `sslmode` means:
//! encrypted where the server can, plain where it cannot. Failure: [`explain`] says which `sslmode` did not work and
//! what to write; a certificate that is refused waits for a person, a broken line does not.

mod verifier;

use std::pin::Pin;
use std::sync::Arc;

use millstream_common::blocking::{self, BlockingRef};
use millstream_common::error::chain;
use rustls::crypto::ring;
use rustls::{CertificateError, ClientConfig};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::form_urlencoded;

use self::verifier::Verifier;
use crate::sink::SinkError;

/// What moves the bytes of a connection; ends with it.
pub(super) type Driver = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Parameters of psql that would be silently without effect.
const UNSUPPORTED: [&str; 6] = [
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslcrl",
    "sslcrldir",
    "sslcertmode",
];
/// The value of `sslrootcert` that means the system's certificates, as does its absence.
const SYSTEM: &str = "system";

/// How much of the server is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Never encrypted.
    Disable,
    /// Encrypted where the server can, and not checked.
    Prefer,
    /// Encrypted, and not checked: keeps listeners out, not impostors.
    Require,
    /// Encrypted, and an authority that is trusted has signed the server's certificate.
    VerifyCa,
    /// The same, and the certificate is for the host of the url.
    VerifyFull,
}

impl Mode {
    const ALL: [(&str, Self); 5] = [
        ("disable", Self::Disable),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyFull),
    ];

    fn parse(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(name, _)| *name == text);
        found.map(|(_, mode)| *mode).ok_or_else(|| {
            let names = Self::ALL.map(|(name, _)| name).join(", ");
            format!("sslmode is one of {names}")
        })
    }

    fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, mode)| *mode == self);
        found.map_or("", |(name, _)| name)
    }

    fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }

    /// As far as the driver knows it.
    fn of_driver(self) -> SslMode {
        match self {
            Self::Disable => SslMode::Disable,
            Self::Prefer => SslMode::Prefer,
            Self::Require | Self::VerifyCa | Self::VerifyFull => SslMode::Require,
        }
    }
}

/// What the url asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tls {
    /// `None`: the url does not say.
    mode: Option<Mode>,
    /// A file of certificates (PEM) that are trusted; `None`: the system's.
    root_file: Option<String>,
}

impl Tls {
    /// The url without what is about TLS, and that. The error quotes nothing of the url but names of parameters.
    pub(super) fn split(url: &str) -> Result<(String, Self), String> {
        let mut tls = Self {
            mode: None,
            root_file: None,
        };
        let Some(start) = query_start(url) else {
            return Ok((url.to_owned(), tls));
        };
        let mut kept = Vec::new();
        for parameter in url[start..].split('&') {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match name {
                "sslmode" => tls.mode = Some(Mode::parse(&decoded(value))?),
                "sslrootcert" => {
                    tls.root_file = Some(decoded(value)).filter(|file| file != SYSTEM);
                }
                name if UNSUPPORTED.contains(&name) => {
                    return Err(format!("{name} is not supported: leave it out"));
                }
                _ => kept.push(parameter),
            }
        }
        // As psql does: who names an authority wants it asked.
        if tls.mode == Some(Mode::Require) && tls.root_file.is_some() {
            tls.mode = Some(Mode::VerifyCa);
        }
        let mark = if kept.is_empty() { "" } else { "?" };
        let rest = format!("{}{mark}{}", &url[..start - 1], kept.join("&"));
        Ok((rest, tls))
    }

    /// The mode that holds for `config`: the url's, else the driver's. A socket of the machine is never encrypted.
    fn mode(&self, config: &Config) -> Mode {
        if matches!(config.get_hosts().first(), Some(Host::Unix(_))) {
            return Mode::Disable;
        }
        self.mode.unwrap_or(match config.get_ssl_mode() {
            SslMode::Disable => Mode::Disable,
            SslMode::Require => Mode::Require,
            _ => Mode::Prefer,
        })
    }

    /// Connects by `config`; `what` says to where.
    pub(super) async fn connect(
        &self,
        config: &Config,
        what: &str,
        blocking: &BlockingRef,
    ) -> Result<(Client, Driver), SinkError> {
        let mode = self.mode(config);
        let mut config = config.clone();
        config.ssl_mode(mode.of_driver());
        if mode == Mode::Disable {
            return plain(&config, what).await;
        }
        let root_file = self.root_file.clone();
        let verifier = blocking::run(blocking, move || Verifier::new(mode, root_file)).await;
        let verifier = verifier
            .map_err(|panicked| SinkError::unavailable(what, panicked))?
            .map_err(|cause| SinkError::refused(what, cause))?;
        let tls = client_config(verifier).map_err(|error| SinkError::refused(what, error))?;
        match config.connect(MakeRustlsConnect::new(tls)).await {
            Ok((client, connection)) => Ok((client, Box::pin(connection))),
            Err(error) if mode == Mode::Prefer && is_about_tls(&error) => {
                config.ssl_mode(SslMode::Disable);
                plain(&config, what).await
            }
            Err(error) => Err(explain(mode, what, &error)),
        }
    }
}

async fn plain(config: &Config, what: &str) -> Result<(Client, Driver), SinkError> {
    match config.connect(NoTls).await {
        Ok((client, connection)) => Ok((client, Box::pin(connection))),
        Err(error) => Err(explain(Mode::Disable, what, &error)),
    }
}

/// Where the parameters of a url begin. A `?` in front of the host belongs to the password, as it does for the driver.
fn query_start(url: &str) -> Option<usize> {
    let authority = url.find("://")? + 3;
    let host = url[authority..]
        .find('@')
        .map_or(authority, |at| authority + at + 1);
    url[host..].find('?').map(|mark| host + mark + 1)
}

/// A value without its `%XX`; `+` stands for itself.
fn decoded(value: &str) -> String {
    let value = value.replace('+', "%2B");
    let mut parts = form_urlencoded::parse(value.as_bytes());
    parts
        .next()
        .map(|(text, _)| text.into_owned())
        .unwrap_or_default()
}

fn client_config(verifier: Verifier) -> Result<ClientConfig, rustls::Error> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(config)
}

/// Whether another try without TLS may work: the handshake failed, or the server's rules let no encrypted session in.
fn is_about_tls(error: &Error) -> bool {
    is_handshake(error) || error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}

/// The driver keeps its kinds to itself; this is what it says of all that goes wrong before the login.
fn is_handshake(error: &Error) -> bool {
    error
        .to_string()
        .starts_with("error performing TLS handshake")
}

/// Why no connection came about, with the `sslmode` to write where that is the cause.
fn explain(mode: Mode, what: &str, error: &Error) -> SinkError {
    let wants_tls = error.as_db_error().is_some_and(|answer| {
        let message = answer.message();
        *answer.code() == SqlState::INVALID_AUTHORIZATION_SPECIFICATION
            && (message.contains("no encryption") || message.contains("SSL off"))
    });
    if wants_tls {
        let cause = format!(
            "{}: the server wants TLS: write sslmode=require in the url",
            chain(error)
        );
        return SinkError::refused(what, cause);
    }
    if !is_handshake(error) {
        return super::error::classify(what, error);
    }
    let cause = chain(error);
    if cause.contains("server does not support TLS") {
        let cause = format!(
            "sslmode={}, but the server offers no TLS: set ssl = on in the server, or write \
             sslmode=prefer or sslmode=disable on a trusted network",
            mode.name()
        );
        return SinkError::refused(what, cause);
    }
    match rustls_error(error) {
        Some(rustls::Error::InvalidCertificate(refused)) => {
            SinkError::refused(what, refusal(mode, refused))
        }
        Some(rustls::Error::PeerIncompatible(_) | rustls::Error::PeerMisbehaved(_)) => {
            SinkError::refused(what, format!("sslmode={}: {cause}", mode.name()))
        }
        _ => SinkError::unavailable(what, format!("sslmode={}: {cause}", mode.name())),
    }
}

fn refusal(mode: Mode, refused: &CertificateError) -> String {
    let advice = match refused {
        CertificateError::UnknownIssuer => {
            "name the file of the authority that signed it with sslrootcert=FILE, or write \
             sslmode=require to encrypt without checking"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "connect by a name that it holds, or write sslmode=verify-ca to check its authority only"
        }
        _ => "renew it, or write sslmode=require to encrypt without checking",
    };
    let name = mode.name();
    format!("sslmode={name}, and the server's certificate is refused: {refused}: {advice}")
}

/// What rustls said, which stands inside an I/O error.
fn rustls_error(error: &Error) -> Option<&rustls::Error> {
    let cause = std::error::Error::source(error)?;
    if let Some(found) = cause.downcast_ref() {
        return Some(found);
    }
    let inner = cause.downcast_ref::<std::io::Error>()?.get_ref()?;
    inner.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(url: &str) -> (String, Option<Mode>, Option<String>) {
        let (rest, tls) = Tls::split(url).expect(url);
        (rest, tls.mode, tls.root_file)
    }

    #[test]
    fn what_is_about_tls_is_taken_out_of_the_url() {
        let full =
            "postgres://me@db/shop?sslmode=verify-full&options=-c%20x&sslrootcert=/etc/a+b%20c.pem";
        let expected = (
            "postgres://me@db/shop?options=-c%20x".to_owned(),
            Some(Mode::VerifyFull),
            Some("/etc/a+b c.pem".to_owned()),
        );
        assert_eq!(split(full), expected);
        let (rest, mode, _) = split("postgres://me:a?sslmode=b@db/shop?sslmode=disable");
        assert_eq!(rest, "postgres://me:a?sslmode=b@db/shop");
        assert_eq!(mode, Some(Mode::Disable));
        let plain = "postgres://me@db/shop";
        assert_eq!(split(plain), (plain.to_owned(), None, None));
        let system = "postgres://db/x?sslmode=verify-full&sslrootcert=system";
        assert_eq!(split(system).2, None);
    }

    #[test]
    fn an_authority_named_beside_require_is_asked() {
        let url = "postgres://db/x?sslrootcert=ca.pem&sslmode=require";
        assert_eq!(split(url).1, Some(Mode::VerifyCa));
    }

    #[test]
    fn an_unknown_mode_and_what_has_no_effect_are_refused_by_name() {
        let refused = Tls::split("postgres://me:hunter2@db/x?sslmode=verify");
        let text = refused.expect_err("no such mode");
        assert_eq!(
            text,
            "sslmode is one of disable, prefer, require, verify-ca, verify-full"
        );
        let refused = Tls::split("postgres://me:hunter2@db/x?sslkey=me.key");
        assert_eq!(
            refused.expect_err("not supported"),
            "sslkey is not supported: leave it out"
        );
    }

    #[test]
    fn without_a_word_of_the_url_tls_is_preferred_and_never_on_a_socket_of_the_machine() {
        let mode = |url: &str| {
            let (rest, tls) = Tls::split(url).expect(url);
            tls.mode(&rest.parse().expect("a url"))
        };
        assert_eq!(mode("postgres://me@db/x"), Mode::Prefer);
        assert_eq!(mode("host=db sslmode=require"), Mode::Require);
        let socket = "postgres://me@%2Frun%2Fpostgresql/x?sslmode=require";
        assert_eq!(mode(socket), Mode::Disable);
    }

    #[test]
    fn a_refused_certificate_says_what_to_write() {
        let unknown = refusal(Mode::VerifyFull, &CertificateError::UnknownIssuer);
        assert!(unknown.contains("sslmode=verify-full"), "{unknown}");
        assert!(unknown.contains("sslrootcert=FILE"), "{unknown}");
        let other = refusal(Mode::VerifyFull, &CertificateError::NotValidForName);
        assert!(other.contains("sslmode=verify-ca"), "{other}");
    }
}
