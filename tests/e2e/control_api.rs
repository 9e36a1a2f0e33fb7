//! A running master as a generic gRPC client sees it: its services and their messages by reflection, and their health.

use anyhow::{Context, ensure};
use millstream_tests::cluster::Cluster;
use prost_reflect::prost::Message;
use prost_reflect::prost_types::FileDescriptorProto;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, Value};
use tonic::Status;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
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
    // What errors carry, for a client that shows it.
    let carried = MessageRequest::FileContainingSymbol("google.rpc.BadRequest".to_owned());
    let described = reflect(channel.clone(), carried).await?;
    ensure!(
        matches!(described, MessageResponse::FileDescriptorResponse(_)),
        "{described:?}"
    );
    let request = HealthCheckRequest {
        service: "millstream.v1.Control".to_owned(),
    };
    let health = HealthClient::new(channel).check(request).await?;
    ensure!(health.into_inner().status() == ServingStatus::Serving);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generic_grpc_client_calls_a_method_that_it_knows_by_reflection_only()
-> anyhow::Result<()> {
    const JOB: &str =
        "CREATE SOURCE made (n BIGINT NOT NULL) WITH (connector = 'datagen', rows_per_second = 10);
        CREATE SINK nowhere FROM made WITH (connector = 'blackhole');";
    let cluster = Cluster::start(Vec::new(), 1).await?;
    cluster.submit("made", JOB).await?;
    let endpoint = Channel::from_shared(format!("http://{}", cluster.address))?;
    let channel = endpoint.connect().await.context("connect to the master")?;
    let pool = describe(channel.clone(), "millstream.v1.Control").await?;
    let service = pool.get_service_by_name("millstream.v1.Control");
    let mut methods = service.iter().flat_map(|service| service.methods());
    let method = methods.find(|method| method.name() == "GetJob");
    let method = method.context("the method GetJob")?;
    let mut question = DynamicMessage::new(method.input());
    question.try_set_field_by_name("name", Value::String("made".to_owned()))?;
    let mut client = Grpc::new(channel);
    client.ready().await?;
    let path = PathAndQuery::from_static("/millstream.v1.Control/GetJob");
    let request = tonic::Request::new(question);
    let answer = client
        .unary(request, path, Reflected(method.output()))
        .await?;
    let answer = answer.into_inner();
    let job = answer.get_field_by_name("job").context("the field job")?;
    let job = job.as_message().context("a message")?;
    let name = job.get_field_by_name("name").context("the field name")?;
    ensure!(name.as_str() == Some("made"), "{answer}");
    Ok(())
}

/// Messages whose fields are known at run time only.
struct Reflected(MessageDescriptor);

impl Codec for Reflected {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self(self.0.clone())
    }

    fn decoder(&mut self) -> Self {
        Self(self.0.clone())
    }
}

impl Encoder for Reflected {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, item: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let encoded = item.encode(buffer);
        encoded.map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Reflected {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let decoded = DynamicMessage::decode(self.0.clone(), buffer);
        let decoded = decoded.map_err(|error| Status::internal(error.to_string()));
        decoded.map(Some)
    }
}

async fn list_services(channel: Channel) -> anyhow::Result<Vec<String>> {
    let list = MessageRequest::ListServices(String::new());
    match reflect(channel, list).await? {
        MessageResponse::ListServicesResponse(list) => Ok(list
            .service
            .into_iter()
            .map(|service| service.name)
            .collect()),
        other => anyhow::bail!("{other:?}"),
    }
}

/// What the master says of the file that `symbol` is declared in.
async fn describe(channel: Channel, symbol: &str) -> anyhow::Result<DescriptorPool> {
    let question = MessageRequest::FileContainingSymbol(symbol.to_owned());
    let files = match reflect(channel, question).await? {
        MessageResponse::FileDescriptorResponse(files) => files.file_descriptor_proto,
        other => anyhow::bail!("{other:?}"),
    };
    let files = files
        .iter()
        .map(|file| FileDescriptorProto::decode(&file[..]));
    let mut pool = DescriptorPool::new();
    pool.add_file_descriptor_protos(files.collect::<Result<Vec<_>, _>>()?)?;
    Ok(pool)
}

async fn reflect(channel: Channel, question: MessageRequest) -> anyhow::Result<MessageResponse> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(question),
    };
    let asked = ServerReflectionClient::new(channel)
        .server_reflection_info(futures::stream::iter([request]))
        .await?;
    let answer = asked.into_inner().message().await?.context("an answer")?;
    answer.message_response.context("a response")
}
