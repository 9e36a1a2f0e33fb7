//! What a simulated process is handed in place of the machine: network, clock, blocking work.
//!
//! Given to masters and workers by `hosts.rs`. The network is turmoil's, under the real tonic stack; time is the simulation's,
//! with a wall clock that may jump a host at a time; blocking work runs at once, in no time. Failure: as on real machines, an
//! address without a listener refuses and a dead host is silent; a thread cannot be had and is a panic.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use millstream_common::blocking::{Blocking, Panicked};
use millstream_common::net::{Connection, Listener, Net, Peer};
use millstream_common::time::Clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use crate::entropy;
use crate::frames::{Speaker, Tap};
use crate::outside::Outside;
use crate::scenario::WORKERS;
use crate::trace::{self, event};

/// Masters listen there.
const MASTER_PORT: &str = ":7070";

/// turmoil's network as one host sees it.
pub(crate) struct SimulatedNet {
    pub(crate) host: String,
    pub(crate) outside: Arc<Outside>,
}

#[async_trait]
impl Net for SimulatedNet {
    async fn connect(&self, address: &str) -> io::Result<Connection> {
        event!("{} dials {address}", self.host);
        let stream = TcpStream::connect(address).await?;
        Ok(self.wrap(stream, address, Speaker::Worker, address))
    }

    async fn listen(&self, address: &str) -> io::Result<Listener> {
        let (_, port) = address
            .rsplit_once(':')
            .ok_or(io::ErrorKind::InvalidInput)?;
        let listener = TcpListener::bind(format!("0.0.0.0:{port}")).await?;
        let (host, outside) = (self.host.clone(), self.outside.clone());
        let own = format!("{host}:{port}");
        let incoming = futures::stream::unfold(listener, move |listener| {
            let net = Self {
                host: host.clone(),
                outside: outside.clone(),
            };
            let own = own.clone();
            async move {
                let accepted = listener.accept().await;
                let accepted = accepted.map(|(stream, peer)| {
                    let name = turmoil::reverse_lookup(peer.ip()).unwrap_or_default();
                    let peer = format!("{name}:{}", peer.port());
                    net.wrap(stream, &peer, Speaker::Master, &own)
                });
                Some((accepted, listener))
            }
        });
        Ok(Listener {
            address: format!("{}:{port}", self.host),
            incoming: incoming.boxed(),
        })
    }
}

impl SimulatedNet {
    /// `speaker` is who speaks on our side, if it is a worker's link at the `service`.
    fn wrap(&self, stream: TcpStream, peer: &str, speaker: Speaker, service: &str) -> Connection {
        let host = peer.split(':').next().map(str::to_owned);
        let worker = match speaker {
            Speaker::Worker => Some(self.host.as_str()),
            Speaker::Master => host.as_deref(),
        };
        let is_worker = worker.is_some_and(|worker| WORKERS.contains(&worker));
        let is_link = is_worker && service.ends_with(MASTER_PORT);
        let tapped = host.as_deref().filter(|_| is_link);
        let traced = TracedStream {
            stream,
            way: format!("{} > {peer}", self.host),
            tap: tapped.and_then(|peer| Tap::new(&self.outside, speaker, &self.host, peer)),
        };
        let peer = Peer {
            host,
            certificate: None,
        };
        Connection::new(traced, peer)
    }
}

/// A connection whose writes are in the trace.
struct TracedStream {
    stream: TcpStream,
    way: String,
    /// Where the step matrix waits for a frame.
    tap: Option<Tap>,
}

impl AsyncRead for TracedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for TracedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(tap) = &mut self.tap
            && tap.holds_back(bytes)
        {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = &written {
            if let Some(tap) = &mut self.tap {
                tap.passed(&bytes[..*count]);
            }
            let digest = trace::digest(&bytes[..*count]);
            event!("{} {count} bytes {digest:08x}", self.way);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Virtual time; the wall clock of a host may be set wrong.
#[derive(Debug, Default)]
pub(crate) struct SimulatedClock {
    /// Microseconds by which the wall clock is ahead.
    pub(crate) ahead_us: Arc<AtomicI64>,
}

impl Clock for SimulatedClock {
    fn monotonic(&self) -> Duration {
        trace::now()
    }

    fn unix_micros(&self) -> i64 {
        let now = (entropy::EPOCH + trace::now()).as_micros() as i64;
        now + self.ahead_us.load(Ordering::Relaxed)
    }
}

/// Blocking work, done where it is asked for.
pub(crate) struct Inline;

#[async_trait]
impl Blocking for Inline {
    async fn run_boxed(
        &self,
        work: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>,
    ) -> Result<Box<dyn Any + Send>, Panicked> {
        Ok(work())
    }

    fn start_thread(&self, name: String, _: Box<dyn FnOnce() + Send>) {
        panic!("thread {name} cannot run in a simulation");
    }
}
