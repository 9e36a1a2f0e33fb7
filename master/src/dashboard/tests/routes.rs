//! The routes over an in-memory network: every page and what it loads, its headers, and what is refused.

use std::sync::Arc;

use millstream_common::http;
use millstream_common::net::{MemoryNet, Net};
use millstream_common::time::SystemClock;
use tokio::task::JoinSet;

use super::super::router;
use super::scene::Shown;

/// A server of the pages, until it is dropped.
struct Served {
    net: MemoryNet,
    _server: JoinSet<()>,
}

async fn serve(shown: Shown) -> Served {
    let net = MemoryNet::default();
    let listener = net.listen("m:1").await.expect("listen");
    let mut server = JoinSet::new();
    let pages = router(Arc::new(shown), Arc::new(SystemClock::new()));
    server.spawn(http::serve(listener, pages));
    Served {
        net,
        _server: server,
    }
}

impl Served {
    async fn ask(&self, method: &str, path: &str) -> String {
        let request = format!("{method} {path}");
        let answer = http::ask(&self.net, "m:1", &request, "").await;
        answer.expect("an answer")
    }
}

#[tokio::test]
async fn every_page_is_served_with_a_policy_that_allows_only_this_server() {
    let served = serve(Shown::default()).await;
    for (path, part) in [
        ("/", "<th scope=\"row\"><a href=\"/jobs/clicks\">clicks</a>"),
        ("/jobs/clicks", "Why is nothing coming out?"),
        (
            "/jobs/clicks/dead-letters?code=late&page=2",
            "Dead letters of clicks",
        ),
        ("/workers", "worker-1"),
    ] {
        let answer = served.ask("GET", path).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
        assert!(
            head.contains("content-security-policy: default-src 'none'; script-src 'self'"),
            "{head}"
        );
        assert!(!head.contains("-inline"), "{head}");
        assert!(head.contains("cache-control: no-store"), "{head}");
        assert!(head.contains("text/html; charset=utf-8"), "{head}");
        assert!(body.contains(part), "{path}: {body}");
        assert!(
            !body.contains("http://") || body.contains("www.w3.org"),
            "{path}: nothing of other hosts"
        );
    }
}

#[tokio::test]
async fn what_a_page_loads_is_served_too() {
    let served = serve(Shown::default()).await;
    for (path, kind) in [
        ("/assets/style.css", "text/css"),
        ("/assets/live.js", "text/javascript"),
        ("/assets/icon.svg", "image/svg+xml"),
    ] {
        let answer = served.ask("GET", path).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains(kind),
            "{path}: {answer}"
        );
    }
}

#[tokio::test]
async fn a_job_that_is_not_there_is_a_page_that_leads_to_the_nearest() {
    let served = serve(Shown::default()).await;
    let answer = served.ask("GET", "/jobs/click").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(answer.contains("<a href=\"/jobs/clicks\">"), "{answer}");
    let answer = served.ask("GET", "/jobs/%3Cscript%3E").await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(!answer.contains("<script>"), "{answer}");
}

#[tokio::test]
async fn a_master_that_stands_by_leads_to_the_active_one() {
    let served = serve(Shown {
        active: Some("one:7070"),
    })
    .await;
    for path in ["/", "/jobs/clicks", "/workers"] {
        let answer = served.ask("GET", path).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(
            answer.contains("<a href=\"//one:7071/\">one:7071</a>"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn nothing_can_be_changed() {
    let served = serve(Shown::default()).await;
    for path in ["/", "/jobs/clicks", "/jobs/clicks/dead-letters", "/workers"] {
        let answer = served.ask("POST", path).await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{path}: {answer}");
    }
}
