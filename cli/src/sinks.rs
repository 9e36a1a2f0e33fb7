//! `millstream sinks`: how far behind each sink of a job is, in epochs, rows, bytes and time.

use std::process::ExitCode;

use clap::Args;
use millstream_common::client::ControlClient;
use millstream_common::control::{QUOTA_NEAR, QuotaView, SinkView};
use millstream_common::ids::JobName;
use millstream_common::text;

use crate::reading::ReadingOfJob;
use crate::table::{self, Align, Column};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    reading: ReadingOfJob,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let ask = async |client: ControlClient, name: &JobName| Ok(client.job(name).await?.sinks);
    arguments
        .reading
        .print(ask, |sinks: &Vec<SinkView>| render(sinks))
        .await
}

const COLUMNS: [Column; 11] = [
    ("SINK", Align::Left),
    ("CONNECTOR", Align::Left),
    ("STATE", Align::Left),
    ("EPOCH", Align::Right),
    ("BEHIND", Align::Right),
    ("ROWS", Align::Right),
    ("BYTES", Align::Right),
    ("AGE", Align::Right),
    ("KEPT FROM", Align::Right),
    ("QUOTA", Align::Left),
    ("CAUSE", Align::Left),
];

/// A line for each sink.
pub(crate) fn render(sinks: &[SinkView]) -> String {
    let rows: Vec<Vec<String>> = sinks.iter().map(row).collect();
    table::render(&COLUMNS, &rows)
}

fn row(sink: &SinkView) -> Vec<String> {
    vec![
        sink.name.clone(),
        sink.connector.clone(),
        sink.standing().to_owned(),
        sink.marker.to_string(),
        text::count(sink.lag_epochs),
        text::count(sink.lag_rows),
        text::bytes(sink.lag_bytes),
        sink.lag_age_ms.map(text::duration).unwrap_or_default(),
        sink.retained_from.to_string(),
        sink.quota.map(quota).unwrap_or_default(),
        sink.cause.clone().unwrap_or_default(),
    ]
}

/// `83 % of 10.0 GiB or 1 h, then suspend`.
fn quota(view: QuotaView) -> String {
    let bytes = view.quota.bytes.map(text::bytes);
    let age = view.quota.age_ms.map(text::duration);
    let bounds: Vec<String> = bytes.into_iter().chain(age).collect();
    format!(
        "{} % of {}, then {}",
        (view.used * 100.0).floor(),
        bounds.join(" or "),
        view.quota.policy
    )
}

/// Why a sink is in trouble, and how much of its quota is used up if that is worth a warning.
pub(crate) fn cause(sink: &SinkView) -> String {
    let near = sink.quota.filter(|view| view.used >= QUOTA_NEAR);
    let near = near.map(|view| format!("quota: {}", quota(view)));
    let parts: Vec<String> = sink.cause.clone().into_iter().chain(near).collect();
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use millstream_common::plan::{OnQuota, SinkQuota};

    use super::*;
    use crate::progress::tests::sink;

    #[test]
    fn a_sink_that_is_behind_shows_by_how_much_and_why() {
        let sink = sink();
        let shown = render(std::slice::from_ref(&sink));
        for part in ["warehouse", "troubled", "38", "connection refused"] {
            assert!(shown.contains(part), "{shown}");
        }
        let paused = SinkView {
            paused: true,
            ..sink
        };
        assert!(render(std::slice::from_ref(&paused)).contains("paused"));
        let suspended = SinkView {
            suspended: true,
            ..paused
        };
        assert!(render(&[suspended]).contains("suspended"));
    }

    #[test]
    fn a_sink_that_is_near_its_quota_is_warned_of_beside_its_trouble() {
        let mut sink = sink();
        sink.quota = Some(QuotaView {
            quota: SinkQuota {
                bytes: Some(10 << 30),
                age_ms: Some(3_600_000),
                policy: OnQuota::Backpressure,
            },
            used: 0.837,
        });
        assert!(cause(&sink).starts_with("connection refused; quota: 83 % of 10"));
        sink.cause = None;
        let shown = render(std::slice::from_ref(&sink));
        for part in ["near quota", "83 % of 10", "then backpressure"] {
            assert!(shown.contains(part), "{shown}");
        }
        sink.quota.as_mut().unwrap().used = 0.5;
        assert_eq!(cause(&sink), "");
    }
}
