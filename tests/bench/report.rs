//! What the bench prints: a line on the machine, and tables.
//!
//! Called by every part. Pure but for standard output and the files of drawings.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

pub(crate) use millstream_tests::figures::{count, percentile};

/// Says what was measured on: a figure without it is none.
pub(crate) fn machine() {
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
    let build = match cfg!(debug_assertions) {
        true => "development build: its figures mean nothing",
        false => "release build",
    };
    println!("{cores} cores, {build}");
}

/// Prints a title and rows of a name and a value each.
pub(crate) fn table(title: &str, rows: &[(String, String)]) {
    println!("\n{title}");
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in rows {
        println!("  {name:width$}  {value}");
    }
}

/// A row of a table.
pub(crate) fn row(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_owned(), value.into())
}

/// Opens a file for a drawing, anew, and makes its folder.
pub(crate) fn drawing(file: &Path) -> anyhow::Result<BufWriter<File>> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("make folder {}", folder.display()))?;
    }
    let opened = File::create(file).with_context(|| format!("create {}", file.display()))?;
    Ok(BufWriter::new(opened))
}

/// How many of `amount` a second.
pub(crate) fn rate(amount: u64, elapsed: Duration) -> f64 {
    amount as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// Whole milliseconds.
pub(crate) fn millis(span: Duration) -> String {
    format!("{} ms", count(span.as_millis() as u64))
}

/// Whole mebibytes.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", count(bytes >> 20))
}

/// What was measured in the rounds: the least, the middle and the greatest.
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) greatest: f64,
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Self {
            least: at(0),
            median: at(values.len() / 2),
            greatest: at(values.len().saturating_sub(1)),
        }
    }

    pub(crate) fn rows_per_second(&self) -> String {
        let whole = |value: f64| count(value.round() as u64);
        let [least, median, greatest] = [self.least, self.median, self.greatest].map(whole);
        format!("{median} ({least} to {greatest})")
    }

    pub(crate) fn ratio(&self) -> String {
        let (least, greatest) = (self.least, self.greatest);
        format!("{:.3} ({least:.3} to {greatest:.3})", self.median)
    }

    pub(crate) fn micros(&self) -> String {
        let (least, greatest) = (self.least, self.greatest);
        format!("{:.2} us ({least:.2} to {greatest:.2})", self.median)
    }
}
