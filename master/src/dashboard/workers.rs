//! The page of the workers: a line each. Pure.

use maud::{Markup, html};
use millstream_common::control::{WorkerState, WorkerView};
use millstream_common::text;

use super::frame::{Frame, LIVE_MS, Place, badge, figure};
use super::query::path_segment;
use super::table::{Column, Region, Table};

/// Workers and, of each, jobs that are listed.
const WORKERS_SHOWN: usize = 500;
const JOBS_SHOWN: usize = 8;

pub(super) fn page(workers: &[WorkerView], now_us: i64) -> Markup {
    let frame = Frame {
        title: "Workers",
        place: Place::Workers,
        refresh_ms: LIVE_MS,
        now_us,
    };
    let sum = |of: fn(&WorkerView) -> u32| {
        text::count(workers.iter().map(|worker| u64::from(of(worker))).sum())
    };
    frame.around(html! {
        h1 { "Workers" }
        @if workers.is_empty() {
            div.answer.warn {
                p.headline { "No worker has joined." }
                p { "Start one with " code { "millstream worker --master HOST:7070" } "." }
            }
        } @else {
            dl.figures {
                (figure("Workers", &text::count(workers.len() as u64), None))
                (figure("Slots", &sum(|worker| worker.slots), None))
                (figure("Tasks", &sum(|worker| worker.tasks), None))
                (figure("Splits", &sum(|worker| worker.splits), None))
            }
            (table(workers))
            @if workers.len() > WORKERS_SHOWN {
                p.none { (text::count((workers.len() - WORKERS_SHOWN) as u64)) " more; " code { "millstream workers" } " lists them." }
            }
        }
    })
}

fn table(workers: &[WorkerView]) -> Markup {
    let columns = [
        Column::Text("Worker"),
        Column::Text("State"),
        Column::Number("Slots"),
        Column::Number("Tasks"),
        Column::Number("Splits"),
        Column::Text("Jobs"),
        Column::Number("Joined"),
        Column::Number("Heartbeat"),
        Column::Text("Flight"),
        Column::Text("Version"),
    ];
    let table = Table::new(
        Region::Name("Workers"),
        "Workers with what they run now",
        columns,
    );
    table.around(html! { @for worker in workers.iter().take(WORKERS_SHOWN) { (row(worker)) } })
}

fn row(worker: &WorkerView) -> Markup {
    let tone = match worker.state {
        WorkerState::Active => "good",
        WorkerState::Draining => "warn",
        WorkerState::Drained => "calm",
    };
    html! {
        tr {
            th scope="row" { (worker.id.as_str()) }
            td { (badge(tone, &worker.state.to_string())) }
            td.number { (worker.slots) }
            td.number { (text::count(worker.tasks.into())) }
            td.number { (text::count(worker.splits.into())) }
            td.list {
                @if worker.jobs.is_empty() { "-" }
                @for name in worker.jobs.iter().take(JOBS_SHOWN) {
                    a href=(format!("/jobs/{}", path_segment(name.as_str()))) { (name.as_str()) } " "
                }
                @if worker.jobs.len() > JOBS_SHOWN { "and " (worker.jobs.len() - JOBS_SHOWN) " more" }
            }
            td.number { (text::duration(worker.age_ms)) " ago" }
            td.number { (text::duration(worker.heartbeat_age_ms)) " ago" }
            td { code { (worker.flight_address) } }
            td { (worker.version) }
        }
    }
}
