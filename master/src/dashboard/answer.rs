//! The answer to "why is nothing coming out?": one sentence on top, and what is known beneath it.
//!
//! The sentence is made here, of what clients of the control API see; beneath it stand the causes that the API tells itself, so that
//! `millstream watermarks` says the same. Pure.

use maud::{Markup, html};
use millstream_common::control::{JobState, JobView, SinkView, WatermarksView, WorkerView};
use millstream_common::text;

/// A split that nothing came from for so long holds time back worth a word.
const SILENCE_MS: u64 = 10_000;
/// A sink that lacks rows for so long is behind, not just busy.
const BEHIND_MS: u64 = 30_000;

/// How things stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// Rows come out, or would.
    Good,
    /// Something is waited for.
    Waits,
    /// Somebody has to act.
    Bad,
    /// The job is over.
    Calm,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) tone: Tone,
    pub(super) headline: String,
    /// What is known in detail.
    pub(super) causes: Vec<String>,
}

/// Why nothing comes out of a job, or that something does.
pub(super) fn answer(job: &JobView, watermarks: &WatermarksView, workers: &[WorkerView]) -> Answer {
    let (tone, headline) = of_state(job, workers)
        .or_else(|| of_sinks(job))
        .or_else(|| of_rows(job))
        .or_else(|| of_time(watermarks))
        .unwrap_or_else(|| all_is_well(job));
    Answer {
        tone,
        headline,
        causes: watermarks.why.clone(),
    }
}

fn of_state(job: &JobView, workers: &[WorkerView]) -> Option<(Tone, String)> {
    let delivered = || match lagging(job) {
        0 => "all that it read is delivered".to_owned(),
        1 => "one sink does not hold its last epoch yet".to_owned(),
        count => format!("{count} sinks do not hold its last epoch yet"),
    };
    let said = match job.state {
        JobState::Failed => (
            Tone::Bad,
            "The job has failed; it goes on when it is submitted again.".to_owned(),
        ),
        JobState::Stopped => (
            Tone::Calm,
            format!("The job is stopped, and {}.", delivered()),
        ),
        JobState::Finished => (
            Tone::Calm,
            format!(
                "The job is finished: its input has ended, and {}.",
                delivered()
            ),
        ),
        JobState::Waiting if workers.is_empty() => (
            Tone::Bad,
            "No worker has joined: start one with `millstream worker`.".to_owned(),
        ),
        JobState::Waiting => (
            Tone::Waits,
            "The job waits to be given to workers.".to_owned(),
        ),
        JobState::Deploying => (
            Tone::Waits,
            "Workers build the job's tasks and restore their state.".to_owned(),
        ),
        JobState::Recovering => (Tone::Waits, "The job recovers from a failure.".to_owned()),
        JobState::Stopping => (
            Tone::Waits,
            format!("The job is being stopped; {}.", delivered()),
        ),
        JobState::Running => return None,
    };
    Some(said)
}

fn of_sinks(job: &JobView) -> Option<(Tone, String)> {
    let standing = |word: &str| {
        job.sinks
            .iter()
            .filter(|sink| sink.standing() == word)
            .collect::<Vec<_>>()
    };
    let troubled = standing("troubled");
    if let Some(first) = troubled.first() {
        let since = first
            .lag_age_ms
            .map(|age| format!(" for {}", text::duration(age)));
        let since = since.unwrap_or_default();
        let name = &first.name;
        return Some((
            Tone::Bad,
            match troubled.len() {
                1 => format!("Sink {name} has not taken rows{since}."),
                count => format!("{count} sinks do not take rows, {name}{since}."),
            },
        ));
    }
    for (word, tone, why) in [
        (
            "suspended",
            Tone::Bad,
            "suspended: it is further behind than its quota allows",
        ),
        (
            "over quota",
            Tone::Bad,
            "further behind than its quota allows",
        ),
        ("paused", Tone::Waits, "paused"),
    ] {
        if let Some(first) = standing(word).first() {
            return Some((tone, format!("Sink {} is {why}.", first.name)));
        }
    }
    let oldest = job.sinks.iter().max_by_key(|sink| sink.lag_age_ms)?;
    let age = oldest.lag_age_ms.filter(|age| *age >= BEHIND_MS)?;
    let rows = text::count(oldest.lag_rows);
    Some((
        Tone::Waits,
        format!(
            "Sink {} is {} behind: {rows} rows wait for it.",
            oldest.name,
            text::duration(age)
        ),
    ))
}

fn of_rows(job: &JobView) -> Option<(Tone, String)> {
    if job.rows_read == 0 {
        return Some((
            Tone::Waits,
            match job.lag_records {
                Some(0) => "Nothing comes in: no source has given a row yet.".to_owned(),
                Some(lag) => format!(
                    "No epoch with rows is committed yet, and {} records wait.",
                    text::count(lag)
                ),
                None if text::job_lag(job).is_some() => {
                    "No epoch with rows is committed yet, and whether records wait is not known: some split has not told its end."
                        .to_owned()
                }
                None => "No epoch with rows is committed yet.".to_owned(),
            },
        ));
    }
    let dropped: u64 = job.sources.iter().map(|source| source.rows_dropped).sum();
    (job.rows_rejected + dropped >= job.rows_read).then(|| {
        let rows = text::count(job.rows_read);
        let what = match (job.rows_rejected, dropped) {
            (_, 0) => "rejected: look at the dead letters",
            (0, _) => "dropped (on_violation = 'drop')",
            (_, _) => "rejected or dropped (on_violation = 'drop'): look at the dead letters",
        };
        (
            Tone::Bad,
            format!("All {rows} rows that were read were {what}."),
        )
    })
}

/// A split that is silent, but does not count as idle, holds back every window over its source.
fn of_time(watermarks: &WatermarksView) -> Option<(Tone, String)> {
    watermarks.sources.iter().find_map(|source| {
        let holder = source.held_by.as_ref()?;
        let split = source.splits.iter().find(|split| split.split == *holder)?;
        let silence = match split.silent_ms {
            Some(silent) if silent >= SILENCE_MS => {
                format!("its last row came {} ago", text::duration(silent))
            }
            Some(_) => return None,
            None if split.lag_records == Some(0) || split.watermark.is_none() => {
                "no row of it has come yet".to_owned()
            }
            None => return None,
        };
        let on = split
            .worker
            .as_ref()
            .map(|worker| format!(" on {worker}"))
            .unwrap_or_default();
        Some((
            Tone::Waits,
            format!(
                "Windows wait for split {holder} of {}{on}: {silence}.",
                source.name
            ),
        ))
    })
}

fn all_is_well(job: &JobView) -> (Tone, String) {
    let newest = job
        .sinks
        .iter()
        .filter_map(|sink| Some((sink.delivered_age_ms?, sink)))
        .min_by_key(|(age, _)| *age);
    match newest {
        Some((age, sink)) => (
            Tone::Good,
            format!(
                "Nothing is wrong: the last rows went out to {} {} ago.",
                sink.name,
                text::duration(age)
            ),
        ),
        None if job.rows_per_second >= 0.5 => (
            Tone::Waits,
            format!(
                "{} rows a second come in, and none has come out since this master began.",
                text::rate(job.rows_per_second)
            ),
        ),
        None => (
            Tone::Good,
            "Nothing is wrong: everything that came in is delivered.".to_owned(),
        ),
    }
}

fn lagging(job: &JobView) -> usize {
    let lags = |sink: &&SinkView| sink.lag_epochs > 0;
    job.sinks.iter().filter(lags).count()
}

/// The answer as people see it.
pub(super) fn show(answer: &Answer) -> Markup {
    let tone = match answer.tone {
        Tone::Good => "good",
        Tone::Waits => "warn",
        Tone::Bad => "bad",
        Tone::Calm => "calm",
    };
    html! {
        section.answer.(tone) aria-labelledby="why" {
            h2 #why { "Why is nothing coming out?" }
            p.headline { (answer.headline) }
            @if !answer.causes.is_empty() { ul { @for cause in &answer.causes { li { (cause) } } } }
        }
    }
}
