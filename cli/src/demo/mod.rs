//! `millstream demo`: the first minute, on a machine where nothing else runs.
//!
//! A broker and a generator in this process, a master and two workers as processes of their own,
//! `jobs/demo.sql` on them. Half way one worker is killed; at the end the job is drained and what it
//! wrote is compared with an independent count. Failure: a difference is exit code 1.

mod broker;
mod clicks;
mod cluster;
mod folder;
mod oracle;
mod results;
mod screen;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use futures::StreamExt;
use millstream_common::control::{JobState, JobView, StopMode};
use millstream_common::ids::{Epoch, Generation, JobName};
use millstream_common::text;
use millstream_common::time::{ClockRef, SystemClock};

use self::broker::Broker;
use self::clicks::Clicks;
use self::cluster::{Cluster, ClusterConfig};
use self::oracle::Oracle;
use self::screen::Screen;
use self::verdict::Verdict;
use crate::arguments::{JobText, host_port};
use crate::beginning::Beginning;
use crate::interrupts::{self, INTERRUPTED};
use crate::submit::submit;

/// The job, as it stands in the repository.
const DEMO_SQL: &str = include_str!("../../../jobs/demo.sql");
const JOB: &str = "demo";
/// Partitions of the topic.
const PARTITION_COUNT: usize = 8;
const WORKER_COUNT: usize = 2;
/// How often clicks are sent and the job is looked at.
const TICK: Duration = Duration::from_millis(50);
/// Longer than this without a new epoch, and something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(crate) struct Arguments {
    /// For how long clicks are generated.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(4..=3600))]
    seconds: u64,
    /// Clicks a second.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    rate: u64,
    /// Where results land; a folder of an earlier demo is replaced.
    #[arg(long, default_value = "./demo-output", value_name = "FOLDER")]
    output: PathBuf,
    /// Where to serve the dashboard and the master's metrics meanwhile, such as 127.0.0.1:7071; by default at a free port.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port, default_value = "127.0.0.1:0")]
    http: String,
    /// Other seeds make other clicks.
    #[arg(long, default_value_t = 7)]
    seed: u64,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut interrupts = interrupts::listen()?;
    tokio::select! {
        done = Box::pin(perform(arguments)) => done,
        // The children are killed as their handles are dropped.
        _ = interrupts.next() => {
            eprintln!("\ninterrupted");
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

async fn perform(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let output = folder::prepare(&arguments.output)?;
    let storage = tempfile::tempdir().context("create storage folder")?;
    let broker = Broker::start()?;
    let config = ClusterConfig {
        storage: storage.path().to_owned(),
        output: output.clone(),
        logs: output.join("logs"),
        kafka: broker.addresses(),
        http: arguments.http.clone(),
    };
    std::fs::create_dir(&config.logs).context("create folder of logs")?;
    let clock: ClockRef = Arc::new(SystemClock::new());
    let mut screen = Screen::new(clock.clone(), output.clone());
    screen.note(&format!(
        "broker at {}; starting a master and {WORKER_COUNT} workers (their logs: {})",
        config.kafka,
        config.logs.display()
    ));
    let cluster = Cluster::start(&config, WORKER_COUNT).await?;
    if !config.http.ends_with(":0") {
        screen.note(&format!("dashboard at http://{}", config.http));
    }
    screen.note(&format!(
        "submitting jobs/demo.sql to {}",
        cluster.client.address()
    ));
    let job = JobText {
        file: "jobs/demo.sql".to_owned(),
        sql: DEMO_SQL.to_owned(),
    };
    if submit(
        &cluster.client,
        &JobName::from(JOB),
        &job,
        &Beginning::default(),
    )
    .await?
    .is_none()
    {
        return Ok(ExitCode::FAILURE);
    }
    let mut demo = Demo {
        clicks: Clicks::new(arguments.seed, arguments.rate),
        oracle: Oracle::default(),
        takeover: Takeover::Before,
        broker,
        cluster,
        clock,
        screen,
    };
    demo.generate(&arguments).await?;
    demo.catch_up().await?;
    demo.drain().await?;
    let counts = results::counts(&output)?;
    let verdict = Verdict::new(&demo.oracle, &counts, &results::rejected(&output)?);
    demo.screen.finish(&counts);
    demo.cluster.shutdown().await?;
    crate::output::print(&format!("{}\n", verdict.render()))?;
    crate::output::print(&format!("results    {}\n", output.display()))?;
    match verdict.differences.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Ok(ExitCode::FAILURE),
    }
}

/// What happened to the worker that is killed.
enum Takeover {
    Before,
    Killed {
        at: Duration,
        generation: Generation,
        epoch: Epoch,
    },
    Over,
}

/// The running demo.
struct Demo {
    clicks: Clicks,
    oracle: Oracle,
    takeover: Takeover,
    broker: Broker,
    cluster: Cluster,
    clock: ClockRef,
    screen: Screen,
}

impl Demo {
    /// Sends clicks at the rate asked for, and kills a worker half way.
    async fn generate(&mut self, arguments: &Arguments) -> anyhow::Result<()> {
        let started = self.clock.monotonic();
        let total = arguments.rate * arguments.seconds;
        while self.oracle.record_count < total {
            tokio::time::sleep(TICK).await;
            let elapsed = self.clock.monotonic().saturating_sub(started);
            let due = (elapsed.as_secs_f64() * arguments.rate as f64) as u64;
            while self.oracle.record_count < due.min(total) {
                let record = self.clicks.next();
                self.broker.send(&record)?;
                self.oracle.take(&record);
            }
            let job = self.look().await?;
            let is_half_way = self.oracle.record_count >= total / 2;
            if is_half_way && matches!(self.takeover, Takeover::Before) {
                self.kill_worker(&job).await?;
            }
        }
        self.broker.flush()
    }

    async fn kill_worker(&mut self, job: &JobView) -> anyhow::Result<()> {
        if job.epoch == Epoch::default() {
            return Ok(());
        }
        let name = self.cluster.kill_worker().await?;
        self.takeover = Takeover::Killed {
            at: self.clock.monotonic(),
            generation: job.generation,
            epoch: job.epoch,
        };
        self.screen.note(&format!(
            "{name} killed with SIGKILL after epoch {}",
            job.epoch
        ));
        Ok(())
    }

    /// Looks at the job and at the results once, and shows them.
    async fn look(&mut self) -> anyhow::Result<JobView> {
        let job = self.cluster.job(&JobName::from(JOB)).await?;
        if job.state == JobState::Failed {
            bail!(
                "the job failed: {}",
                job.cause.as_deref().unwrap_or("no cause is known")
            );
        }
        self.screen.show(&job)?;
        if let Takeover::Killed {
            at,
            generation,
            epoch,
        } = self.takeover
            && job.generation > generation
            && job.epoch > epoch
        {
            let took = self.clock.monotonic().saturating_sub(at);
            self.screen.note(&format!(
                "taken over after {}: generation {}, epoch {}",
                text::duration(took.as_millis() as u64),
                job.generation,
                job.epoch
            ));
            self.takeover = Takeover::Over;
        }
        Ok(job)
    }

    /// Waits until everything that was sent has been read and the killed worker's work is taken over.
    async fn catch_up(&mut self) -> anyhow::Result<()> {
        let mut newest = Epoch::default();
        let mut moved = self.clock.monotonic();
        loop {
            let job = self.look().await?;
            let is_all_read = job.rows_read >= self.oracle.record_count;
            if is_all_read && matches!(self.takeover, Takeover::Over) {
                return Ok(());
            }
            if matches!(self.takeover, Takeover::Before) {
                self.kill_worker(&job).await?;
            }
            let now = self.clock.monotonic();
            if job.epoch > newest {
                newest = job.epoch;
                moved = now;
            }
            if now.saturating_sub(moved) > PATIENCE {
                bail!(
                    "no epoch for {} s; the job has read {} of {} records: {}",
                    PATIENCE.as_secs(),
                    job.rows_read,
                    self.oracle.record_count,
                    job.cause.as_deref().unwrap_or("no cause is known")
                );
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// Lets all windows fire and waits until every sink holds them.
    async fn drain(&mut self) -> anyhow::Result<()> {
        self.screen
            .note("everything is read: stopping with --drain");
        let name = JobName::from(JOB);
        let stopped = self.cluster.client.stop(&name, StopMode::Drain).await?;
        if !stopped.lagging_sinks.is_empty() || stopped.job.state != JobState::Finished {
            bail!("not drained: {}", crate::stop::told(&stopped));
        }
        Ok(())
    }
}
