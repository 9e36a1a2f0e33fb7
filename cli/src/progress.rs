//! The progress line: one rewritten line on a terminal, a line every five seconds elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use millstream_common::control::JobView;
use millstream_common::text;
use millstream_common::time::ClockRef;

use crate::share;

/// How often a line is written where lines cannot be rewritten.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Back to the line's start, clear it, and cut what does not fit instead of wrapping it.
const REWRITE: &str = "\r\x1b[2K\x1b[?7l";
const WRAP_AGAIN: &str = "\x1b[?7h";

/// Shows how a job gets on, on stderr.
pub(crate) struct Progress {
    is_terminal: bool,
    clock: ClockRef,
    /// When and as what the last line was written.
    last: Option<(Duration, String)>,
}

impl Progress {
    /// On this process's stderr.
    pub(crate) fn new(clock: ClockRef) -> Self {
        Self {
            is_terminal: io::stderr().is_terminal(),
            clock,
            last: None,
        }
    }

    /// Shows `job`, if it is time to.
    pub(crate) fn show(&mut self, job: &JobView) {
        self.tell(line(job));
    }

    /// Shows how something else gets on, if it is time to.
    pub(crate) fn tell(&mut self, line: String) {
        if let Some(text) = self.next(line) {
            // Who cannot read the progress does not hold up the job.
            let _ = io::stderr().write_all(text.as_bytes());
        }
    }

    /// Writes a line that stays, above the one that is being rewritten.
    pub(crate) fn note(&mut self, text: &str) {
        if self.is_terminal && self.last.take().is_some() {
            eprint!("{REWRITE}{WRAP_AGAIN}");
        }
        eprintln!("{text}");
    }

    /// Ends the line that is being rewritten, so that other text can follow.
    pub(crate) fn finish(&mut self) {
        if self.is_terminal && self.last.take().is_some() {
            eprintln!();
        }
    }

    fn next(&mut self, line: String) -> Option<String> {
        let now = self.clock.monotonic();
        let due = match &self.last {
            None => true,
            Some((_, shown)) if self.is_terminal => *shown != line,
            Some((at, _)) => now.saturating_sub(*at) >= LINE_INTERVAL,
        };
        if !due {
            return None;
        }
        let text = match self.is_terminal {
            true => format!("{REWRITE}{line}{WRAP_AGAIN}"),
            false => format!("{line}\n"),
        };
        self.last = Some((now, line));
        Some(text)
    }
}

/// A job in one line: what matters most stands first.
pub(crate) fn line(job: &JobView) -> String {
    let mut parts = vec![format!("{} {}", job.name, job.state)];
    parts.extend(share::bar(job));
    if let Some(rate) = text::job_rate(job) {
        parts.push(format!("{rate} rows/s"));
    }
    if let Some(lag) = text::job_lag(job) {
        parts.push(format!("lag {lag}"));
    }
    parts.push(format!("watermark {}", text::watermark(job.watermark)));
    parts.push(format!("epoch {}", job.epoch));
    if job.dead_letter_count() > 0 {
        parts.push(format!("rejected {}", text::count(job.dead_letter_count())));
    }
    if let Some(cause) = &job.cause {
        parts.push(one_line(cause));
    }
    for (sink, cause) in sink_causes(job) {
        parts.push(format!("{sink}: {}", one_line(cause)));
    }
    parts.join(" | ")
}

/// The sinks in trouble, with what the job's own cause does not tell yet.
pub(crate) fn sink_causes(job: &JobView) -> impl Iterator<Item = (&str, &str)> {
    let of_job = job.cause.as_deref().unwrap_or_default();
    let causes = job.sinks.iter().filter_map(|sink| {
        let cause = sink.cause.as_deref()?;
        Some((sink.name.as_str(), cause))
    });
    let is_told = |sink: &str, cause: &str| {
        of_job.contains(&format!("sink {sink} ")) && of_job.contains(cause)
    };
    causes.filter(move |(sink, cause)| !is_told(sink, cause))
}

/// Errors of databases span lines; a progress line does not.
pub(crate) fn one_line(cause: &str) -> String {
    cause.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use millstream_common::control::{JobState, SinkView};
    use millstream_common::ids::{Epoch, Generation};
    use millstream_common::time::{Clock, EventTime};

    use super::*;

    #[derive(Debug, Default)]
    struct HandClock(AtomicU64);

    impl Clock for HandClock {
        fn monotonic(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }

        fn unix_micros(&self) -> i64 {
            0
        }
    }

    /// A job that runs well.
    pub(crate) fn job() -> JobView {
        JobView {
            name: "clicks".into(),
            state: JobState::Running,
            incarnation: String::new(),
            generation: Generation(1),
            epoch: Epoch(41),
            watermark: Some(EventTime(1_777_630_000_000_000)),
            rows_read: 0,
            rows_rejected: 12,
            rows_per_second: 2013.2,
            lag_records: Some(1204),
            sources: Vec::new(),
            sinks: Vec::new(),
            cause: None,
            restarts: 0,
            submitted_at_us: 0,
            last_recovery_ms: None,
            checkpoint_interval_ms: 1000,
            storage: None,
            stages: Vec::new(),
            rows_unaccounted: 0,
            rows_reread: 0,
            last_failure: None,
        }
    }

    /// A sink that is behind.
    pub(crate) fn sink() -> SinkView {
        SinkView {
            name: "warehouse".to_owned(),
            connector: "postgres".to_owned(),
            relation: "page_views".to_owned(),
            marker: Epoch(3),
            lag_epochs: 38,
            lag_rows: 76,
            lag_bytes: 4_096,
            lag_age_ms: Some(38_000),
            paused: false,
            rows_delivered: 0,
            rows_refused: 0,
            delivered_age_ms: None,
            rows_dropped: 0,
            suspended: false,
            retained_from: Epoch(0),
            quota: None,
            cause: Some("connection refused".to_owned()),
            worker: None,
        }
    }

    #[test]
    fn the_line_says_rate_lag_watermark_and_epoch() {
        assert_eq!(
            line(&job()),
            "clicks running | 2,013 rows/s | lag 1,204 | watermark 2026-05-01 10:06:40 | epoch 41 \
             | rejected 12"
        );
    }

    #[test]
    fn what_hinders_the_job_or_a_sink_stands_in_the_same_line() {
        let mut job = job();
        job.cause = Some("no worker\nhas joined".to_owned());
        job.sinks.push(sink());
        let shown = line(&job);
        assert!(
            shown.ends_with("| no worker has joined | warehouse: connection refused"),
            "{shown}"
        );
    }

    #[test]
    fn what_the_job_says_of_its_sink_is_not_said_twice() {
        let mut job = job();
        job.cause = Some("sink warehouse does not take it yet: connection refused".to_owned());
        job.sinks.push(sink());
        let mut other = sink();
        other.name = "lake".to_owned();
        job.sinks.push(other);
        let shown = line(&job);
        assert_eq!(shown.matches("connection refused").count(), 2, "{shown}");
        assert!(shown.ends_with("| lake: connection refused"), "{shown}");
    }

    #[test]
    fn without_a_terminal_a_line_comes_every_five_seconds() {
        let clock = Arc::new(HandClock::default());
        let mut progress = Progress {
            is_terminal: false,
            clock: clock.clone(),
            last: None,
        };
        assert!(progress.next(line(&job())).is_some());
        clock.0.store(4, Ordering::Relaxed);
        assert_eq!(progress.next(line(&job())), None);
        clock.0.store(5, Ordering::Relaxed);
        assert!(
            progress
                .next(line(&job()))
                .is_some_and(|text| text.ends_with('\n'))
        );
    }

    #[test]
    fn on_a_terminal_the_line_is_rewritten_when_it_changes() {
        let mut progress = Progress {
            is_terminal: true,
            clock: Arc::new(HandClock::default()),
            last: None,
        };
        assert!(
            progress
                .next(line(&job()))
                .is_some_and(|text| text.starts_with('\r'))
        );
        assert_eq!(progress.next(line(&job())), None);
        let mut later = job();
        later.epoch = Epoch(42);
        assert!(
            progress
                .next(line(&later))
                .is_some_and(|text| !text.contains('\n'))
        );
    }
}
