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
