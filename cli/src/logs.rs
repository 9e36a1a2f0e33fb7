//! Logs of the process: quiet by default, on stderr, never through the progress line; as text for people or a JSON object a line.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// For verbs that people wait for: the progress line and the error at the end say it all. librdkafka
/// reports every refused connection; what matters of it is in the job's cause.
pub(crate) const QUIET_FILTER: &str = "warn,ractor=warn,rdkafka=off,librdkafka=off";
/// For master and worker.
pub(crate) const SERVICE_FILTER: &str =
    "warn,millstream=info,ractor=warn,rdkafka=off,librdkafka=off";

/// How an event is written.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// A line for people, coloured on a terminal.
    #[default]
    Text,
    /// A line with one object: `timestamp`, `level`, `target`, and what the event tells beside its `message`.
    Json,
}

/// Sends events that pass `filter` to stderr.
pub(crate) fn start(filter: &str, format: Format) -> anyhow::Result<()> {
    // What the exporter of spans says of each try; that it fails is said once, by us.
    let filter = match filter.contains("opentelemetry") {
        true => filter.to_owned(),
        false => format!("{filter},opentelemetry=off"),
    };
    let filter = EnvFilter::try_new(&filter)
        .with_context(|| format!("read log filter {filter:?}; write one such as info"))?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        Format::Text => logs.with_ansi(std::io::stderr().is_terminal()).init(),
        Format::Json => logs.json().flatten_event(true).init(),
    }
    Ok(())
}
