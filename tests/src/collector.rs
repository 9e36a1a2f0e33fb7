//! A collector of traces within a test: takes OTLP over gRPC and over HTTP, keeps every span, and says whether a trace is whole.
//!
//! Called by the end-to-end tests. Owns its server, which ends with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use millstream_common::net::{Net, TcpNet};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::task::JoinSet;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// A span as it came.
#[derive(Clone, Debug)]
pub struct Collected {
    /// Of its resource: `service.name`.
    pub service: String,
    /// Of its resource: `service.instance.id`.
    pub instance: String,
    /// What was done.
    pub name: String,
    /// In hexadecimal digits.
    pub span: String,
    /// The same; empty for a root.
    pub parent: String,
    /// Nanoseconds since 1970.
    pub times: (u64, u64),
    /// As text.
    pub attributes: BTreeMap<String, String>,
    /// Trace and span of each.
    pub links: Vec<(String, String)>,
}

/// Spans by trace.
pub type Traces = BTreeMap<String, Vec<Collected>>;

#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Traces>>);

/// A running collector.
pub struct Collector {
    /// What OTEL_EXPORTER_OTLP_ENDPOINT has to say.
    pub endpoint: String,
    shelf: Shelf,
    _server: JoinSet<()>,
}

impl Collector {
    /// Listens on a free port.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpNet.listen("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.address);
        let shelf = Shelf::default();
        let grpc = Routes::new(TraceServiceServer::new(shelf.clone()));
        let over_http = shelf.clone();
        let take = move |body: Bytes| {
            let taken = over_http.take_body(&body);
            async move { taken }
        };
        let router = grpc.into_axum_router().route("/v1/traces", post(take));
        let mut server = JoinSet::new();
        server.spawn(async move {
            let served = tonic::transport::Server::builder()
                .accept_http1(true)
                .add_routes(Routes::from(router))
                .serve_with_incoming(listener.incoming);
            // A test that lacks spans says so.
            drop(served.await);
        });
        Ok(Self {
            endpoint,
            shelf,
            _server: server,
        })
    }

    /// What a process has to see to send its spans here, soon, over a protocol as OTEL_EXPORTER_OTLP_PROTOCOL names it.
    pub fn environment(&self, protocol: &str) -> Vec<(&'static str, String)> {
        vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", self.endpoint.clone()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
        ]
    }

    /// Everything that has come.
    pub fn traces(&self) -> Traces {
        let traces = self.shelf.0.lock();
        traces.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The traces whose root is called `name`.
    pub fn called(&self, name: &str) -> Vec<Vec<Collected>> {
        let traces = self.traces().into_values();
        let is_called = |trace: &Vec<Collected>| {
            trace
                .iter()
                .any(|span| span.parent.is_empty() && span.name == name)
        };
        traces.filter(is_called).collect()
    }
}

/// Without what a master tells again because it cannot know that the one before it has.
fn told_once(trace: &[Collected]) -> Vec<&Collected> {
    let is_again = |span: &&Collected| span.attributes.contains_key("told_again");
    let (again, mut spans): (Vec<_>, Vec<_>) = trace.iter().partition(is_again);
    for span in again {
        if !spans.iter().any(|told| told.span == span.span) {
            spans.push(span);
        }
    }
    spans
}

/// Whether a trace has one root, and every other span its parent; the names of its spans.
pub fn whole(trace: &[Collected]) -> anyhow::Result<BTreeSet<&str>> {
    let trace = told_once(trace);
    let roots = trace.iter().filter(|span| span.parent.is_empty());
    ensure!(
        roots.clone().count() == 1,
        "not one root: {:?}",
        roots.collect::<Vec<_>>()
    );
    let ids: BTreeSet<&str> = trace.iter().map(|span| span.span.as_str()).collect();
    ensure!(ids.len() == trace.len(), "a span is there twice");
    for span in &trace {
        let is_known = span.parent.is_empty() || ids.contains(span.parent.as_str());
        ensure!(is_known, "its parent is missing: {span:?}");
        ensure!(
            span.times.0 > 0 && span.times.0 <= span.times.1,
            "it ends before it begins: {span:?}"
        );
    }
    Ok(trace.iter().map(|span| span.name.as_str()).collect())
}

#[tonic::async_trait]
impl TraceService for Shelf {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Shelf {
    /// Of a request over HTTP; answers with the status and the body.
    fn take_body(&self, body: &[u8]) -> Result<Vec<u8>, StatusCode> {
        let request = ExportTraceServiceRequest::decode(body);
        self.take(request.map_err(|_| StatusCode::BAD_REQUEST)?);
        Ok(ExportTraceServiceResponse::default().encode_to_vec())
    }

    fn take(&self, request: ExportTraceServiceRequest) {
        let mut traces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for of_resource in request.resource_spans {
            let resource = of_resource
                .resource
                .map(|resource| texts(resource.attributes));
            let resource = resource.unwrap_or_default();
            let spans = of_resource.scope_spans.into_iter();
            for span in spans.flat_map(|scope| scope.spans) {
                let trace = hex(&span.trace_id);
                traces
                    .entry(trace)
                    .or_default()
                    .push(collected(span, &resource));
            }
        }
    }
}

fn collected(span: Span, resource: &BTreeMap<String, String>) -> Collected {
    let of_resource = |name: &str| resource.get(name).cloned().unwrap_or_default();
    let links = span.links.iter();
    Collected {
        service: of_resource("service.name"),
        instance: of_resource("service.instance.id"),
        span: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        times: (span.start_time_unix_nano, span.end_time_unix_nano),
        links: links
            .map(|link| (hex(&link.trace_id), hex(&link.span_id)))
            .collect(),
        name: span.name,
        attributes: texts(span.attributes),
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Value| match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let attributes = attributes.into_iter().filter_map(|attribute| {
        let value = attribute.value?.value?;
        Some((attribute.key, text(value)))
    });
    attributes.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A number that a span tells.
pub fn number(span: &Collected, name: &str) -> anyhow::Result<u64> {
    let text = span.attributes.get(name);
    let text = text.with_context(|| format!("{name} of {span:?}"))?;
    Ok(text.parse()?)
}
