//! Columns of several streams seen as one, and how names are written.

use arrow::datatypes::Field;
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::Stream;
use crate::plan::graph::{Lineage, ScopeColumn};

/// The expressions of a node with the names of its schema.
pub(super) fn named(plan: &LogicalPlan, expressions: &[Expr]) -> Vec<(String, Expr)> {
    let names = plan
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone());
    names.zip(expressions.iter().cloned()).collect()
}

/// The columns of several streams as those of one: nullable if any is.
pub(super) fn merge_fields(streams: &[Stream]) -> Vec<Field> {
    let Some((first, others)) = streams.split_first() else {
        return Vec::new();
    };
    let mut fields: Vec<Field> = first
        .columns
        .iter()
        .map(|column| column.field.clone())
        .collect();
    for stream in others {
        for (field, column) in fields.iter_mut().zip(&stream.columns) {
            let nullable = field.is_nullable() || column.field.is_nullable();
            field.set_nullable(nullable);
        }
    }
    fields
}

/// What the columns of several streams have in common, without groups.
pub(super) fn merge_lineage(streams: &[Stream]) -> Vec<Lineage> {
    let Some((first, others)) = streams.split_first() else {
        return Vec::new();
    };
    let mut lineages: Vec<Lineage> = first
        .columns
        .iter()
        .map(|column| column.lineage.clone())
        .collect();
    for stream in others {
        for (lineage, column) in lineages.iter_mut().zip(&stream.columns) {
            lineage.event_time &= column.lineage.event_time;
            if lineage.window != column.lineage.window {
                lineage.window = None;
            }
        }
    }
    for lineage in &mut lineages {
        lineage.group = None;
    }
    lineages
}

pub(super) fn scope_of(fields: &[Field], lineages: Vec<Lineage>) -> Vec<ScopeColumn> {
    fields
        .iter()
        .zip(lineages)
        .map(|(field, lineage)| ScopeColumn {
            field: field.clone(),
            lineage,
        })
        .collect()
}

/// A name as it has to be written.
pub(in crate::plan) fn quoted(name: &str) -> String {
    let plain = name
        .chars()
        .all(|character| matches!(character, 'a'..='z' | '0'..='9' | '_'));
    // Words that are types need quotes as column names.
    if plain && !matches!(name, "timestamp" | "date" | "time" | "interval") {
        name.to_owned()
    } else {
        format!("\"{name}\"")
    }
}
