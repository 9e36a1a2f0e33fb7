//! The sinks of a job, a line each: how far behind, by how much, since when and why. Pure.

use maud::{Markup, html};
use millstream_common::control::{JobView, SinkView};
use millstream_common::text;

use super::frame::{badge, or_dash};
use super::stages::percent;
use super::table::{Column, Region, Table};

/// The colour of a sink's standing.
pub(super) fn tone(sink: &SinkView) -> &'static str {
    match sink.standing() {
        "troubled" | "suspended" | "over quota" => "bad",
        "current" => "good",
        _ => "warn",
    }
}

pub(super) fn section(job: &JobView) -> Markup {
    let has_quota = job.sinks.iter().any(|sink| sink.quota.is_some());
    let quota = has_quota.then_some(Column::Number("Quota"));
    let columns = [
        Column::Text("Sink"),
        Column::Text("State"),
        Column::Text("Connector"),
        Column::Text("Relation"),
        Column::Number("Epoch"),
        Column::Number("Behind"),
        Column::Number("Rows"),
        Column::Number("Bytes"),
        Column::Number("Age"),
    ];
    let last = [
        Column::Number("Delivered"),
        Column::Number("Refused"),
        Column::Text("Worker"),
    ];
    let columns = columns.into_iter().chain(quota).chain(last);
    let table = Table::new(
        Region::Heading("sinks"),
        "Sinks and how far behind each is",
        columns,
    );
    html! {
        section aria-labelledby="sinks" {
            h2 #sinks { "Sinks" }
            (table.around(html! { @for sink in &job.sinks { (row(sink, has_quota)) } }))
        }
    }
}

fn row(sink: &SinkView, has_quota: bool) -> Markup {
    let is_behind = sink.lag_epochs > 0;
    let if_behind = |value: String| or_dash(is_behind.then_some(value));
    let last = sink
        .delivered_age_ms
        .map(|age| format!("{} ago", text::duration(age)));
    html! {
        tr {
            th scope="row" {
                (sink.name)
                @if let Some(cause) = &sink.cause { span.cause { (cause) } }
            }
            td { (badge(tone(sink), sink.standing())) }
            td { (sink.connector) }
            td { (sink.relation) }
            td.number { (text::count(sink.marker.0)) }
            td.number { (text::count(sink.lag_epochs)) }
            td.number { (if_behind(text::count(sink.lag_rows))) }
            td.number { (if_behind(text::bytes(sink.lag_bytes))) }
            td.number { (or_dash(sink.lag_age_ms.map(text::duration))) }
            @if has_quota { td.number { (or_dash(sink.quota.map(|quota| percent(quota.used)))) } }
            td.number {
                (text::count(sink.rows_delivered))
                @if let Some(last) = last { span.under { (last) } }
            }
            td.number { (text::count(sink.rows_refused)) }
            td { (or_dash(sink.worker.as_ref().map(ToString::to_string))) }
        }
    }
}
