//! The table of faults: how many of each, and how long the cluster took to recover.
//!
//! Used by `main.rs`. Pure but for standard output.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_tests::figures::{count, percentile};

/// How long each fault took to recover from.
#[derive(Default)]
pub(crate) struct Recoveries {
    by_kind: BTreeMap<String, Vec<Duration>>,
    kills: Vec<Duration>,
    all: Vec<Duration>,
}

impl Recoveries {
    pub(crate) fn add(&mut self, kind: String, is_kill: bool, took: Duration) {
        self.by_kind.entry(kind).or_default().push(took);
        self.all.push(took);
        if is_kill {
            self.kills.push(took);
        }
    }

    /// Prints the table.
    pub(crate) fn print(&self) {
        println!(
            "\n{:32} {:>6} {:>9} {:>9} {:>9}",
            "until every job has a new epoch", "times", "p50", "p99", "max"
        );
        for (kind, times) in &self.by_kind {
            print_row(kind, times);
        }
        print_row("all that get a SIGKILL", &self.kills);
        print_row("all", &self.all);
    }
}

fn print_row(kind: &str, times: &[Duration]) {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let share = |share| match sorted.is_empty() {
        true => "-".to_owned(),
        false => format!(
            "{} ms",
            count(percentile(&sorted, share).as_millis() as u64)
        ),
    };
    println!(
        "{kind:32} {:>6} {:>9} {:>9} {:>9}",
        times.len(),
        share(0.5),
        share(0.99),
        share(1.0)
    );
}
