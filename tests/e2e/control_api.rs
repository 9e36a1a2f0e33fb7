//! A running master as a generic gRPC client sees it: its services by reflection, and their health.

use anyhow::{Context, ensure};
use millstream_tests::cluster::Cluster;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

#[tokio::test(flavor = "multi_thread")]
async fn a_generic_grpc_client_lists_the_control_api_and_asks_for_its_health() -> anyhow::Result<()>
{
    let cluster = Cluster::start(Vec::new(), 1).await?;
    let endpoint = Channel::from_shared(format!("http://{}", cluster.address))?;
    let channel = endpoint.connect().await.context("connect to the master")?;
    let services = list_services(channel.clone()).await?;
    for name in ["millstream.v1.Control", "grpc.health.v1.Health"] {
        ensure!(
            services.iter().any(|service| service == name),
            "{services:?}"
        );
    }
    let request = HealthCheckRequest {
        service: "millstream.v1.Control".to_owned(),
    };
    let health = HealthClient::new(channel).check(request).await?;
    ensure!(health.into_inner().status() == ServingStatus::Serving);
    Ok(())
}

async fn list_services(channel: Channel) -> anyhow::Result<Vec<String>> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let asked = ServerReflectionClient::new(channel)
        .server_reflection_info(futures::stream::iter([request]))
        .await?;
    let answer = asked.into_inner().message().await?.context("an answer")?;
    match answer.message_response {
        Some(MessageResponse::ListServicesResponse(list)) => Ok(list
            .service
            .into_iter()
            .map(|service| service.name)
            .collect()),
        other => anyhow::bail!("{other:?}"),
    }
}
