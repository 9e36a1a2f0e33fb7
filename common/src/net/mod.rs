//! The network as something handed in: dial and listen, under tonic and Flight.
//!
//! Called by whoever serves or dials gRPC: the master's services, the worker's link and Flight
//! server, clients. Two kinds: [`TcpNet`], and [`MemoryNet`] for several roles in one process;
//! [`tls::TlsNet`] encrypts either.
//! Failure: a dial that cannot reach its address is an `io::Error` with the address in its text.

pub mod tls;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;
use tonic::transport::server::Connected;
use tonic::{Request, Status};

/// A byte stream in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// One connection, dialled or accepted; what tonic serves.
pub struct Connection {
    stream: Box<dyn Duplex>,
    peer: Peer,
}

/// Where a connection comes from, as far as the network knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The other end's host, without a port; `None` inside one process.
    pub host: Option<String>,
    /// What it has shown, where the network asks for that and has verified it.
    pub certificate: Option<tls::Certificate>,
}

/// A listener and the address at which others reach it.
pub struct Listener {
    /// `host:port`, with the port that was really taken.
    pub address: String,
    /// Connections as they come; ends when the network goes.
    pub incoming: BoxStream<'static, io::Result<Connection>>,
}

/// Dials and listens.
#[async_trait]
pub trait Net: Send + Sync {
    /// Opens a connection to `address` (`host:port`).
    async fn connect(&self, address: &str) -> io::Result<Connection>;
    /// Listens at `address`; port 0 takes a free one.
    async fn listen(&self, address: &str) -> io::Result<Listener>;
    /// The same for browsers and scrapers, which speak HTTP/1.1 there.
    async fn listen_for_pages(&self, address: &str) -> io::Result<Listener> {
        self.listen(address).await
    }
    /// The host under which `peer` sees this one; `None` where that cannot be told.
    async fn local_host(&self, peer: &str) -> Option<String> {
        let _ = peer;
        None
    }
    /// Whether nobody between the two can read what is sent.
    fn is_encrypted(&self) -> bool {
        false
    }
    /// The token that goes with every call over this network; only where nobody else can read it.
    fn bearer(&self) -> Option<&str> {
        None
    }
}

/// A shared network.
pub type NetRef = Arc<dyn Net>;

/// How long a dial may take before the address counts as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Both sides ping an open connection this often; a half-open one is found after twice this.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// A person's client may be starved for as long on a busy machine: its connection is not given up before. Workers and masters miss each
/// other sooner.
pub const CLIENT_PATIENCE: Duration = Duration::from_secs(5);

/// What calls are made on.
pub type Channel = InterceptedService<tonic::transport::Channel, Bearer>;

/// Shows the network's token with every call.
#[derive(Clone, Debug)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    fn of(net: &NetRef) -> Self {
        let value = net.bearer().map(|token| format!("Bearer {token}"));
        // What no header can hold was never given out as a token.
        let value = value.and_then(|value| MetadataValue::try_from(value).ok());
        Self(value.map(|mut value| {
            value.set_sensitive(true);
            value
        }))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            let metadata = request.metadata_mut();
            metadata.insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// A gRPC channel to `address` over `net`; it connects at the first call and again after a loss.
pub fn channel(net: &NetRef, address: &str) -> Result<Channel, tonic::transport::Error> {
    channel_with(net, address, KEEPALIVE_INTERVAL)
}

/// The same for clients of people, which find a half-open connection later.
pub fn patient_channel(net: &NetRef, address: &str) -> Result<Channel, tonic::transport::Error> {
    channel_with(net, address, CLIENT_PATIENCE)
}

fn channel_with(
    net: &NetRef,
    address: &str,
    patience: Duration,
) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(patience)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    let bearer = Bearer::of(net);
    let net = net.clone();
    let address = address.to_owned();
    let connector = tower::service_fn(move |_| {
        let net = net.clone();
        let address = address.clone();
        async move { net.connect(&address).await.map(TokioIo::new) }.boxed()
    });
    let channel = endpoint.connect_with_connector_lazy(connector);
    Ok(InterceptedService::new(channel, bearer))
}

/// The operating system's TCP.
#[derive(Debug, Default)]
pub struct TcpNet;

#[async_trait]
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that opens sockets"
)]
impl Net for TcpNet {
    async fn connect(&self, address: &str) -> io::Result<Connection> {
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| {
                io::Error::new(error.kind(), format!("connect to {address}: {error}"))
            })?;
        accept(stream)
    }

    /// The address of the interface that leads there: of a datagram socket, which sends nothing by being connected.
    async fn local_host(&self, peer: &str) -> Option<String> {
        let peer = tokio::net::lookup_host(peer).await.ok()?.next()?;
        let any_address: IpAddr = match peer {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any_address, 0)).await.ok()?;
        socket.connect(peer).await.ok()?;
        Some(socket.local_addr().ok()?.ip().to_string())
    }

    async fn listen(&self, address: &str) -> io::Result<Listener> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            io::Error::new(error.kind(), format!("listen at {address}: {error}"))
        })?;
        let taken = listener.local_addr()?.to_string();
        let incoming = futures::stream::unfold(listener, |listener| async {
            let accepted = listener
                .accept()
                .await
                .and_then(|(stream, _)| accept(stream));
            Some((accepted, listener))
        });
        Ok(Listener {
            address: taken,
            incoming: incoming.boxed(),
        })
    }
}

fn accept(stream: TcpStream) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let host = stream
        .peer_addr()
        .ok()
        .map(|address| address.ip().to_string());
    let peer = Peer {
        host,
        certificate: None,
    };
    Ok(Connection::new(stream, peer))
}

/// Connections that never leave the process: for `run` and for tests.
#[derive(Default)]
pub struct MemoryNet {
    listeners: Mutex<Listeners>,
}

#[derive(Default)]
struct Listeners {
    by_address: BTreeMap<String, mpsc::Sender<Connection>>,
    opened_count: u16,
}

/// Bytes in flight on one in-memory connection.
const MEMORY_CONNECTION_BYTES: usize = 1 << 20;
/// Connections waiting to be accepted by one listener.
const MEMORY_BACKLOG: usize = 64;

#[async_trait]
impl Net for MemoryNet {
    /// Nobody stands between two ends in one process.
    fn is_encrypted(&self) -> bool {
        true
    }

    async fn connect(&self, address: &str) -> io::Result<Connection> {
        let refused = || {
            io::Error::new(
                io::ErrorKind::ConnectionRefused,
                format!("nobody listens at {address}"),
            )
        };
        let listener = {
            let listeners = self
                .listeners
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            listeners
                .by_address
                .get(address)
                .cloned()
                .ok_or_else(refused)?
        };
        let (near, far) = tokio::io::duplex(MEMORY_CONNECTION_BYTES);
        let peer = Peer {
            host: None,
            certificate: None,
        };
        let wrap = |stream| Connection::new(stream, peer.clone());
        listener.send(wrap(far)).await.map_err(|_| refused())?;
        Ok(wrap(near))
    }

    async fn listen(&self, address: &str) -> io::Result<Listener> {
        let (sender, receiver) = mpsc::channel(MEMORY_BACKLOG);
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        listeners.opened_count += 1;
        let taken = match address.strip_suffix(":0") {
            Some(host) => format!("{host}:{}", listeners.opened_count),
            None => address.to_owned(),
        };
        listeners.by_address.insert(taken.clone(), sender);
        let incoming = tokio_stream::wrappers::ReceiverStream::new(receiver).map(Ok);
        Ok(Listener {
            address: taken,
            incoming: incoming.boxed(),
        })
    }
}

impl Connection {
    /// A connection over any byte stream: for networks beside those of this module.
    pub fn new(stream: impl Duplex + 'static, peer: Peer) -> Self {
        Self {
            stream: Box::new(stream),
            peer,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_knows_at_which_of_its_addresses_a_peer_sees_it() {
        let seen = TcpNet.local_host("127.0.0.1:9").await;
        assert_eq!(seen.as_deref(), Some("127.0.0.1"));
        assert_eq!(MemoryNet::default().local_host("one:1").await, None);
    }
}
