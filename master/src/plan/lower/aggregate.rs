//! GROUP BY: the branch in front computes keys and arguments, the keyed stage holds the groups.
//!
//! Called by `lower`. A group with a bound of a window ends when the watermark passes the end of it; without one it never
//! ends, and only changes can be read.

use arrow::datatypes::Field;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable};
use millstream_common::plan::WindowPlan;
use millstream_common::time::EventSpan;

use super::{LowerError, Lowering, Streams, merge_fields, merge_lineage, scope_of};
use crate::plan::graph::{
    DraftHead, DraftKind, DraftStage, Lineage, column, schema_of, unused_name,
};
use crate::plan::lower::{Stream, StreamPort};
use crate::plan::problem::place_in_plan;
use crate::plan::problem::{Place, Problem};
use crate::plan::{text, types};

/// What feeds an aggregate, being gathered.
struct Feed {
    /// Group columns first.
    columns: Vec<(String, Expr)>,
}

impl Feed {
    /// The name of the column with `expression`, among the columns from `from` on.
    fn name_of(&mut self, expression: &Expr, from: usize, fallback: &str) -> String {
        let known = self.columns[from..]
            .iter()
            .find(|(_, other)| other == expression);
        if let Some((name, _)) = known {
            return name.clone();
        }
        let wanted = match expression {
            Expr::Column(column) => column.name.as_str(),
            _ => fallback,
        };
        let name = unused_name(wanted, self.columns.iter().map(|(name, _)| name.as_str()));
        self.columns.push((name.clone(), expression.clone()));
        name
    }
}

impl Lowering<'_> {
    pub(super) fn lower_aggregate(&mut self, node: &Aggregate) -> Result<Streams, LowerError> {
        let mut streams = self.lower(&node.input)?;
        let place = first_place(&node.group_expr).unwrap_or(self.place);
        self.refuse_changes(&streams, "an aggregate", place)?;
        let group_count = node.group_expr.len();
        let mut feed = Feed {
            columns: Vec::new(),
        };
        for (index, group) in node.group_expr.iter().enumerate() {
            let group = group.clone().unalias();
            let taken = feed.columns.iter().map(|(name, _)| name.as_str());
            let name = unused_name(node.schema.field(index).name(), taken);
            let data_type = group.get_type(node.input.schema())?;
            let carried = types::carried_type(&data_type).unwrap_or_else(|| data_type.clone());
            let group = if carried == data_type {
                group
            } else {
                datafusion::logical_expr::cast(group, carried)
            };
            feed.columns.push((name, group));
        }
        let aggregates = self.arguments(node, group_count, &mut feed)?;
        for stream in &mut streams {
            stream.project(&feed.columns, node.input.schema())?;
        }
        let input = merge_fields(&streams);
        let lineages = merge_lineage(&streams);
        let window = window_of(&lineages[..group_count]);
        let aggregates = named_aggregates(group_count, aggregates, &feed);
        let columns = output_columns(&input, &lineages[..group_count], &aggregates, window)?;
        let time = columns.iter().rposition(|column| column.lineage.event_time);
        let operator = self.next_operator("aggregate", 0);
        let meaning = meaning(&streams, group_count, &aggregates);
        let (sources, unbounded) = self.origin(&streams);
        let stage = self.graph.stages.len();
        self.graph.stages.push(DraftStage {
            name: operator.clone(),
            head: DraftHead::Keyed {
                operator,
                meaning,
                input,
                kind: DraftKind::Aggregate {
                    group_count,
                    aggregates,
                    window,
                },
            },
            columns: columns.clone(),
            sources,
            unbounded,
            branches: Vec::new(),
        });
        self.connect(streams, stage);
        let port = StreamPort::Groups {
            windowed: window.is_some(),
        };
        Ok(vec![Stream::of_port(stage, port, columns, time)])
    }

    /// The aggregate calls over the columns of the feed, which grows by what they need.
    fn arguments(
        &self,
        node: &Aggregate,
        group_count: usize,
        feed: &mut Feed,
    ) -> Result<Vec<Expr>, LowerError> {
        let mut calls = Vec::new();
        for expression in &node.aggr_expr {
            let Expr::AggregateFunction(call) = expression.clone().unalias() else {
                let message = "this aggregate is not supported";
                return Err(Problem::at(self.place, message).into());
            };
            let AggregateFunction { func, mut params } = call;
            for argument in &mut params.args {
                let bare = argument.clone().unalias_nested().data;
                if !matches!(bare, Expr::Literal(..)) {
                    *argument = column(&feed.name_of(&bare, group_count, "argument"));
                }
            }
            if let Some(filter) = params.filter.take() {
                let bare = filter.unalias_nested().data;
                params.filter = Some(Box::new(column(&feed.name_of(
                    &bare,
                    group_count,
                    "filter",
                ))));
            }
            calls.push(Expr::AggregateFunction(AggregateFunction { func, params }));
        }
        Ok(calls)
    }
}

/// Names for the aggregates' columns that no group column has.
fn named_aggregates(group_count: usize, calls: Vec<Expr>, feed: &Feed) -> Vec<(String, Expr)> {
    let mut named: Vec<(String, Expr)> = Vec::new();
    for call in calls {
        let groups = feed.columns[..group_count]
            .iter()
            .map(|(name, _)| name.as_str());
        let taken = groups.chain(named.iter().map(|(name, _)| name.as_str()));
        named.push((unused_name(&text::show(&call), taken), call));
    }
    named
}

fn output_columns(
    input: &[Field],
    groups: &[Lineage],
    aggregates: &[(String, Expr)],
    window: Option<WindowPlan>,
) -> Result<Vec<crate::plan::graph::ScopeColumn>, DataFusionError> {
    let input_schema = schema_of(input.iter())?;
    let mut fields: Vec<Field> = input[..groups.len()].to_vec();
    let mut lineages: Vec<Lineage> = groups
        .iter()
        .enumerate()
        .map(|(index, lineage)| Lineage {
            // Only a closed window is event time again: its rows come in front of the watermark.
            event_time: window.is_some() && lineage.window.is_some(),
            window: lineage.window.filter(|_| window.is_some()),
            group: Some(index),
        })
        .collect();
    for (name, call) in aggregates {
        let (_, field) = call.to_field(&input_schema)?;
        fields.push(Field::new(
            name,
            field.data_type().clone(),
            field.is_nullable(),
        ));
        lineages.push(Lineage::default());
    }
    Ok(scope_of(&fields, lineages))
}

/// The group column that ends the groups; the end of a window rather than its start.
fn window_of(groups: &[Lineage]) -> Option<WindowPlan> {
    let bounds = groups
        .iter()
        .enumerate()
        .filter_map(|(index, lineage)| lineage.window.map(|window| (index, window)));
    let end = bounds.clone().find(|(_, window)| window.is_end);
    end.or_else(|| bounds.into_iter().next())
        .map(|(column, window)| WindowPlan {
            column,
            end_offset: EventSpan(if window.is_end { 0 } else { window.size_micros }),
        })
}

/// What keys and aggregates are computed from: state of another meaning is not to be restored.
fn meaning(streams: &[Stream], group_count: usize, aggregates: &[(String, Expr)]) -> String {
    let mut parts = Vec::new();
    for stream in streams {
        for (index, draft) in stream.columns.iter().enumerate() {
            let kind = if index < group_count {
                "key"
            } else {
                "argument"
            };
            let shown = text::show(&draft.expression);
            parts.push(format!("{kind} {}={shown}", draft.field.name()));
        }
    }
    for (_, call) in aggregates {
        parts.push(format!("aggregate {}", text::show(call)));
    }
    parts.join("; ")
}

fn first_place(expressions: &[Expr]) -> Option<Place> {
    expressions
        .iter()
        .find_map(|expression| expression.spans().and_then(|spans| spans.first()))
        .map(place_in_plan)
}
