//! The dead letters of a job with their payloads, filtered by relation and code, page by page. Pure.

use maud::{Markup, html};
use millstream_common::control::{DeadLetterView, JobView, PlanView};
use millstream_common::dead_letter::Code;
use millstream_common::text;

use super::frame::{Frame, Place, SLOW_MS, badge, cut, or_dash, state};
use super::query::{Query, path_segment};
use super::table::{Column, Region, Table};

/// Letters of a page.
pub(super) const PAGE: usize = 50;
/// Pages: every one is read with all before it.
const PAGES_MAX: usize = 40;
/// Of a payload.
const PAYLOAD_CHARS: usize = 4_000;

/// Counted from 1.
pub(super) fn page_number(query: &Query) -> usize {
    query.page().min(PAGES_MAX)
}

/// `letters`: from the newest to the end of the page, and perhaps one more.
pub(super) fn page(
    job: &JobView,
    plan: &PlanView,
    letters: &[DeadLetterView],
    query: &Query,
    now_us: i64,
) -> Markup {
    let name = job.name.as_str();
    let title = format!("Dead letters of {name}");
    let frame = Frame {
        title: &title,
        place: Place::Jobs,
        refresh_ms: SLOW_MS,
        now_us,
    };
    let page = page_number(query);
    let skipped = (page - 1) * PAGE;
    let shown = letters.iter().skip(skipped).take(PAGE);
    let has_more = letters.len() > page * PAGE;
    frame.around(html! {
        (super::job::heading(job, super::job::Tab::Letters))
        (filter(plan, query))
        @if letters.len() <= skipped {
            p.none { @if query == &Query::default() { "No row of this job has been refused, or none is kept." } @else { "No dead letter matches." } }
        } @else {
            (table(shown))
        }
        nav.pager aria-label="Pages of dead letters" {
            @if page > 1 { a rel="prev" href=(query.at_page(page - 1)) { "Newer" } }
            @if letters.len() > skipped { span { "page " (page) } }
            @if has_more && page < PAGES_MAX { a rel="next" href=(query.at_page(page + 1)) { "Older" } }
        }
        @if has_more && page == PAGES_MAX {
            p.none { "Older ones: " code { "millstream dead-letters " (name) " RELATION" } "." }
        }
        p.none {
            "They are kept as long as " code { "SET dead_letter_retention" } " says; "
            code { "millstream dead-letters " (name) " RELATION --replay" } " sends them through the job again."
        }
        p { a href=(format!("/jobs/{}", path_segment(name))) { "Back to " (name) } " " (state(job.state)) }
    })
}

fn filter(plan: &PlanView, query: &Query) -> Markup {
    let owners = plan
        .outputs
        .iter()
        .filter_map(|output| output.relation.strip_suffix(".dead_letters"));
    let mut owners: Vec<&str> = owners.collect();
    owners.dedup();
    let option = |name: &str, value: &str| {
        let is_chosen = query.get(name) == Some(value);
        html! { option value=(value) selected[is_chosen] { (value) } }
    };
    html! {
        form.filter method="get" role="search" {
            label for="owner" { "Relation" }
            select #owner name="owner" {
                option value="" { "all" }
                @for owner in owners { (option("owner", owner)) }
            }
            label for="code" { "Code" }
            select #code name="code" {
                option value="" { "all" }
                @for code in Code::ALL { (option("code", code.as_str())) }
            }
            button type="submit" { "Filter" }
        }
    }
}

fn table<'a>(letters: impl Iterator<Item = &'a DeadLetterView>) -> Markup {
    let columns = [
        Column::Text("Received"),
        Column::Text("Relation"),
        Column::Text("Code"),
        Column::Text("Reason and payload"),
        Column::Text("Origin"),
        Column::Number("Position"),
        Column::Text("Event time"),
        Column::Number("Epoch"),
    ];
    let table = Table::new(
        Region::Name("Dead letters"),
        "Dead letters, newest first",
        columns,
    )
    .class("letters");
    table.around(html! { @for letter in letters { (row(letter)) } })
}

fn row(letter: &DeadLetterView) -> Markup {
    let payload = letter.payload.as_deref();
    let (shown, cut_off) = cut(payload.unwrap_or_default(), PAYLOAD_CHARS);
    html! {
        tr {
            th scope="row" { (text::moment(letter.received_at_us)) }
            td { (letter.source) }
            td { (badge("warn", &letter.code)) }
            td.content {
                p.reason { (letter.reason) }
                @if payload.is_some() { pre.payload { (shown) } } @else { p.none { "no payload" } }
                @if cut_off > 0 { p.none { (text::count(cut_off as u64)) " more characters" } }
                @if letter.is_cut { p.none { "only the beginning is listed" } }
            }
            td.origin { (letter.origin) }
            td.number { (letter.position) }
            td { (or_dash(letter.event_time_us.map(text::moment))) }
            td.number { (text::count(letter.epoch.0)) }
        }
    }
}
