//! The sentence on top of a job's page, cause by cause.

use millstream_common::control::{JobState, JobView, SinkView, SplitWatermarkView, WorkerView};

use super::super::answer::{Tone, answer};
use super::scene::{job, sink, split, watermarks, worker};

fn asked(job: &JobView, splits: Vec<SplitWatermarkView>, workers: &[WorkerView]) -> (Tone, String) {
    let answer = answer(job, &watermarks(job.name.as_str(), splits), workers);
    (answer.tone, answer.headline)
}

/// What is said of a job that some worker runs and whose splits all move.
fn said(job: &JobView) -> (Tone, String) {
    asked(job, vec![split("clicks-0")], &[worker("worker-1")])
}

#[test]
fn a_job_whose_rows_go_out_is_said_to_be_well_and_when_the_last_ones_went_where() {
    let headline = "Nothing is wrong: the last rows went out to warehouse 1.5 s ago.";
    assert_eq!(said(&job("clicks")), (Tone::Good, headline.to_owned()));
}

#[test]
fn a_job_without_a_worker_says_how_to_start_one() {
    let mut waiting = job("clicks");
    waiting.state = JobState::Waiting;
    let (tone, headline) = asked(&waiting, Vec::new(), &[]);
    assert_eq!(tone, Tone::Bad);
    assert_eq!(
        headline,
        "No worker has joined: start one with `millstream worker`."
    );
    let (tone, headline) = said(&waiting);
    assert_eq!(
        (tone, headline.as_str()),
        (Tone::Waits, "The job waits to be given to workers.")
    );
}

#[test]
fn a_job_that_is_over_says_whether_its_sinks_hold_everything() {
    let mut stopped = job("clicks");
    stopped.state = JobState::Stopped;
    assert_eq!(
        said(&stopped).1,
        "The job is stopped, and all that it read is delivered."
    );
    stopped.sinks[0].lag_epochs = 2;
    assert_eq!(
        said(&stopped).1,
        "The job is stopped, and one sink does not hold its last epoch yet."
    );
    stopped.state = JobState::Failed;
    assert_eq!(said(&stopped).0, Tone::Bad);
}

#[test]
fn a_sink_that_takes_nothing_is_named_with_the_time_since_when() {
    let mut stuck = job("clicks");
    stuck.sinks.push(SinkView {
        lag_epochs: 38,
        lag_rows: 76,
        lag_age_ms: Some(192_000),
        cause: Some("connection refused".to_owned()),
        ..sink("lake")
    });
    assert_eq!(
        said(&stuck),
        (
            Tone::Bad,
            "Sink lake has not taken rows for 3 min 12 s.".to_owned()
        )
    );
    stuck.sinks[1].cause = None;
    assert_eq!(
        said(&stuck).1,
        "Sink lake is 3 min 12 s behind: 76 rows wait for it."
    );
    stuck.sinks[1].paused = true;
    assert_eq!(said(&stuck).1, "Sink lake is paused.");
}

#[test]
fn rows_that_do_not_come_in_or_are_all_rejected_are_the_answer() {
    let mut job = job("clicks");
    job.rows_rejected = 5_000;
    let headline = "All 5,000 rows that were read were rejected: look at the dead letters.";
    assert_eq!(said(&job), (Tone::Bad, headline.to_owned()));
    (job.rows_rejected, job.sources[0].rows_dropped) = (0, 5_000);
    let headline = "All 5,000 rows that were read were dropped (on_violation = 'drop').";
    assert_eq!(said(&job), (Tone::Bad, headline.to_owned()));
    job.sources[0].rows_dropped = 0;
    (job.rows_read, job.rows_rejected, job.lag_records) = (0, 0, Some(0));
    assert_eq!(
        said(&job).1,
        "Nothing comes in: no source has given a row yet."
    );
    job.lag_records = Some(1_204);
    assert_eq!(
        said(&job).1,
        "No epoch with rows is committed yet, and 1,204 records wait."
    );
    job.lag_records = None;
    assert_eq!(
        said(&job).1,
        "No epoch with rows is committed yet, and whether records wait is not known: some split has not told its end."
    );
    job.sources[0].connector = "files".to_owned();
    assert_eq!(said(&job).1, "No epoch with rows is committed yet.");
}

#[test]
fn a_silent_split_that_holds_time_back_is_named_with_its_worker() {
    let silent = SplitWatermarkView {
        silent_ms: Some(25_000),
        ..split("clicks-3")
    };
    let (tone, headline) = asked(&job("clicks"), vec![silent], &[worker("worker-1")]);
    assert_eq!(tone, Tone::Waits);
    assert_eq!(
        headline,
        "Windows wait for split clicks-3 of clicks on worker-1: its last row came 25.0 s ago."
    );
}

#[test]
fn the_causes_that_the_api_tells_stand_beneath() {
    let job = job("clicks");
    let mut watermarks = watermarks("clicks", vec![split("clicks-0")]);
    watermarks.why = vec!["windows wait".to_owned()];
    let answer = answer(&job, &watermarks, &[worker("worker-1")]);
    assert_eq!(answer.causes, ["windows wait"]);
}
