//! TLS around another network: mutual where both ends show a certificate, one-sided where only the server does.
//!
//! Made by the command line from the files a person names, used like every [`Net`] under tonic and Flight. Both ends of the cluster
//! trust one authority. A master is known by the host that is dialled; a worker by [`WORKER_NAME`] in its certificate, for workers
//! come and go at addresses that no certificate foresees; to workers a master is known by [`MASTER_NAME`]. Handshakes run beside each
//! other, so that a silent caller holds up nobody.
//! Failure: a server whose certificate does not hold is an `io::Error` that says why; a caller whose certificate does not is dropped.

mod explain;
mod files;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use self::explain::{Dialled, in_words};
use self::files::{Identity, PAGES, authorities, client_config, server_config};
pub use self::files::{TlsError, TlsFiles};
use super::{Connection, Listener, Net, NetRef, Peer};

/// The DNS name in the certificate of every worker: whoever has the key of such a certificate may join, and be sent rows.
pub const WORKER_NAME: &str = "worker.millstream.internal";

/// The DNS name in the certificate of every master beside its hosts: who has it may look at the rows of workers, and send none.
pub const MASTER_NAME: &str = "master.millstream.internal";

/// A handshake that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes under way at one listener.
const HANDSHAKES_MAX: usize = 64;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    /// Masters, known by the host that is dialled; they let in whoever comes, and ask for a certificate where one is needed.
    Masters,
    /// Workers; only they are dialled, and beside them only masters are let in.
    Workers,
}

/// A network whose every connection is encrypted.
pub struct TlsNet {
    inner: NetRef,
    other: Other,
    connector: TlsConnector,
    /// Nobody can listen without a certificate.
    acceptors: Option<Acceptors>,
    bearer: Option<String>,
}

/// For the two kinds of callers.
#[derive(Clone)]
struct Acceptors {
    calls: TlsAcceptor,
    pages: TlsAcceptor,
}

/// A certificate that an authority we trust vouches for.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate(CertificateDer<'static>);

impl Certificate {
    /// It was made out to `name`.
    pub fn bears(&self, name: &str) -> bool {
        let Ok(name) = ServerName::try_from(name) else {
            return false;
        };
        ParsedCertificate::try_from(&self.0)
            .is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Certificate({} bytes)", self.0.len())
    }
}

impl TlsNet {
    /// The way to masters, and a master's own door. `bearer` is shown with every call.
    ///
    /// # Errors
    /// Files that cannot be read or used.
    pub fn of_masters(
        inner: NetRef,
        files: TlsFiles<'_>,
        bearer: Option<String>,
    ) -> Result<Self, TlsError> {
        Self::new(inner, files, Other::Masters, bearer)
    }

    /// The way to workers, and their own door: who comes in has to show that it is a worker or a master.
    ///
    /// # Errors
    /// Files that cannot be read or used.
    pub fn of_workers(inner: NetRef, files: TlsFiles<'_>) -> Result<Self, TlsError> {
        Self::new(inner, files, Other::Workers, None)
    }

    fn new(
        inner: NetRef,
        files: TlsFiles<'_>,
        other: Other,
        bearer: Option<String>,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(authorities(files.authority)?);
        let identity = match files.identity {
            Some((certificate, key)) => Some(Identity::read(certificate, key)?),
            None => None,
        };
        let connector = client_config(&provider, roots.clone(), identity.as_ref())?;
        let acceptors = match &identity {
            Some(identity) => {
                let calls = server_config(&provider, roots, identity, other)?;
                let mut pages = calls.clone();
                pages.alpn_protocols = vec![PAGES.to_vec()];
                Some(Acceptors {
                    calls: TlsAcceptor::from(Arc::new(calls)),
                    pages: TlsAcceptor::from(Arc::new(pages)),
                })
            }
            None => None,
        };
        Ok(Self {
            inner,
            other,
            connector: TlsConnector::from(Arc::new(connector)),
            acceptors,
            bearer,
        })
    }
}

#[async_trait]
impl Net for TlsNet {
    async fn connect(&self, address: &str) -> io::Result<Connection> {
        let name = match self.other {
            Other::Masters => host(address),
            Other::Workers => WORKER_NAME,
        };
        let failed = |cause: String| {
            let text = format!("connect to {address}: {cause}");
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let server = ServerName::try_from(name.to_owned());
        let server = server.map_err(|error| failed(format!("{name:?}: {error}")))?;
        let Connection { stream, peer } = self.inner.connect(address).await?;
        let handshake = self.connector.connect(server, stream);
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| failed("it does not answer a TLS handshake".to_owned()))?
            .map_err(|error| failed(in_words(&error, name)))?;
        Ok(Connection::new(Dialled(stream), peer))
    }

    async fn listen(&self, address: &str) -> io::Result<Listener> {
        let acceptor = self.acceptors.as_ref().map(|each| each.calls.clone());
        self.listen_with(acceptor, address).await
    }

    async fn listen_for_pages(&self, address: &str) -> io::Result<Listener> {
        let acceptor = self.acceptors.as_ref().map(|each| each.pages.clone());
        self.listen_with(acceptor, address).await
    }

    async fn local_host(&self, peer: &str) -> Option<String> {
        self.inner.local_host(peer).await
    }

    fn is_encrypted(&self) -> bool {
        true
    }

    fn bearer(&self) -> Option<&str> {
        self.bearer.as_deref()
    }
}

impl TlsNet {
    async fn listen_with(
        &self,
        acceptor: Option<TlsAcceptor>,
        address: &str,
    ) -> io::Result<Listener> {
        let Some(acceptor) = acceptor else {
            let text = format!("listen at {address}: TLS needs a certificate and its key");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        let Listener { address, incoming } = self.inner.listen(address).await?;
        let callers = self.other;
        let incoming = incoming
            .map(move |accepted| shake_hands(acceptor.clone(), callers, accepted))
            .buffer_unordered(HANDSHAKES_MAX)
            .filter_map(std::future::ready);
        Ok(Listener {
            address,
            incoming: incoming.boxed(),
        })
    }
}

/// A caller who fails is dropped: nobody who listens can do anything about it.
async fn shake_hands(
    acceptor: TlsAcceptor,
    callers: Other,
    accepted: io::Result<Connection>,
) -> Option<io::Result<Connection>> {
    let Connection { stream, peer } = match accepted {
        Ok(connection) => connection,
        Err(error) => return Some(Err(error)),
    };
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
    let drop_caller = |cause: &str| {
        let host = peer.host.as_deref().unwrap_or("this process");
        // The caller may only see that it is hung up on.
        tracing::info!(host, cause, "a caller fails the TLS handshake");
        None
    };
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return drop_caller(&error.to_string()),
        Err(_) => return drop_caller("it does not answer"),
    };
    let (_, session) = stream.get_ref();
    let shown = session.peer_certificates().and_then(<[_]>::first).cloned();
    let certificate = shown.map(Certificate);
    let is_member = |shown: &Certificate| shown.bears(WORKER_NAME) || shown.bears(MASTER_NAME);
    if callers == Other::Workers && !certificate.as_ref().is_some_and(is_member) {
        return drop_caller("its certificate is neither a worker's nor a master's");
    }
    let peer = Peer {
        certificate,
        ..peer
    };
    Some(Ok(Connection::new(stream, peer)))
}

/// Without its port, and an IPv6 address without its brackets.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}
