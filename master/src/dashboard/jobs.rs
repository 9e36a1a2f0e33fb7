//! The page of all jobs: a line each, filtered by state and name, a hundred a page. Pure.

use maud::{Markup, html};
use millstream_common::control::{JobState, JobView};
use millstream_common::text;

use super::frame::{Frame, LIVE_MS, Place, delay, or_dash, pager, state};
use super::query::{Paging, Query, path_segment};
use super::table::{Column, Region, Table};

/// Jobs of a page.
pub(super) const PAGE: usize = 100;

const STATES: [JobState; 8] = [
    JobState::Running,
    JobState::Waiting,
    JobState::Deploying,
    JobState::Recovering,
    JobState::Stopping,
    JobState::Failed,
    JobState::Stopped,
    JobState::Finished,
];

pub(super) fn page(jobs: &[JobView], worker_count: usize, query: &Query, now_us: i64) -> Markup {
    let name = query.get("q").unwrap_or_default().to_lowercase();
    let named: Vec<&JobView> = jobs
        .iter()
        .filter(|job| job.name.as_str().to_lowercase().contains(&name))
        .collect();
    let wanted = query.get("state");
    let is_wanted = |job: &&&JobView| wanted.is_none_or(|state| job.state.to_string() == state);
    let found: Vec<&&JobView> = named.iter().filter(is_wanted).collect();
    let paging = Paging::of(query, found.len(), PAGE);
    let frame = Frame {
        title: "Jobs",
        place: Place::Jobs,
        refresh_ms: LIVE_MS,
        now_us,
    };
    frame.around(html! {
        h1 { "Jobs" }
        @if worker_count == 0 {
            div.answer.warn {
                p.headline { "No worker has joined, so no job can run." }
                p { "Start one with " code { "millstream worker --master HOST:7070" } "." }
            }
        }
        @if jobs.is_empty() {
            div.answer.calm {
                p.headline { "There are no jobs." }
                p { "Submit one with " code { "millstream submit FILE" } "." }
            }
        } @else {
            (totals(jobs))
            (filter(&named, query))
            @if found.is_empty() { p.none { "No job matches." } } @else {
                (table(found.iter().skip(paging.skipped).take(PAGE), now_us))
            }
            (pager(&paging, query, found.len(), "jobs"))
        }
    })
}

fn totals(jobs: &[JobView]) -> Markup {
    let running = jobs
        .iter()
        .filter(|job| job.state == JobState::Running)
        .count();
    let rate: f64 = jobs
        .iter()
        .filter(|job| !job.state.is_over())
        .map(|job| job.rows_per_second)
        .sum();
    let lags: Vec<u64> = jobs.iter().filter_map(|job| job.lag_records).collect();
    let not_known = jobs
        .iter()
        .filter(|job| {
            !job.state.is_over() && text::job_lag(job).as_deref() == Some(text::LAG_NOT_KNOWN)
        })
        .count();
    let lag = match (lags.is_empty(), not_known) {
        (true, 0) => None,
        (true, _) => Some(text::LAG_NOT_KNOWN.to_owned()),
        (false, _) => Some(text::count(lags.iter().sum())),
    };
    let besides = match (lags.is_empty(), not_known) {
        (false, 1..) => Some(format!(
            "and of {} more not known",
            text::count(not_known as u64)
        )),
        _ => None,
    };
    let behind: usize = jobs.iter().map(sinks_behind).sum();
    let letters: u64 = jobs.iter().map(JobView::dead_letter_count).sum();
    html! {
        dl.figures {
            (super::frame::figure("Running", &text::count(running as u64), Some(format!("of {} jobs", text::count(jobs.len() as u64)))))
            (super::frame::figure("Rows/s", &text::rate(rate), None))
            (super::frame::figure("Lag", &or_dash(lag), besides))
            (super::frame::figure("Sinks behind", &text::count(behind as u64), None))
            (super::frame::figure("Dead letters", &text::count(letters), None))
        }
    }
}

/// By state as links, by name as a form: both work without a script.
fn filter(named: &[&JobView], query: &Query) -> Markup {
    let wanted = query.get("state");
    let chip = |word: &str, value: Option<&str>, count: usize| {
        let current = (wanted == value).then_some("true");
        html! {
            a.chip href=(query.with("state", value)) aria-current=[current] {
                (word) " " span.count { (text::count(count as u64)) }
            }
        }
    };
    html! {
        div.filter {
            nav.chips aria-label="State" {
                (chip("all", None, named.len()))
                @for state in STATES {
                    @let count = named.iter().filter(|job| job.state == state).count();
                    @let word = state.to_string();
                    @if count > 0 || wanted == Some(word.as_str()) { (chip(&word, Some(&word), count)) }
                }
            }
            form method="get" action="/" role="search" {
                label for="q" { "Name" }
                input #q name="q" type="search" value=[query.get("q")] autocomplete="off" spellcheck="false";
                @if let Some(state) = wanted { input type="hidden" name="state" value=(state); }
                button type="submit" { "Filter" }
            }
        }
    }
}

fn table<'a>(jobs: impl Iterator<Item = &'a &'a &'a JobView>, now_us: i64) -> Markup {
    let columns = [
        Column::Text("Name"),
        Column::Text("State"),
        Column::Number("Rows/s"),
        Column::Number("Epoch"),
        Column::Text("Watermark"),
        Column::Number("Delay"),
        Column::Number("Lag"),
        Column::Number("Sinks behind"),
        Column::Number("Dead letters"),
        Column::Number("Restarts"),
    ];
    let table = Table::new(Region::Name("Jobs"), "Jobs with their figures now", columns);
    table.around(html! { @for job in jobs { (row(job, now_us)) } })
}

fn row(job: &JobView, now_us: i64) -> Markup {
    let address = format!("/jobs/{}", path_segment(job.name.as_str()));
    let behind = sinks_behind(job);
    let letters = job.dead_letter_count();
    html! {
        tr {
            th scope="row" {
                a href=(address) { (job.name.as_str()) }
                @if let Some(cause) = &job.cause { span.cause title=(cause) { (super::frame::short(cause, 90)) } }
            }
            td { (state(job.state)) }
            td.number { (or_dash(text::job_rate(job))) }
            td.number { (text::count(job.epoch.0)) }
            td { (text::watermark(job.watermark)) }
            td.number { (or_dash(delay(job.watermark, now_us))) }
            td.number { (or_dash(text::job_lag(job))) }
            td.number.warn[behind > 0] { (behind) " of " (job.sinks.len()) }
            td.number {
                @if letters > 0 { a href=(format!("{address}/dead-letters")) { (text::count(letters)) } } @else { "0" }
            }
            td.number { (job.restarts) }
        }
    }
}

fn sinks_behind(job: &JobView) -> usize {
    job.sinks
        .iter()
        .filter(|sink| sink.standing() != "current")
        .count()
}
