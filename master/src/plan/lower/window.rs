//! TUMBLE: two more columns, computed from event time.
//!
//! Called by `lower`. Only event time may be cut into windows: of anything else no watermark says when a window
//! is over.

use datafusion::logical_expr::Expr;

use super::columns::quoted;
use super::{LowerError, Lowering, Stream, Streams};
use crate::plan::graph::{DraftColumn, Lineage, Window};
use crate::plan::problem::place_in_plan;
use crate::plan::problem::{Place, Problem};
use crate::plan::tumble::{self, Bound, Tumble, WINDOW_END, WINDOW_START};
use crate::plan::{text, types};

impl Lowering<'_> {
    pub(super) fn lower_tumble(&mut self, node: &Tumble) -> Result<Streams, LowerError> {
        let mut streams = self.lower(&node.input)?;
        let place = node.span.map_or(self.place, place_in_plan);
        let schema = node.input.schema();
        for stream in &mut streams {
            let time_column = match &node.time {
                Expr::Column(column) => Some(&stream.columns[schema.index_of_column(column)?]),
                _ => None,
            };
            let Some(time) = time_column.filter(|column| column.lineage.event_time) else {
                return Err(self.no_event_time(stream, &node.time, place).into());
            };
            let mut window_columns = Vec::new();
            for (name, which) in [(WINDOW_START, Bound::Start), (WINDOW_END, Bound::End)] {
                let window = Window {
                    size_micros: node.size_micros,
                    is_end: which == Bound::End,
                };
                window_columns.push(DraftColumn {
                    field: time.field.clone().with_name(name),
                    expression: tumble::bound(time.expression.clone(), node.size_micros, which),
                    lineage: Lineage {
                        window: Some(window),
                        ..Lineage::default()
                    },
                });
            }
            stream.columns.extend(window_columns);
        }
        Ok(streams)
    }

    /// Why the time of a window is none, with the line to write.
    fn no_event_time(&self, stream: &Stream, time: &Expr, place: Place) -> Problem {
        let shown = text::show_bare(time);
        let message = format!("{shown} is no event time, so its windows could never close");
        let problem = Problem::at(place, message);
        match stream.time {
            Some(index) => {
                let name = stream.scope[index].field.name();
                problem.hint(format!(
                    "event time is the watermark column of the source, unchanged: here {name}"
                ))
            }
            None => problem.hint(self.watermark_hint(stream, time)),
        }
    }

    /// The line that gives a source its watermark.
    pub(super) fn watermark_hint(&self, stream: &Stream, time: &Expr) -> String {
        let sources = &self.graph.stages[stream.stage].sources;
        let names: Vec<&str> = sources
            .iter()
            .map(|index| self.graph.stages[*index].name.as_str())
            .collect();
        let source_columns = sources
            .first()
            .map(|index| &self.graph.stages[*index].columns);
        let by_type = source_columns.and_then(|columns| {
            columns
                .iter()
                .find(|column| types::is_time(column.field.data_type()))
        });
        let column = match time {
            Expr::Column(column) => quoted(&column.name),
            _ => by_type.map_or("time".to_owned(), |column| quoted(column.field.name())),
        };
        format!(
            "add to CREATE SOURCE {}: WATERMARK FOR {column} AS {column} - INTERVAL '5 minutes'",
            names.join(", ")
        )
    }
}
