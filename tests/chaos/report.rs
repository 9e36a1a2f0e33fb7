//! The table of faults: how many of each, and how long each job took to recover.
//!
//! Used by `main.rs`. Pure but for standard output.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_tests::figures::{count, percentile};

/// How long jobs took to recover.
#[derive(Default)]
pub(crate) struct Recoveries {
    by_kind: BTreeMap<String, Faults>,
    kills: Faults,
    all: Faults,
    takeovers: BTreeMap<String, Faults>,
}

/// Some faults, and what followed.
#[derive(Default)]
struct Faults {
    count: u64,
    /// Of each job.
    times: Vec<Duration>,
}

impl Faults {
    fn add(&mut self, times: &[Duration]) {
        self.count += 1;
        self.times.extend(times);
    }
}

impl Recoveries {
    /// A fault, and how long each job took until its next epoch was committed.
    pub(crate) fn add(&mut self, kind: String, is_kill: bool, times: &[Duration]) {
        self.by_kind.entry(kind).or_default().add(times);
        self.all.add(times);
        if is_kill {
            self.kills.add(times);
        }
    }

    /// How long after such a fault of the active master the standby was seen to reign.
    pub(crate) fn add_takeover(&mut self, kind: String, time: Duration) {
        self.takeovers.entry(kind).or_default().add(&[time]);
    }

    /// Prints the table.
    pub(crate) fn print(&self) {
        println!(
            "\n{:32} {:>6} {:>10} {:>9} {:>9} {:>9}",
            "until a job has its next epoch", "faults", "recoveries", "p50", "p99", "max"
        );
        for (kind, faults) in &self.by_kind {
            print_row(kind, faults);
        }
        print_row("all that get a SIGKILL", &self.kills);
        print_row("all", &self.all);
        println!("\nuntil the standby reigns");
        for (kind, faults) in &self.takeovers {
            print_row(kind, faults);
        }
    }
}

fn print_row(kind: &str, faults: &Faults) {
    let mut sorted = faults.times.clone();
    sorted.sort_unstable();
    let share = |share| match sorted.is_empty() {
        true => "-".to_owned(),
        false => format!(
            "{} ms",
            count(percentile(&sorted, share).as_millis() as u64)
        ),
    };
    println!(
        "{kind:32} {:>6} {:>10} {:>9} {:>9} {:>9}",
        faults.count,
        sorted.len(),
        share(0.5),
        share(0.99),
        share(1.0)
    );
}
