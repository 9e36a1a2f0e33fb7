//! Every job of the repository plans, and what it becomes.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{KeyedKind, Port, StageHead, Transform};

use super::*;

/// Every variable is set, to its own name.
struct Named;

impl Lookup for Named {
    fn variable(&self, name: &str) -> Option<String> {
        Some(name.to_lowercase())
    }

    fn file(&self, path: &str) -> Result<String, String> {
        Err(format!("{path}: no such file"))
    }
}

#[test]
fn page_views_is_a_dedup_and_a_windowed_count() {
    let sql = include_str!("../../../jobs/page_views.sql");
    let planned = match plan_job(sql, &Named) {
        Ok(planned) => planned,
        Err(problems) => panic!("{}", render(&problems, "page_views.sql", sql)),
    };
    assert_expressions_survive(&planned.plan);
    println!("{}", explain(&planned));
    println!("{}", render(&planned.warnings, "page_views.sql", sql));
}

/// Every expression of a plan becomes physical again over the rows it is for.
fn assert_expressions_survive(plan: &JobPlan) {
    let functions = Functions::new();
    for stage in &plan.stages {
        let head = match &stage.head {
            StageHead::Source(source) => plan.sources[source.index()].schema(),
            StageHead::Keyed(keyed) => match &keyed.kind {
                KeyedKind::Distinct { .. } => keyed.input.clone(),
                KeyedKind::Aggregate {
                    aggregates, output, ..
                } => {
                    for call in aggregates {
                        call.expression
                            .decode(&functions)
                            .expect("decode an aggregate");
                    }
                    output.clone()
                }
            },
        };
        for branch in &stage.branches {
            let mut schema = match branch.port {
                Port::DeadLetters => dead_letter::schema(),
                _ => head.0.clone(),
            };
            for transform in &branch.transforms {
                schema = apply(&functions, &schema, transform);
            }
            assert_eq!(
                types_of(&schema),
                types_of(&branch.schema.0),
                "{}",
                stage.name
            );
        }
    }
}

fn apply(functions: &Functions, schema: &SchemaRef, transform: &Transform) -> SchemaRef {
    match transform {
        Transform::Filter(condition) => {
            condition
                .physical(functions, schema)
                .expect("physical filter");
            schema.clone()
        }
        Transform::Project(columns) => {
            let fields: Vec<Field> = columns
                .iter()
                .map(|column| {
                    let physical = column
                        .expression
                        .physical(functions, schema)
                        .expect("physical column");
                    let data_type = physical.data_type(schema).expect("type");
                    let nullable = physical.nullable(schema).expect("nullable");
                    Field::new(&column.name, data_type, nullable)
                })
                .collect();
            Arc::new(Schema::new(fields))
        }
    }
}

fn types_of(schema: &SchemaRef) -> Vec<(String, DataType)> {
    let fields = schema.fields().iter();
    fields
        .map(|field| (field.name().clone(), field.data_type().clone()))
        .collect()
}
