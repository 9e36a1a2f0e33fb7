//! A small HTTP server over any network: liveness, readiness and metrics of a process, and whatever else it wants to show.
//!
//! Started by masters and workers with a listener of the network they were given; the simulation starts none. Owns its connections:
//! at most [`CONNECTIONS_MAX`], each of which ends with [`serve`]. Everything that is served is a route of one [`Router`], so pages
//! are routes beside these, who may see them is a layer around it (`guard.rs`), and encryption is a listener that encrypts. Every
//! request carries the [`Peer`](crate::net::Peer) that it comes from.
//! Failure: a connection that breaks or dawdles is dropped alone.

mod ask;
mod guard;
mod together;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Router};
use futures::StreamExt;
use http::{StatusCode, header};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::task::JoinSet;
use tonic::transport::server::Connected;
use tracing::debug;

pub use self::ask::ask;
pub use self::guard::{Asking, Guard, GuardRef, Refused, guarded};
pub use self::together::together;
use crate::metrics::{CONTENT_TYPE, Exposition};
use crate::net::{Connection, Listener};

/// Connections at once; who comes after them waits in the listener's queue.
pub const CONNECTIONS_MAX: usize = 64;
/// How long the head of a request may take, and a connection may idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection lasts at most: one that asks and never reads must not keep its place. Clients connect anew by themselves.
const CONVERSATION_TIME_MAX: Duration = Duration::from_secs(60);
/// Before the next connection is taken when one could not be: no file handle is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a process says of itself.
#[async_trait]
pub trait Probes: Send + Sync + 'static {
    /// Whether it can do its work now, and in words why, or why not.
    fn ready(&self) -> Result<String, String>;
    /// Its figures now.
    async fn metrics(&self) -> Exposition;
}

/// `/healthz` (it answers), `/readyz` (it can do its work) and `/metrics`.
pub fn router(probes: Arc<dyn Probes>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(probes)
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(probes): State<Arc<dyn Probes>>) -> (StatusCode, String) {
    match probes.ready() {
        Ok(words) => (StatusCode::OK, format!("{words}\n")),
        Err(words) => (StatusCode::SERVICE_UNAVAILABLE, format!("{words}\n")),
    }
}

async fn metrics(State(probes): State<Arc<dyn Probes>>) -> impl IntoResponse {
    let text = probes.metrics().await.encode();
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text)
}

/// Serves until it is dropped, or the network goes.
pub async fn serve(listener: Listener, router: Router) {
    let mut incoming = listener.incoming;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = incoming.next(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Some(Ok(connection)) => {
                    connections.spawn(converse(connection, router.clone()));
                }
                Some(Err(error)) => {
                    debug!(%error, "accept an http connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                None => return,
            },
        }
    }
}

async fn converse(connection: Connection, router: Router) {
    let router = router.layer(Extension(connection.connect_info()));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(connection), TowerToHyperService::new(router));
    let served = tokio::time::timeout(CONVERSATION_TIME_MAX, served).await;
    if let Ok(Err(error)) = served {
        debug!(%error, "serve an http connection");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::metrics::catalogue;
    use crate::net::{MemoryNet, Net};

    struct Unready;

    #[async_trait]
    impl Probes for Unready {
        fn ready(&self) -> Result<String, String> {
            Err("no master".to_owned())
        }

        async fn metrics(&self) -> Exposition {
            let mut exposition = Exposition::default();
            exposition.set(&catalogue::WORKER_ATTACHED, &[], 0.0);
            exposition
        }
    }

    async fn get(net: &MemoryNet, path: &str) -> String {
        get_with(net, path, "").await
    }

    async fn get_with(net: &MemoryNet, path: &str, headers: &str) -> String {
        let answer = ask(net, "m:1", &format!("GET {path}"), headers).await;
        answer.expect("an answer")
    }

    #[tokio::test]
    async fn a_process_that_lives_but_cannot_work_is_healthy_and_not_ready() {
        let net = MemoryNet::default();
        let listener = net.listen("m:1").await.expect("listen");
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, router(Arc::new(Unready))));
        assert!(get(&net, "/healthz").await.starts_with("HTTP/1.1 200"));
        let unready = get(&net, "/readyz").await;
        assert!(unready.starts_with("HTTP/1.1 503"), "{unready}");
        assert!(unready.ends_with("no master\n"), "{unready}");
        let metrics = get(&net, "/metrics").await;
        assert!(metrics.contains("openmetrics-text"), "{metrics}");
        assert!(metrics.ends_with("# EOF\n"), "{metrics}");
        assert!(get(&net, "/other").await.starts_with("HTTP/1.1 404"));
    }

    /// Knows one token, which may see nothing but metrics.
    struct OneToken;

    impl Guard for OneToken {
        fn admit(&self, asking: &Asking<'_>) -> Result<(), Refused> {
            assert!(asking.peer.is_some(), "it is told who asks");
            match (asking.path, asking.token) {
                ("/healthz", _) | ("/metrics", Some("t")) => Ok(()),
                (_, Some("t")) => Err(Refused::Role("only metrics".to_owned())),
                _ => Err(Refused::Token("no token".to_owned())),
            }
        }
    }

    #[tokio::test]
    async fn who_is_refused_learns_why_and_nothing_else() {
        let net = MemoryNet::default();
        let listener = net.listen("m:1").await.expect("listen");
        let mut tasks = JoinSet::new();
        let router = guarded(router(Arc::new(Unready)), Arc::new(OneToken));
        tasks.spawn(serve(listener, router));
        assert!(get(&net, "/healthz").await.starts_with("HTTP/1.1 200"));
        let shown = "authorization: Bearer t\r\n";
        for (path, headers, status) in [
            ("/metrics", "", "401"),
            ("/nowhere", "", "401"),
            ("/metrics", shown, "200"),
            ("/readyz", shown, "403"),
        ] {
            let answer = get_with(&net, path, headers).await;
            let expected = format!("HTTP/1.1 {status}");
            assert!(answer.starts_with(&expected), "{path}: {answer}");
            let is_asked = answer.contains("www-authenticate: Basic realm=");
            assert_eq!(is_asked, status == "401", "{answer}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_say_nothing_do_not_keep_others_out_for_long() {
        let net = MemoryNet::default();
        let listener = net.listen("m:1").await.expect("listen");
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, router(Arc::new(Unready))));
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(net.connect("m:1").await.expect("connect"));
        }
        assert!(get(&net, "/healthz").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_ask_and_never_read_do_not_keep_others_out_for_ever() {
        let net = MemoryNet::default();
        let listener = net.listen("m:1").await.expect("listen");
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, router(Arc::new(Unready))));
        for _ in 0..CONNECTIONS_MAX {
            let mut deaf = net.connect("m:1").await.expect("connect");
            tasks.spawn(async move {
                let request = "GET /healthz HTTP/1.1\r\nhost: m\r\n\r\n";
                while deaf.write_all(request.as_bytes()).await.is_ok() {}
            });
        }
        assert!(get(&net, "/healthz").await.starts_with("HTTP/1.1 200"));
    }
}
