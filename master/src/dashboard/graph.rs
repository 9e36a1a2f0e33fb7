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
const WIDTH: usize = 224;
const HEIGHT: usize = 98;
const BETWEEN_COLUMNS: usize = 64;
const BETWEEN_ROWS: usize = 24;
const MARGIN: usize = 6;
/// Of the place where an edge passes between boxes.
const PASS: usize = 14;
/// Inside of a box.
const PADDING: usize = 12;
/// Of a line in a box.
const LETTERS: usize = 32;

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
    /// The upper left corner.
    x: usize,
    y: usize,
}

/// From one node to another.
struct Edge {
    from: usize,
    to: usize,
    /// Where it passes the columns between the two: the left end of each place.
    passes: Vec<(usize, usize)>,
    /// Which rows go this way.
    labels: Vec<String>,
    is_letters: bool,
}

struct Picture {
    nodes: Vec<Node>,
    edges: Vec<Edge>,
    width: usize,
    height: usize,
}

/// What stands in a column: a node, or an edge that passes.
#[derive(Clone, Copy)]
enum Slot {
    Node(usize),
    Pass(usize),
}

impl Slot {
    fn height(self) -> usize {
        match self {
            Self::Node(_) => HEIGHT,
            Self::Pass(_) => PASS,
        }
    }
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
    let stages = 0..plan.stages.len();
    let mut nodes: Vec<Node> = stages.map(|index| stage_node(plan, job, index)).collect();
    nodes.extend((0..plan.sinks.len()).map(|index| sink_node(plan, job, index)));
    for (node, column) in nodes.iter_mut().zip(columns) {
        node.column = column;
    }
    let mut picture = Picture {
        nodes,
        edges,
        width: 0,
        height: 0,
    };
    picture.lay_out();
    picture
}

impl Picture {
    /// Gives everything its place, column by column: what is read from above stands above, and columns are centred.
    fn lay_out(&mut self) {
        let mut columns = self.slots();
        let heights: Vec<usize> = columns.iter().map(|slots| column_height(slots)).collect();
        let highest = heights.iter().max().copied().unwrap_or_default();
        for (column, slots) in columns.iter_mut().enumerate() {
            slots.sort_by_key(|slot| self.height_of_inputs(*slot));
            let x = MARGIN + column * (WIDTH + BETWEEN_COLUMNS);
            let mut y = MARGIN + (highest - heights[column]) / 2;
            for slot in slots {
                match *slot {
                    Slot::Node(node) => (self.nodes[node].x, self.nodes[node].y) = (x, y),
                    Slot::Pass(edge) => self.edges[edge].passes.push((x, y + PASS / 2)),
                }
                y += slot.height() + BETWEEN_ROWS;
            }
        }
        let count = columns.len();
        self.width = 2 * MARGIN + count * WIDTH + count.saturating_sub(1) * BETWEEN_COLUMNS;
        self.height = 2 * MARGIN + highest;
    }

    /// What stands in each column.
    fn slots(&self) -> Vec<Vec<Slot>> {
        let count = self.nodes.iter().map(|node| node.column + 1).max();
        let mut columns = vec![Vec::new(); count.unwrap_or_default()];
        for (index, node) in self.nodes.iter().enumerate() {
            columns[node.column].push(Slot::Node(index));
        }
        for (index, edge) in self.edges.iter().enumerate() {
            let between = self.nodes[edge.from].column + 1..self.nodes[edge.to].column;
            for column in between {
                columns[column].push(Slot::Pass(index));
            }
        }
        columns
    }

    /// How far down what leads to a slot comes from, on average; columns left of it are laid out.
    fn height_of_inputs(&self, slot: Slot) -> usize {
        let of_edge = |edge: &Edge| match edge.passes.last() {
            Some((_, y)) => *y,
            None => self.nodes[edge.from].y + HEIGHT / 2,
        };
        match slot {
            Slot::Pass(edge) => of_edge(&self.edges[edge]),
            Slot::Node(node) => {
                let inputs = self.edges.iter().filter(|edge| edge.to == node);
                let heights: Vec<usize> = inputs.map(of_edge).collect();
                heights.iter().sum::<usize>() / heights.len().max(1)
            }
        }
    }
}

fn column_height(slots: &[Slot]) -> usize {
    let heights: usize = slots.iter().map(|slot| slot.height()).sum();
    heights + slots.len().saturating_sub(1) * BETWEEN_ROWS
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
            passes: Vec::new(),
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
        x: 0,
        y: 0,
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
            1 => format!("{}: 1 epoch", sink.standing()),
            lag => format!("{}: {} epochs", sink.standing(), text::count(lag)),
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
        x: 0,
        y: 0,
    }
}

fn draw(picture: &Picture) -> Markup {
    let (width, height) = (picture.width, picture.height);
    let words = format!(
        "{} boxes: sources, stages and sinks, and the ways of the rows between them",
        picture.nodes.len()
    );
    html! {
        div.scroll.graph tabindex="0" role="region" aria-labelledby="graph" {
            svg viewBox=(format!("0 0 {width} {height}")) width=(width) height=(height) role="img" aria-label=(words) {
                @for edge in &picture.edges {
                    (draw_edge(edge, &picture.nodes[edge.from], &picture.nodes[edge.to]))
                }
                @for node in &picture.nodes { (draw_node(node)) }
            }
        }
    }
}

fn draw_edge(edge: &Edge, from: &Node, to: &Node) -> Markup {
    let (mut x, mut y) = (from.x + WIDTH, from.y + HEIGHT / 2);
    let (x2, y2) = (to.x, to.y + HEIGHT / 2);
    let bend = BETWEEN_COLUMNS / 2;
    let mut path = format!("M{x} {y}");
    for (left, at) in &edge.passes {
        path.push_str(&format!(
            "C{} {y} {} {at} {left} {at}",
            x + bend,
            left - bend
        ));
        (x, y) = (left + WIDTH, *at);
        path.push_str(&format!("H{x}"));
    }
    path.push_str(&format!(
        "C{} {y} {} {y2} {} {y2}",
        x + bend,
        x2 - bend,
        x2 - 5
    ));
    let tip = format!("M{} {}L{x2} {y2}L{} {}", x2 - 7, y2 - 4, x2 - 7, y2 + 4);
    html! {
        g.edge.letters[edge.is_letters] {
            title { (edge.labels.join(", ")) }
            path.way d=(path) {}
            path.tip d=(tip) {}
        }
    }
}

fn draw_node(node: &Node) -> Markup {
    let (x, y) = (node.x, node.y);
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
