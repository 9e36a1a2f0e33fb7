//! What all pages have in common: head, navigation, numbers of pages, badges and cells. Pure.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use millstream_common::control::JobState;
use millstream_common::text;
use millstream_common::time::EventTime;

use super::query::{Paging, Query};

/// Where the style sheet is.
pub(super) const STYLE: &str = "/assets/style.css";
/// Where the script is.
pub(super) const SCRIPT: &str = "/assets/live.js";
/// Where the icon is.
pub(super) const ICON: &str = "/assets/icon.svg";

/// How often a page with figures is fetched again.
pub(super) const LIVE_MS: u32 = 2_000;
/// How often one is that costs the master reads of storage.
pub(super) const SLOW_MS: u32 = 15_000;

/// Which entry of the navigation a page belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Jobs,
    Workers,
    Elsewhere,
}

/// A page around its content.
pub(super) struct Frame<'a> {
    pub(super) title: &'a str,
    pub(super) place: Place,
    /// From one fetch to the next.
    pub(super) refresh_ms: u32,
    /// The master's time.
    pub(super) now_us: i64,
}

impl Frame<'_> {
    pub(super) fn around(&self, content: Markup) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title) " · Millstream" }
                    link rel="icon" type="image/svg+xml" href=(ICON);
                    link rel="stylesheet" href=(STYLE);
                    script src=(SCRIPT) defer {}
                }
                body {
                    a.skip href="#content" { "Skip to the content" }
                    header.top {
                        a.brand href="/" { (mark()) span { "Millstream" } }
                        nav aria-label="Main" {
                            (self.entry(Place::Jobs, "/", "Jobs"))
                            (self.entry(Place::Workers, "/workers", "Workers"))
                        }
                        (self.status())
                    }
                    main #content tabindex="-1" data-refresh=(self.refresh_ms) { (content) }
                }
            }
        }
    }

    fn entry(&self, place: Place, address: &str, name: &str) -> Markup {
        let current = (self.place == place).then_some("page");
        html! { a href=(address) aria-current=[current] { (name) } }
    }

    /// When the page was made; the script writes here whether it is live.
    fn status(&self) -> Markup {
        html! {
            p.status {
                span #live role="status" { "Not live: " a href="" { "reload" } }
                " "
                time #made { (moment(self.now_us)) }
            }
        }
    }
}

/// The mark beside the name: three streams that meet.
fn mark() -> Markup {
    PreEscaped(include_str!("assets/icon.svg").to_owned())
}

/// A state as a word with a colour of its own.
pub(super) fn state(state: JobState) -> Markup {
    let tone = match state {
        JobState::Running => "good",
        JobState::Waiting | JobState::Deploying | JobState::Recovering | JobState::Stopping => {
            "warn"
        }
        JobState::Failed => "bad",
        JobState::Stopped | JobState::Finished => "calm",
    };
    badge(tone, &state.to_string())
}

/// A word with a colour: `good`, `warn`, `bad` or `calm`.
pub(super) fn badge(tone: &str, word: &str) -> Markup {
    html! { span.badge.(tone) { (word) } }
}

/// A figure with its name.
pub(super) fn figure(name: &str, value: &str, note: Option<String>) -> Markup {
    html! {
        div.figure {
            dt { (name) }
            dd { span.value { (value) } @if let Some(note) = note { span.note { (note) } } }
        }
    }
}

/// A cell of text; one without is a dash.
pub(super) fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".to_owned())
}

/// How far a watermark is behind the clock; nothing is behind the end of time.
pub(super) fn delay(watermark: Option<EventTime>, now_us: i64) -> Option<String> {
    let watermark = watermark.filter(|time| *time != EventTime::MAX)?;
    let behind_us = now_us.saturating_sub(watermark.0).max(0);
    Some(text::duration(behind_us.unsigned_abs() / 1_000))
}

fn moment(now_us: i64) -> String {
    text::moment(now_us)
}

/// Where to go from this page of a list; nothing where it has only one.
pub(super) fn pager(paging: &Paging, query: &Query, count: usize, what: &str) -> Markup {
    let last = (paging.skipped + paging.size).min(count);
    let link = |page: usize, rel: &str, name: &str| html! { a rel=(rel) href=(query.at_page(page)) { (name) } };
    html! {
        @if paging.pages > 1 {
            nav.pager aria-label=(format!("Pages of {what}")) {
                @if paging.page > 1 { (link(paging.page - 1, "prev", "Previous")) }
                span {
                    (text::count(paging.skipped as u64 + 1)) "–" (text::count(last as u64)) " of "
                    (text::count(count as u64)) " " (what)
                }
                @if paging.page < paging.pages { (link(paging.page + 1, "next", "Next")) }
            }
        }
    }
}

/// The beginning of a long text.
pub(super) fn cut(text: &str, chars_max: usize) -> (&str, usize) {
    match text.char_indices().nth(chars_max) {
        None => (text, 0),
        Some((end, _)) => (&text[..end], text[end..].chars().count()),
    }
}

/// One line of at most so many characters.
pub(super) fn short(text: &str, chars_max: usize) -> String {
    match cut(text, chars_max.saturating_sub(1)) {
        (_, 0 | 1) => text.to_owned(),
        (start, _) => format!("{start}…"),
    }
}
