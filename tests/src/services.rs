//! Where the tests find real Kafka and Postgres.
//!
//! Most tests share the services whose addresses are in the environment (`make test` starts them and
//! gives the addresses). A test that kills a service has a box of its own, started by
//! `tests/services/services` and wiped when dropped. Failure: a missing address says what to run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, bail};
use tempfile::TempDir;

const VARIABLES: [&str; 3] = ["KAFKA_BROKERS", "POSTGRES_URL", "S3_ENDPOINT"];

/// Addresses of running services.
#[derive(Clone, Debug)]
pub struct Services {
    /// `host:port`, separated by commas.
    pub kafka: String,
    /// URL of a database in which databases may be created.
    pub postgres: String,
}

impl Services {
    /// The services that all tests share.
    pub fn shared() -> anyhow::Result<Self> {
        Ok(Self {
            kafka: address("KAFKA_BROKERS")?,
            postgres: address("POSTGRES_URL")?,
        })
    }
}

fn address(variable: &str) -> anyhow::Result<String> {
    std::env::var(variable).with_context(|| {
        format!(
            "{variable} is not set: run the tests with `make test`, which starts real Kafka and \
             Postgres, or set KAFKA_BROKERS and POSTGRES_URL to yours"
        )
    })
}

/// Services of one test alone, which it may kill.
pub struct PrivateServices {
    /// Where they answer.
    pub services: Services,
    folder: TempDir,
}

impl PrivateServices {
    /// Starts Kafka and Postgres on free ports.
    pub fn start() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("millstream-e2e-services-")
            .tempdir()
            .context("create folder of services")?;
        let unknown = String::new();
        let mut started = Self {
            services: Services {
                kafka: unknown.clone(),
                postgres: unknown,
            },
            folder,
        };
        started.call(&["--offset", "auto", "up", "kafka", "postgres"])?;
        let exports = started.call(&["env"])?;
        started.services = Services {
            kafka: exported(&exports, "KAFKA_BROKERS")?,
            postgres: exported(&exports, "POSTGRES_URL")?,
        };
        Ok(started)
    }

    /// SIGKILL, as a crash. `name` is `kafka` or `postgres`.
    pub fn kill(&self, name: &str) -> anyhow::Result<()> {
        self.call(&["kill9", name]).map(drop)
    }

    /// Starts it again on the same data and port, and waits until it is ready.
    pub fn restart(&self, name: &str) -> anyhow::Result<()> {
        self.call(&["restart", name]).map(drop)
    }

    fn call(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = command(self.folder.path(), arguments)?;
        if !output.status.success() {
            bail!(
                "tests/services/services {}: {}\n{}",
                arguments.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for PrivateServices {
    fn drop(&mut self) {
        if let Err(error) = self.call(&["down", "all", "--wipe"]) {
            eprintln!("services of a test still run: {error:#}");
        }
    }
}

fn command(folder: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    let program = project_folder().join("tests/services/services");
    let mut command = Command::new(&program);
    command.arg("--dir").arg(folder).args(arguments);
    // An address given from outside would be used instead of a service that may be killed.
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    command
        .output()
        .with_context(|| format!("run {}", program.display()))
}

fn exported(exports: &str, variable: &str) -> anyhow::Result<String> {
    let prefix = format!("export {variable}=");
    let value = exports.lines().find_map(|line| line.strip_prefix(&prefix));
    let value = value.with_context(|| format!("find {variable} in {exports:?}"))?;
    Ok(value.trim_matches('\'').to_owned())
}

/// The folder that holds `jobs/` and `tests/`.
pub fn project_folder() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let parent = crate_folder.parent();
    parent.expect("the crate is in the project").to_owned()
}
