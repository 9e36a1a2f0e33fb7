//! The page of one job: the answer in words, its figures, its graph, and everything that stands behind them. Pure.

use maud::{Markup, html};
use millstream_common::control::{CheckpointView, JobView, PlanView, WatermarksView, WorkerView};
use millstream_common::text;

use super::frame::{Frame, LIVE_MS, Place, delay, figure, or_dash, state};
use super::query::{Query, path_segment};
use super::{answer, epochs, graph, sinks, source_text, splits, stages};

/// Everything that the page shows.
pub(super) struct JobPage {
    pub(super) job: JobView,
    pub(super) plan: PlanView,
    pub(super) watermarks: WatermarksView,
    /// Newest first.
    pub(super) epochs: Vec<CheckpointView>,
    pub(super) workers: Vec<WorkerView>,
    pub(super) now_us: i64,
}

/// The pages of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    Overview,
    Letters,
}

pub(super) fn page(page: &JobPage, query: &Query) -> Markup {
    let job = &page.job;
    let frame = Frame {
        title: job.name.as_str(),
        place: Place::Jobs,
        refresh_ms: LIVE_MS,
        now_us: page.now_us,
    };
    let answer = answer::answer(job, &page.watermarks, &page.workers);
    frame.around(html! {
        (heading(job, Tab::Overview))
        (answer::show(&answer))
        (failure(job))
        (figures(page))
        section aria-labelledby="graph" {
            h2 #graph { "Graph" }
            (graph::show(&page.plan, job))
            details {
                summary { "The stages as a table" }
                (stages::table(job))
            }
        }
        (sinks::section(job))
        (epochs::section(&page.epochs))
        (splits::section(job, &page.watermarks, query))
        (source_text::section(&page.plan))
        (life(job))
    })
}

/// The job's name, and its pages.
pub(super) fn heading(job: &JobView, tab: Tab) -> Markup {
    let address = format!("/jobs/{}", path_segment(job.name.as_str()));
    let letters = job.dead_letter_count();
    let current = |of: Tab| (tab == of).then_some("page");
    html! {
        p.path { a href="/" { "Jobs" } " / " }
        h1 { (job.name.as_str()) " " (state(job.state)) }
        nav.tabs aria-label="Job" {
            a href=(address) aria-current=[current(Tab::Overview)] { "Overview" }
            a href=(format!("{address}/dead-letters")) aria-current=[current(Tab::Letters)] {
                "Dead letters " span.count { (text::count(letters)) }
            }
        }
    }
}

fn failure(job: &JobView) -> Markup {
    html! {
        @if let Some(failure) = &job.last_failure {
            section.failure aria-labelledby="failure" {
                h2 #failure { "Last failure" }
                p {
                    code { (failure.cause) }
                    span.note { " " (text::duration(failure.age_ms)) " ago" }
                }
            }
        }
    }
}

fn figures(page: &JobPage) -> Markup {
    let (job, now_us) = (&page.job, page.now_us);
    let interval = text::duration(job.checkpoint_interval_ms);
    let recovery = job
        .last_recovery_ms
        .map(|took| format!("the last took {}", text::duration(took)));
    let dropped = job.dropped_count();
    let newest = page.epochs.first();
    let state_bytes = newest.map(|epoch| text::bytes(epoch.state_bytes));
    html! {
        dl.figures {
            (figure("Rows/s", &or_dash(text::job_rate(job)), None))
            (figure("Read", &text::count(job.rows_read), Some("rows".to_owned())))
            (figure("Lag", &or_dash(text::job_lag(job)), job.lag_records.map(|_| "records".to_owned())))
            (figure("Epoch", &text::count(job.epoch.0), Some(format!("every {interval}"))))
            (figure("Watermark", &text::watermark(job.watermark), delay(job.watermark, now_us).map(|delay| format!("{delay} behind"))))
            (figure("Dead letters", &text::count(job.dead_letter_count()), (dropped > 0).then(|| format!("{} dropped", text::count(dropped)))))
            (figure("Restarts", &job.restarts.to_string(), recovery))
            (figure("State", &or_dash(state_bytes), None))
        }
    }
}

/// What hardly changes.
fn life(job: &JobView) -> Markup {
    html! {
        section aria-labelledby="life" {
            h2 #life { "Life" }
            dl.pairs {
                dt { "Submitted" } dd { (text::moment(job.submitted_at_us)) }
                dt { "Generation" } dd { (job.generation.to_string()) }
                dt { "Incarnation" } dd { code { (job.incarnation) } }
                dt { "Rows read again" } dd { (text::count(job.rows_reread)) }
                @if let Some(storage) = job.storage {
                    dt { "State kept" } dd { (text::bytes(storage.state_bytes)) }
                    dt { "Segments kept" } dd { (text::bytes(storage.segment_bytes)) }
                    dt { "Dead letters kept" } dd { (text::bytes(storage.dead_letter_bytes)) }
                    dt { "Log of all jobs" } dd { (text::bytes(storage.log_bytes)) }
                }
            }
        }
    }
}
