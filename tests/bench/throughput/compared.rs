//! A peer's rounds beside ours of the same query, and beside the raw consumer.
//!
//! Used by `mod.rs` and `table.rs`, which print it. Round by round, so that a slow minute of the machine is in both. Pure. Failure: none; where every run of
//! the peer failed there is nothing to compare.

use std::collections::BTreeSet;

use super::peers::Series;
use super::raw_consumer::Consumed;
use super::timed::Timed;
use super::{rate_of_raw, table};
use crate::report::{self, Spread};

/// A peer's figures.
pub(super) struct Compared {
    /// Rows a second.
    pub(super) rate: Spread,
    /// The same, as a ratio to the raw consumer.
    pub(super) to_raw: Spread,
    /// Microseconds a row.
    pub(super) cpu: Spread,
    /// Bytes.
    pub(super) memory: u64,
    /// How many times as many rows a second ours takes.
    pub(super) ours: Spread,
    /// How many times as much CPU time a row the peer takes as ours.
    pub(super) cpu_of_ours: Spread,
    /// How many times as much memory.
    pub(super) memory_of_ours: f64,
    /// Of all runs.
    pub(super) answer: String,
}

impl Compared {
    /// `ours` and `raw` are of the same rounds.
    pub(super) fn of(series: &Series, ours: &[Timed], raw: &[Consumed]) -> Option<Self> {
        let memory = series.measured().map(|(_, run)| run.peak_rss_bytes).max()?;
        let answers: BTreeSet<String> = series
            .measured()
            .map(|(_, run)| run.answer.to_string())
            .collect();
        let rounds = || {
            let runs = series.measured();
            runs.filter_map(|(round, run)| Some((run, ours.get(round)?, raw.get(round)?)))
        };
        Some(Self {
            rate: Spread::of(rounds().map(|(run, ..)| run.rate()).collect()),
            to_raw: Spread::of(
                rounds()
                    .map(|(run, _, raw)| run.rate() / rate_of_raw(raw))
                    .collect(),
            ),
            cpu: Spread::of(rounds().map(|(run, ..)| run.cpu_us()).collect()),
            memory,
            ours: Spread::of(
                rounds()
                    .map(|(run, ours, _)| ours.rate() / run.rate())
                    .collect(),
            ),
            cpu_of_ours: Spread::of(
                rounds()
                    .map(|(run, ours, _)| run.cpu_us() / ours.cpu_us())
                    .collect(),
            ),
            memory_of_ours: memory as f64 / table::memory_of_ours(ours).max(1) as f64,
            answer: answers.into_iter().collect::<Vec<_>>().join("; "),
        })
    }

    fn rows(&self) -> [(String, String); 8] {
        let times = |spread: &Spread| {
            let (least, greatest) = (spread.least, spread.greatest);
            format!("{:.1} ({least:.1} to {greatest:.1})", spread.median)
        };
        let (ours, cpu, memory) = (&self.ours, &self.cpu_of_ours, self.memory_of_ours);
        [
            report::row("rows/s", self.rate.rows_per_second()),
            report::row("ratio to raw", self.to_raw.ratio()),
            report::row("ours", format!("{} x the rows/s", times(ours))),
            report::row("CPU a row", self.cpu.micros()),
            report::row("of ours", format!("{} x", times(cpu))),
            report::row("peak memory", report::mebibytes(self.memory)),
            report::row("of ours", format!("{memory:.1} x")),
            report::row("answer", self.answer.clone()),
        ]
    }
}

/// Prints what there is of a peer: its figures, and why runs of it failed.
pub(super) fn print(series: &Series, compared: Option<&Compared>) {
    let mut rows: Vec<_> = compared
        .iter()
        .flat_map(|compared| compared.rows())
        .collect();
    let failed = series.runs.iter().filter_map(|run| run.as_ref().err());
    rows.extend(failed.map(|reason| report::row("FAILED", reason.clone())));
    let (title, query) = (&series.title, series.query.name);
    let clicks = report::count(series.clicks);
    report::table(&format!("{title}: {query}, {clicks} clicks"), &rows);
}
