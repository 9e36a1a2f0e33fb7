//! `millstream jobs`: all jobs of the cluster, a line each.

use std::process::ExitCode;

use clap::Args;
use millstream_common::client::ControlClient;
use millstream_common::control::JobView;
use millstream_common::text;

use crate::reading::Reading;
use crate::table::{self, Align, Column};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    reading: Reading,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let ask = async |client: ControlClient| client.jobs().await;
    let reading = &arguments.reading;
    reading.print(ask, |jobs| render(jobs)).await
}

const COLUMNS: [Column; 8] = [
    ("NAME", Align::Left),
    ("STATE", Align::Left),
    ("EPOCH", Align::Right),
    ("WATERMARK", Align::Left),
    ("ROWS/S", Align::Right),
    ("READ", Align::Right),
    ("REJECTED", Align::Right),
    ("LAG", Align::Right),
];

fn render(jobs: &[JobView]) -> String {
    if jobs.is_empty() {
        return "no jobs; submit one with `millstream submit FILE`\n".to_owned();
    }
    let rows: Vec<Vec<String>> = jobs
        .iter()
        .map(|job| {
            vec![
                job.name.to_string(),
                job.state.to_string(),
                job.epoch.to_string(),
                text::watermark(job.watermark),
                text::job_rate(job).unwrap_or_default(),
                text::count(job.rows_read),
                text::count(job.dead_letter_count()),
                text::job_lag(job).unwrap_or_default(),
            ]
        })
        .collect();
    table::render(&COLUMNS, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_says_what_to_do() {
        assert!(render(&[]).contains("millstream submit"));
    }
}
