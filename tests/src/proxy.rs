//! A TCP proxy that makes trouble between two processes: it delays, stands still in one direction, or cuts.
//!
//! Called by `make chaos` and the tests. Each proxy owns its listener and what it carries; all of it ends when the proxy is
//! dropped. A server that is reached only through its proxy listens at the proxy's port of another loopback address
//! ([`Proxy::behind`]), so no port has to be guessed. All proxies run on threads of their own: a test that blocks its thread, for
//! instance while a Kafka client waits for what a proxy carries, holds up none of them. Failure: a target that does not answer closes the connection, as a
//! dead process would.

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The other loopback address.
const BEHIND: &str = "127.0.0.2";
const CHUNK_BYTES: usize = 64 << 10;

/// What the proxy does to its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Carries everything at once.
    None,
    /// Each chunk waits so long.
    Delay(Duration),
    /// Nothing passes in these directions; what waits goes on when the trouble is over.
    Hold {
        /// From whoever connected.
        to_server: bool,
        /// To whoever connected.
        to_client: bool,
    },
    /// Every connection is closed, also new ones.
    Cut,
}

#[derive(Clone, Copy)]
enum Direction {
    ToServer,
    ToClient,
}

/// A listening proxy.
pub struct Proxy {
    port: u16,
    target: watch::Sender<String>,
    trouble: watch::Sender<Trouble>,
    _accepting: JoinSet<()>,
}

impl Proxy {
    /// Listens on a free port, and carries to [`Self::behind`].
    #[allow(
        clippy::disallowed_methods,
        reason = "the proxy stands outside the processes it troubles"
    )]
    pub async fn open() -> anyhow::Result<Self> {
        let carrier = carrier()?;
        let listener = carrier.spawn(TcpListener::bind("127.0.0.1:0")).await?;
        let listener = listener.context("open a proxy")?;
        let port = listener.local_addr().context("ask for its port")?.port();
        let (target, targets) = watch::channel(format!("{BEHIND}:{port}"));
        let (trouble, troubles) = watch::channel(Trouble::None);
        let mut accepting = JoinSet::new();
        accepting.spawn_on(accept(listener, targets, troubles), &carrier);
        Ok(Self {
            port,
            target,
            trouble,
            _accepting: accepting,
        })
    }

    /// `host:port` at which clients connect.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `host:port` at which the server is to listen.
    pub fn behind(&self) -> String {
        format!("{BEHIND}:{}", self.port)
    }

    /// From now on, new connections go to `target`.
    pub fn carry_to(&self, target: &str) {
        self.target.send_replace(target.to_owned());
    }

    /// From now on, for all connections.
    pub fn make(&self, trouble: Trouble) {
        self.trouble.send_replace(trouble);
    }
}

/// Where all proxies of a process run.
fn carrier() -> anyhow::Result<Handle> {
    static CARRIER: OnceLock<Runtime> = OnceLock::new();
    if let Some(carrier) = CARRIER.get() {
        return Ok(carrier.handle().clone());
    }
    let made = Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("proxy")
        .enable_all()
        .build()
        .context("start the threads of the proxies")?;
    // One that was faster keeps its own, and this one ends without having carried anything.
    if let Err(second) = CARRIER.set(made) {
        second.shutdown_background();
    }
    let carrier = CARRIER.get().context("the threads of the proxies")?;
    Ok(carrier.handle().clone())
}

async fn accept(
    listener: TcpListener,
    target: watch::Receiver<String>,
    trouble: watch::Receiver<Trouble>,
) {
    let mut carried = JoinSet::new();
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                let target = target.borrow().clone();
                carried.spawn(carry(client, target, trouble.clone()));
            }
            Some(_) = carried.join_next() => {}
        }
    }
}

/// Carries one connection until an end closes it or it is cut.
async fn carry(client: TcpStream, target: String, trouble: watch::Receiver<Trouble>) {
    let mut cut = trouble.clone();
    tokio::select! {
        _ = cut.wait_for(|trouble| *trouble == Trouble::Cut) => {}
        // Its error is known to both ends, which see the connection close.
        _ = forward(client, &target, trouble) => {}
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the proxy stands outside the processes it troubles"
)]
async fn forward(
    client: TcpStream,
    target: &str,
    trouble: watch::Receiver<Trouble>,
) -> io::Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        pump(from_client, to_server, Direction::ToServer, trouble.clone()),
        pump(from_server, to_client, Direction::ToClient, trouble),
    )?;
    Ok(())
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    direction: Direction,
    mut trouble: watch::Receiver<Trouble>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = from.read(&mut chunk).await?;
        let delay = match *trouble.borrow() {
            Trouble::Delay(delay) => delay,
            _ => Duration::ZERO,
        };
        tokio::time::sleep(delay).await;
        let passes = |trouble: &Trouble| trouble.lets(direction);
        let is_over = trouble.wait_for(passes).await.is_err();
        if is_over || count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk[..count]).await?;
    }
}

impl Trouble {
    fn lets(self, direction: Direction) -> bool {
        match (self, direction) {
            (Self::Hold { to_server, .. }, Direction::ToServer) => !to_server,
            (Self::Hold { to_client, .. }, Direction::ToClient) => !to_client,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A proxy in front of a server that sends back what it gets.
    async fn echo() -> (Proxy, JoinSet<()>) {
        let proxy = Proxy::open().await.unwrap();
        #[allow(clippy::disallowed_methods, reason = "the server behind the proxy")]
        let listener = TcpListener::bind(proxy.behind()).await.unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (mut reader, mut writer) = stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            }
        });
        (proxy, server)
    }

    async fn connect(proxy: &Proxy) -> TcpStream {
        #[allow(clippy::disallowed_methods, reason = "the client of the proxy")]
        TcpStream::connect(proxy.address()).await.unwrap()
    }

    async fn answer(stream: &mut TcpStream) -> io::Result<[u8; 4]> {
        let mut answer = [0; 4];
        let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await;
        read.expect("an answer or an error")?;
        Ok(answer)
    }

    #[tokio::test]
    #[allow(
        clippy::disallowed_methods,
        reason = "what blocks the thread is the rule that is tested"
    )]
    async fn a_thread_that_blocks_until_an_answer_comes_gets_it() {
        use std::io::{Read, Write};
        let proxy = Proxy::open().await.unwrap();
        let listener = std::net::TcpListener::bind(proxy.behind()).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = [0; 4];
            stream.read_exact(&mut heard).unwrap();
            stream.write_all(&heard).unwrap();
        });
        let mut stream = std::net::TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"one,").unwrap();
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"one,");
        server.join().unwrap();
    }

    #[tokio::test]
    async fn what_is_held_goes_on_in_order_when_the_trouble_is_over() {
        let (proxy, _server) = echo().await;
        let mut stream = connect(&proxy).await;
        stream.write_all(b"one,").await.unwrap();
        assert_eq!(&answer(&mut stream).await.unwrap(), b"one,");
        proxy.make(Trouble::Hold {
            to_server: true,
            to_client: false,
        });
        stream.write_all(b"two,").await.unwrap();
        let held = tokio::time::timeout(Duration::from_millis(50), answer(&mut stream)).await;
        assert!(held.is_err(), "it passed");
        proxy.make(Trouble::None);
        assert_eq!(&answer(&mut stream).await.unwrap(), b"two,");
    }

    #[tokio::test]
    async fn a_cut_ends_connections_and_the_next_one_after_it_works() {
        let (proxy, _server) = echo().await;
        let mut stream = connect(&proxy).await;
        stream.write_all(b"one,").await.unwrap();
        assert_eq!(&answer(&mut stream).await.unwrap(), b"one,");
        proxy.make(Trouble::Cut);
        assert!(answer(&mut stream).await.is_err(), "it lives");
        proxy.make(Trouble::None);
        let mut next = connect(&proxy).await;
        next.write_all(b"two,").await.unwrap();
        assert_eq!(&answer(&mut next).await.unwrap(), b"two,");
    }

    #[tokio::test]
    async fn whoever_knocks_during_a_cut_does_not_close_the_proxy_for_good() {
        let (proxy, _server) = echo().await;
        proxy.make(Trouble::Cut);
        for _ in 0..100 {
            let mut stream = connect(&proxy).await;
            // Some go before they are let down.
            let _ = stream.write_all(b"lost").await;
        }
        proxy.make(Trouble::None);
        let mut next = connect(&proxy).await;
        next.write_all(b"one,").await.unwrap();
        assert_eq!(&answer(&mut next).await.unwrap(), b"one,");
    }
}
