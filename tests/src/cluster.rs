//! Masters and workers as processes, which a test kills and starts again.
//!
//! Called by the end-to-end tests. Owns the processes and the storage folder; all end with it. A
//! master takes a free port when it first starts and keeps it, so that workers find the next one.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use millstream_common::client::{ControlClient, Role};
use millstream_common::control::{JobState, JobView, StopMode, SubmitRequest};
use millstream_common::ids::JobName;
use millstream_common::net::TcpNet;
use tempfile::TempDir;

use crate::process::{Process, Start};
use crate::wait;

const DEADLINE: Duration = Duration::from_secs(60);
/// In the folder of the cluster.
const STORAGE: &str = "storage";
const FREE_PORT: &str = "127.0.0.1:0";

/// Where a process listens.
#[derive(Clone, Debug)]
pub struct Door {
    /// `host:port`; port 0 takes a free one.
    pub listen: String,
    /// How others reach it, if not there.
    pub advertise: Option<String>,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            listen: FREE_PORT.to_owned(),
            advertise: None,
        }
    }
}

/// How a cluster is started.
pub struct Outfit {
    /// Of the log, state and segments: a URL, or a folder.
    pub storage: String,
    /// What every process sees.
    pub environment: Vec<(&'static str, String)>,
    /// One for each master.
    pub masters: Vec<Door>,
    /// One for each of the first workers.
    pub workers: Vec<Door>,
}

/// Running processes.
pub struct Cluster {
    /// `host:port` of each master, separated by commas.
    pub address: String,
    outfit: Outfit,
    folder: TempDir,
    masters: Vec<Master>,
    workers: Vec<Process>,
}

/// One of the masters, all on the same storage.
struct Master {
    process: Process,
    /// Where it is reached.
    address: String,
    /// Where it listens, also when it is started again.
    listen: String,
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
        Self::start_with(Outfit {
            storage: storage.to_owned(),
            environment,
            masters: vec![Door::default(); master_count],
            workers: vec![Door::default(); worker_count],
        })
        .await
    }

    /// Starts masters and workers, and waits until all workers have joined.
    pub async fn start_with(outfit: Outfit) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("millstream-e2e-")
            .tempdir()
            .context("create folder of a cluster")?;
        let mut masters = Vec::new();
        for (index, door) in outfit.masters.iter().enumerate() {
            masters.push(start_master(&folder, &outfit, index, &door.listen).await?);
        }
        let addresses: Vec<&str> = masters.iter().map(|each| each.address.as_str()).collect();
        let worker_count = outfit.workers.len();
        let mut cluster = Self {
            address: addresses.join(","),
            outfit,
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
        let door = self.outfit.workers.get(index).cloned().unwrap_or_default();
        let mut arguments = vec![
            "worker",
            "--master",
            &self.address,
            "--name",
            &name,
            "--slots",
            "2",
            "--flight-listen",
            &door.listen,
        ];
        if let Some(advertise) = &door.advertise {
            arguments.extend(["--advertise", advertise]);
        }
        start(&self.folder, &self.outfit.environment, &name, &arguments)
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
        self.end_worker(index).await?;
        self.start_worker_again(index)
    }

    /// SIGKILL of a worker.
    pub async fn end_worker(&mut self, index: usize) -> anyhow::Result<()> {
        self.workers[index].kill().await
    }

    /// Starts a worker that has ended again under the same name.
    pub fn start_worker_again(&mut self, index: usize) -> anyhow::Result<()> {
        self.workers[index] = self.start_worker(index)?;
        Ok(())
    }

    /// SIGSTOP of a worker: it stands still, and its connections stay open.
    pub async fn pause_worker(&self, index: usize) -> anyhow::Result<()> {
        self.workers[index].pause().await
    }

    /// SIGCONT of a worker.
    pub async fn resume_worker(&self, index: usize) -> anyhow::Result<()> {
        self.workers[index].resume().await
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
        let listen = self.masters[index].listen.clone();
        let started = start_master(&self.folder, &self.outfit, index, &listen);
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

    /// Where each process serves HTTP: masters, then workers.
    pub fn http_addresses(&self) -> anyhow::Result<Vec<String>> {
        let masters = self.masters.iter().map(|master| &master.process);
        let mut addresses = Vec::new();
        for process in masters.chain(&self.workers) {
            let said = process.said();
            let mut told = said.lines().filter(|line| line.contains("http listening"));
            // The newest: a process that was started again adds to its log.
            let address = told
                .next_back()
                .and_then(|line| line.split("address=").nth(1));
            let address = address.and_then(|rest| rest.split_whitespace().next());
            addresses.push(address.context("find an HTTP address in a log")?.to_owned());
        }
        Ok(addresses)
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

    /// Whether that master says that it reigns.
    pub async fn is_reigning(&self, index: usize) -> bool {
        let role = ControlClient::role(Arc::new(TcpNet), &self.masters[index].address).await;
        matches!(role, Ok(Role::Active))
    }

    /// Submits a job.
    pub async fn submit(&self, name: &str, sql: &str) -> anyhow::Result<()> {
        let request = SubmitRequest {
            name: name.into(),
            sql: sql.to_owned(),
            file: format!("{name}.sql"),
            fresh: false,
            from: None,
            id: None,
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

    /// Copies all that each process said into `folder`, a file for each.
    pub fn save_logs(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder).context("create folder for logs")?;
        for entry in std::fs::read_dir(self.folder.path())? {
            let path = entry?.path();
            if let Some(name) = path.file_name().filter(|_| path.is_file()) {
                std::fs::copy(&path, folder.join(name)).context("copy a log")?;
            }
        }
        Ok(())
    }

    /// Where the log, state and segments are, unless the cluster was started on another place.
    pub fn storage(&self) -> PathBuf {
        self.folder.path().join(STORAGE)
    }
}

async fn start_master(
    folder: &TempDir,
    outfit: &Outfit,
    index: usize,
    listen: &str,
) -> anyhow::Result<Master> {
    let name = format!("master-{index}");
    let advertise = outfit.masters[index].advertise.as_deref();
    let mut arguments = vec![
        "master",
        "--listen",
        listen,
        "--http",
        FREE_PORT,
        "--storage",
        &outfit.storage,
        "--name",
        &name,
    ];
    if let Some(advertise) = advertise {
        arguments.extend(["--advertise", advertise]);
    }
    let mut process = start(folder, &outfit.environment, &name, &arguments)?;
    let line = process.first_line().await?;
    let listen = line.strip_prefix("master listening at ");
    let listen = listen.with_context(|| format!("read address of the master from {line:?}"))?;
    Ok(Master {
        process,
        address: advertise.unwrap_or(listen).to_owned(),
        listen: listen.to_owned(),
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
