//! Logs of the process: quiet by default, on stderr, never through the progress line.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// For verbs that people wait for: the progress line and the error at the end say it all. librdkafka
/// reports every refused connection; what matters of it is in the job's cause.
pub(crate) const QUIET_FILTER: &str = "warn,ractor=warn,rdkafka=off,librdkafka=off";
/// For master and worker.
pub(crate) const SERVICE_FILTER: &str =
    "warn,millstream=info,ractor=warn,rdkafka=off,librdkafka=off";

/// Sends events that pass `filter` to stderr.
pub(crate) fn start(filter: &str) -> anyhow::Result<()> {
    // What the exporter of spans says of each try; that it fails is said once, by us.
    let filter = match filter.contains("opentelemetry") {
        true => filter.to_owned(),
        false => format!("{filter},opentelemetry=off"),
    };
    let filter = EnvFilter::try_new(&filter)
        .with_context(|| format!("read log filter {filter:?}; write one such as info"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}
