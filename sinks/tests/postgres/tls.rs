//! TLS to a real Postgres, by what the url says.
//!
//! Goal: each `sslmode` checks as much as psql users expect, and a refusal names it. Method: a server whose certificate is
//! for `localhost` and signed by an authority of its own; the server itself says which sessions are encrypted. Where
//! the machine has no Postgres binaries or no `openssl` to make such a server, nothing is tried.

use millstream_common::plan::OnViolation;
use millstream_sinks::conformance::{self, deliverer};
use millstream_sinks::sink::{Sink, SinkError};
use tokio::sync::OnceCell;

use super::server::{self, Database, TlsServer};
use super::{refusal, sink, spec};

static SERVER: OnceCell<Option<TlsServer>> = OnceCell::const_new();

async fn server() -> Option<&'static TlsServer> {
    SERVER.get_or_init(server::start_with_tls).await.as_ref()
}

/// What the server knows of a sink's session that was opened by `url`: whether it is encrypted.
async fn encrypted(url: &str) -> Result<bool, SinkError> {
    let admin = server::connect(url.split('?').next().unwrap_or(url)).await;
    admin
        .batch_execute("CREATE TABLE IF NOT EXISTS rows (id bigint, name text)")
        .await
        .expect("create");
    let database = Database {
        url: url.to_owned(),
        client: admin,
    };
    let mut sink = sink(
        spec(&database, "rows", &[]),
        deliverer(1),
        conformance::schema(),
        OnViolation::Fail,
    );
    sink.fence().await?;
    let query = "SELECT s.ssl::text FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) \
                 WHERE a.application_name = 'millstream/conformance/out/1' LIMIT 1";
    let ssl = database.text(query).await;
    Ok(ssl == "true")
}

/// One test, so that the sessions do not mix.
#[tokio::test]
async fn each_mode_checks_as_much_as_it_says_and_a_refusal_names_it() {
    let Some(server) = server().await else {
        return;
    };
    let by_name = server.url.replace("127.0.0.1", "localhost");
    let authority = server.authority.display();
    let certificate = server.certificate.display();
    let open = async |base: &str, parameters: &str| encrypted(&format!("{base}{parameters}")).await;

    assert!(!open(&server.url, "?sslmode=disable").await.expect("plain"));
    for parameters in [
        String::new(),
        "?sslmode=prefer".to_owned(),
        "?sslmode=require".to_owned(),
        format!("?sslmode=verify-ca&sslrootcert={authority}"),
    ] {
        let found = open(&server.url, &parameters).await;
        assert!(found.expect(&parameters), "{parameters}");
    }
    for trusted in [authority, certificate] {
        let parameters = format!("?sslmode=verify-full&sslrootcert={trusted}");
        assert!(open(&by_name, &parameters).await.expect("its name"));
        let text = refusal(open(&server.url, &parameters).await);
        assert!(text.contains("sslmode=verify-full"), "{text}");
        assert!(text.contains("sslmode=verify-ca"), "the way out: {text}");
    }
    let text = refusal(open(&by_name, "?sslmode=verify-full").await);
    assert!(text.contains("sslmode=verify-full"), "{text}");
    assert!(text.contains("sslrootcert=FILE"), "{text}");
}

#[tokio::test]
async fn a_server_without_tls_is_taken_by_prefer_and_refused_by_require() {
    let database = Database::new().await;
    if database.text("SELECT current_setting('ssl')").await == "on" {
        return;
    }
    database.run("CREATE TABLE t (id bigint, name text)").await;
    let with = async |mode: &str| {
        let mut spec = spec(&database, "t", &[]);
        spec.url = format!("{}&sslmode={mode}", database.url);
        let schema = conformance::schema();
        let mut sink = sink(spec, deliverer(1), schema, OnViolation::Fail);
        sink.fence().await
    };
    with("prefer").await.expect("plain");
    for mode in ["require", "verify-full"] {
        let text = refusal(with(mode).await);
        assert!(text.contains(&format!("sslmode={mode}")), "{text}");
        assert!(text.contains("ssl = on"), "{text}");
    }
}
