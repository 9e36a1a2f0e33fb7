//! `millstream worker`: the data plane as a process. Any number of them join one master.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use millstream_common::blocking::{BlockingRef, ThreadPool};
use millstream_common::ids::WorkerId;
use millstream_common::time::{ClockRef, SystemClock};
use millstream_common::trace::otlp::Export;
use millstream_master::service::access::AccessLayer;
use millstream_worker::config::{HttpDoor, RealConnectors, RealStores, WorkerConfig};
use millstream_worker::leaving::Left;
use tokio::task::JoinSet;

use crate::arguments::{MasterAddress, dialled, host_port};
use crate::exposure::Exposure;
use crate::master::Parent;
use crate::process::Worker;
use crate::protection::AccessArguments;
use crate::spill::SpillArguments;
use crate::{interrupts, output, process};

/// How long a worker that is told to end waits for its tasks to move; they do within two seconds unless something is in their way.
const LEAVE_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    master: MasterAddress,
    /// Tasks of each stage to run; by default one a core.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: Option<u32>,
    /// Where to serve rows to other workers; port 0 takes a free one.
    #[arg(
        long,
        env = "MILLSTREAM_FLIGHT_LISTEN",
        default_value = "127.0.0.1:0",
        value_name = "HOST:PORT",
        value_parser = host_port
    )]
    flight_listen: String,
    /// Where to serve /healthz, /readyz and /metrics; port 0 takes a free one.
    #[arg(
        long,
        env = "MILLSTREAM_HTTP_LISTEN",
        default_value = "127.0.0.1:0",
        value_name = "HOST:PORT",
        value_parser = host_port
    )]
    http: String,
    /// How other workers reach it; by default where it listens, or, if that is everywhere, where it dials the master from.
    #[arg(long, env = "MILLSTREAM_ADVERTISE", value_name = "HOST:PORT", value_parser = dialled)]
    advertise: Option<String>,
    /// Its name in the cluster; unique. By default one is made up.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    spill: SpillArguments,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    exposure: Exposure,
    #[command(flatten)]
    parent: Parent,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    arguments.master.tls.check_service()?;
    let mut interrupts = interrupts::listen()?;
    arguments.exposure.allow(
        &arguments.master.tls,
        &arguments.flight_listen,
        "look at the rows of jobs and send more",
    )?;
    arguments
        .exposure
        .allow(&arguments.master.tls, &arguments.http, "read metrics")?;
    let blocking: BlockingRef = Arc::new(ThreadPool);
    let stores = RealStores {
        blocking: blocking.clone(),
    };
    let name = arguments.name.unwrap_or_else(made_up_name);
    let export = Export::from_environment("millstream-worker", &name);
    // Ended with this function.
    let mut tasks = JoinSet::new();
    let access = &arguments.access;
    let access = access.access(&arguments.master.tls, &blocking, &mut tasks)?;
    let clock: ClockRef = Arc::new(SystemClock::new());
    let spill = arguments.spill.spill(&blocking)?;
    let config = WorkerConfig {
        spill,
        tracer: export.tracer(),
        net: arguments.master.net()?,
        exchange_net: arguments.master.tls.net_of_workers()?,
        stores: Arc::new(stores),
        connectors: Arc::new(RealConnectors),
        clock: clock.clone(),
        blocking,
        master: arguments.master.master,
        slots: arguments.slots.unwrap_or_else(core_count),
        flight_listen: arguments.flight_listen,
        http: Some(HttpDoor {
            listen: arguments.http,
            guard: Arc::new(AccessLayer { access, clock }),
        }),
        advertise: arguments.advertise.filter(|address| !address.is_empty()),
        name: WorkerId(name),
    };
    let mut worker = process::start_worker(config).await?;
    output::print(&format!("worker {} started\n", worker.id()))?;
    tokio::select! {
        ended = worker.finished() => {
            ended?;
            return Ok(ExitCode::SUCCESS);
        }
        _ = interrupts.next() => {
            interrupts::unless_again(&mut interrupts, leave(&worker)).await;
        }
        () = arguments.parent.gone() => tracing::info!("stdin is closed"),
    }
    let ending = async {
        worker.shutdown().await;
        export.end().await;
    };
    interrupts::unless_again(&mut interrupts, ending).await;
    Ok(ExitCode::SUCCESS)
}

/// What it runs moves to other workers first, so that nothing is read twice.
async fn leave(worker: &Worker) {
    tracing::info!("told to end: leaving; a second signal ends at once");
    match worker.leave(LEAVE_PATIENCE).await {
        Left::Released { is_last: false } => tracing::info!("left: what ran here has moved"),
        Left::Released { is_last: true } => {
            tracing::info!("left: the last worker; jobs wait for another, from their last epoch");
        }
        Left::Idle => tracing::info!("left: nothing ran here"),
        Left::WithoutMaster => {
            tracing::warn!("ending without a master: jobs are rewound to their last epoch");
        }
        Left::TimedOut => tracing::warn!(
            "ending although what runs here has not moved in {} s: its jobs are rewound to their last epoch",
            LEAVE_PATIENCE.as_secs()
        ),
    }
}

/// How many tasks of a stage run well side by side here.
pub(crate) fn core_count() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as u32)
}

/// Unique without asking anybody: host names and process ids repeat among containers.
#[allow(
    clippy::disallowed_methods,
    reason = "the name only has to differ from those of other processes"
)]
fn made_up_name() -> String {
    let mut name = format!("worker-{}", uuid::Uuid::new_v4().simple());
    name.truncate("worker-".len() + 8);
    name
}
