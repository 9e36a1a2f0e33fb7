//! The newest epochs of a job, a line each, with a bar of how long its phases took. Pure.

use maud::{Markup, html};
use millstream_common::control::CheckpointView;
use millstream_common::text;

use super::frame::or_dash;
use super::table::{Column, Region, Table};

/// Units of a bar.
const WIDTH: u64 = 400;
const HEIGHT: u64 = 12;

/// The phases in order: what they are called, and how long they took.
fn phases(epoch: &CheckpointView) -> [(&'static str, Option<u64>); 3] {
    [
        ("collect", epoch.collect_ms),
        ("commit", epoch.commit_ms),
        ("deliver", epoch.deliver_ms),
    ]
}

fn whole(epoch: &CheckpointView) -> u64 {
    phases(epoch).iter().filter_map(|(_, took)| *took).sum()
}

pub(super) fn section(epochs: &[CheckpointView]) -> Markup {
    let longest = epochs.iter().map(whole).max().unwrap_or_default().max(1);
    let columns = [
        Column::Number("Epoch"),
        Column::Text("Watermark"),
        Column::Number("Rows"),
        Column::Number("Segments"),
        Column::Number("State"),
        Column::Number("Took"),
        Column::Text("Phases"),
    ];
    let table = Table::new(
        Region::Heading("epochs"),
        "The newest epochs, newest first",
        columns,
    )
    .tall();
    html! {
        section aria-labelledby="epochs" {
            h2 #epochs { "Epochs" }
            @if epochs.is_empty() { p.none { "No epoch is committed since the job was begun or taken over." } } @else {
                ul.legend {
                    li { span.swatch.collect {} "collect: from the barrier until all tasks have stored their state" }
                    li { span.swatch.commit {} "commit: until the log has it" }
                    li { span.swatch.deliver {} "deliver: until every sink holds it" }
                }
                (table.around(html! { @for epoch in epochs { (row(epoch, longest)) } }))
            }
        }
    }
}

fn row(epoch: &CheckpointView, longest: u64) -> Markup {
    html! {
        tr {
            th.number scope="row" { (text::count(epoch.epoch.0)) }
            td { (text::watermark(epoch.watermark)) }
            td.number { (text::count(epoch.rows_read)) }
            td.number { (text::count(epoch.segments)) " (" (text::bytes(epoch.segment_bytes)) ")" }
            td.number { (text::count(epoch.state_parts)) " (" (text::bytes(epoch.state_bytes)) ")" }
            td.number { (or_dash(epoch.duration_ms.map(text::duration))) }
            td.bars { (bar(epoch, longest)) }
        }
    }
}

/// Its phases one behind the other, to the scale of the longest epoch.
fn bar(epoch: &CheckpointView, longest: u64) -> Markup {
    let known = phases(epoch)
        .into_iter()
        .filter_map(|(name, took)| Some((name, took?)));
    let words: Vec<String> = known
        .clone()
        .map(|(name, took)| format!("{name} {}", text::duration(took)))
        .collect();
    let words = match words.is_empty() {
        true => "not known".to_owned(),
        false => words.join(", "),
    };
    let mut at = 0;
    let parts = known.map(|(name, took)| {
        let width = (took * WIDTH).div_ceil(longest);
        let begins = at;
        at += width;
        html! { rect.(name) x=(begins) y="0" width=(width) height=(HEIGHT) {} }
    });
    let parts: Vec<Markup> = parts.collect();
    html! {
        svg viewBox=(format!("0 0 {} {HEIGHT}", WIDTH + 3)) preserveAspectRatio="none" role="img" aria-label=(words) {
            title { (words) }
            @for part in parts { (part) }
        }
    }
}
