//! The graph of a job: sources, the stages behind them and the sinks, drawn on the server.
//!
//! Stands in the page as SVG, without a style of its own: colours come from the style sheet by class. Columns follow the rows from
//! left to right, so every edge leads to the right. The table of the stages says the same. Pure; the size is bounded.

use maud::{Markup, html};
use millstream_common::control::{JobView, PlanView};
use millstream_common::text;
use millstream_common::time::EventTime;

use super::frame::short;
use super::{sinks, stages};

/// More boxes than these are no picture any more.
const BOXES_MAX: usize = 120;
/// In units of the picture, which are pixels unless the window is narrow.
const WIDTH: usize = 236;
const HEIGHT: usize = 98;
const BETWEEN_COLUMNS: usize = 96;
const BETWEEN_ROWS: usize = 24;
const MARGIN: usize = 6;
/// Inside of a box.
const PADDING: usize = 12;
/// Of a line in a box.
const LETTERS: usize = 34;

/// A source, a stage or a sink.
struct Node {
    kind: &'static str,
    name: String,
    /// Beneath the name, a line each.
    lines: Vec<String>,
    /// `good`, `warn`, `bad` or `calm`.
    tone: &'static str,
    /// Shares of the time that its tasks work, and wait.
    load: Option<(f64, f64)>,
    column: usize,
    row: usize,
}

/// From one node to another.
struct Edge {
    from: usize,
    to: usize,
    /// Which rows go this way.
    labels: Vec<String>,
    is_letters: bool,
}

struct Picture {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
}

pub(super) fn show(plan: &PlanView, job: &JobView) -> Markup {
    let count = plan.stages.len() + plan.sinks.len();
    if count > BOXES_MAX {
        return html! {
            p.none { (plan.stages.len()) " stages and " (plan.sinks.len()) " sinks are too many for a picture; the table lists them." }
        };
    }
    draw(&picture(plan, job))
}

fn picture(plan: &PlanView, job: &JobView) -> Picture {
    let edges = edges(plan);
    let columns = columns(plan, &edges);
    let mut nodes: Vec<Node> = (0..plan.stages.len())
        .map(|index| stage_node(plan, job, index))
        .collect();
    nodes.extend((0..plan.sinks.len()).map(|index| sink_node(plan, job, index)));
    let mut heights = vec![0; columns.iter().max().map_or(0, |last| last + 1)];
    for (node, column) in nodes.iter_mut().zip(columns) {
        node.column = column;
        node.row = heights[column];
        heights[column] += 1;
    }
    Picture { nodes, edges }
}

/// From stage to stage, and through the outputs to their sinks. Sinks are numbered behind the stages.
fn edges(plan: &PlanView) -> Vec<Edge> {
    let mut edges: Vec<Edge> = Vec::new();
    for (from, stage) in plan.stages.iter().enumerate() {
        for branch in &stage.branches {
            let is_letters = branch.rows == "dead letters";
            if let Some(to) = branch.to_stage {
                add(&mut edges, from, to as usize, &branch.rows, is_letters);
            }
            let Some(output) = branch.to_output else {
                continue;
            };
            let sinks = plan
                .sinks
                .iter()
                .enumerate()
                .filter(|(_, sink)| sink.output == output);
            for (sink, _) in sinks {
                let relation = plan
                    .outputs
                    .get(output as usize)
                    .map_or("", |output| output.relation.as_str());
                add(
                    &mut edges,
                    from,
                    plan.stages.len() + sink,
                    relation,
                    is_letters,
                );
            }
        }
    }
    edges
}

fn add(edges: &mut Vec<Edge>, from: usize, to: usize, label: &str, is_letters: bool) {
    let known = edges
        .iter_mut()
        .find(|edge| edge.from == from && edge.to == to);
    match known {
        Some(edge) => {
            edge.is_letters &= is_letters;
            if !edge.labels.iter().any(|known| known == label) {
                edge.labels.push(label.to_owned());
            }
        }
        None => edges.push(Edge {
            from,
            to,
            labels: vec![label.to_owned()],
            is_letters,
        }),
    }
}

/// A stage stands right of all that it reads, for they come before it; the sinks are the last column.
fn columns(plan: &PlanView, edges: &[Edge]) -> Vec<usize> {
    let mut columns = vec![0; plan.stages.len() + plan.sinks.len()];
    for to in 0..plan.stages.len() {
        let before = edges.iter().filter(|edge| edge.to == to && edge.from < to);
        columns[to] = before.map(|edge| columns[edge.from] + 1).max().unwrap_or(0);
    }
    let last = columns.iter().max().copied().unwrap_or_default() + 1;
    for column in &mut columns[plan.stages.len()..] {
        *column = last;
    }
    columns
}

fn stage_node(plan: &PlanView, job: &JobView, index: usize) -> Node {
    let stage = &plan.stages[index];
    let figures = job.stages.get(index);
    let mut lines: Vec<String> = stage.words.first().cloned().into_iter().collect();
    if let Some(figures) = figures {
        lines.push(format!(
            "{} rows/s, {} rows",
            text::rate(figures.rows_per_second),
            text::count(figures.received)
        ));
    }
    lines.push(format!(
        "watermark {}",
        text::watermark(watermark(job, &stage.sources))
    ));
    let is_blocked = figures.is_some_and(stages::is_blocked);
    Node {
        kind: if stage.is_source { "source" } else { "stage" },
        name: stage.name.clone(),
        lines,
        tone: match (is_blocked, job.state.is_over()) {
            (true, false) => "warn",
            (false, false) => "good",
            (_, true) => "calm",
        },
        load: figures.map(|figures| (figures.busy_share, figures.blocked_share)),
        column: 0,
        row: 0,
    }
}

/// The least of those of the sources whose rows reach a stage.
fn watermark(job: &JobView, sources: &[u32]) -> Option<EventTime> {
    let sources = sources
        .iter()
        .map(|source| job.sources.get(*source as usize)?.watermark);
    let all: Option<Vec<EventTime>> = sources.collect();
    all?.into_iter().min()
}

fn sink_node(plan: &PlanView, job: &JobView, index: usize) -> Node {
    let planned = &plan.sinks[index];
    let mut lines = vec![planned.words.clone()];
    let mut tone = "calm";
    if let Some(sink) = job.sinks.iter().find(|sink| sink.name == planned.name) {
        lines.push(format!(
            "{} rows delivered",
            text::count(sink.rows_delivered)
        ));
        lines.push(match sink.lag_epochs {
            0 => format!("{}, epoch {}", sink.standing(), sink.marker),
            lag => format!("{}, {} epochs behind", sink.standing(), text::count(lag)),
        });
        tone = sinks::tone(sink);
    }
    Node {
        kind: "sink",
        name: planned.name.clone(),
        lines,
        tone,
        load: None,
        column: 0,
        row: 0,
    }
}

fn draw(picture: &Picture) -> Markup {
    let columns = picture
        .nodes
        .iter()
        .map(|node| node.column + 1)
        .max()
        .unwrap_or(0);
    let rows = picture
        .nodes
        .iter()
        .map(|node| node.row + 1)
        .max()
        .unwrap_or(0);
    let width = 2 * MARGIN + columns * WIDTH + columns.saturating_sub(1) * BETWEEN_COLUMNS;
    let height = 2 * MARGIN + rows * HEIGHT + rows.saturating_sub(1) * BETWEEN_ROWS;
    let at: Vec<(usize, usize)> = picture
        .nodes
        .iter()
        .map(|node| place(picture, node, rows))
        .collect();
    html! {
        div.scroll.graph tabindex="0" role="region" aria-labelledby="graph" {
            svg viewBox=(format!("0 0 {width} {height}")) width=(width) height=(height) role="img"
                aria-label=(format!("{} boxes: sources, stages and sinks, and the ways of the rows between them", picture.nodes.len())) {
                @for edge in &picture.edges { (draw_edge(edge, at[edge.from], at[edge.to])) }
                @for (node, at) in picture.nodes.iter().zip(&at) { (draw_node(node, *at)) }
            }
        }
    }
}

/// The upper left corner; columns are centred beside the highest one.
fn place(picture: &Picture, node: &Node, rows: usize) -> (usize, usize) {
    let own = picture
        .nodes
        .iter()
        .filter(|other| other.column == node.column)
        .count();
    let step = HEIGHT + BETWEEN_ROWS;
    let above = (rows - own) * step / 2;
    (
        MARGIN + node.column * (WIDTH + BETWEEN_COLUMNS),
        MARGIN + above + node.row * step,
    )
}

fn draw_edge(edge: &Edge, from: (usize, usize), to: (usize, usize)) -> Markup {
    let (x1, y1) = (from.0 + WIDTH, from.1 + HEIGHT / 2);
    let (x2, y2) = (to.0, to.1 + HEIGHT / 2);
    let bend = BETWEEN_COLUMNS / 2;
    let path = format!(
        "M{x1} {y1}C{} {y1} {} {y2} {} {y2}",
        x1 + bend,
        x2 - bend,
        x2 - 5
    );
    let tip = format!("M{} {}L{x2} {y2}L{} {}", x2 - 7, y2 - 4, x2 - 7, y2 + 4);
    html! {
        g.edge.letters[edge.is_letters] {
            title { (edge.labels.join(", ")) }
            path.way d=(path) {}
            path.tip d=(tip) {}
        }
    }
}

fn draw_node(node: &Node, (x, y): (usize, usize)) -> Markup {
    let left = x + PADDING;
    html! {
        g.node.(node.kind).(node.tone) {
            title { (node.kind) " " (node.name) ": " (node.lines.join("; ")) }
            rect.box x=(x) y=(y) width=(WIDTH) height=(HEIGHT) rx="9" {}
            rect.edge x=(x) y=(y + 12) width="4" height=(HEIGHT - 24) rx="2" {}
            text.name x=(left) y=(y + 24) { (short(&node.name, LETTERS - 6)) }
            @for (index, line) in node.lines.iter().take(3).enumerate() {
                text.line x=(left) y=(y + 43 + index * 16) { (short(line, LETTERS)) }
            }
            @if let Some(load) = node.load { (draw_load(load, left, y + HEIGHT - 11)) }
        }
    }
}

/// How much of their time its tasks work (blue), and how much they wait for those behind them (amber).
fn draw_load((busy, blocked): (f64, f64), x: usize, y: usize) -> Markup {
    let whole = (WIDTH - 2 * PADDING) as f64;
    let width = |share: f64| (share.clamp(0.0, 1.0) * whole).round() as usize;
    let (busy_width, blocked_width) = (width(busy), width(blocked));
    let blocked_width = blocked_width.min(WIDTH - 2 * PADDING - busy_width);
    html! {
        g.load {
            title { "busy " (stages::percent(busy)) ", blocked " (stages::percent(blocked)) }
            rect.whole x=(x) y=(y) width=(WIDTH - 2 * PADDING) height="4" rx="2" {}
            rect.busy x=(x) y=(y) width=(busy_width) height="4" rx="2" {}
            rect.blocked x=(x + busy_width) y=(y) width=(blocked_width) height="4" rx="2" {}
        }
    }
}
