//! `millstream master`: the control plane as a process.
//!
//! Prints its address on stdout, so that whoever started it on a free port learns which. Of several on one storage one
//! reigns, the others stand by. Ctrl-C and SIGTERM end it; jobs go on with the next master on the same storage.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use clap::builder::FalseyValueParser;
use futures::StreamExt;
use millstream_common::address;
use millstream_common::blocking::{BlockingRef, ThreadPool};
use millstream_common::store;
use millstream_common::time::{ClockRef, SystemClock};
use millstream_common::trace::otlp::Export;
use millstream_master::config::MasterConfig;
use millstream_master::{Candidacy, Entrance};
use tokio::task::JoinSet;

use crate::arguments::{dialled, host_port, storage_url};
use crate::exposure::Exposure;
use crate::protection::{AccessArguments, TlsArguments};
use crate::retention::RetentionArguments;
use crate::{interrupts, output, process};

/// What stands in front of the address on stdout.
pub(crate) const LISTENING: &str = "master listening at ";

#[derive(Args)]
pub(crate) struct Arguments {
    /// Where to serve clients and workers; port 0 takes a free one.
    #[arg(
        long,
        env = "MILLSTREAM_LISTEN",
        default_value = "127.0.0.1:7070",
        value_name = "HOST:PORT",
        value_parser = host_port
    )]
    listen: String,
    /// Where to serve the dashboard, /healthz, /readyz and /metrics; port 0 takes a free one.
    #[arg(
        long,
        env = "MILLSTREAM_HTTP_LISTEN",
        default_value = "127.0.0.1:7071",
        value_name = "HOST:PORT",
        value_parser = host_port
    )]
    http: String,
    /// The log, state and segments: a folder, file:// or s3://; nothing else is durable. A second master on it stands by.
    #[arg(long, env = "MILLSTREAM_STORAGE", value_name = "URL")]
    storage: String,
    /// The cluster's name; a storage that belongs to another one is refused.
    #[arg(long, env = "MILLSTREAM_CLUSTER", default_value = "default", value_parser = cluster_name)]
    cluster: String,
    /// How clients and workers reach it; by default where it listens, or, if that is everywhere, by this host's name.
    #[arg(long, env = "MILLSTREAM_ADVERTISE", value_name = "HOST:PORT", value_parser = dialled)]
    advertise: Option<String>,
    /// Where people reach its dashboard, for one that stands by to lead there; by default at the same host as itself.
    #[arg(long, env = "MILLSTREAM_HTTP_ADVERTISE", value_name = "HOST[:PORT]")]
    http_advertise: Option<String>,
    /// Make the bucket of an s3:// storage if it is not there.
    #[arg(long, env = "MILLSTREAM_CREATE_BUCKET", value_parser = FalseyValueParser::new())]
    create_bucket: bool,
    /// Its name in the log, for people.
    #[arg(long, default_value = "master")]
    name: String,
    #[command(flatten)]
    tls: TlsArguments,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    retention: RetentionArguments,
    #[command(flatten)]
    exposure: Exposure,
    #[command(flatten)]
    parent: Parent,
}

/// For processes that must not outlive whoever started them, whatever ends it.
#[derive(Args)]
pub(crate) struct Parent {
    /// End when stdin is closed.
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

impl Parent {
    /// Pends until the parent is gone, or forever where nobody asked.
    pub(crate) async fn gone(&self) {
        if !self.until_stdin_closes {
            return std::future::pending().await;
        }
        let mut sink = tokio::io::sink();
        // An error of stdin means the same as its end.
        let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut sink).await;
    }
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    arguments.tls.check_service()?;
    let mut interrupts = interrupts::listen()?;
    let blocking: BlockingRef = Arc::new(ThreadPool);
    let storage_url = storage_url(&arguments.storage)?;
    let exposure = &arguments.exposure;
    exposure.allow(&arguments.tls, &arguments.listen, "submit and stop jobs")?;
    exposure.allow(
        &arguments.tls,
        &arguments.http,
        "read jobs, their SQL and dead letters",
    )?;
    if arguments.create_bucket {
        store::create_bucket(&storage_url).await?;
    }
    // Ended with this function.
    let mut tasks = JoinSet::new();
    let clock: ClockRef = Arc::new(SystemClock::new());
    let export = Export::from_environment("millstream-master", &arguments.name);
    let config = MasterConfig {
        tracer: export.tracer(),
        net: arguments.tls.net_of_masters(None)?,
        workers_net: arguments.tls.net_of_workers()?,
        access: arguments
            .access
            .access(&arguments.tls, &blocking, &mut tasks)?,
        store: store::open(&storage_url, blocking.clone()).await?,
        storage_url,
        connectors: process::master_connectors(&blocking, &clock),
        blocking,
        clock,
        listen: arguments.listen,
        http_listen: Some(arguments.http),
        name: arguments.name,
        host: process::host(),
        retention: arguments.retention.into(),
    };
    let given = |address: &String| !address.is_empty();
    let advertise = arguments.advertise.filter(given);
    let advertise = advertise.or_else(|| by_name(&config.listen));
    let candidacy = Candidacy {
        entrance: Entrance::WhenVacant,
        cluster: arguments.cluster,
        advertise,
        http_advertise: arguments.http_advertise.filter(given),
    };
    let mut master = process::stand_as_master(config, candidacy).await?;
    output::print(&format!("{LISTENING}{}\n", master.address()))?;
    tokio::select! {
        ended = master.finished() => {
            ended?;
            return Ok(ExitCode::SUCCESS);
        }
        _ = interrupts.next() => tracing::info!("told to end"),
        () = arguments.parent.gone() => tracing::info!("stdin is closed"),
    }
    let ending = async {
        master.shutdown().await;
        export.end().await;
    };
    interrupts::unless_again(&mut interrupts, ending).await;
    Ok(ExitCode::SUCCESS)
}

/// Where a master that listens everywhere is reached: an address for all interfaces is one that nobody can dial.
fn by_name(listen: &str) -> Option<String> {
    let is_everywhere = address::listens_everywhere(listen);
    let name = is_everywhere.then(process::host_name)??;
    Some(address::at_host(listen, &name))
}

/// A name is shown to people and compared byte by byte.
fn cluster_name(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    match !text.is_empty() && text.bytes().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err("write letters, digits, '-' and '_'".to_owned()),
    }
}
