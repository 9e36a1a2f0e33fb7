//! Masters and workers as processes, which a test kills and starts again.
//!
//! Called by the end-to-end tests. Owns the processes and the storage folder; all end with it. A
//! master takes a free port when it first starts and keeps it, so that workers find the next one.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use millstream_common::client::ControlClient;
use millstream_common::control::{JobState, JobView, StopMode, SubmitRequest};
use millstream_common::ids::JobName;
use millstream_common::net::TcpNet;
use tempfile::TempDir;

use crate::process::{Process, Start};
use crate::wait;

const DEADLINE: Duration = Duration::from_secs(60);
/// In the folder of the cluster.
const STORAGE: &str = "storage";

/// Running processes.
pub struct Cluster {
    /// `host:port` of each master, separated by commas.
    pub address: String,
    environment: Vec<(&'static str, String)>,
    /// Of the log, state and segments.
    storage: String,
    folder: TempDir,
    masters: Vec<Master>,
    workers: Vec<Process>,
}

/// One of the masters, all on the same storage.
struct Master {
    process: Process,
    address: String,
}

impl Cluster {
    /// Starts a master and workers that see `environment`, and waits until all have joined.
    pub async fn start(
        environment: Vec<(&'static str, String)>,
        worker_count: usize,
    ) -> anyhow::Result<Self> {
        Self::start_on(STORAGE, environment, worker_count).await
    }

    /// As [`Self::start`], with a second master that stands by.
    pub async fn start_with_standby(worker_count: usize) -> anyhow::Result<Self> {
        Self::start_all(STORAGE, Vec::new(), 2, worker_count).await
    }

    /// As [`Self::start`], with the log, state and segments at `storage`: a URL, or a folder.
    pub async fn start_on(
        storage: &str,
        environment: Vec<(&'static str, String)>,
        worker_count: usize,
    ) -> anyhow::Result<Self> {
        Self::start_all(storage, environment, 1, worker_count).await
    }

    async fn start_all(
        storage: &str,
        environment: Vec<(&'static str, String)>,
        master_count: usize,
        worker_count: usize,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("millstream-e2e-")
            .tempdir()
            .context("create folder of a cluster")?;
        let mut masters = Vec::new();
        for index in 0..master_count {
            let listen = "127.0.0.1:0";
            masters.push(start_master(&folder, storage, &environment, index, listen).await?);
        }
        let addresses: Vec<&str> = masters.iter().map(|each| each.address.as_str()).collect();
        let mut cluster = Self {
            address: addresses.join(","),
            environment,
            storage: storage.to_owned(),
            folder,
            masters,
            workers: Vec::new(),
        };
        for _ in 0..worker_count {
            cluster.add_worker()?;
        }
        cluster.wait_for_workers(worker_count).await?;
        Ok(cluster)
    }

    /// Waits until the master has so many workers.
    pub async fn wait_for_workers(&self, count: usize) -> anyhow::Result<()> {
        let client = self.client().await?;
        wait::until("workers join or leave", DEADLINE, || async {
            match client.workers().await {
                Ok(workers) if workers.len() == count => Ok(()),
                Ok(workers) => Err(format!("there are {}", workers.len())),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
        .with_context(|| self.logs())
    }

    /// A new client of the master.
    pub async fn client(&self) -> anyhow::Result<ControlClient> {
        let client = ControlClient::connect(Arc::new(TcpNet), &self.address).await;
        client.with_context(|| self.logs())
    }

    fn start_worker(&self, index: usize) -> anyhow::Result<Process> {
        let name = format!("worker-{index}");
        let arguments = [
            "worker",
            "--master",
            &self.address,
            "--name",
            &name,
            "--slots",
            "2",
        ];
        start(&self.folder, &self.environment, &name, &arguments)
    }

    /// Starts one more worker, which joins by itself.
    pub fn add_worker(&mut self) -> anyhow::Result<()> {
        let worker = self.start_worker(self.workers.len())?;
        self.workers.push(worker);
        Ok(())
    }

    /// SIGTERM to a worker, which works on until its tasks have moved.
    pub async fn ask_worker_to_leave(&self, index: usize) -> anyhow::Result<()> {
        self.workers[index].terminate().await
    }

    /// The exit status of a worker that ends.
    pub async fn worker_ended(&mut self, index: usize) -> anyhow::Result<ExitStatus> {
        self.workers[index].ended().await
    }

    /// SIGTERM to a worker; its exit status.
    pub async fn terminate_worker(&mut self, index: usize) -> anyhow::Result<ExitStatus> {
        self.workers[index].terminate().await?;
        self.workers[index].ended().await
    }

    /// SIGKILL of a worker, which is then started again under the same name.
    pub async fn kill_worker(&mut self, index: usize) -> anyhow::Result<()> {
        self.workers[index].kill().await?;
        self.workers[index] = self.start_worker(index)?;
        Ok(())
    }

    /// SIGKILL of the first master, which is then started again on the same storage and port.
    pub async fn kill_master(&mut self) -> anyhow::Result<()> {
        self.end_master(0).await?;
        self.start_master_again(0).await
    }

    /// SIGKILL of a master.
    pub async fn end_master(&mut self, index: usize) -> anyhow::Result<()> {
        self.masters[index].process.kill().await
    }

    /// Starts a master again on the same storage and port.
    pub async fn start_master_again(&mut self, index: usize) -> anyhow::Result<()> {
        let listen = self.masters[index].address.clone();
        let started = start_master(
            &self.folder,
            &self.storage,
            &self.environment,
            index,
            &listen,
        );
        self.masters[index] = started.await?;
        Ok(())
    }

    /// SIGSTOP of a master: it stands still, and its connections stay open.
    pub async fn pause_master(&self, index: usize) -> anyhow::Result<()> {
        self.masters[index].process.pause().await
    }

    /// SIGCONT of a master.
    pub async fn resume_master(&self, index: usize) -> anyhow::Result<()> {
        self.masters[index].process.resume().await
    }

    /// `host:port` of a master.
    pub fn master_address(&self, index: usize) -> &str {
        &self.masters[index].address
    }

    /// The master that reigns.
    pub async fn active_master(&self) -> anyhow::Result<usize> {
        let client = self.client().await?;
        let mut masters = self.masters.iter();
        let active = masters.position(|master| master.address == client.address());
        active.with_context(|| format!("{client:?} is none of {}", self.address))
    }

    /// Submits a job.
    pub async fn submit(&self, name: &str, sql: &str) -> anyhow::Result<()> {
        let request = SubmitRequest {
            name: name.into(),
            sql: sql.to_owned(),
            file: format!("{name}.sql"),
            fresh: false,
            from: None,
        };
        let submitted = self.client().await?.submit(request).await;
        submitted.map(drop).with_context(|| self.logs())
    }

    /// Stops a job, and checks that the last epoch was delivered.
    pub async fn stop(&self, name: &str, mode: StopMode) -> anyhow::Result<JobView> {
        let stopped = self.client().await?.stop(&name.into(), mode).await;
        let stopped = stopped.with_context(|| self.logs())?;
        ensure!(
            stopped.job.state.is_over() && stopped.lagging_sinks.is_empty(),
            "{stopped:?}\n{}",
            self.logs()
        );
        Ok(stopped.job)
    }

    /// Waits until the job is running and `holds` of it.
    pub async fn wait_for_job(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&JobView) -> bool,
    ) -> anyhow::Result<JobView> {
        let holds = |job: &JobView| job.state == JobState::Running && holds(job);
        self.wait_for_view(name, what, holds).await
    }

    /// Waits until `holds` of the job, in whatever state it is.
    pub async fn wait_for_view(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&JobView) -> bool,
    ) -> anyhow::Result<JobView> {
        let job_name = JobName::from(name);
        wait::until(what, DEADLINE, || async {
            let client = self.client().await.map_err(|error| error.to_string())?;
            match client.job(&job_name).await {
                Ok(job) if holds(&job) => Ok(job),
                Ok(job) => Err(format!("{job:?}")),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
        .with_context(|| self.logs())
    }

    /// All that the masters said.
    pub fn master_said(&self) -> String {
        let masters = self.masters.iter();
        masters.map(|master| master.process.said()).collect()
    }

    /// The end of what each process said, for the message of a failed test.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for (index, master) in self.masters.iter().enumerate() {
            text.push_str(&format!(
                "\nmaster {index}:\n{}",
                master.process.last_lines()
            ));
        }
        for (index, worker) in self.workers.iter().enumerate() {
            text.push_str(&format!("\nworker {index}:\n{}", worker.last_lines()));
        }
        text
    }

    /// Where the log, state and segments are, unless the cluster was started on another place.
    pub fn storage(&self) -> PathBuf {
        self.folder.path().join(STORAGE)
    }
}

async fn start_master(
    folder: &TempDir,
    storage: &str,
    environment: &[(&'static str, String)],
    index: usize,
    listen: &str,
) -> anyhow::Result<Master> {
    let name = format!("master-{index}");
    let arguments = [
        "master",
        "--listen",
        listen,
        "--storage",
        storage,
        "--name",
        &name,
    ];
    let mut process = start(folder, environment, &name, &arguments)?;
    let line = process.first_line().await?;
    let address = line.strip_prefix("master listening at ");
    let address = address.with_context(|| format!("read address of the master from {line:?}"))?;
    Ok(Master {
        process,
        address: address.to_owned(),
    })
}

fn start(
    folder: &TempDir,
    environment: &[(&'static str, String)],
    name: &str,
    arguments: &[&str],
) -> anyhow::Result<Process> {
    let mut arguments: Vec<String> = arguments.iter().map(|&each| each.to_owned()).collect();
    arguments.push("--until-stdin-closes".to_owned());
    Process::start(Start {
        name,
        arguments,
        environment: environment.to_vec(),
        folder: folder.path(),
    })
}
