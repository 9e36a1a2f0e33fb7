//! The stages of a job, a line each: what came, what went, how busy, how much it waits. The graph as a table. Pure.

use maud::{Markup, html};
use millstream_common::control::{JobView, StageView};
use millstream_common::text;

use super::frame::badge;
use super::table::{Column, Region, Table};

/// A stage whose tasks wait more of their time than this is held up by what is behind it.
const BLOCKED_SHARE: f64 = 0.2;

/// Whether what is behind the stage holds it up.
pub(super) fn is_blocked(stage: &StageView) -> bool {
    stage.blocked_share > BLOCKED_SHARE
}

/// `43 %`.
pub(super) fn percent(share: f64) -> String {
    format!("{:.0} %", share.clamp(0.0, 1.0) * 100.0)
}

pub(super) fn table(job: &JobView) -> Markup {
    let columns = [
        Column::Text("Stage"),
        Column::Number("Rows/s"),
        Column::Number("Received"),
        Column::Number("Duplicates"),
        Column::Number("Late"),
        Column::Number("Filtered"),
        Column::Number("Failed"),
        Column::Number("Sent"),
        Column::Number("Busy"),
        Column::Number("Blocked"),
    ];
    let table = Table::new(
        Region::Name("Stages"),
        "Stages and what became of their rows",
        columns,
    );
    html! {
        (table.around(html! { @for stage in &job.stages { (row(stage)) } }))
        @if job.rows_unaccounted > 0 {
            p { (badge("bad", "defect")) " " (text::count(job.rows_unaccounted)) " rows are in none of the counters." }
        }
    }
}

fn row(stage: &StageView) -> Markup {
    let sum = |of: fn(&millstream_common::control::BranchView) -> u64| {
        text::count(stage.branches.iter().map(of).sum())
    };
    html! {
        tr {
            th scope="row" { (stage.name) }
            td.number { (text::rate(stage.rows_per_second)) }
            td.number { (text::count(stage.received)) }
            td.number { (text::count(stage.duplicates)) }
            td.number { (text::count(stage.late)) }
            td.number { (sum(|branch| branch.filtered)) }
            td.number { (text::count(stage.failed)) }
            td.number { (sum(|branch| branch.sent)) }
            td.number { (percent(stage.busy_share)) }
            td.number.warn[is_blocked(stage)] { (percent(stage.blocked_share)) }
        }
    }
}
