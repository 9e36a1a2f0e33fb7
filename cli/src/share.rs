//! How much of what there is a job has read, as a bar: for a job that catches up, or that reads files.
//!
//! Shown by `progress.rs`. Pure. A job that keeps up has no bar: it would stand at its end for ever.

use millstream_common::control::JobView;

/// Characters of a bar.
const WIDTH: u64 = 10;
/// A job that is behind by less is kept busy by what comes in, however slow it is.
const BEHIND_RECORDS: u64 = 1_000;

/// `██████░░░░ 63 %`, or nothing where no part of what there is waits, or nobody knows how much does.
pub(crate) fn bar(job: &JobView) -> Option<String> {
    let (done, all) = records(job).or_else(|| files(job))?;
    if job.state.is_over() || done >= all {
        return None;
    }
    let full = (done * WIDTH / all) as usize;
    let empty = WIDTH as usize - full;
    let percent = done * 100 / all;
    Some(format!(
        "{}{} {percent} %",
        "█".repeat(full),
        "░".repeat(empty)
    ))
}

/// Of the records of topics, once it is more than a second behind.
fn records(job: &JobView) -> Option<(u64, u64)> {
    let lag = job.lag_records?;
    let is_behind = lag > BEHIND_RECORDS && lag as f64 > job.rows_per_second;
    is_behind.then(|| (job.rows_read, job.rows_read.saturating_add(lag)))
}

/// Of the files that were found so far.
fn files(job: &JobView) -> Option<(u64, u64)> {
    let of_files = job.sources.iter();
    let of_files = of_files.filter(|source| source.connector == "files");
    let counts = of_files.map(|source| (u64::from(source.splits_ended), u64::from(source.splits)));
    let (done, all) = counts.fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
    (all > 1).then_some((done, all))
}

#[cfg(test)]
mod tests {
    use millstream_common::control::{JobState, SourceView};

    use super::*;
    use crate::progress::tests::job;

    #[test]
    fn a_job_that_catches_up_has_a_bar_and_one_that_keeps_up_has_none() {
        let mut job = job();
        (job.rows_read, job.rows_per_second) = (63_000, 2_000.0);
        job.lag_records = Some(37_000);
        assert_eq!(bar(&job).as_deref(), Some("██████░░░░ 63 %"));
        job.lag_records = Some(1_900);
        assert_eq!(bar(&job), None, "less than a second behind");
        (job.lag_records, job.rows_per_second) = (Some(900), 0.0);
        assert_eq!(bar(&job), None, "a few records are no burden");
        job.lag_records = None;
        assert_eq!(bar(&job), None, "nobody knows");
        (job.lag_records, job.state) = (Some(37_000), JobState::Stopped);
        assert_eq!(bar(&job), None, "it reads no more");
    }

    #[test]
    fn files_are_counted_until_all_that_were_found_are_read() {
        let mut job = job();
        job.lag_records = None;
        let source = |splits, splits_ended| SourceView {
            name: "folder".to_owned(),
            connector: "files".to_owned(),
            splits,
            splits_ended,
            rows_read: 0,
            rows_accepted: 0,
            rows_rejected: 0,
            rows_dropped: 0,
            watermark: None,
            gaps: Vec::new(),
        };
        job.sources = vec![source(16, 4)];
        assert_eq!(bar(&job).as_deref(), Some("██░░░░░░░░ 25 %"));
        job.sources = vec![source(16, 16)];
        assert_eq!(bar(&job), None);
    }
}
