//! The SQL of a job with the numbers of its lines, and its plan in words. Pure.

use maud::{Markup, html};
use millstream_common::control::PlanView;
use millstream_common::text;

use super::frame::cut;

/// A SQL file may have megabytes; a page shows its beginning.
const LINES_SHOWN: usize = 2_000;
const CHARS_SHOWN: usize = 200_000;

pub(super) fn section(plan: &PlanView) -> Markup {
    html! {
        section aria-labelledby="sql" {
            h2 #sql { "SQL" }
            (sql(&plan.sql))
            details {
                summary { "The plan, as " code { "millstream explain" } " prints it" }
                @let (explained, cut_off) = cut(&plan.explained, CHARS_SHOWN);
                pre.plan tabindex="0" { (explained) }
                @if cut_off > 0 { p.none { (text::count(cut_off as u64)) " more characters" } }
            }
        }
    }
}

/// A line each, so that its number needs no script and is not copied with it.
fn sql(sql: &str) -> Markup {
    let (shown, cut_off) = cut(sql.trim_end(), CHARS_SHOWN);
    let lines = shown.lines().count();
    html! {
        ol.sql tabindex="0" aria-label="SQL" {
            @for line in shown.lines().take(LINES_SHOWN) { li { code { (line) } } }
        }
        @if cut_off > 0 || lines > LINES_SHOWN {
            p.none { "The file goes on: it has " (text::count(sql.lines().count() as u64)) " lines." }
        }
    }
}
