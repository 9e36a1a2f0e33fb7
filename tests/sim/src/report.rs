//! What a batch of seeds came to, for people.
//!
//! Filled by `main.rs` as seeds end; a failed seed is told at once, the sums at the end. Cannot fail.

use std::fmt;
use std::time::Instant;

use crate::pool::Work;
use crate::simulation::Outcome;

/// A long batch says how far it is after so many seeds.
const TOLD_EVERY: u64 = 100;

/// The sums of a batch.
pub(crate) struct Report {
    began: Instant,
    seed_count: u64,
    failed: Vec<String>,
    event_count: u64,
    elapsed_ms: u64,
    action_count: usize,
    generation_count: usize,
    epoch_count: usize,
    /// Of all traces, in the order in which the seeds were given only if one job ran at a time; so a sum.
    hash: u64,
}

impl Report {
    /// A batch that begins now.
    #[allow(
        clippy::disallowed_methods,
        reason = "the parent measures real time, for people"
    )]
    pub(crate) fn begin() -> Self {
        Self {
            began: Instant::now(),
            seed_count: 0,
            failed: Vec::new(),
            event_count: 0,
            elapsed_ms: 0,
            action_count: 0,
            generation_count: 0,
            epoch_count: 0,
            hash: 0,
        }
    }

    /// A simulation has ended.
    pub(crate) fn add(&mut self, work: Work, outcome: &Outcome) {
        self.seed_count += 1;
        self.event_count += outcome.event_count;
        self.elapsed_ms += outcome.elapsed_ms;
        self.action_count += outcome.action_count;
        self.generation_count += outcome.generation_count;
        self.epoch_count += outcome.epoch_count;
        self.hash = self.hash.wrapping_add(outcome.hash);
        if self.seed_count.is_multiple_of(TOLD_EVERY) {
            let (count, failed) = (self.seed_count, self.failed.len());
            println!("{count} seeds, {failed} failed");
        }
        let Some(failure) = &outcome.failure else {
            return;
        };
        let (name, verb) = match work {
            Work::Seed(seed) => (format!("seed {seed}"), format!("replay {seed}")),
            Work::Case(case) => (case.to_string(), format!("matrix {}", case.number)),
            Work::Blocked(hours) => (
                format!("a sink blocked for {hours} h"),
                format!("blocked --hours {hours}"),
            ),
        };
        println!("{name} FAILED: {failure}");
        println!("  repeat it: {} {verb} --dump", program());
        self.failed.push(verb);
    }

    /// Whether no seed failed.
    pub(crate) fn has_succeeded(&self) -> bool {
        self.failed.is_empty()
    }
}

fn program() -> String {
    std::env::args().next().unwrap_or_default()
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.began.elapsed().as_secs_f64();
        let virtual_seconds = self.elapsed_ms as f64 / 1_000.0;
        let count = self.seed_count.max(1);
        writeln!(formatter, "seeds        {:>12}", self.seed_count)?;
        writeln!(
            formatter,
            "failed       {:>12}  {:?}",
            self.failed.len(),
            self.failed
        )?;
        writeln!(formatter, "faults       {:>12}", self.action_count)?;
        writeln!(formatter, "generations  {:>12}", self.generation_count)?;
        writeln!(formatter, "epochs       {:>12}", self.epoch_count)?;
        writeln!(formatter, "events       {:>12}", self.event_count)?;
        writeln!(formatter, "virtual time {virtual_seconds:>12.0} s")?;
        writeln!(
            formatter,
            "real time    {seconds:>12.1} s  ({:.0} ms a seed)",
            seconds * 1e3 / count as f64
        )?;
        write!(formatter, "hash     {:016x}", self.hash)
    }
}
