//! Recovery: how long a job stands still when a worker is killed.
//!
//! Called by `main.rs`. A master and two workers run jobs/page_views.sql while clicks come in; one worker after the other
//! gets a SIGKILL. Timed from the signal to the first epoch that a later generation commits, which a client sees by
//! asking the master. The killed worker is started again and has its share of the tasks before the next one is killed.
//! Failure: a job that does not come back within its time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use millstream_common::client::ControlClient;
use millstream_common::control::{JobState, JobView, SubmitRequest};
use millstream_common::ids::JobName;
use millstream_common::net::{NetRef, TcpNet};
use millstream_common::time::{Clock, SystemClock};

use crate::clicks::Clicks;
use crate::process::Process;
use crate::topic::{self, PARTITION_COUNT, Sender};
use crate::{Services, report};

const JOB: &str = include_str!("../../jobs/page_views.sql");
const NAME: &str = "bench_recovery";
const TOPIC: &str = "bench_recovery";
const WORKER_NAMES: [&str; 2] = ["worker-a", "worker-b"];
/// What `millstream master` prints before its address.
const LISTENING: &str = "master listening at ";
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Epochs of quiet between two kills, so that each finds the job at work.
const EPOCHS_BETWEEN: u64 = 3;

#[derive(Args)]
pub(crate) struct Arguments {
    /// How many workers are killed, one after the other.
    #[arg(long, default_value_t = 20)]
    kills: u32,
    /// Clicks a second meanwhile.
    #[arg(long, default_value_t = 5_000)]
    rate: u64,
    /// Of the clicks.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            kills: 20,
            rate: 5_000,
            seed: 1,
        }
    }
}

pub(crate) async fn run(services: &Services, arguments: &Arguments) -> anyhow::Result<()> {
    topic::make(&services.kafka, TOPIC).await?;
    let folder = tempfile::tempdir().context("make a folder for the cluster")?;
    let mut cluster = Cluster::start(folder.path(), services).await?;
    let mut load = Load::new(services, arguments)?;
    let recoveries = tokio::select! {
        recoveries = kill_in_turn(&mut cluster, arguments.kills) => recoveries?,
        stopped = load.send() => return stopped,
    };
    print(arguments, &recoveries);
    Ok(())
}

/// One recovery.
struct Recovery {
    /// From the signal to the epoch, as a client sees it.
    seen: Duration,
    /// From the loss to the epoch, as the master counts it.
    counted: Duration,
}

async fn kill_in_turn(cluster: &mut Cluster, kills: u32) -> anyhow::Result<Vec<Recovery>> {
    let mut recoveries = Vec::new();
    for kill in 0..kills as usize {
        cluster.settle().await?;
        let index = kill % WORKER_NAMES.len();
        let before = cluster.job().await?;
        let killed_at = cluster.clock.monotonic();
        cluster.workers[index].kill().await?;
        let after = cluster
            .wait(|job| job.generation > before.generation && job.epoch > before.epoch)
            .await
            .with_context(|| format!("wait for the recovery after kill {}", kill + 1))?;
        recoveries.push(Recovery {
            seen: cluster.clock.monotonic().saturating_sub(killed_at),
            counted: Duration::from_millis(after.last_recovery_ms.unwrap_or(0)),
        });
        cluster.start_worker(index)?;
    }
    Ok(recoveries)
}

/// A master, two workers and a client.
struct Cluster {
    clock: SystemClock,
    client: ControlClient,
    address: String,
    folder: std::path::PathBuf,
    variables: Vec<(&'static str, String)>,
    workers: Vec<Process>,
    // Dropped, and so ended, behind its workers.
    _master: Process,
}

impl Cluster {
    async fn start(folder: &Path, services: &Services) -> anyhow::Result<Self> {
        let variables = vec![
            ("KAFKA_BROKERS", services.kafka.clone()),
            ("POSTGRES_URL", services.postgres.clone()),
            ("CLICKS_TOPIC", TOPIC.to_owned()),
        ];
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
            address,
            folder: folder.to_owned(),
            variables,
            workers: Vec::new(),
            _master: master,
        };
        for index in 0..WORKER_NAMES.len() {
            cluster.start_worker(index)?;
        }
        cluster.wait_for_workers().await?;
        cluster.submit().await?;
        Ok(cluster)
    }

    /// Starts a worker, in the place of one that is gone if there was one.
    fn start_worker(&mut self, index: usize) -> anyhow::Result<()> {
        let name = WORKER_NAMES[index];
        let arguments = ["worker", "--master", &self.address, "--name", name];
        let variables = borrowed(&self.variables);
        let worker = Process::start(&self.folder, name, &arguments, &variables)?;
        match self.workers.get_mut(index) {
            Some(place) => *place = worker,
            None => self.workers.push(worker),
        }
        Ok(())
    }

    /// The job as it is in jobs/, with tables of the bench and as many restarts as there are kills.
    async fn submit(&self) -> anyhow::Result<()> {
        let sql = format!("SET restart_budget = 1000;\n{JOB}")
            .replace("'fact_page_views'", "'bench_page_views'")
            .replace("'click_errors'", "'bench_click_errors'");
        let request = SubmitRequest {
            name: NAME.into(),
            sql,
            file: "page_views.sql".to_owned(),
            fresh: true,
            from: None,
        };
        self.client
            .submit(request)
            .await
            .context("submit the job")?;
        Ok(())
    }

    async fn job(&self) -> anyhow::Result<JobView> {
        Ok(self.client.job(&JobName::from(NAME)).await?)
    }

    /// Waits until both workers have tasks and some epochs have passed since.
    async fn settle(&self) -> anyhow::Result<()> {
        self.wait_for_workers().await?;
        let deadline = self.clock.monotonic() + PATIENCE;
        loop {
            let workers = self.client.workers().await?;
            if workers.iter().filter(|worker| worker.tasks > 0).count() == WORKER_NAMES.len() {
                break;
            }
            self.look_again(deadline, "both workers have tasks").await?;
        }
        let before = self.job().await?;
        let enough = before.epoch.0 + EPOCHS_BETWEEN;
        self.wait(|job| job.state == JobState::Running && job.epoch.0 >= enough)
            .await
            .context("wait for quiet between two kills")?;
        Ok(())
    }

    async fn wait_for_workers(&self) -> anyhow::Result<()> {
        let deadline = self.clock.monotonic() + PATIENCE;
        while self.client.workers().await?.len() < WORKER_NAMES.len() {
            self.look_again(deadline, "both workers have joined")
                .await?;
        }
        Ok(())
    }

    /// Waits until the job is as `is_there` says.
    async fn wait(&self, is_there: impl Fn(&JobView) -> bool) -> anyhow::Result<JobView> {
        let deadline = self.clock.monotonic() + PATIENCE;
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

    async fn look_again(&self, deadline: Duration, what: &str) -> anyhow::Result<()> {
        if self.clock.monotonic() > deadline {
            bail!("not so within {} s: {what}", PATIENCE.as_secs());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
        Ok(())
    }
}

fn borrowed<'a>(variables: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    let pairs = variables.iter();
    pairs.map(|(name, value)| (*name, value.as_str())).collect()
}

/// Clicks at a steady rate.
struct Load {
    sender: Sender,
    clicks: Clicks,
    rate: u64,
}

impl Load {
    /// The producer sends what has become due this often.
    const PACE: Duration = Duration::from_millis(10);

    fn new(services: &Services, arguments: &Arguments) -> anyhow::Result<Self> {
        Ok(Self {
            sender: Sender::new(&services.kafka, TOPIC)?,
            clicks: Clicks::new(arguments.seed),
            rate: arguments.rate,
        })
    }

    /// Sends until dropped.
    async fn send(&mut self) -> anyhow::Result<()> {
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

fn print(arguments: &Arguments, recoveries: &[Recovery]) {
    let sorted = |time: fn(&Recovery) -> Duration| {
        let mut times: Vec<Duration> = recoveries.iter().map(time).collect();
        times.sort_unstable();
        times
    };
    let seen = sorted(|recovery| recovery.seen);
    let counted = sorted(|recovery| recovery.counted);
    let share = |times: &[Duration], share| report::millis(report::percentile(times, share));
    let rows = [
        report::row("kills", report::count(recoveries.len() as u64)),
        report::row("median", share(&seen, 0.5)),
        report::row("max", share(&seen, 1.0)),
        report::row("median, as the master counts", share(&counted, 0.5)),
        report::row("max, as the master counts", share(&counted, 1.0)),
    ];
    let title = format!(
        "SIGKILL of one of two workers to the next committed epoch, {} clicks/s",
        report::count(arguments.rate)
    );
    report::table(&title, &rows);
}
