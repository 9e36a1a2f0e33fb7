//! `millstream run`: master, worker and job in one process, over a network that never leaves it.
//!
//! Storage in a folder beside the user, one a job, so that the same command goes on where the last one
//! stopped and no other job with it. What a killed process left unfinished is stopped first.
//! The first Ctrl-C stops the job with a last, delivered epoch; the second ends the process at once,
//! which loses nothing: what was not committed is read again. Failure: a failed job is exit code 1.

mod http;
mod lock;

use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use millstream_common::blocking::{BlockingRef, ThreadPool};
use millstream_common::client::{self, ControlClient};
use millstream_common::control::{ControlError, JobState, JobView, StopMode, Stopped, Submitted};
use millstream_common::ids::{JobName, WorkerId};
use millstream_common::net::{MemoryNet, NetRef};
use millstream_common::store;
use millstream_common::time::{ClockRef, SystemClock};
use millstream_common::trace::otlp::Export;
use millstream_master::config::MasterConfig;
use millstream_master::retention::Retention;
use millstream_master::service::access::Access;
use millstream_worker::config::{RealConnectors, RealStores, WorkerConfig};
use tokio::task::JoinSet;

use crate::arguments::{JobFile, JobText, host_port, storage_url};
use crate::beginning::Beginning;
use crate::exposure::Exposure;
use crate::follow::{End, OnInterrupt, follow};
use crate::interrupts::{self, INTERRUPTED};
use crate::process::{self, Master, Worker};
use crate::progress::{self, Progress};
use crate::protection::TlsArguments;
use crate::spill::SpillArguments;
use crate::submit::{began, report_end, submit};
use crate::{stop, worker};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    job: JobFile,
    /// Where log, state and segments are kept: a folder, file:// or s3://. By default a folder of
    /// the job's own in ./.millstream/.
    #[arg(long, env = "MILLSTREAM_STORAGE", value_name = "URL")]
    storage: Option<String>,
    /// The job's name; by default the file's.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    beginning: Beginning,
    /// Tasks of each stage to run; by default one a core.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: Option<u32>,
    /// Where to serve the dashboard, /metrics, /healthz and /readyz meanwhile; port 0 takes a free one. By default nothing is served.
    #[arg(long, value_name = "HOST:PORT", value_parser = host_port)]
    http: Option<String>,
    #[command(flatten)]
    spill: SpillArguments,
    #[command(flatten)]
    exposure: Exposure,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Some(text) = arguments.job.read()? else {
        return Ok(ExitCode::FAILURE);
    };
    let name = arguments.job.job_name(arguments.name.as_deref())?;
    let mut interrupts = interrupts::listen()?;
    let clock: ClockRef = Arc::new(SystemClock::new());
    let storage = arguments
        .storage
        .unwrap_or_else(|| format!("./.millstream/{name}"));
    let slots = arguments.slots.unwrap_or_else(worker::core_count);
    let door = match &arguments.http {
        None => None,
        Some(address) => {
            let tls = TlsArguments::default();
            let may = "read the job's rows, SQL and metrics";
            arguments.exposure.allow(&tls, address, may)?;
            Some(http::listen(address).await?)
        }
    };
    if is_missing(&storage)? {
        // No storage is made for a job that cannot be run.
        let is_sound = tokio::select! {
            is_sound = is_sound(&text) => is_sound?,
            _ = interrupts.next() => return Ok(ExitCode::from(INTERRUPTED)),
        };
        if !is_sound {
            return Ok(ExitCode::FAILURE);
        }
    }
    let mut here = tokio::select! {
        started = Here::start(&storage, slots, clock.clone(), arguments.spill) => started?,
        _ = interrupts.next() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    if let Some(door) = door {
        eprintln!("dashboard at http://{}", door.address);
        here.http = http::serve(door, &here.master, &here.worker);
    }
    let job = Job {
        client: here.client.clone(),
        name,
        beginning: arguments.beginning,
    };
    let mut progress = Progress::new(clock);
    let ended = tokio::select! {
        ended = job.run(&text, &mut interrupts, &mut progress) => ended,
        failed = here.failed() => Err(failed),
    };
    progress.finish();
    if matches!(ended, Ok(Outcome::Interrupted)) {
        eprintln!("ended at once; the same command goes on from the last committed epoch");
        // Not even a task that hangs may hold up the second Ctrl-C.
        std::process::exit(INTERRUPTED.into());
    }
    interrupts::unless_again(&mut interrupts, here.shutdown()).await;
    match ended? {
        Outcome::Done(code) => Ok(code),
        Outcome::Interrupted => Ok(ExitCode::from(INTERRUPTED)),
    }
}

/// Whether the storage is a folder that is not there yet.
fn is_missing(storage: &str) -> anyhow::Result<bool> {
    let url = storage_url(storage)?;
    let folder = url.strip_prefix("file://");
    Ok(folder.is_some_and(|folder| std::fs::metadata(folder).is_err()))
}

/// Whether the master would take the job; its problems are printed.
async fn is_sound(text: &JobText) -> anyhow::Result<bool> {
    let problems = process::check(&text.sql).await?.problems;
    if !problems.is_empty() {
        crate::output::print_problems(&problems, &text.file, &text.sql);
    }
    Ok(problems.is_empty())
}

/// Master and worker of this process.
struct Here {
    master: Master,
    worker: Worker,
    client: ControlClient,
    export: Export,
    /// Serves pages, where somebody wants them.
    http: JoinSet<()>,
    _lock: Option<lock::Lock>,
}

impl Here {
    async fn start(
        storage: &str,
        slots: u32,
        clock: ClockRef,
        spill: SpillArguments,
    ) -> anyhow::Result<Self> {
        let net: NetRef = Arc::new(MemoryNet::default());
        let blocking: BlockingRef = Arc::new(ThreadPool);
        let spill = spill.spill(&blocking)?;
        let storage_url = storage_url(storage)?;
        let lock = lock::take(&storage_url)?;
        let export = Export::from_environment("millstream", "run");
        let master = process::start_master(MasterConfig {
            net: net.clone(),
            workers_net: net.clone(),
            access: Access::Open,
            store: store::open(&storage_url, blocking.clone()).await?,
            storage_url,
            clock: clock.clone(),
            connectors: process::master_connectors(&blocking, &clock),
            blocking: blocking.clone(),
            listen: "master:0".to_owned(),
            http_listen: None,
            tracer: export.tracer(),
            name: "run".to_owned(),
            host: process::host(),
            retention: Retention::default(),
        })
        .await?;
        let stores = RealStores {
            blocking: blocking.clone(),
        };
        let worker = process::start_worker(WorkerConfig {
            spill,
            net: net.clone(),
            exchange_net: net.clone(),
            stores: Arc::new(stores),
            connectors: Arc::new(RealConnectors),
            clock,
            blocking,
            master: master.address().to_owned(),
            slots,
            flight_listen: "worker:0".to_owned(),
            http: None,
            tracer: export.tracer(),
            advertise: None,
            name: WorkerId::from("run"),
        })
        .await?;
        let client = ControlClient::connect(net, master.address()).await?;
        Ok(Self {
            master,
            worker,
            client,
            export,
            http: JoinSet::new(),
            _lock: lock,
        })
    }

    /// Pends until the master or the worker ends by itself, which it never should.
    async fn failed(&mut self) -> anyhow::Error {
        let ended = tokio::select! {
            ended = self.master.finished() => ended.context("the master ended"),
            ended = self.worker.finished() => ended.context("the worker ended"),
        };
        match ended {
            Err(error) => error,
            Ok(()) => anyhow::anyhow!("master or worker ended by itself"),
        }
    }

    async fn shutdown(mut self) {
        self.http.shutdown().await;
        self.worker.shutdown().await;
        self.master.shutdown().await;
        self.export.end().await;
    }
}

/// How long a stop of what was left takes without a word.
const TOLD_EVERY: Duration = Duration::from_secs(2);

/// The job of this process, as a client sees it.
struct Job {
    client: ControlClient,
    name: JobName,
    beginning: Beginning,
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Done(ExitCode),
    Interrupted,
}

impl Job {
    async fn run(
        &self,
        text: &JobText,
        interrupts: &mut BoxStream<'static, ()>,
        progress: &mut Progress,
    ) -> anyhow::Result<Outcome> {
        let mut submitting = pin!(self.submit(text));
        let (submitted, interrupted) = tokio::select! {
            submitted = &mut submitting => (submitted?, None),
            _ = interrupts.next() => {
                progress.note("stopping once the job is up; Ctrl-C again ends at once");
                tokio::select! {
                    submitted = submitting => (submitted?, Some(())),
                    _ = interrupts.next() => return Ok(Outcome::Interrupted),
                }
            }
        };
        let Some(submitted) = submitted else {
            return Ok(Outcome::Done(ExitCode::FAILURE));
        };
        let begun = match submitted.unchanged {
            true => format!("{} is {}", submitted.job.name, submitted.job.state),
            false => began(&submitted),
        };
        eprintln!("{begun}; Ctrl-C stops it");
        let mut interrupts = stream::iter(interrupted).chain(interrupts);
        let on_interrupt = OnInterrupt::Stop;
        let followed = follow(
            &self.client,
            &self.name,
            on_interrupt,
            &mut interrupts,
            progress,
        );
        let end = followed.await?;
        progress.finish();
        Ok(match end {
            End::Job(job) => Outcome::Done(report_end(&job)),
            End::Stopped(stopped) => {
                eprintln!("{}; the same command goes on", stop::told(&stopped));
                Outcome::Done(ExitCode::SUCCESS)
            }
            End::Abandoned | End::Left => Outcome::Interrupted,
        })
    }

    /// The log of a process that was killed says that its job runs: this master has taken it up already. Where that is not by the file
    /// given now it is stopped, so that the file is what goes on, or is refused.
    async fn submit(&self, text: &JobText) -> anyhow::Result<Option<Submitted>> {
        let submitted = submit(&self.client, &self.name, text, &self.beginning).await;
        let goes_on = match &submitted {
            Err(client::Error::Refused(ControlError::AlreadyRunning { .. })) => false,
            Ok(Some(submitted)) if submitted.unchanged => true,
            _ => return Ok(submitted?),
        };
        eprintln!(
            "{} was not stopped last time; going on from its last epoch",
            self.name
        );
        if goes_on {
            return Ok(submitted?);
        }
        match self.stop_what_was_left().await {
            // It may have come to its own end in between.
            Ok(_) | Err(client::Error::Refused(ControlError::NotRunning { .. })) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(submit(&self.client, &self.name, text, &self.beginning).await?)
    }

    /// Its last epoch may have to wait: for rows to be read again, for a sink that is down. Whoever waits for that is told.
    async fn stop_what_was_left(&self) -> Result<Stopped, client::Error> {
        let mut stopping = pin!(self.client.stop(&self.name, StopMode::Stop));
        let mut told = String::new();
        loop {
            tokio::select! {
                stopped = &mut stopping => return stopped,
                () = tokio::time::sleep(TOLD_EVERY) => {}
            }
            let Ok(job) = self.client.job(&self.name).await else {
                continue;
            };
            let line = waits_for(&job);
            if line != told {
                eprintln!("{line}");
                told = line;
            }
        }
    }
}

/// What a job that is being stopped waits for.
fn waits_for(job: &JobView) -> String {
    let behind = job.sinks.iter().filter(|sink| sink.lag_epochs > 0);
    let sinks: Vec<&str> = behind.map(|sink| sink.name.as_str()).collect();
    let what = match (&job.state, sinks.as_slice()) {
        (JobState::Waiting, _) => "a worker".to_owned(),
        (JobState::Deploying | JobState::Recovering, _) => {
            format!("its tasks to go on from epoch {}", job.epoch)
        }
        (_, []) => "its last epoch".to_owned(),
        (_, sinks) => format!("the delivery to {}", sinks.join(", ")),
    };
    let causes = progress::sink_causes(job).map(|(_, cause)| cause);
    let mut line = format!("waiting for {what}, at most a minute");
    for cause in job.cause.as_deref().into_iter().chain(causes) {
        line.push_str(&format!(" | {}", progress::one_line(cause)));
    }
    line
}

#[cfg(test)]
mod tests;
