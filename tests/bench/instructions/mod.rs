//! Instructions: how many a row costs in the pure parts of the path, counted by callgrind and compared with what they cost before.
//!
//! Called by `main.rs`; needs no services, but `valgrind`. Counts do not depend on what else the machine does, so a change of a few percent
//! is the code's. Each part runs in a process of its own, once and several times: the difference is the work without its beginnings. What the
//! parts cost before stands in `counts.json` beside this file; `--accept` writes it anew. Failure: a part that costs more
//! than it did by over [`TOLERANCE_PERCENT`], told with what it cost.

mod parts;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use clap::Args;

use self::parts::{PARTS, Part, ROWS};
use crate::report;

/// A part may cost so much more than before.
const TOLERANCE_PERCENT: f64 = 5.0;
/// How often a part does its work in the longer run; once in the other.
const TIMES: usize = 4;
/// What the parts cost: instructions a row, by name.
const COUNTS: &str = include_str!("counts.json");
const COUNTS_FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/bench/instructions/counts.json"
);

#[derive(Args)]
pub(crate) struct Arguments {
    /// Write what is counted, for later runs to be compared with.
    #[arg(long)]
    accept: bool,
    /// Only parts whose name contains this.
    #[arg(long)]
    part: Option<String>,
}

/// The work of one part, as it is run under the counter.
#[derive(Args)]
pub(crate) struct Work {
    part: String,
    times: usize,
}

pub(crate) fn work(work: &Work) -> anyhow::Result<()> {
    Part::named(&work.part)?.run(work.times)
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let before: BTreeMap<String, f64> = serde_json::from_str(COUNTS).context("read counts.json")?;
    let mut now = before.clone();
    let mut rows = Vec::new();
    let mut dearer = Vec::new();
    let wanted = arguments.part.as_deref().unwrap_or_default();
    for part in PARTS.iter().filter(|part| part.name().contains(wanted)) {
        let name = part.name();
        let count = per_row(name).with_context(|| format!("count instructions of {name}"))?;
        let known = before.get(name).copied();
        rows.push(report::row(name, told(count, known)));
        if known.is_some_and(|known| is_dearer(count, known)) {
            dearer.push(name);
        }
        now.insert(name.to_owned(), count);
    }
    report::table("instructions a row", &rows);
    if arguments.accept {
        let text = serde_json::to_string_pretty(&now)?;
        return std::fs::write(Path::new(COUNTS_FILE), text + "\n").context("write counts.json");
    }
    ensure!(
        dearer.is_empty(),
        "dearer than before by over {TOLERANCE_PERCENT} %: {}; make them cheaper, or take it with --accept and say why",
        dearer.join(", ")
    );
    Ok(())
}

fn per_row(name: &str) -> anyhow::Result<f64> {
    let (once, often) = (counted(name, 1)?, counted(name, TIMES)?);
    let rows = ROWS * (TIMES - 1);
    Ok((often.saturating_sub(once) as f64 / rows as f64).round())
}

fn counted(name: &str, times: usize) -> anyhow::Result<u64> {
    let program = std::env::current_exe().context("find this program")?;
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["work", name, &times.to_string()])
        .output();
    let output = run.context("run valgrind; install it, or leave this part out")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{told}");
    match collected(&told) {
        Some(count) => Ok(count),
        None => bail!("callgrind does not say what it counted: {told}"),
    }
}

/// The line of callgrind's that says how much it counted: `==17== Collected : 123`.
fn collected(told: &str) -> Option<u64> {
    let line = told.lines().find_map(|line| line.split_once("Collected :"));
    line?.1.trim().parse().ok()
}

fn is_dearer(count: f64, before: f64) -> bool {
    count > before * (1.0 + TOLERANCE_PERCENT / 100.0)
}

fn told(count: f64, before: Option<f64>) -> String {
    match before {
        Some(before) => {
            let change = (count / before - 1.0) * 100.0;
            format!("{count:6.0}  {change:+.1} %")
        }
        None => format!("{count:6.0}  new"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_a_count_to_be_compared_with_and_does_its_work() {
        let before: BTreeMap<String, f64> = serde_json::from_str(COUNTS).expect("counts");
        let names: Vec<&str> = before.keys().map(String::as_str).collect();
        let mut parts: Vec<&str> = PARTS.iter().map(|part| part.name()).collect();
        parts.sort_unstable();
        assert_eq!(names, parts);
        for part in PARTS {
            let ran = part.run(2);
            assert!(ran.is_ok(), "{}: {ran:?}", part.name());
        }
    }

    #[test]
    fn only_what_costs_over_the_tolerance_more_is_dearer() {
        assert!(is_dearer(105.1, 100.0) && !is_dearer(104.9, 100.0) && !is_dearer(50.0, 100.0));
    }

    #[test]
    fn the_count_stands_in_callgrinds_last_words() {
        let told = "==17== \n==17== Events    : Ir\n==17== Collected : 1234567\n";
        assert_eq!(collected(told), Some(1_234_567));
        assert_eq!(collected("==17== nothing"), None);
    }
}
