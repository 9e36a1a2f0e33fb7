//! `millstream watermarks`: how far time has come in a job, split by split, who holds it back, and why nothing comes out.

use std::process::ExitCode;

use clap::Args;
use millstream_common::client::ControlClient;
use millstream_common::control::{SourceWatermarkView, SplitWatermarkView, WatermarksView};
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
    let ask = async |client: ControlClient, name: &JobName| client.watermarks(name).await;
    arguments.reading.print(ask, render).await
}

const COLUMNS: [Column; 8] = [
    ("SOURCE", Align::Left),
    ("SPLIT", Align::Left),
    ("WATERMARK", Align::Left),
    ("STATE", Align::Left),
    ("POSITION", Align::Right),
    ("LAG", Align::Right),
    ("LAST ROW", Align::Right),
    ("WORKER", Align::Left),
];

/// A line for each source, one for each of its splits that is open, and the causes.
fn render(view: &WatermarksView) -> String {
    let rows: Vec<Vec<String>> = view.sources.iter().flat_map(rows).collect();
    let mut shown = table::render(&COLUMNS, &rows);
    if !view.why.is_empty() {
        shown.push_str("\nWhy nothing may come out:\n");
    }
    for why in &view.why {
        shown.push_str(&format!("- {why}\n"));
    }
    shown
}

fn rows(source: &SourceWatermarkView) -> Vec<Vec<String>> {
    let watermark = match (source.keeps_time, source.watermark) {
        (false, _) => "keeps no time".to_owned(),
        (true, watermark) => watermark.map_or("none yet".to_owned(), |time| time.to_string()),
    };
    let behind = source.delay_ms.filter(|delay| *delay >= 0);
    let behind = behind.map(|delay| format!("{} behind", text::duration(delay.unsigned_abs())));
    let mut rows = vec![vec![
        source.name.clone(),
        String::new(),
        watermark,
        behind.unwrap_or_default(),
        String::new(),
        text::source_lag(source, source.lag_records).unwrap_or_default(),
    ]];
    rows.extend(source.splits.iter().map(|split| row(source, split)));
    rows
}

fn row(source: &SourceWatermarkView, split: &SplitWatermarkView) -> Vec<String> {
    let holds_back = source.held_by.as_ref() == Some(&split.split);
    let idle = split.idle_ms.map(text::duration);
    let state = match (split.is_idle, holds_back) {
        (true, _) => format!(
            "idle for {}",
            idle.unwrap_or_else(|| "some time".to_owned())
        ),
        (false, true) => "holds it back".to_owned(),
        (false, false) => "active".to_owned(),
    };
    let watermark = match source.keeps_time {
        true => split
            .watermark
            .map_or("no row yet".to_owned(), |time| time.to_string()),
        false => String::new(),
    };
    let silent = split
        .silent_ms
        .map(|ms| format!("{} ago", text::duration(ms)));
    vec![
        source.name.clone(),
        split.split.to_string(),
        watermark,
        state,
        split.position.to_string(),
        text::source_lag(source, split.lag_records).unwrap_or_default(),
        silent.unwrap_or_default(),
        split
            .worker
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use millstream_common::control::JobState;
    use millstream_common::time::EventTime;

    use super::*;

    #[test]
    fn the_split_that_holds_time_back_stands_out_beside_one_that_is_idle() {
        let split = |name: &str, is_idle: bool| SplitWatermarkView {
            split: name.into(),
            is_idle,
            watermark: Some(EventTime(60_000_000)),
            position: 7,
            lag_records: (!is_idle).then_some(3),
            worker: Some("w1".into()),
            silent_ms: Some(12_000),
            idle_ms: is_idle.then_some(40_000),
        };
        let shown = render(&WatermarksView {
            job: "views".into(),
            state: JobState::Running,
            sources: vec![SourceWatermarkView {
                name: "clicks".to_owned(),
                connector: "kafka".to_owned(),
                keeps_time: true,
                watermark: Some(EventTime(60_000_000)),
                delay_ms: Some(90_000),
                held_by: Some("clicks-0".into()),
                splits: vec![split("clicks-0", false), split("clicks-1", true)],
                splits_ended: 0,
                lag_records: None,
            }],
            why: vec!["windows wait for clicks-0".to_owned()],
        });
        let line = |name: &str| {
            let mut lines = shown.lines();
            lines.find(|line| line.contains(name)).unwrap_or_default()
        };
        assert!(line("clicks-0 ").contains("holds it back"), "{shown}");
        assert!(line("clicks-1").contains("idle for"), "{shown}");
        assert!(line("clicks-0 ").contains("  3  "), "{shown}");
        assert!(line("clicks-1").contains("not known"), "{shown}");
        assert!(line("clicks  ").contains("not known"), "of both: {shown}");
        assert!(shown.ends_with("- windows wait for clicks-0\n"), "{shown}");
    }
}
