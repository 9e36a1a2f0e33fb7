//! The sources of a job and their splits: how far each is read, whose time it is, and who holds the others back. Pure.

use maud::{Markup, html};
use millstream_common::control::{
    JobView, SourceView, SourceWatermarkView, SplitWatermarkView, WatermarksView,
};
use millstream_common::text;

use super::frame::{badge, or_dash, pager};
use super::query::{Paging, Query};
use super::table::{Column, Region, Table};

/// Splits of a page.
pub(super) const PAGE: usize = 100;

pub(super) fn section(job: &JobView, watermarks: &WatermarksView, query: &Query) -> Markup {
    let name = query.get("split").unwrap_or_default();
    let sources = watermarks.sources.iter();
    let splits = sources.flat_map(|source| source.splits.iter().map(move |split| (source, split)));
    let found: Vec<_> = splits
        .filter(|(_, split)| split.split.as_str().contains(name))
        .collect();
    let count: usize = watermarks
        .sources
        .iter()
        .map(|source| source.splits.len())
        .sum();
    let paging = Paging::of(query, found.len(), PAGE);
    html! {
        section aria-labelledby="sources" {
            h2 #sources { "Sources" }
            (source_table(job, watermarks))
            h3 #splits { "Splits" }
            @if count > PAGE || !name.is_empty() {
                form.filter method="get" action="#splits" role="search" {
                    label for="split" { "Split" }
                    input #split name="split" type="search" value=(name) autocomplete="off" spellcheck="false";
                    button type="submit" { "Filter" }
                }
            }
            @if found.is_empty() { p.none { "No split is open." } } @else {
                (split_table(found.iter().skip(paging.skipped).take(PAGE)))
            }
            (pager(&paging, query, found.len(), "splits"))
        }
    }
}

fn source_table(job: &JobView, watermarks: &WatermarksView) -> Markup {
    let columns = [
        Column::Text("Source"),
        Column::Text("Connector"),
        Column::Number("Splits"),
        Column::Number("Read"),
        Column::Number("Rejected"),
        Column::Number("Dropped"),
        Column::Number("Lag"),
        Column::Text("Watermark"),
        Column::Number("Delay"),
        Column::Text("Held back by"),
    ];
    let table = Table::new(
        Region::Heading("sources"),
        "Sources and what became of their rows",
        columns,
    );
    table.around(html! { @for (source, time) in job.sources.iter().zip(&watermarks.sources) { (source_row(source, time)) } })
}

fn source_row(source: &SourceView, time: &SourceWatermarkView) -> Markup {
    let watermark = match time.keeps_time {
        true => text::watermark(time.watermark),
        false => "keeps no time".to_owned(),
    };
    let delay = time
        .delay_ms
        .map(|delay| text::duration(delay.max(0).unsigned_abs()));
    let gone: u64 = source.gaps.iter().map(|gap| gap.positions).sum();
    html! {
        tr {
            th scope="row" {
                (source.name)
                @if gone > 0 { span.cause { (text::count(gone)) " records were gone and passed over (on_gap)" } }
            }
            td { (source.connector) }
            td.number {
                (text::count(source.splits.into()))
                @if source.splits_ended > 0 { ", " (text::count(source.splits_ended.into())) " ended" }
            }
            td.number { (text::count(source.rows_read)) }
            td.number { (text::count(source.rows_rejected)) }
            td.number { (text::count(source.rows_dropped)) }
            td.number { (or_dash(text::source_lag(time, time.lag_records))) }
            td { (watermark) }
            td.number { (or_dash(delay)) }
            td { (or_dash(time.held_by.as_ref().map(ToString::to_string))) }
        }
    }
}

fn split_table<'a>(
    splits: impl Iterator<Item = &'a (&'a SourceWatermarkView, &'a SplitWatermarkView)>,
) -> Markup {
    let columns = [
        Column::Text("Split"),
        Column::Text("Source"),
        Column::Text("State"),
        Column::Text("Watermark"),
        Column::Number("Position"),
        Column::Number("Lag"),
        Column::Number("Last row"),
        Column::Text("Worker"),
    ];
    let table = Table::new(
        Region::Heading("splits"),
        "Splits that are not ended, those furthest behind first",
        columns,
    )
    .tall();
    table.around(html! { @for (source, split) in splits { (split_row(source, split)) } })
}

fn split_row(source: &SourceWatermarkView, split: &SplitWatermarkView) -> Markup {
    let holds_back = source.held_by.as_ref() == Some(&split.split);
    let (tone, state) = match (split.is_idle, holds_back) {
        (true, _) => {
            let idle = split.idle_ms.map_or("some time".to_owned(), text::duration);
            ("calm", format!("idle for {idle}"))
        }
        (false, true) => ("warn", "holds it back".to_owned()),
        (false, false) => ("good", "active".to_owned()),
    };
    let watermark = match (source.keeps_time, split.watermark) {
        (false, _) => "-".to_owned(),
        (true, None) => "no row yet".to_owned(),
        (true, time) => text::watermark(time),
    };
    let last = split
        .silent_ms
        .map(|silent| format!("{} ago", text::duration(silent)));
    html! {
        tr {
            th scope="row" { (split.split.as_str()) }
            td { (source.name) }
            td { (badge(tone, &state)) }
            td { (watermark) }
            td.number { (split.position) }
            td.number { (or_dash(text::source_lag(source, split.lag_records))) }
            td.number { (or_dash(last)) }
            td { (or_dash(split.worker.as_ref().map(ToString::to_string))) }
        }
    }
}
