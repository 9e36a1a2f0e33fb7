//! A cluster under TLS with tokens: who is let in, who is not, and that a job runs with its rows encrypted between workers.
//!
//! Everything a person would use: certificates and tokens are made by the binary, and given to real processes by variables.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use millstream_common::net::tls::WORKER_NAME;
use millstream_tests::process::{Process, Start, run_to_end};
use millstream_tests::{scrape, wait};
use serde_json::Value;
use tempfile::TempDir;

const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

/// A key's first row is kept by one of four tasks, so most rows pass from one worker to another.
const JOB: &str = "
CREATE SOURCE numbers (n BIGINT NOT NULL, key BIGINT NOT NULL) WITH (
  connector = 'datagen', rows = 20000, seed = 7,
  \"fields.n.kind\" = 'sequence',
  \"fields.key.kind\" = 'uniform', \"fields.key.min\" = 0, \"fields.key.max\" = 999
);
CREATE VIEW firsts AS SELECT DISTINCT ON (key) key FROM numbers;
CREATE SINK keys FROM firsts WITH (connector = 'files', path = '${KEYS_FOLDER}', format = 'csv');
";

/// A folder with certificates and tokens, and the processes that use them.
struct Protected {
    folder: TempDir,
    master: Process,
    address: String,
    workers: Vec<Process>,
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

/// What makes a process show the certificate of `name`.
fn identity(folder: &Path, name: &str) -> Vec<(&'static str, String)> {
    vec![
        ("MILLSTREAM_TLS_CA", path(folder, "certificates/ca.pem")),
        (
            "MILLSTREAM_TLS_CERT",
            path(folder, &format!("certificates/{name}.pem")),
        ),
        (
            "MILLSTREAM_TLS_KEY",
            path(folder, &format!("certificates/{name}.key")),
        ),
    ]
}

async fn make_certificates(folder: &Path, name: &str) -> anyhow::Result<()> {
    let into = path(folder, name);
    let (code, _, stderr) = run_to_end(&["certificates", &into], &[]).await?;
    ensure!(code == 0, "{stderr}");
    Ok(())
}

/// Makes a token in `<name>.token`; its line for the tokens file.
async fn make_token(folder: &Path, name: &str, role: &str) -> anyhow::Result<String> {
    let out = path(folder, &format!("{name}.token"));
    let arguments = ["token", name, "--role", role, "--out", &out];
    let (code, line, stderr) = run_to_end(&arguments, &[]).await?;
    ensure!(code == 0, "{stderr}");
    Ok(line)
}

fn start(
    folder: &Path,
    name: &str,
    arguments: &[&str],
    environment: Vec<(&'static str, String)>,
) -> anyhow::Result<Process> {
    let mut arguments: Vec<String> = arguments.iter().map(|&each| each.to_owned()).collect();
    arguments.push("--until-stdin-closes".to_owned());
    Process::start(Start {
        name,
        arguments,
        environment,
        folder,
    })
}

impl Protected {
    async fn start() -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        make_certificates(folder.path(), "certificates").await?;
        let reader = make_token(folder.path(), "reader", "read").await?;
        let submitter = make_token(folder.path(), "submitter", "submit").await?;
        make_token(folder.path(), "stranger", "admin").await?;
        let tokens = path(folder.path(), "tokens");
        std::fs::write(&tokens, format!("{reader}{submitter}"))?;
        let mut environment = identity(folder.path(), "master");
        environment.push(("MILLSTREAM_TOKENS", tokens.clone()));
        // The master looks whether the folder can be there, the workers fill it.
        let keys = ("KEYS_FOLDER", path(folder.path(), "keys"));
        environment.push(keys.clone());
        let mut arguments = vec!["master", "--listen", "127.0.0.1:0"];
        arguments.extend(["--http", "127.0.0.1:0", "--storage", "storage"]);
        let mut master = start(folder.path(), "master", &arguments, environment)?;
        let line = master.first_line().await?;
        let address = line.strip_prefix("master listening at ");
        let address = address.with_context(|| format!("{line:?}"))?.to_owned();
        let mut workers = Vec::new();
        for name in ["alpha", "beta"] {
            let mut environment = identity(folder.path(), "worker");
            environment.push(keys.clone());
            // One of them knows no tokens, and asks for a certificate.
            if name == "alpha" {
                environment.push(("MILLSTREAM_TOKENS", tokens.clone()));
            }
            let arguments = [
                "worker", "--master", &address, "--name", name, "--slots", "2",
            ];
            workers.push(start(folder.path(), name, &arguments, environment)?);
        }
        Ok(Self {
            folder,
            master,
            address,
            workers,
        })
    }

    /// Runs a verb that trusts the cluster's authority and shows a token, if one is named.
    async fn verb(
        &self,
        token: Option<&str>,
        arguments: &[&str],
    ) -> anyhow::Result<(i32, String, String)> {
        let authority = path(self.folder.path(), "certificates/ca.pem");
        let token = token.map(|name| path(self.folder.path(), &format!("{name}.token")));
        let mut environment = vec![
            ("MILLSTREAM_MASTER", self.address.as_str()),
            ("MILLSTREAM_TLS_CA", &authority),
        ];
        environment.extend(token.as_deref().map(|file| ("MILLSTREAM_TOKEN_FILE", file)));
        run_to_end(arguments, &environment).await
    }

    /// A client that trusts the cluster's authority, and finds workers, by the name in their certificates, on this machine.
    fn browser(&self, shows_certificate: bool) -> anyhow::Result<reqwest::Client> {
        let read = |name: &str| std::fs::read(path(self.folder.path(), name));
        let authority = reqwest::Certificate::from_pem(&read("certificates/ca.pem")?)?;
        let mut browser = reqwest::Client::builder()
            .add_root_certificate(authority)
            .resolve(WORKER_NAME, SocketAddr::from(([127, 0, 0, 1], 0)));
        if shows_certificate {
            let mut identity = read("certificates/client.pem")?;
            identity.extend(read("certificates/client.key")?);
            browser = browser.identity(reqwest::Identity::from_pem(&identity)?);
        }
        Ok(browser.build()?)
    }

    async fn workers_join(&self, count: usize) -> anyhow::Result<()> {
        wait::until("workers join", DEADLINE, || async {
            let listed = self.verb(Some("reader"), &["workers", "--json"]).await;
            let (_, stdout, stderr) = listed.map_err(|error| error.to_string())?;
            let workers: Vec<Value> = serde_json::from_str(&stdout).map_err(|_| stderr)?;
            match workers.len() == count {
                true => Ok(()),
                false => Err(format!("there are {}", workers.len())),
            }
        })
        .await
        .with_context(|| self.said())
    }

    fn said(&self) -> String {
        let workers = self.workers.iter().map(Process::last_lines);
        format!(
            "{}\n{}",
            self.master.last_lines(),
            workers.collect::<Vec<_>>().join("\n")
        )
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_under_tls_for_those_whose_token_allows_it() -> anyhow::Result<()> {
    let cluster = Protected::start().await?;
    cluster.workers_join(2).await?;
    let file = path(cluster.folder.path(), "keys.sql");
    std::fs::write(&file, JOB)?;
    let submit = ["submit", &file, "--name", "keys", "--watch"];
    for (token, told) in [
        (None, "no token is shown"),
        (Some("stranger"), "the token is not known here"),
        (
            Some("reader"),
            "token \"reader\" may only read: this needs role submit",
        ),
    ] {
        let (code, _, stderr) = cluster.verb(token, &submit).await?;
        ensure!(
            code == 1 && stderr.contains(told),
            "{token:?}: {code} {stderr}"
        );
    }
    // The probe of a submission reads the folder's name here, the worker's sink there.
    let (code, stdout, stderr) = cluster.verb(Some("submitter"), &submit).await?;
    ensure!(code == 0, "{stdout}{stderr}{}", cluster.said());
    // A container's health check has no token.
    let (code, told, _) = cluster.verb(None, &["healthcheck"]).await?;
    ensure!(
        code == 0 && told.contains("tells who shows a token"),
        "{told}"
    );
    let (code, told, _) = cluster.verb(Some("reader"), &["healthcheck"]).await?;
    ensure!(code == 0 && told.ends_with(" serves\n"), "{told}");
    let mut rows = 0;
    for entry in walk(&cluster.folder.path().join("keys"))? {
        rows += std::fs::read_to_string(entry)?.lines().skip(1).count();
    }
    ensure!(rows == 1_000, "{rows}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_told_over_tls_to_those_who_may_look_and_health_to_everybody()
-> anyhow::Result<()> {
    let cluster = Protected::start().await?;
    cluster.workers_join(2).await?;
    let stranger = cluster.browser(false)?;
    let known = cluster.browser(true)?;
    let token = path(cluster.folder.path(), "reader.token");
    let token = std::fs::read_to_string(token)?;
    let token = token.trim();
    let [alpha, beta] = &cluster.workers[..] else {
        bail!("two workers");
    };
    for (process, name, browser, token, expected) in [
        (&cluster.master, "127.0.0.1", &stranger, None, 401),
        (&cluster.master, "127.0.0.1", &stranger, Some("x"), 401),
        (&cluster.master, "127.0.0.1", &stranger, Some(token), 200),
        (alpha, WORKER_NAME, &stranger, None, 401),
        (alpha, WORKER_NAME, &stranger, Some(token), 200),
        (beta, WORKER_NAME, &stranger, Some(token), 403),
        (beta, WORKER_NAME, &known, None, 200),
    ] {
        let said = process.said();
        let address = said.lines().find_map(|line| {
            let (_, rest) = line.split_once("http listening")?;
            rest.split_once("address=")?.1.split_whitespace().next()
        });
        let address = address.with_context(|| said.clone())?;
        let port = address.rsplit(':').next().unwrap_or_default();
        let health = browser.get(format!("https://{name}:{port}/healthz"));
        ensure!(health.send().await?.status() == 200, "health of {name}");
        // Without encryption nothing is told at all.
        ensure!(scrape::get(address, "/healthz").await.is_err(), "{name}");
        let mut asked = browser.get(format!("https://{name}:{port}/metrics"));
        if let Some(token) = token {
            asked = asked.bearer_auth(token);
        }
        let answer = asked.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status == expected, "{name} {token:?}: {status} {text}");
        let is_told = text.contains("millstream_build_info");
        ensure!(is_told == (expected == 200), "{text}");
    }
    Ok(())
}

/// The CSV files below a folder.
fn walk(folder: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(walk(&path)?);
        } else if path.extension().is_some_and(|kind| kind == "csv") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Rows for ever.
const FLOWING: &str = "
CREATE SOURCE numbers (n BIGINT NOT NULL) WITH (connector = 'datagen', rows_per_second = 200);
CREATE SINK nowhere FROM numbers WITH (connector = 'blackhole');
";

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_workers_are_looked_at_through_a_master_by_those_who_may_read() -> anyhow::Result<()>
{
    let cluster = Protected::start().await?;
    cluster.workers_join(2).await?;
    let file = path(cluster.folder.path(), "flowing.sql");
    std::fs::write(&file, FLOWING)?;
    let submit = ["submit", &file, "--name", "flowing"];
    let (code, _, stderr) = cluster.verb(Some("submitter"), &submit).await?;
    ensure!(code == 0, "{stderr}{}", cluster.said());
    let preview = ["preview", "flowing", "numbers", "--json", "--limit", "5"];
    let (code, stdout, stderr) = cluster.verb(None, &preview).await?;
    ensure!(code == 1 && stdout.is_empty(), "{stdout}{stderr}");
    let (code, stdout, stderr) = cluster.verb(Some("reader"), &preview).await?;
    ensure!(code == 0, "{stdout}{stderr}{}", cluster.said());
    ensure!(stdout.lines().count() == 5, "{stdout}{stderr}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_taken_back_holds_no_longer_though_the_master_goes_on() -> anyhow::Result<()>
{
    let cluster = Protected::start().await?;
    let list = ["jobs"];
    let (code, _, stderr) = cluster.verb(Some("reader"), &list).await?;
    ensure!(code == 0, "{stderr}");
    let tokens = cluster.folder.path().join("tokens");
    let kept: String = std::fs::read_to_string(&tokens)?
        .lines()
        .filter(|line| !line.starts_with("reader "))
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(&tokens, kept)?;
    wait::until("the token is taken back", DEADLINE, || async {
        match cluster.verb(Some("reader"), &list).await {
            Ok((1, _, stderr)) if stderr.contains("the token is not known here") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let (code, _, stderr) = cluster.verb(Some("submitter"), &list).await?;
    ensure!(code == 0, "{stderr}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_certificate_of_the_cluster_neither_joins_nor_is_believed()
-> anyhow::Result<()> {
    let cluster = Protected::start().await?;
    cluster.workers_join(2).await?;
    let folder = cluster.folder.path();
    make_certificates(folder, "others").await?;
    let mut other = identity(folder, "worker");
    for (_, file) in &mut other[1..] {
        *file = file.replace("certificates/", "others/");
    }
    // One of another authority, one that is a client's, one without TLS: each tries again, and where the handshake fails the master says why.
    let handshake = "a caller fails the TLS handshake";
    for (name, environment, told_by_worker, told_by_master) in [
        ("other", other, "", "invalid peer certificate"),
        (
            "client",
            identity(folder, "client"),
            "who joins must show a worker's certificate",
            "",
        ),
        (
            "clear",
            Vec::new(),
            "its authority with --tls-ca",
            handshake,
        ),
    ] {
        let told_before = cluster.master.said().len();
        let arguments = ["worker", "--master", &cluster.address, "--name", name];
        let intruder = start(folder, name, &arguments, environment)?;
        wait::until("it is refused", DEADLINE, || async {
            let (worker, master) = (intruder.said(), cluster.master.said());
            let is_told = worker.contains("cannot attach to the master")
                && worker.contains(told_by_worker)
                && master[told_before..].contains(told_by_master);
            match is_told {
                true => Ok(()),
                false => Err(format!("{name}: {worker}\n{master}")),
            }
        })
        .await?;
    }
    cluster.workers_join(2).await?;
    let authority = path(folder, "others/ca.pem");
    let environment = [
        ("MILLSTREAM_MASTER", cluster.address.as_str()),
        ("MILLSTREAM_TLS_CA", &authority),
    ];
    let (code, _, stderr) = run_to_end(&["jobs"], &environment).await?;
    ensure!(
        code == 1 && stderr.contains("not from an authority that --tls-ca names"),
        "{stderr}"
    );
    let (code, _, stderr) = run_to_end(&["jobs"], &environment[..1]).await?;
    ensure!(
        code == 1
            && stderr.contains(&cluster.address)
            && stderr.contains("its authority with --tls-ca"),
        "{stderr}"
    );
    Ok(())
}
