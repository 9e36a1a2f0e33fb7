//! `millstream healthcheck`: asks the standard gRPC health service whether the control API serves, and the master whether it reigns;
//! or whether a worker has joined a master.
//!
//! A master that stands by is well: whoever restarts what is not would take the standby away.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use millstream_common::client::{ControlClient, Role};
use millstream_common::grpc;
use millstream_common::net::{self, NetRef};
use millstream_worker::health;
use serde::Serialize;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::arguments::{Form, MasterAddress, dialled};
use crate::output;

/// The service whose health counts.
const SERVICE: &str = "millstream.v1.Control";
/// A container's runtime kills a check that takes long.
const DEADLINE: Duration = Duration::from_secs(3);

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    master: MasterAddress,
    /// Ask a worker instead, where it listens for others.
    #[arg(long, value_name = "HOST:PORT", value_parser = dialled)]
    worker: Option<String>,
    #[command(flatten)]
    form: Form,
}

/// The answer, as JSON shows it.
#[derive(Debug, PartialEq, Serialize)]
struct Health {
    address: String,
    /// It reigns and answers.
    serving: bool,
    /// It is ready to take over.
    standby: bool,
    /// It answers, and says what it is only to those who show a token or certificate.
    guarded: bool,
    /// Of the master that reigns, where this one stands by and knows it.
    active: Option<String>,
}

impl Health {
    fn told(&self) -> String {
        if self.guarded {
            return format!(
                "{} answers; whether it serves or stands by it tells who shows a token or certificate\n",
                self.address
            );
        }
        match (self.serving, &self.active) {
            (true, _) => format!("{} serves\n", self.address),
            (false, None) => format!("{} stands by\n", self.address),
            (false, Some(active)) => {
                format!(
                    "{} stands by; the active master is at {active}\n",
                    self.address
                )
            }
        }
    }
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if let Some(address) = &arguments.worker {
        let joined = look_at_worker(&arguments.master.tls.net_of_workers()?, address).await?;
        match arguments.form.json {
            true => output::print_json(&joined)?,
            false => output::print(&format!("{address} has joined a master\n"))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let health = look(arguments.master.net()?, &arguments.master.master).await?;
    match arguments.form.json {
        true => output::print_json(&health)?,
        false => output::print(&health.told())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A worker that a master counts on, as JSON shows it.
#[derive(Debug, PartialEq, Serialize)]
struct Joined {
    address: String,
    joined: bool,
}

async fn look_at_worker(net: &NetRef, address: &str) -> anyhow::Result<Joined> {
    let asked = tokio::time::timeout(DEADLINE, status(net, address, health::SERVICE)).await;
    let status = asked.map_err(|_| no_answer(address))??;
    match status {
        ServingStatus::Serving => Ok(Joined {
            address: address.to_owned(),
            joined: true,
        }),
        ServingStatus::NotServing | ServingStatus::Unknown | ServingStatus::ServiceUnknown => {
            bail!("{address} runs, but has not joined a master")
        }
    }
}

fn no_answer(address: &str) -> anyhow::Error {
    let seconds = DEADLINE.as_secs();
    anyhow!("{address} does not answer within {seconds} s")
}

/// Of several masters the one that serves, else one that stands by.
async fn look(net: NetRef, addresses: &str) -> anyhow::Result<Health> {
    let mut standby = None;
    let mut problem = anyhow!("no address is given");
    let addresses = addresses.split(',').map(str::trim);
    for address in addresses.filter(|address| !address.is_empty()) {
        let answered = tokio::time::timeout(DEADLINE, check(&net, address)).await;
        match answered {
            Ok(Ok(health)) if health.serving => return Ok(health),
            Ok(Ok(health)) => standby = Some(health),
            Ok(Err(error)) => problem = error,
            Err(_) => problem = no_answer(address),
        }
    }
    standby.ok_or(problem)
}

async fn check(net: &NetRef, address: &str) -> anyhow::Result<Health> {
    match status(net, address, SERVICE).await? {
        ServingStatus::Serving => {}
        ServingStatus::NotServing | ServingStatus::Unknown | ServingStatus::ServiceUnknown => {
            bail!("{address} does not serve the control API now")
        }
    }
    let role = ControlClient::role(net.clone(), address).await;
    let role = role.map_err(|cause| anyhow!("ask {address}: {cause}"))?;
    let mut health = Health {
        address: address.to_owned(),
        serving: false,
        standby: false,
        guarded: false,
        active: None,
    };
    match role {
        Role::Active => health.serving = true,
        Role::Standby { active } => (health.standby, health.active) = (true, active),
        Role::Guarded => health.guarded = true,
    }
    Ok(health)
}

/// What the standard health service at `address` says of one of its services.
async fn status(net: &NetRef, address: &str, service: &str) -> anyhow::Result<ServingStatus> {
    let channel = net::channel(net, address).context("read address")?;
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = HealthClient::new(channel).check(request).await;
    let answer =
        answer.map_err(|status| anyhow!("ask {address}: {}", grpc::in_plain_words(&status)))?;
    Ok(answer.into_inner().status())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use millstream_common::blocking::{BlockingRef, ThreadPool};
    use millstream_common::net::MemoryNet;
    use millstream_common::store;
    use millstream_common::time::{ClockRef, SystemClock};
    use millstream_master::config::MasterConfig;
    use millstream_master::retention::Retention;
    use millstream_master::service::access::Access;
    use millstream_master::{Candidacy, Entrance};
    use millstream_worker::config::{RealConnectors, RealStores, WorkerConfig};
    use millstream_worker::operator::spill::Spill;

    use super::*;
    use crate::process;

    async fn config(net: &NetRef, folder: &tempfile::TempDir, listen: &str) -> MasterConfig {
        let blocking: BlockingRef = Arc::new(ThreadPool);
        let clock: ClockRef = Arc::new(SystemClock::new());
        let storage_url = format!("file://{}", folder.path().display());
        MasterConfig {
            net: net.clone(),
            workers_net: net.clone(),
            access: Access::Open,
            store: store::open(&storage_url, blocking.clone()).await.unwrap(),
            storage_url,
            connectors: process::master_connectors(&blocking, &clock),
            blocking,
            clock,
            listen: listen.to_owned(),
            http_listen: None,
            tracer: std::sync::Arc::new(millstream_common::trace::NoTracer),
            name: listen.to_owned(),
            host: "here".to_owned(),
            retention: Retention::default(),
        }
    }

    fn worker_config(net: &NetRef, listen: &str, master: &str) -> WorkerConfig {
        let blocking: BlockingRef = Arc::new(ThreadPool);
        let stores = RealStores {
            blocking: blocking.clone(),
        };
        WorkerConfig {
            spill: Spill::without_limit(),
            net: net.clone(),
            exchange_net: net.clone(),
            stores: Arc::new(stores),
            connectors: Arc::new(RealConnectors),
            clock: Arc::new(SystemClock::new()),
            blocking,
            master: master.to_owned(),
            slots: 1,
            flight_listen: listen.to_owned(),
            tracer: Arc::new(millstream_common::trace::NoTracer),
            http: None,
            advertise: None,
            name: "alpha".into(),
        }
    }

    #[tokio::test]
    async fn a_worker_is_well_as_soon_as_a_master_counts_on_it() {
        let folder = tempfile::tempdir().unwrap();
        let net: NetRef = Arc::new(MemoryNet::default());
        let worker = process::start_worker(worker_config(&net, "alpha:1", "one:1")).await;
        let worker = worker.unwrap();
        let alone = look_at_worker(&net, "alpha:1").await.unwrap_err();
        assert_eq!(
            alone.to_string(),
            "alpha:1 runs, but has not joined a master"
        );
        let master = process::start_master(config(&net, &folder, "one:1").await).await;
        let joined = async {
            while look_at_worker(&net, "alpha:1").await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        let patience = Duration::from_secs(20);
        tokio::time::timeout(patience, joined).await.unwrap();
        worker.shutdown().await;
        master.unwrap().shutdown().await;
        let gone = look_at_worker(&net, "gone:1").await.unwrap_err();
        assert_eq!(gone.to_string(), "ask gone:1: nobody listens at gone:1");
    }

    #[tokio::test]
    async fn a_standby_is_well_but_is_not_said_to_serve() {
        let folder = tempfile::tempdir().unwrap();
        let net: NetRef = Arc::new(MemoryNet::default());
        let active = process::start_master(config(&net, &folder, "one:1").await);
        let active = active.await.unwrap();
        let candidacy = Candidacy {
            entrance: Entrance::WhenVacant,
            cluster: "default".to_owned(),
            advertise: None,
            http_advertise: None,
        };
        let standby = process::stand_as_master(config(&net, &folder, "two:1").await, candidacy);
        let standby = standby.await.unwrap();
        let well = look(net.clone(), "two:1, one:1").await.unwrap();
        assert_eq!(well.told(), "one:1 serves\n");
        let well = look(net.clone(), "two:1").await.unwrap();
        assert_eq!((well.serving, well.standby), (false, true));
        assert!(well.told().starts_with("two:1 stands by"), "{well:?}");
        let gone = look(net, "gone:1").await.unwrap_err();
        assert_eq!(gone.to_string(), "ask gone:1: nobody listens at gone:1");
        standby.shutdown().await;
        active.shutdown().await;
    }
}
