//! A cluster of processes that a part of the bench measures, and the clicks that keep it busy.
//!
//! Used by the parts that need more than one process. Owns a master, its workers and a client; all end with it. Failure: what does not come
//! about within its time ends the bench with what it waited for.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use millstream_common::client::ControlClient;
use millstream_common::control::{JobState, JobView, SubmitRequest};
use millstream_common::ids::JobName;
use millstream_common::net::{NetRef, TcpNet};
use millstream_common::time::{Clock, SystemClock};

use crate::Services;
use crate::clicks::Clicks;
use crate::process::Process;
use crate::topic::{PARTITION_COUNT, Sender};

/// What `millstream master` prints before its address.
const LISTENING: &str = "master listening at ";
/// What a process logs before the address of its metrics.
const HTTP_LISTENING: &str = "http listening address=";
/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Of a job that is measured: each look costs the master a little.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);

/// A master, workers and a client.
pub(crate) struct Cluster {
    /// Time.
    pub(crate) clock: SystemClock,
    client: ControlClient,
    job: &'static str,
    names: &'static [&'static str],
    address: String,
    folder: std::path::PathBuf,
    variables: Vec<(&'static str, String)>,
    /// In the order of their names.
    pub(crate) workers: Vec<Process>,
    // Dropped, and so ended, behind its workers.
    pub(crate) master: Process,
}

impl Cluster {
    /// Starts all of them in `folder`; they see `variables`, and the job will have the name `job`.
    pub(crate) async fn start(
        folder: &Path,
        job: &'static str,
        names: &'static [&'static str],
        variables: Vec<(&'static str, String)>,
    ) -> anyhow::Result<Self> {
        let arguments = [
            "master",
            "--listen",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
            "--storage",
            "storage",
        ];
        let mut master = Process::start(folder, "master", &arguments, &borrowed(&variables))?;
        let line = master.first_line().await?;
        let address = line
            .strip_prefix(LISTENING)
            .with_context(|| format!("read address of the master from {line:?}"))?
            .to_owned();
        let net: NetRef = Arc::new(TcpNet);
        let client = ControlClient::connect(net, &address).await?;
        let mut cluster = Self {
            clock: SystemClock::new(),
            client,
            job,
            names,
            address,
            folder: folder.to_owned(),
            variables,
            workers: Vec::new(),
            master,
        };
        for index in 0..names.len() {
            cluster.start_worker(index)?;
        }
        cluster.wait_for_workers().await?;
        Ok(cluster)
    }

    /// Starts a worker, in the place of one that is gone if there was one.
    pub(crate) fn start_worker(&mut self, index: usize) -> anyhow::Result<()> {
        let name = self.names[index];
        let (master, http) = (self.address.as_str(), "127.0.0.1:0");
        let arguments = ["worker", "--master", master, "--name", name, "--http", http];
        let variables = borrowed(&self.variables);
        let worker = Process::start(&self.folder, name, &arguments, &variables)?;
        match self.workers.get_mut(index) {
            Some(place) => *place = worker,
            None => self.workers.push(worker),
        }
        Ok(())
    }

    /// CPU time of all processes so far.
    pub(crate) fn cpu(&mut self) -> Duration {
        let workers = self.workers.iter_mut().chain([&mut self.master]);
        workers.map(|process| process.usage().cpu).sum()
    }

    /// Where the master answers.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What a worker says of itself, as OpenMetrics.
    pub(crate) async fn metrics(&self, worker: usize) -> anyhow::Result<String> {
        served(&self.workers[worker], "/metrics").await
    }

    /// A page of the dashboard.
    pub(crate) async fn page(&self, path: &str) -> anyhow::Result<String> {
        served(&self.master, path).await
    }

    /// Waits until the job has finished, at most for `patience`. Memory of the workers is looked at meanwhile.
    pub(crate) async fn finished(&mut self, patience: Duration) -> anyhow::Result<JobView> {
        let deadline = self.clock.monotonic() + patience;
        loop {
            let job = self.job().await?;
            if job.state == JobState::Finished {
                return Ok(job);
            }
            let cause = job.cause.unwrap_or_default();
            if job.state.is_over() {
                bail!("the job is {}: {cause}", job.state);
            }
            for worker in &mut self.workers {
                worker.usage();
            }
            if self.clock.monotonic() > deadline {
                bail!(
                    "the job has not finished within {} s: {cause}",
                    patience.as_secs()
                );
            }
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    }

    /// Waits until a worker has read a record, at most for `patience`; when that was, and the CPU time spent until then.
    pub(crate) async fn first_record(
        &mut self,
        patience: Duration,
    ) -> anyhow::Result<(Duration, Duration)> {
        let deadline = self.clock.monotonic() + patience;
        loop {
            for worker in 0..self.workers.len() {
                if has_read(&self.metrics(worker).await?) {
                    return Ok((self.clock.monotonic(), self.cpu()));
                }
            }
            self.look_again(deadline, "a record is read").await?;
        }
    }

    /// Submits the job.
    pub(crate) async fn submit(&self, sql: String) -> anyhow::Result<()> {
        self.submit_as(self.job, sql).await
    }

    /// Submits a job of another name.
    pub(crate) async fn submit_as(&self, name: &str, sql: String) -> anyhow::Result<()> {
        let request = SubmitRequest {
            name: name.into(),
            sql,
            file: format!("{name}.sql"),
            fresh: true,
            from: None,
            id: None,
        };
        self.client
            .submit(request)
            .await
            .context("submit the job")?;
        Ok(())
    }

    /// All jobs as they are now.
    pub(crate) async fn jobs(&self) -> anyhow::Result<Vec<JobView>> {
        Ok(self.client.jobs().await?)
    }

    /// The job as it is now.
    pub(crate) async fn job(&self) -> anyhow::Result<JobView> {
        Ok(self.client.job(&JobName::from(self.job)).await?)
    }

    /// Waits until all workers have joined.
    pub(crate) async fn wait_for_workers(&self) -> anyhow::Result<()> {
        let deadline = self.clock.monotonic() + PATIENCE;
        while self.client.workers().await?.len() < self.names.len() {
            self.look_again(deadline, "all workers have joined").await?;
        }
        Ok(())
    }

    /// Waits until the job is as `is_there` says.
    pub(crate) async fn wait(
        &self,
        is_there: impl Fn(&JobView) -> bool,
    ) -> anyhow::Result<JobView> {
        self.wait_at_most(PATIENCE, is_there).await
    }

    /// The same for what takes longer.
    pub(crate) async fn wait_at_most(
        &self,
        patience: Duration,
        is_there: impl Fn(&JobView) -> bool,
    ) -> anyhow::Result<JobView> {
        let deadline = self.clock.monotonic() + patience;
        loop {
            let job = self.job().await?;
            if is_there(&job) {
                return Ok(job);
            }
            if job.state.is_over() {
                bail!("the job {}: {}", job.state, job.cause.unwrap_or_default());
            }
            self.look_again(deadline, "the job gets on").await?;
        }
    }

    /// The workers that have tasks.
    pub(crate) async fn working(&self) -> anyhow::Result<usize> {
        let workers = self.client.workers().await?;
        Ok(workers.iter().filter(|worker| worker.tasks > 0).count())
    }

    /// A pause before the next look, unless there is no time left.
    pub(crate) async fn look_again(&self, deadline: Duration, what: &str) -> anyhow::Result<()> {
        if self.clock.monotonic() > deadline {
            bail!("waited in vain for this: {what}");
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
        Ok(())
    }
}

/// What a process serves over HTTP at the address that it logs.
async fn served(process: &Process, path: &str) -> anyhow::Result<String> {
    let log = process.log();
    let address = log.split(HTTP_LISTENING).nth(1);
    let address = address.and_then(|rest| rest.split_whitespace().next());
    let address = address.context("find the HTTP address of a process in its log")?;
    let answer = reqwest::get(format!("http://{address}{path}")).await;
    let answer = answer.and_then(reqwest::Response::error_for_status);
    let text = answer.with_context(|| format!("ask for {path}"))?.text();
    text.await.with_context(|| format!("read {path}"))
}

/// Whether the worker of this exposition has read a record.
fn has_read(exposition: &str) -> bool {
    let mut read = exposition.lines().filter_map(|line| {
        let labels = line.strip_prefix("millstream_worker_read_rows_total{")?;
        labels.split_once("} ")?.1.parse::<f64>().ok()
    });
    read.any(|rows| rows > 0.0)
}

fn borrowed<'a>(variables: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    let pairs = variables.iter();
    pairs.map(|(name, value)| (*name, value.as_str())).collect()
}

/// Clicks at a steady rate.
pub(crate) struct Load {
    sender: Sender,
    clicks: Clicks,
    rate: u64,
}

impl Load {
    /// The producer sends what has become due this often.
    const PACE: Duration = Duration::from_millis(10);

    /// So many clicks a second, into `topic`.
    pub(crate) fn new(
        services: &Services,
        topic: &str,
        (rate, seed): (u64, u64),
    ) -> anyhow::Result<Self> {
        Ok(Self {
            sender: Sender::new(&services.kafka, topic)?,
            clicks: Clicks::new(seed),
            rate,
        })
    }

    /// Sends until dropped.
    pub(crate) async fn send(&mut self) -> anyhow::Result<()> {
        let clock = SystemClock::new();
        let mut pace = tokio::time::interval(Self::PACE);
        let mut sent = 0;
        loop {
            pace.tick().await;
            let due = (clock.monotonic().as_secs_f64() * self.rate as f64) as u64;
            while sent < due {
                let partition = sent % PARTITION_COUNT as u64;
                self.sender.send(partition as i32, self.clicks.next())?;
                sent += 1;
            }
        }
    }
}
