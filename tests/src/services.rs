//! Where the tests find real Kafka, Postgres and S3.
//!
//! Most tests share the services whose addresses are in the environment (`make test` starts them and
//! gives the addresses). A test that kills a service has a box of its own, started by
//! `tests/services/services` and wiped when dropped. Failure: a missing address says what to run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, bail};
use tempfile::TempDir;

const VARIABLES: [&str; 3] = ["KAFKA_BROKERS", "POSTGRES_URL", "S3_ENDPOINT"];
/// What else a process must know of S3.
const BUCKET_VARIABLES: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_REGION",
    "AWS_ALLOW_HTTP",
];

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
            "{variable} is not set: run the tests with `make test`, which starts real Kafka, \
             Postgres and S3, or set the variables of README, Tests to yours"
        )
    })
}

/// A bucket of S3.
#[derive(Clone, Debug)]
pub struct Bucket {
    name: String,
    /// What a process needs to reach it.
    pub environment: Vec<(&'static str, String)>,
}

impl Bucket {
    /// The bucket that all tests share.
    pub fn shared() -> anyhow::Result<Self> {
        Self::of(address)
    }

    fn of(variable: impl Fn(&str) -> anyhow::Result<String>) -> anyhow::Result<Self> {
        let mut environment = vec![("AWS_ENDPOINT_URL", variable("S3_ENDPOINT")?)];
        for name in BUCKET_VARIABLES {
            environment.push((name, variable(name)?));
        }
        let name = variable("S3_BUCKET")?;
        Ok(Self { name, environment })
    }

    /// A place in the bucket that nobody else uses.
    pub fn new_url(&self, test: &str) -> String {
        format!("s3://{}/{test}-{:08x}", self.name, rand::random::<u32>())
    }
}

/// Services of one test alone, which it may kill.
pub struct PrivateServices {
    exports: String,
    folder: TempDir,
    kafka_advertised: Option<String>,
}

impl PrivateServices {
    /// Starts them on free ports. Each name is `kafka`, `postgres` or `s3`.
    pub fn start(names: &[&str]) -> anyhow::Result<Self> {
        Self::start_behind(None, names)
    }

    /// As [`Self::start`]; Kafka tells its clients to come to `kafka_advertised`, if that is some.
    pub fn start_behind(kafka_advertised: Option<&str>, names: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("millstream-e2e-services-")
            .tempdir()
            .context("create folder of services")?;
        let mut started = Self {
            exports: String::new(),
            folder,
            kafka_advertised: kafka_advertised.map(str::to_owned),
        };
        let up = ["--offset", "auto", "up"];
        started.call(&[&up, names].concat())?;
        started.exports = started.call(&["env"])?;
        Ok(started)
    }

    /// Where Kafka and Postgres answer.
    pub fn services(&self) -> anyhow::Result<Services> {
        Ok(Services {
            kafka: exported(&self.exports, "KAFKA_BROKERS")?,
            postgres: exported(&self.exports, "POSTGRES_URL")?,
        })
    }

    /// Where S3 answers.
    pub fn bucket(&self) -> anyhow::Result<Bucket> {
        Bucket::of(|variable| exported(&self.exports, variable))
    }

    /// SIGKILL, as a crash.
    pub fn kill(&self, name: &str) -> anyhow::Result<()> {
        self.call(&["kill9", name]).map(drop)
    }

    /// Starts it again on the same data and port, and waits until it is ready.
    pub fn restart(&self, name: &str) -> anyhow::Result<()> {
        self.call(&["restart", name]).map(drop)
    }

    fn call(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let advertised = self.kafka_advertised.as_deref();
        let output = command(self.folder.path(), advertised, arguments)?;
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

fn command(
    folder: &Path,
    kafka_advertised: Option<&str>,
    arguments: &[&str],
) -> anyhow::Result<Output> {
    let program = project_folder().join("tests/services/services");
    let mut command = Command::new(&program);
    command.arg("--dir").arg(folder).args(arguments);
    // An address given from outside would be used instead of a service that may be killed.
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    command.envs(kafka_advertised.map(|address| ("MILLSTREAM_KAFKA_ADVERTISED", address)));
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
