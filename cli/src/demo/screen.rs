//! What the demo shows while it runs: a bar for each minute as its window closes, above the progress line.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use millstream_common::control::JobView;
use millstream_common::text;
use millstream_common::time::{ClockRef, EventTime};

use super::results::{self, Counts};
use crate::progress::Progress;

/// How often the results are read again.
const READ_INTERVAL: Duration = Duration::from_millis(500);
/// The longest bar, in characters.
const BAR_WIDTH: u64 = 40;
/// Clicks that one character of a bar stands for.
const CLICKS_PER_CHARACTER: u64 = 200;

/// The demo's terminal.
pub(super) struct Screen {
    progress: Progress,
    clock: ClockRef,
    output: PathBuf,
    read_at: Option<Duration>,
    /// The newest minute that has its bar.
    shown: Option<i64>,
}

impl Screen {
    /// Shows the results that land in `output`.
    pub(super) fn new(clock: ClockRef, output: PathBuf) -> Self {
        Self {
            progress: Progress::new(clock.clone()),
            clock,
            output,
            read_at: None,
            shown: None,
        }
    }

    /// Writes a line that stays.
    pub(super) fn note(&mut self, line: &str) {
        self.progress.note(line);
    }

    /// Shows the job, and the minutes that have closed since the last look.
    pub(super) fn show(&mut self, job: &JobView) -> anyhow::Result<()> {
        let now = self.clock.monotonic();
        let is_due = self
            .read_at
            .is_none_or(|at| now.saturating_sub(at) >= READ_INTERVAL);
        if is_due {
            self.read_at = Some(now);
            let counts = results::counts(&self.output)?;
            // Of the newest minute, files may still be missing.
            let newest = counts.keys().next_back().map(|(minute, _)| *minute);
            self.show_minutes(&counts, newest);
        }
        self.progress.show(job);
        Ok(())
    }

    /// Shows the minutes that are left and ends the progress line.
    pub(super) fn finish(&mut self, counts: &Counts) {
        self.show_minutes(counts, None);
        self.progress.finish();
    }

    fn show_minutes(&mut self, counts: &Counts, before: Option<i64>) {
        for (minute, actions) in by_minute(counts) {
            let is_new = self.shown.is_none_or(|shown| minute > shown);
            if is_new && before.is_none_or(|before| minute < before) {
                self.progress.note(&bar(minute, &actions));
                self.shown = Some(minute);
            }
        }
    }
}

/// Actions and their clicks, of each minute.
fn by_minute(counts: &Counts) -> BTreeMap<i64, Vec<(&str, u64)>> {
    let mut minutes: BTreeMap<i64, Vec<(&str, u64)>> = BTreeMap::new();
    for ((minute, action), clicks) in counts {
        let actions = minutes.entry(*minute).or_default();
        actions.push((action, clicks.iter().sum()));
    }
    minutes
}

fn bar(minute: i64, actions: &[(&str, u64)]) -> String {
    let clicks: u64 = actions.iter().map(|(_, clicks)| clicks).sum();
    let length = (clicks / CLICKS_PER_CHARACTER).clamp(1, BAR_WIDTH) as usize;
    let shares: Vec<String> = actions
        .iter()
        .map(|(action, clicks)| format!("{action} {}", text::count(*clicks)))
        .collect();
    format!(
        "{}  {:<width$}  {} clicks: {}",
        text::watermark(Some(EventTime(minute))),
        "█".repeat(length),
        text::count(clicks),
        shares.join(", "),
        width = BAR_WIDTH as usize
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_one_bar_over_all_actions() {
        let counts = Counts::from([
            ((0, "click".to_owned()), vec![240]),
            ((0, "view".to_owned()), vec![1_360]),
            ((60_000_000, "view".to_owned()), vec![1]),
        ]);
        let minutes = by_minute(&counts);
        let shown = bar(0, &minutes[&0]);
        assert!(
            shown.starts_with("1970-01-01 00:00:00  ████████ "),
            "{shown}"
        );
        assert!(
            shown.ends_with("1,600 clicks: click 240, view 1,360"),
            "{shown}"
        );
    }
}
