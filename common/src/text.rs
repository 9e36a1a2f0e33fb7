//! Numbers, times and sizes as people read them, on the command line and in the dashboard. Pure.

use crate::control::{JobState, JobView, SourceWatermarkView};
use crate::time::EventTime;

/// `1234567` as `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The rows of a job that went no further: `2 in dead letters, 1 dropped`.
pub fn left_out(job: &JobView) -> String {
    let letters = format!("{} in dead letters", count(job.dead_letter_count()));
    match job.dropped_count() {
        0 => letters,
        dropped => format!("{letters}, {} dropped", count(dropped)),
    }
}

/// The rate of a job, whole; none where nothing more will be read.
pub fn job_rate(job: &JobView) -> Option<String> {
    (!job.state.is_over()).then(|| rate(job.rows_per_second))
}

/// Said of a lag while a split has not told its end: neither 0 nor nothing, which would both call the job up to date.
pub const LAG_NOT_KNOWN: &str = "not known";

/// How many records wait for a job; none where its sources have no ends to be behind, or are done with for ever.
pub fn job_lag(job: &JobView) -> Option<String> {
    let mut connectors = job.sources.iter().map(|source| &source.connector);
    let reads_on = job.state != JobState::Finished;
    lag(
        job.lag_records,
        reads_on && connectors.any(|name| tells_ends(name)),
    )
}

/// How many records wait in a source, or in one of its splits.
pub fn source_lag(source: &SourceWatermarkView, lag_records: Option<u64>) -> Option<String> {
    lag(lag_records, tells_ends(&source.connector))
}

/// Nobody asks how many rows a file still holds, and made-up rows wait nowhere.
fn tells_ends(connector: &str) -> bool {
    connector == "kafka"
}

fn lag(lag_records: Option<u64>, tells_ends: bool) -> Option<String> {
    let not_known = tells_ends.then(|| LAG_NOT_KNOWN.to_owned());
    lag_records.map(count).or(not_known)
}

/// Rows a second, whole.
pub fn rate(rows_per_second: f64) -> String {
    // A cast saturates: neither a negative nor an endless rate can do harm.
    count(rows_per_second.round() as u64)
}

/// Event time to the second; `-` before the first watermark.
pub fn watermark(time: Option<EventTime>) -> String {
    match time {
        None => "-".to_owned(),
        Some(time) => match chrono::DateTime::from_timestamp_micros(time.0) {
            Some(moment) => moment.format("%Y-%m-%d %H:%M:%S").to_string(),
            None => time.to_string(),
        },
    }
}

/// A moment of the wall's time.
pub fn moment(unix_us: i64) -> String {
    match chrono::DateTime::from_timestamp_micros(unix_us) {
        Some(moment) => moment.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
        None => format!("{unix_us} us"),
    }
}

/// `850 ms`, `4.2 s`, `3 min 12 s`, `5 h 2 min`, `3 d 4 h`.
pub fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0 => format!("{milliseconds} ms"),
        1..60 => format!("{seconds}.{} s", milliseconds % 1000 / 100),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// `0 B`, `1.5 KiB`, `3.2 MiB`, `1.1 GiB`.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut size = number as f64;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{number} B"),
        _ => format!("{size:.1} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{SinkView, SourceView, StageView};
    use crate::ids::{Epoch, Generation};

    fn job() -> JobView {
        JobView {
            name: "clicks".into(),
            state: JobState::Running,
            incarnation: "life".to_owned(),
            generation: Generation(3),
            epoch: Epoch(41),
            watermark: None,
            rows_read: 5_000,
            rows_rejected: 12,
            rows_per_second: 2_012.7,
            lag_records: None,
            sources: Vec::new(),
            sinks: Vec::new(),
            cause: None,
            restarts: 0,
            submitted_at_us: 0,
            last_recovery_ms: None,
            checkpoint_interval_ms: 1_000,
            storage: None,
            stages: Vec::new(),
            rows_unaccounted: 0,
            rows_reread: 0,
            last_failure: None,
        }
    }

    fn source(connector: &str) -> SourceView {
        SourceView {
            name: "clicks".to_owned(),
            connector: connector.to_owned(),
            splits: 2,
            splits_ended: 0,
            rows_read: 5_000,
            rows_accepted: 4_988,
            rows_rejected: 12,
            rows_dropped: 0,
            watermark: None,
            gaps: Vec::new(),
        }
    }

    fn sink(rows_refused: u64) -> SinkView {
        SinkView {
            name: "warehouse".to_owned(),
            connector: "postgres".to_owned(),
            relation: "page_views".to_owned(),
            marker: Epoch(3),
            lag_epochs: 0,
            lag_rows: 0,
            lag_bytes: 0,
            lag_age_ms: None,
            paused: false,
            rows_delivered: 0,
            rows_refused,
            rows_dropped: 0,
            suspended: false,
            retained_from: Epoch(0),
            quota: None,
            delivered_age_ms: None,
            cause: None,
            worker: None,
        }
    }

    #[test]
    fn dead_letters_are_those_of_sources_expressions_and_sinks() {
        let mut job = job();
        job.rows_rejected = 1_200;
        assert_eq!(left_out(&job), "1,200 in dead letters");
        let stage = |failed, dropped| StageView {
            failed,
            dropped,
            ..StageView::default()
        };
        job.stages = vec![stage(30, 0), stage(0, 5)];
        job.sinks.push(sink(4));
        assert_eq!(left_out(&job), "1,234 in dead letters, 5 dropped");
    }

    #[test]
    fn a_job_that_is_over_has_no_rate() {
        let mut job = job();
        assert_eq!(job_rate(&job).as_deref(), Some("2,013"));
        job.state = JobState::Stopped;
        assert_eq!(job_rate(&job), None);
    }

    #[test]
    fn a_lag_that_nobody_knows_is_neither_zero_nor_nothing_but_files_have_none() {
        let mut job = job();
        assert_eq!(job_lag(&job), None);
        job.sources.push(source("files"));
        assert_eq!(job_lag(&job), None);
        job.sources.push(source("kafka"));
        assert_eq!(job_lag(&job).as_deref(), Some("not known"));
        job.lag_records = Some(1_204);
        assert_eq!(job_lag(&job).as_deref(), Some("1,204"));
        job.lag_records = Some(0);
        assert_eq!(job_lag(&job).as_deref(), Some("0"));
        (job.lag_records, job.state) = (None, JobState::Stopped);
        assert_eq!(job_lag(&job).as_deref(), Some("not known"));
        job.state = JobState::Finished;
        assert_eq!(job_lag(&job), None);
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(count(7), "7");
        assert_eq!(count(123), "123");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(rate(2012.7), "2,013");
        assert_eq!(rate(-0.1), "0");
    }

    #[test]
    fn spans_are_shown_in_two_units_at_most() {
        assert_eq!(duration(850), "850 ms");
        assert_eq!(duration(4_250), "4.2 s");
        assert_eq!(duration(192_000), "3 min 12 s");
        assert_eq!(duration(18_120_000), "5 h 2 min");
        assert_eq!(duration(273_600_000), "3 d 4 h");
    }

    #[test]
    fn sizes_and_times_are_short() {
        assert_eq!(bytes(900), "900 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
        assert_eq!(watermark(None), "-");
        assert_eq!(watermark(Some(EventTime(0))), "1970-01-01 00:00:00");
        assert_eq!(watermark(Some(EventTime::MAX)), "end of time");
    }
}
