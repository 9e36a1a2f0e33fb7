//! `millstream healthcheck`: asks the standard gRPC health service whether the control API serves.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
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
#[derive(Serialize)]
struct Health<'a> {
    address: &'a str,
    serving: bool,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let net: NetRef = Arc::new(TcpNet);
    let mut problem = anyhow!("no address is given");
    let addresses = arguments.master.master.split(',').map(str::trim);
    for address in addresses.filter(|address| !address.is_empty()) {
        let answered = tokio::time::timeout(DEADLINE, check(&net, address));
        let answered = answered.await.unwrap_or_else(|_| {
            Err(anyhow!(
                "{address} does not answer within {} s",
                DEADLINE.as_secs()
            ))
        });
        match answered {
            Ok(()) => {
                let health = Health {
                    address,
                    serving: true,
                };
                match arguments.form.json {
                    true => output::print_json(&health)?,
                    false => output::print(&format!("{address} serves\n"))?,
                }
                return Ok(ExitCode::SUCCESS);
            }
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

async fn check(net: &NetRef, address: &str) -> anyhow::Result<()> {
    let channel = net::channel(net, address).context("read address")?;
    let request = HealthCheckRequest {
        service: SERVICE.to_owned(),
    };
    let answer = HealthClient::new(channel).check(request).await;
    let answer = answer
        .with_context(|| format!("ask {address}"))?
        .into_inner();
    match answer.status() {
        ServingStatus::Serving => Ok(()),
        ServingStatus::NotServing | ServingStatus::Unknown | ServingStatus::ServiceUnknown => {
            bail!("{address} does not serve the control API now")
        }
    }
}
