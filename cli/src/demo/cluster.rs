//! The demo's processes: a master and two workers, each this same binary, on free ports of loopback.
//!
//! Owns the children. They end with this process, however it ends: by pid when it ends in order, and by
//! the end of their stdin when it is killed. Failure: a child that does not start is an error that ends
//! with the last lines of its log.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use millstream_common::client::ControlClient;
use millstream_common::control::JobView;
use millstream_common::ids::JobName;
use millstream_common::net::{NetRef, TcpNet};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::master::LISTENING;

/// A debug build on a busy machine needs a few seconds.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// After this, a child that was asked to end is killed.
const END_TIMEOUT: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Calls of the master that may fail in a row.
const RETRIES_MAX: u32 = 50;
const LOG_LINES_SHOWN: usize = 10;

/// Where the processes find each other and what they share.
pub(super) struct ClusterConfig {
    /// Folder of the log and the state.
    pub(super) storage: PathBuf,
    /// Folder that the sinks write to.
    pub(super) output: PathBuf,
    /// Folder of what the processes say.
    pub(super) logs: PathBuf,
    /// `host:port` of the broker.
    pub(super) kafka: String,
    /// Where the master serves HTTP.
    pub(super) http: String,
}

/// The running processes.
pub(super) struct Cluster {
    /// A client of the master.
    pub(super) client: ControlClient,
    master: Process,
    workers: Vec<Process>,
}

impl Cluster {
    /// Starts a master and `worker_count` workers and waits until all have joined.
    pub(super) async fn start(config: &ClusterConfig, worker_count: usize) -> anyhow::Result<Self> {
        let storage = config.storage.display().to_string();
        let arguments = [
            "master",
            "--listen",
            "127.0.0.1:0",
            "--http",
            &config.http,
            "--storage",
            &storage,
        ];
        let mut master = Process::start(config, "master", &arguments)?;
        let address = master.first_line().await?;
        let address = address
            .strip_prefix(LISTENING)
            .with_context(|| format!("read address of the master from {address:?}"))?
            .to_owned();
        let mut workers = Vec::new();
        for number in 1..=worker_count {
            let name = format!("worker-{number}");
            let arguments = [
                "worker",
                "--master",
                &address,
                "--name",
                &name,
                "--flight-listen",
                "127.0.0.1:0",
            ];
            workers.push(Process::start(config, &name, &arguments)?);
        }
        let net: NetRef = Arc::new(TcpNet);
        let client = ControlClient::connect(net, &address).await?;
        let mut cluster = Self {
            client,
            master,
            workers,
        };
        let joined = tokio::time::timeout(START_TIMEOUT, cluster.join(worker_count)).await;
        joined.context("wait for the workers")??;
        Ok(cluster)
    }

    async fn join(&mut self, worker_count: usize) -> anyhow::Result<()> {
        while self.client.workers().await?.len() < worker_count {
            for worker in &mut self.workers {
                worker.check()?;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// The job as it is now. On a machine that is busier than it should be, a call may fail and the
    /// next one work.
    pub(super) async fn job(&mut self, name: &JobName) -> anyhow::Result<JobView> {
        for _ in 0..RETRIES_MAX {
            match self.client.job(name).await {
                Err(error) if error.kind().is_retryable() => self.master.check()?,
                answer => return Ok(answer?),
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(self.client.job(name).await?)
    }

    /// Kills a worker with SIGKILL and tells which.
    pub(super) async fn kill_worker(&mut self) -> anyhow::Result<String> {
        let mut worker = self
            .workers
            .pop()
            .context("a worker is left to be killed")?;
        worker.child.kill().await.context("kill worker")?;
        Ok(worker.name)
    }

    /// Ends all processes in order, workers first.
    pub(super) async fn shutdown(mut self) -> anyhow::Result<()> {
        for worker in &mut self.workers {
            worker.end().await?;
        }
        self.master.end().await
    }
}

struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(config: &ClusterConfig, name: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let log = config.logs.join(format!("{name}.log"));
        let log_file = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let binary = std::env::current_exe().context("find this binary")?;
        let child = Command::new(binary)
            .args(arguments)
            .arg("--until-stdin-closes")
            .env("KAFKA_BROKERS", &config.kafka)
            .env("DEMO_OUTPUT", &config.output)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file)
            // Ctrl-C of the terminal is this process's to handle.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    async fn first_line(&mut self) -> anyhow::Result<String> {
        let stdout = self.child.stdout.take().context("stdout is piped")?;
        let mut line = String::new();
        let mut reader = BufReader::new(stdout);
        let read = tokio::time::timeout(START_TIMEOUT, reader.read_line(&mut line)).await;
        read.with_context(|| format!("wait for {}", self.name))??;
        if line.is_empty() {
            bail!("{} did not start:\n{}", self.name, last_lines(&self.log));
        }
        Ok(line.trim_end().to_owned())
    }

    fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait().context("look at a child")? {
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, last_lines(&self.log)),
            None => Ok(()),
        }
    }

    async fn end(&mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        if tokio::time::timeout(END_TIMEOUT, self.child.wait())
            .await
            .is_err()
        {
            self.child
                .kill()
                .await
                .with_context(|| format!("kill {}", self.name))?;
        }
        Ok(())
    }
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}
