//! The figures of the rounds as a Markdown table, which README can show as it is.
//!
//! Called by `mod.rs`. Pure: returns the text. A peer has no line where every run of it failed.

use super::peers::Series;
use super::queries::Query;
use super::timed::Timed;
use super::{Results, cpu_us_of_raw, rates_of_raw};
use crate::report::{self, Spread};

const HEAD: &str = "| What | Clicks | rows/s: median, least to greatest | to raw | CPU-s a million rows | peak memory | ours beside it | answer |\n\
    |---|---|---|---|---|---|---|---|\n";

/// All of it.
pub(super) fn markdown(results: &Results, queries: &[&Query]) -> String {
    let mut text = HEAD.to_owned();
    let raw = results.fastest();
    let clicks = raw.first().map_or(0, |run| run.records);
    let cpu = Spread::of(raw.iter().map(cpu_us_of_raw).collect());
    text += &line(&[
        "raw librdkafka, the faster of 1 and 2 threads".to_owned(),
        report::count(clicks),
        rates_of_raw(raw).rows_per_second(),
        "1".to_owned(),
        format!("{:.2}", cpu.median),
        "-".to_owned(),
        "-".to_owned(),
        "-".to_owned(),
    ]);
    for (query, ours) in queries.iter().zip(&results.timed) {
        text += &of_ours(results, query, ours);
        let series = results.beside.series.iter();
        for series in series.filter(|series| series.query.name == query.name) {
            text += &of_peer(results, series, ours).unwrap_or_default();
        }
    }
    text
}

fn of_ours(results: &Results, query: &Query, runs: &[Timed]) -> String {
    // A blackhole keeps nothing to be looked at: rows, repeats and views are compared as sums.
    let answer = match query.fills_table {
        true => "exact",
        false => "exact, as sums",
    };
    let cpu = Spread::of(runs.iter().map(Timed::cpu_us).collect());
    line(&[
        format!("**Millstream**, {}", query.title),
        report::count(runs.first().map_or(0, |run| run.rows)),
        Spread::of(runs.iter().map(Timed::rate).collect()).rows_per_second(),
        format!("{:.3}", results.rate_ratios(runs).median),
        format!("{:.2}", cpu.median),
        report::mebibytes(memory_of_ours(runs)),
        "-".to_owned(),
        answer.to_owned(),
    ])
}

fn of_peer(results: &Results, series: &Series, ours: &[Timed]) -> Option<String> {
    let compared = results.compared(series, ours)?;
    Some(line(&[
        format!("the same by {}", series.title),
        report::count(series.clicks),
        compared.rate.rows_per_second(),
        format!("{:.3}", compared.to_raw.median),
        format!("{:.2}", compared.cpu.median),
        report::mebibytes(compared.memory),
        format!(
            "{:.1} x the rows/s, 1/{:.1} of the CPU, 1/{:.1} of the memory",
            compared.ours.median, compared.cpu_of_ours.median, compared.memory_of_ours,
        ),
        compared.answer,
    ]))
}

/// Of master and worker, in the run that took most.
pub(super) fn memory_of_ours(runs: &[Timed]) -> u64 {
    let peaks = runs.iter().map(|run| run.all_peak_rss_bytes);
    peaks.max().unwrap_or_default()
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}
