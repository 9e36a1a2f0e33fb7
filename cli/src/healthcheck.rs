//! `millstream healthcheck`: asks the standard gRPC health service whether the control API serves, and the master whether it reigns.
//!
//! One that stands by is well: whoever restarts what is not would take the standby away.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use millstream_common::client::{ControlClient, Role};
use millstream_common::grpc;
use millstream_common::net::{self, NetRef, TcpNet};
use serde::Serialize;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::arguments::{Form, MasterAddress};
use crate::output;

/// The service whose health counts.
const SERVICE: &str = "millstream.v1.Control";
/// A container's runtime kills a check that takes long.
const DEADLINE: Duration = Duration::from_secs(3);

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    master: MasterAddress,
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
    /// Of the master that reigns, where this one stands by and knows it.
    active: Option<String>,
}

impl Health {
    fn told(&self) -> String {
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
    let health = look(Arc::new(TcpNet), &arguments.master.master).await?;
    match arguments.form.json {
        true => output::print_json(&health)?,
        false => output::print(&health.told())?,
    }
    Ok(ExitCode::SUCCESS)
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
            Err(_) => {
                let seconds = DEADLINE.as_secs();
                problem = anyhow!("{address} does not answer within {seconds} s");
            }
        }
    }
    standby.ok_or(problem)
}

async fn check(net: &NetRef, address: &str) -> anyhow::Result<Health> {
    let channel = net::channel(net, address).context("read address")?;
    let request = HealthCheckRequest {
        service: SERVICE.to_owned(),
    };
    let answer = HealthClient::new(channel).check(request).await;
    let answer = answer
        .map_err(|status| anyhow!("ask {address}: {}", grpc::in_plain_words(&status)))?
        .into_inner();
    match answer.status() {
        ServingStatus::Serving => {}
        ServingStatus::NotServing | ServingStatus::Unknown | ServingStatus::ServiceUnknown => {
            bail!("{address} does not serve the control API now")
        }
    }
    let role = ControlClient::role(net.clone(), address).await;
    let role = role.map_err(|cause| anyhow!("ask {address}: {cause}"))?;
    let (serving, active) = match role {
        Role::Active => (true, None),
        Role::Standby { active } => (false, active),
    };
    Ok(Health {
        address: address.to_owned(),
        serving,
        standby: !serving,
        active,
    })
}

#[cfg(test)]
mod tests {
    use millstream_common::blocking::{BlockingRef, ThreadPool};
    use millstream_common::net::MemoryNet;
    use millstream_common::store;
    use millstream_common::time::{ClockRef, SystemClock};
    use millstream_master::config::MasterConfig;
    use millstream_master::retention::Retention;
    use millstream_master::{Candidacy, Entrance};

    use super::*;
    use crate::process;

    async fn config(net: &NetRef, folder: &tempfile::TempDir, listen: &str) -> MasterConfig {
        let blocking: BlockingRef = Arc::new(ThreadPool);
        let clock: ClockRef = Arc::new(SystemClock::new());
        let storage_url = format!("file://{}", folder.path().display());
        MasterConfig {
            net: net.clone(),
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
