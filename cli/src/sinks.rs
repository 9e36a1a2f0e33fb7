//! `millstream sinks`: how far behind each sink of a job is, in epochs, rows, bytes and time.

use std::process::ExitCode;

use clap::Args;
use millstream_common::control::SinkView;
use millstream_common::text;

use crate::arguments::{Form, MasterAddress};
use crate::output;
use crate::table::{self, Align, Column};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    master: MasterAddress,
    #[command(flatten)]
    form: Form,
    /// The job's name.
    name: String,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let client = arguments.master.connect().await?;
    let job = client.job(&arguments.name.as_str().into()).await?;
    match arguments.form.json {
        true => output::print_json(&job.sinks)?,
        false => output::print(&render(&job.sinks))?,
    }
    Ok(ExitCode::SUCCESS)
}

const COLUMNS: [Column; 9] = [
    ("SINK", Align::Left),
    ("CONNECTOR", Align::Left),
    ("STATE", Align::Left),
    ("EPOCH", Align::Right),
    ("BEHIND", Align::Right),
    ("ROWS", Align::Right),
    ("BYTES", Align::Right),
    ("AGE", Align::Right),
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
        sink.cause.clone().unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
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
        assert!(render(&[paused]).contains("paused"));
    }
}
