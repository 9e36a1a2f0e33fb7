//! A real Postgres for the tests of this folder: the one at `POSTGRES_URL`, or a private one.
//!
//! The private one is started from the machine's own binaries into a temporary folder, listens on a free
//! port of loopback, and ends with the test process, however that ends: a shell that waits for the end of
//! its input watches over it. Each test makes its own schema. Failure: a panic that says what to install.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

static SERVER: OnceCell<String> = OnceCell::const_new();
static SCHEMAS: AtomicU64 = AtomicU64::new(0);

/// A schema of its own in a real database.
pub(crate) struct Database {
    /// Connects into the schema.
    pub(crate) url: String,
    /// A connection of the test's own.
    pub(crate) client: Client,
}

impl Database {
    /// Makes a schema that nobody else uses.
    pub(crate) async fn new() -> Self {
        let server = SERVER.get_or_init(start).await;
        let count = SCHEMAS.fetch_add(1, Ordering::Relaxed);
        let schema = format!("sinks_{}_{count}", std::process::id());
        let admin = connect(server).await;
        let statement = format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}");
        admin
            .batch_execute(&statement)
            .await
            .expect("create schema");
        let separator = if server.contains('?') { '&' } else { '?' };
        let url = format!("{server}{separator}options=-c%20search_path%3D{schema}");
        let client = connect(&url).await;
        Self { url, client }
    }

    /// Runs statements.
    pub(crate) async fn run(&self, statements: &str) {
        self.client
            .batch_execute(statements)
            .await
            .expect(statements);
    }

    /// The only value of a query, as text.
    pub(crate) async fn text(&self, query: &str) -> String {
        let statement = format!("SELECT coalesce(({query})::text, 'NULL')");
        self.client
            .query_one(&statement, &[])
            .await
            .expect(query)
            .get(0)
    }
}

/// Connects; the connection ends with the runtime of the test.
#[allow(
    clippy::disallowed_methods,
    reason = "the connection ends with the runtime of the test"
)]
pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connect");
    tokio::spawn(connection);
    client
}

async fn start() -> String {
    if let Ok(url) = std::env::var("POSTGRES_URL") {
        return url;
    }
    let binaries = binaries().expect(
        "these tests need Postgres: set POSTGRES_URL, or install it (apt-get install postgresql)",
    );
    let server = start_private(&binaries, "plain", "", "").await;
    server.url
}

/// A private server that offers TLS.
pub(crate) struct TlsServer {
    /// `postgres://user@127.0.0.1:port/database`.
    pub(crate) url: String,
    /// The authority that signed its certificate, which is for `localhost`.
    pub(crate) authority: PathBuf,
    /// The certificate itself.
    pub(crate) certificate: PathBuf,
}

/// Starts a server with TLS; `None` on a machine without Postgres's binaries or the `openssl` command.
pub(crate) async fn start_with_tls() -> Option<TlsServer> {
    let openssl = Command::new("openssl").arg("version").output().is_ok();
    let binaries = binaries().filter(|_| openssl)?;
    let certificates = "(cd {folder}; \
         {as_user} openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority \
            -keyout authority.key -out authority.crt; \
         {as_user} openssl req -newkey rsa:2048 -nodes -subj /CN=localhost \
            -keyout server.key -out server.csr; \
         printf subjectAltName=DNS:localhost > names; \
         {as_user} openssl x509 -req -in server.csr -days 2 -CA authority.crt -CAkey authority.key \
            -CAcreateserial -extfile names -out server.crt) >{folder}/openssl.log 2>&1\n";
    let options =
        "-c ssl=on -c ssl_cert_file={folder}/server.crt -c ssl_key_file={folder}/server.key";
    let server = start_private(&binaries, "tls", certificates, options).await;
    Some(TlsServer {
        authority: server.folder.join("authority.crt"),
        certificate: server.folder.join("server.crt"),
        url: server.url,
    })
}

struct PrivateServer {
    url: String,
    folder: PathBuf,
}

/// Starts a server of `binaries` in a folder of its own; `{folder}` and `{as_user}` stand in `prepare` and `options`.
async fn start_private(binaries: &Path, name: &str, prepare: &str, options: &str) -> PrivateServer {
    let port = free_port();
    let process = std::process::id();
    let folder = std::env::temp_dir().join(format!("millstream-postgres-{name}-{process}"));
    let script = format!(
        "set -e\n\
         rm -rf {{folder}}; mkdir -p {{folder}}; chmod 777 {{folder}}\n\
         {prepare}\
         {{as_user}} {bin}/initdb -D {{folder}}/data -U millstream -A trust --no-sync -E UTF8 >{{folder}}/log 2>&1\n\
         {{as_user}} {bin}/postgres -D {{folder}}/data -p {port} -h 127.0.0.1 -k {{folder}} \
            -c fsync=off -c max_connections=50 {options} >>{{folder}}/log 2>&1 </dev/null &\n\
         cat >/dev/null\n\
         {{as_user}} {bin}/pg_ctl -D {{folder}}/data stop -m immediate >/dev/null 2>&1 || true\n\
         rm -rf {{folder}}",
        bin = binaries.display(),
    );
    let script = script
        .replace("{folder}", &folder.display().to_string())
        .replace("{as_user}", as_user());
    let watcher = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .spawn()
        .expect("start a shell");
    // Its input stays open as long as this process lives.
    std::mem::forget(watcher);
    let url = format!("postgres://millstream@127.0.0.1:{port}/postgres");
    wait_until_ready(&url, &folder.join("log")).await;
    PrivateServer { url, folder }
}

/// The newest server's programs, which Debian keeps off the PATH.
fn binaries() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut found: Vec<PathBuf> = versions
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("initdb").is_file())
        .collect();
    found.sort();
    found.pop()
}

/// Postgres does not run as root.
fn as_user() -> &'static str {
    let is_root = Command::new("id").arg("-u").output();
    match is_root {
        Ok(output) if output.stdout.starts_with(b"0\n") => "runuser -u postgres --",
        _ => "",
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "asks the machine for a port that a real server then takes"
)]
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

async fn wait_until_ready(url: &str, log: &Path) {
    for _ in 0..600 {
        if let Ok((client, connection)) = tokio_postgres::connect(url, NoTls).await {
            drop((client, connection));
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let text = std::fs::read_to_string(log).unwrap_or_default();
    panic!("the private Postgres did not start within a minute:\n{text}");
}
