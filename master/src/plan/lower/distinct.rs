//! DISTINCT ON: rows pass with all their columns; the keyed stage lets the first of each key through.
//!
//! Called by `lower`. Over a source with a watermark a key is forgotten when the watermark passes its first row; without one
//! the state of an endless stream would only grow, so that is refused with the line to add. Plain DISTINCT is DISTINCT ON all columns.

use datafusion::logical_expr::{Distinct, Expr, LogicalPlan};

use super::{LowerError, Lowering, Streams, merge_fields, merge_lineage, named, scope_of};
use crate::plan::graph::{DraftHead, DraftKind, DraftStage, unused_name};
use crate::plan::lower::{Stream, StreamPort};
use crate::plan::problem::place_in_plan;
use crate::plan::problem::{Place, Problem};
use crate::plan::text;

impl Lowering<'_> {
    pub(super) fn lower_distinct(&mut self, node: &Distinct) -> Result<Streams, LowerError> {
        match node {
            Distinct::On(on) => {
                let keys: Vec<Expr> = on.on_expr.iter().map(|key| key.clone().unalias()).collect();
                let mut streams = self.distinct(&on.input, &keys)?;
                let plan = LogicalPlan::Distinct(node.clone());
                let columns = named(&plan, &on.select_expr);
                for stream in &mut streams {
                    stream.project(&columns, on.input.schema())?;
                }
                Ok(streams)
            }
            Distinct::All(input) => {
                let keys: Vec<Expr> = input
                    .schema()
                    .columns()
                    .into_iter()
                    .map(Expr::Column)
                    .collect();
                self.distinct(input, &keys)
            }
        }
    }

    fn distinct(&mut self, input: &LogicalPlan, keys: &[Expr]) -> Result<Streams, LowerError> {
        let mut streams = self.lower(input)?;
        let place = keys
            .iter()
            .find_map(|key| key.spans().and_then(|spans| spans.first()))
            .map_or(self.place, place_in_plan);
        self.refuse_changes(&streams, "DISTINCT", place)?;
        let visible_count = input.schema().fields().len();
        let key_indices = project_keys(&mut streams, input, keys)?;
        let time = self.time_of(&mut streams, place)?;
        let fields = merge_fields(&streams);
        let lineages = merge_lineage(&streams);
        self.warn_of_null_keys(&fields, &key_indices, place);
        let operator = self.next_operator("distinct", 1);
        let meaning = meaning(&streams, &key_indices, time.is_some());
        let (sources, unbounded) = self.origin(&streams);
        let stage = self.graph.stages.len();
        let columns = scope_of(&fields, lineages);
        self.graph.stages.push(DraftStage {
            name: operator.clone(),
            head: DraftHead::Keyed {
                operator,
                meaning,
                input: fields,
                kind: DraftKind::Distinct {
                    keys: key_indices,
                    time,
                },
            },
            columns: columns.clone(),
            sources,
            unbounded,
            branches: Vec::new(),
        });
        self.connect(streams, stage);
        let mut stream = Stream::of_port(stage, StreamPort::Rows, columns, time);
        stream.columns.truncate(visible_count);
        Ok(vec![stream])
    }

    /// The column with event time, in every stream; `None` only where all input ends.
    fn time_of(&self, streams: &mut Streams, place: Place) -> Result<Option<usize>, LowerError> {
        if streams.iter().all(|stream| stream.time.is_some()) {
            let positions: Vec<usize> = streams.iter_mut().map(Stream::keep_time).collect();
            if positions.windows(2).all(|pair| pair[0] == pair[1]) {
                return Ok(positions.first().copied());
            }
            let message = "the inputs of UNION ALL have their event time in different columns";
            return Err(Problem::at(place, message)
                .hint("select the event time as the same column in each")
                .into());
        }
        let without = streams.iter().find(|stream| stream.time.is_none());
        let (_, unbounded) = self.origin(streams);
        match without {
            Some(stream) if unbounded => {
                let message = "DISTINCT on a stream that never ends needs a watermark, \
                               or it would remember every key for ever";
                let hint = self.watermark_hint(stream, &Expr::default());
                Err(Problem::at(place, message).hint(hint).into())
            }
            _ => Ok(None),
        }
    }

    fn warn_of_null_keys(
        &mut self,
        fields: &[arrow::datatypes::Field],
        keys: &[usize],
        place: Place,
    ) {
        for key in keys {
            if fields[*key].is_nullable() {
                let message = format!(
                    "{} may be NULL: rows with NULL count as equal, and only the first is kept",
                    fields[*key].name()
                );
                let warning = Problem::at(place, message)
                    .hint("declare it NOT NULL, or leave them out: WHERE ... IS NOT NULL");
                self.warnings.push(warning);
            }
        }
    }
}

/// Adds the keys that are no columns behind the columns; gives the positions of all keys.
fn project_keys(
    streams: &mut Streams,
    input: &LogicalPlan,
    keys: &[Expr],
) -> Result<Vec<usize>, LowerError> {
    let schema = input.schema();
    let mut columns: Vec<(String, Expr)> = Vec::new();
    for (index, qualified) in schema.columns().into_iter().enumerate() {
        let taken = columns.iter().map(|(name, _)| name.as_str());
        let name = unused_name(schema.field(index).name(), taken);
        columns.push((name, Expr::Column(qualified)));
    }
    let mut indices = Vec::new();
    for key in keys {
        if let Expr::Column(column) = key {
            indices.push(schema.index_of_column(column)?);
            continue;
        }
        let taken = columns.iter().map(|(name, _)| name.as_str());
        let name = unused_name("__key", taken);
        indices.push(columns.len());
        columns.push((name, key.clone()));
    }
    for stream in streams {
        stream.project(&columns, schema)?;
    }
    Ok(indices)
}

/// What the keys are computed from.
fn meaning(streams: &[Stream], keys: &[usize], timed: bool) -> String {
    let mut parts = vec![format!("timed {timed}")];
    for stream in streams {
        for key in keys {
            parts.push(format!(
                "key {}",
                text::show(&stream.columns[*key].expression)
            ));
        }
    }
    parts.join("; ")
}
