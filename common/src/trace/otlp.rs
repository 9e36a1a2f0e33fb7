//! Spans to a collector over OTLP, as the standard OTEL_* variables say.
//!
//! Started by the command line, once a process: [`Export::from_environment`]. Owns a bounded queue and one task, which gathers
//! spans and sends them; recording never waits, and a full queue drops (INV-9). No collector configured means no queue, no task and
//! no word. Failure: the first batch that a collector does not take is one warning; after that only the counts tell.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId as OtelTraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use super::sampler::Sampler;
use super::{NoTracer, Span, SpanCounts, TraceContext, TraceId, Tracer, TracerRef, Value};

/// Spans that wait, unless OTEL_BSP_MAX_QUEUE_SIZE says otherwise.
const QUEUE_MAX: usize = 2_048;
/// Spans of one request, unless OTEL_BSP_MAX_EXPORT_BATCH_SIZE says otherwise.
const BATCH_MAX: usize = 512;
/// How long a span waits for company, unless OTEL_BSP_SCHEDULE_DELAY says otherwise: spans of a process that is killed are lost for as
/// long as they wait.
const DELAY: Duration = Duration::from_secs(1);
/// How long a collector may take to answer, unless OTEL_EXPORTER_OTLP_TIMEOUT or OTEL_EXPORTER_OTLP_TRACES_TIMEOUT says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of a process waits for what is left.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// The way of a process's spans to a collector.
#[derive(Default)]
pub struct Export {
    tracer: Option<Arc<OtlpTracer>>,
    stop: Option<oneshot::Sender<()>>,
    tasks: JoinSet<()>,
}

impl Export {
    /// As the environment says, for a process that is called `service` unless that says otherwise; `instance` tells it from others
    /// of its kind. What is wrong with the variables is one warning, and nothing is exported.
    pub fn from_environment(service: &str, instance: &str) -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        match Plan::read(&variable) {
            Ok(None) => Self::default(),
            Ok(Some(plan)) => match plan.exporter() {
                Ok(mut exporter) => {
                    exporter.set_resource(&resource(service, instance, &variable));
                    info!(endpoint = %without_password(&plan.endpoint), "traces are exported");
                    Self::start(plan, exporter)
                }
                Err(cause) => Self::refused(&cause),
            },
            Err(cause) => Self::refused(&cause),
        }
    }

    fn refused(cause: &str) -> Self {
        warn!(%cause, "traces are not exported");
        Self::default()
    }

    fn start(plan: Plan, exporter: SpanExporter) -> Self {
        let (queue, waiting) = mpsc::channel(plan.queue_max);
        let tracer = Arc::new(OtlpTracer {
            sampler: plan.sampler,
            queue,
            counts: Counts::default(),
            scope: InstrumentationScope::builder("millstream")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        });
        let (stop, stopped) = oneshot::channel();
        let sending = Sending {
            exporter,
            waiting,
            stopped,
            tracer: tracer.clone(),
            plan,
            has_warned: false,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(sending.run());
        Self {
            tracer: Some(tracer),
            stop: Some(stop),
            tasks,
        }
    }

    /// Where spans are recorded.
    pub fn tracer(&self) -> TracerRef {
        match &self.tracer {
            Some(tracer) => tracer.clone(),
            None => Arc::new(NoTracer),
        }
    }

    /// Sends what is left, for a short while.
    pub async fn end(mut self) {
        drop(self.stop.take());
        let joined = tokio::time::timeout(END_PATIENCE, self.tasks.join_next());
        if joined.await.is_err() {
            debug!("the collector did not take the last spans in time");
        }
    }
}

/// What the environment asks for.
struct Plan {
    endpoint: String,
    is_http: bool,
    sampler: Sampler,
    queue_max: usize,
    batch_max: usize,
    delay: Duration,
    /// A collector that has not answered by then has not taken the spans.
    timeout: Duration,
}

impl Plan {
    fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let of_traces = |what: &str| {
            variable(&format!("OTEL_EXPORTER_OTLP_TRACES_{what}"))
                .or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{what}")))
        };
        let is_off = variable("OTEL_SDK_DISABLED").as_deref() == Some("true")
            || variable("OTEL_TRACES_EXPORTER").as_deref() == Some("none");
        let Some(endpoint) = of_traces("ENDPOINT").filter(|_| !is_off) else {
            return Ok(None);
        };
        let is_http = match of_traces("PROTOCOL").as_deref() {
            Some("http/protobuf") => true,
            Some("grpc") => false,
            // The ports that collectors listen at.
            None => endpoint.trim_end_matches('/').ends_with(":4318"),
            Some(other) => {
                return Err(format!(
                    "OTEL_EXPORTER_OTLP_PROTOCOL={other}: choose grpc or http/protobuf"
                ));
            }
        };
        let is_insecure = of_traces("INSECURE").as_deref() == Some("true");
        check_endpoint(&endpoint, is_http, is_insecure)?;
        let number = |name: &str, default: usize| match variable(name) {
            None => Ok(default),
            Some(text) => match text.parse() {
                Ok(number) if number > 0 => Ok(number),
                _ => Err(format!("{name}={text} is no number above 0")),
            },
        };
        let timeout = match of_traces("TIMEOUT") {
            None => TIMEOUT,
            Some(text) => match text.parse() {
                Ok(millis) if millis > 0 => Duration::from_millis(millis),
                _ => {
                    return Err(format!(
                        "OTEL_EXPORTER_OTLP_TIMEOUT={text} is no number of milliseconds above 0"
                    ));
                }
            },
        };
        let delay_ms = number("OTEL_BSP_SCHEDULE_DELAY", DELAY.as_millis() as usize)?;
        Ok(Some(Self {
            endpoint,
            is_http,
            sampler: Sampler::named(
                variable("OTEL_TRACES_SAMPLER").as_deref(),
                variable("OTEL_TRACES_SAMPLER_ARG").as_deref(),
            )?,
            queue_max: number("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_MAX)?,
            batch_max: number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_MAX)?,
            delay: Duration::from_millis(delay_ms as u64),
            timeout,
        }))
    }

    /// Endpoint and headers the exporter reads by itself; its timeout holds for its own clients only, see `send`.
    fn exporter(&self) -> Result<SpanExporter, String> {
        let built = match self.is_http {
            true => {
                let client = reqwest::Client::builder().build();
                let client = client.map_err(|error| error.to_string())?;
                SpanExporter::builder()
                    .with_http()
                    .with_protocol(Protocol::HttpBinary)
                    .with_http_client(Http(client))
                    .build()
            }
            false => SpanExporter::builder()
                .with_tonic()
                .with_protocol(Protocol::Grpc)
                .build(),
        };
        built.map_err(|error| crate::error::chain(&error))
    }
}

/// Refuses what no exporter of that protocol can be made for, with what can be written in its place.
fn check_endpoint(endpoint: &str, is_http: bool, is_insecure: bool) -> Result<(), String> {
    let shown = without_password(endpoint);
    if !is_http && is_insecure && !endpoint.contains("://") {
        // The exporter puts http:// in front.
        return Ok(());
    }
    let scheme = url::Url::parse(endpoint)
        .ok()
        .filter(|url| url.has_host())
        .map(|url| url.scheme().to_owned());
    match scheme.as_deref() {
        Some("http") => Ok(()),
        Some("https") if is_http => Ok(()),
        Some("https") => Err(format!(
            "the endpoint {shown} in OTEL_EXPORTER_OTLP_ENDPOINT: gRPC to a collector has no TLS here; write http://HOST:4317, or \
             https://HOST:4318 with OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
        )),
        _ => Err(format!(
            "the endpoint {shown} in OTEL_EXPORTER_OTLP_ENDPOINT is no URL of a collector: write http://HOST:4317 (gRPC) or http://HOST:4318 (HTTP)"
        )),
    }
}

/// The endpoint without a name or password: what stands before the last @ may hold them.
fn without_password(endpoint: &str) -> String {
    let (scheme, rest) = match endpoint.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), endpoint),
    };
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}{host}")
}

fn resource(service: &str, instance: &str, variable: &dyn Fn(&str) -> Option<String>) -> Resource {
    let builder = Resource::builder().with_attributes([
        KeyValue::new("service.instance.id", instance.to_owned()),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ]);
    let attributes = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let is_named = variable("OTEL_SERVICE_NAME").is_some() || attributes.contains("service.name=");
    match is_named {
        true => builder.build(),
        false => builder.with_service_name(service.to_owned()).build(),
    }
}

/// OTLP over HTTP by the client that storage uses too.
#[derive(Debug)]
struct Http(reqwest::Client);

#[async_trait]
impl HttpClient for Http {
    async fn send_bytes(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, HttpError> {
        let mut answer = self.0.execute(request.try_into()?).await?;
        let headers = std::mem::take(answer.headers_mut());
        let mut response = http::Response::builder()
            .status(answer.status())
            .body(answer.bytes().await?)?;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

/// Puts spans into the queue.
#[derive(Debug)]
struct OtlpTracer {
    sampler: Sampler,
    queue: mpsc::Sender<SpanData>,
    counts: Counts,
    scope: InstrumentationScope,
}

impl Tracer for OtlpTracer {
    fn keeps(&self, trace: TraceId) -> bool {
        self.sampler.keeps(trace)
    }

    fn record(&self, span: Span) {
        if self.queue.try_send(data(span, &self.scope)).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counts(&self) -> Option<SpanCounts> {
        Some(SpanCounts {
            exported: self.counts.exported.load(Ordering::Relaxed),
            failed: self.counts.failed.load(Ordering::Relaxed),
            dropped: self.counts.dropped.load(Ordering::Relaxed),
        })
    }
}

fn data(span: Span, scope: &InstrumentationScope) -> SpanData {
    let mut links = SpanLinks::default();
    let linked = span.links.iter();
    links.links = linked
        .map(|link| Link::new(context(link), Vec::new(), 0))
        .collect();
    let attributes = span.attributes.into_iter();
    SpanData {
        span_context: context(&span.context),
        parent_span_id: SpanId::from(span.parent),
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: span.name.into(),
        start_time: time(span.start_us),
        end_time: time(span.end_us),
        attributes: attributes
            .map(|(name, value)| match value {
                Value::Text(text) => KeyValue::new(name, text),
                Value::Number(number) => KeyValue::new(name, number),
            })
            .collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links,
        status: span.error.map_or(Status::Unset, Status::error),
        instrumentation_scope: scope.clone(),
    }
}

fn context(context: &TraceContext) -> SpanContext {
    SpanContext::new(
        OtelTraceId::from(context.trace.0),
        SpanId::from(context.span),
        TraceFlags::SAMPLED,
        false,
        TraceState::default(),
    )
}

fn time(unix_us: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(unix_us.max(0).unsigned_abs())
}

/// The task.
struct Sending {
    exporter: SpanExporter,
    waiting: mpsc::Receiver<SpanData>,
    stopped: oneshot::Receiver<()>,
    tracer: Arc<OtlpTracer>,
    plan: Plan,
    has_warned: bool,
}

impl Sending {
    async fn run(mut self) {
        let mut is_over = false;
        while !is_over {
            let mut batch = Vec::new();
            tokio::select! {
                _ = self.waiting.recv_many(&mut batch, self.plan.batch_max) => {}
                _ = &mut self.stopped => is_over = true,
            }
            is_over |= self.gather(&mut batch, is_over).await;
            while !batch.is_empty() {
                self.send(std::mem::take(&mut batch)).await;
                if is_over {
                    self.gather(&mut batch, true).await;
                }
            }
        }
    }

    /// Waits for company; true if the process is ending. When it is, only what waits already is taken.
    async fn gather(&mut self, batch: &mut Vec<SpanData>, mut is_over: bool) -> bool {
        let deadline = Instant::now() + self.plan.delay;
        while batch.len() < self.plan.batch_max {
            if is_over {
                match self.waiting.try_recv() {
                    Ok(span) => batch.push(span),
                    Err(_) => break,
                }
                continue;
            }
            tokio::select! {
                received = timeout_at(deadline, self.waiting.recv()) => match received {
                    Ok(Some(span)) => batch.push(span),
                    Ok(None) | Err(_) => break,
                },
                _ = &mut self.stopped => is_over = true,
            }
        }
        is_over
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        let counts = &self.tracer.counts;
        let timeout = self.plan.timeout;
        let sent = tokio::time::timeout(timeout, self.exporter.export(batch)).await;
        let sent = sent.unwrap_or(Err(OTelSdkError::Timeout(timeout)));
        match sent {
            Ok(()) => {
                counts.exported.fetch_add(count, Ordering::Relaxed);
            }
            Err(error) => {
                counts.failed.fetch_add(count, Ordering::Relaxed);
                let endpoint = without_password(&self.plan.endpoint);
                match std::mem::replace(&mut self.has_warned, true) {
                    false => warn!(
                        %endpoint, %error,
                        "spans could not be exported; those that cannot are dropped and only counted from now on"
                    ),
                    true => debug!(%endpoint, %error, count, "export spans"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::net::{Net, TcpNet};

    fn plan(variables: &[(&str, &str)]) -> Result<Option<Plan>, String> {
        let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
        Plan::read(&|name| variables.get(name).map(|&value| value.to_owned()))
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");

    #[test]
    fn nothing_is_exported_unless_a_collector_is_named_and_wanted() {
        assert!(plan(&[]).expect("well formed").is_none());
        let off = [ENDPOINT, ("OTEL_SDK_DISABLED", "true")];
        assert!(plan(&off).expect("well formed").is_none());
        let none = [ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")];
        assert!(plan(&none).expect("well formed").is_none());
        assert!(plan(&[ENDPOINT]).expect("well formed").is_some());
    }

    #[test]
    fn the_protocol_is_what_is_said_or_what_the_port_is_known_for() {
        let is_http = |variables: &[(&str, &str)]| {
            let plan = plan(variables).expect("well formed");
            plan.map(|plan| plan.is_http)
        };
        assert_eq!(is_http(&[ENDPOINT]), Some(false));
        let other_port = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://jaeger:4318/");
        assert_eq!(is_http(&[ENDPOINT, other_port]), Some(true));
        let said = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        assert_eq!(is_http(&[ENDPOINT, said]), Some(true));
        let wrong = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json");
        assert!(plan(&[ENDPOINT, wrong]).is_err());
        let wrong = ("OTEL_BSP_MAX_QUEUE_SIZE", "0");
        assert!(plan(&[ENDPOINT, wrong]).is_err());
    }

    #[test]
    fn what_is_told_of_a_collector_holds_no_password() {
        let endpoint = "https://me:secret@collector:4317/v1";
        assert_eq!(without_password(endpoint), "https://collector:4317/v1");
        assert_eq!(without_password("me:secret@collector"), "collector");
        assert_eq!(
            without_password("http://me:sec/ret@host:1"),
            "http://host:1"
        );
        let refused = plan(&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)])
            .err()
            .expect("TLS");
        assert!(!refused.contains("secret"), "{refused}");
    }

    #[test]
    fn an_endpoint_that_cannot_be_exported_to_is_told_what_to_write() {
        let told = |endpoint: &str, protocol: &str| {
            let variables = [
                ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ];
            plan(&variables).err()
        };
        for endpoint in ["nonsense", "collector:4317", "ftp://collector", "http://"] {
            let told = told(endpoint, "grpc").expect(endpoint);
            assert!(told.contains("write http://HOST:4317"), "{told}");
        }
        let encrypted = told("https://collector:4317", "grpc").expect("no TLS over gRPC");
        assert!(encrypted.contains("OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"));
        assert_eq!(told("https://collector:4318", "http/protobuf"), None);
        let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "true");
        let bare = ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317");
        assert!(plan(&[bare, insecure]).is_ok());
    }

    #[tokio::test]
    async fn a_collector_that_takes_connections_and_never_answers_does_not_end_tracing() {
        // The system takes connections for it, and nobody reads them.
        let silent = TcpNet.listen("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}/v1/traces", silent.address);
        let variables = [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "20"),
            ("OTEL_BSP_SCHEDULE_DELAY", "1"),
        ];
        let plan = plan(&variables).expect("well formed").expect("an endpoint");
        let client = reqwest::Client::builder().build().expect("a client");
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint)
            .with_http_client(Http(client))
            .build();
        let export = Export::start(plan, exporter.expect("an exporter"));
        let tracer = export.tracer();
        let context = tracer.root(TraceId(7)).expect("all are kept");
        for sent in 1..=2 {
            tracer.record(Span::root("epoch", context, 1, 2));
            while tracer.counts().expect("it is on").failed < sent {
                tokio::task::yield_now().await;
            }
        }
        export.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_is_away_costs_one_queue_and_the_spans() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "4"),
        ];
        let plan = plan(&variables).expect("well formed").expect("an endpoint");
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint("http://127.0.0.1:9")
            .build();
        let export = Export::start(plan, exporter.expect("an exporter"));
        let tracer = export.tracer();
        let context = tracer.root(TraceId(7)).expect("all are kept");
        for _ in 0..10 {
            tracer.record(Span::root("epoch", context, 1, 2));
        }
        let dropped = tracer.counts().expect("it is on").dropped;
        assert_eq!(dropped, 6, "the queue holds four");
        export.end().await;
    }
}
