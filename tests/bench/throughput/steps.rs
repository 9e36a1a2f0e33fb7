//! Where the time goes: a table of nanoseconds a row by stage and step, from the worker's own counters.
//!
//! Used by `timed.rs`, which asks the worker, and `mod.rs`, which prints. A step is timed by the wall clock of the task that does it, so on
//! a full machine it includes what others had the core for; consume includes waiting for records, which no table needs. Pure but for
//! standard output. Failure: a text that is no exposition of metrics.

use std::collections::BTreeMap;

use anyhow::Context;

use crate::report;

const TIME: &str = "millstream_worker_step_seconds_total{";
const ROWS: &str = "millstream_worker_step_rows_total{";

/// Seconds and rows, by stage and step.
pub(super) type Steps = BTreeMap<(String, String), (f64, f64)>;

/// The steps in an exposition.
pub(super) fn read(exposition: &str) -> anyhow::Result<Steps> {
    let mut steps = Steps::new();
    for line in exposition.lines() {
        let (time, rows) = (line.strip_prefix(TIME), line.strip_prefix(ROWS));
        let Some(sample) = time.or(rows) else {
            continue;
        };
        let (labels, value) = sample.split_once("} ").context("read a sample")?;
        let value: f64 = value.parse().context("read a sample's value")?;
        let of = |name: &str| {
            let begin = labels.find(&format!("{name}=\""))? + name.len() + 2;
            labels[begin..].split('"').next().map(str::to_owned)
        };
        let key = of("stage").zip(of("step")).context("read labels")?;
        let step = steps.entry(key).or_default();
        match time.is_some() {
            true => step.0 += value,
            false => step.1 += value,
        }
    }
    Ok(steps)
}

/// Prints them, for a job that has read so many rows.
pub(super) fn print(steps: &Steps, rows_read: u64) {
    let rows = steps.iter().filter(|((_, step), _)| step != "consume");
    let rows = rows.map(|((stage, step), (seconds, rows))| {
        let by_row = seconds * 1e9 / rows.max(1.0);
        let by_read = seconds * 1e9 / rows_read.max(1) as f64;
        let rows = report::count(*rows as u64);
        report::row(
            &format!("{stage}: {step}"),
            format!("{by_read:>8.1} ns a row read, {by_row:>8.1} ns a row of {rows}"),
        )
    });
    report::table("  where the time goes", &rows.collect::<Vec<_>>());
}
