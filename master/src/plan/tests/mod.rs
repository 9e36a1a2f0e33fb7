//! Every job of the repository plans; what plans are made of; what is refused, where, with which hint.

mod all_at_once;
mod dead_letters;
mod jobs;
mod kafka_sink;
mod lowering;
mod quotas;
mod refusals;
mod source_refusals;
mod taps;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream_common::dead_letter;
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{Emit, KeyedKind, Port, StageHead, Transform};

use super::*;

/// Every variable is unset but those of the list.
struct Variables(&'static [(&'static str, &'static str)]);

impl Lookup for Variables {
    fn variable(&self, name: &str) -> Option<String> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    }

    fn file(&self, path: &str) -> Result<String, String> {
        Err(format!("{path}: no such file"))
    }
}

const UNSET: Variables = Variables(&[]);

fn plan(sql: &str) -> PlannedJob {
    match plan_job(sql, &UNSET) {
        Ok(planned) => {
            assert_expressions_survive(&planned.plan);
            planned
        }
        Err(problems) => panic!("{}", render(&problems, "job.sql", sql)),
    }
}

fn problems_of(sql: &str) -> Vec<Problem> {
    match plan_job(sql, &UNSET) {
        Ok(planned) => panic!("planned:\n{}", explain(&planned)),
        Err(problems) => problems,
    }
}

/// Every expression of a plan becomes physical again over the rows it is for.
fn assert_expressions_survive(plan: &JobPlan) {
    let functions = Functions::new();
    for source in &plan.sources {
        let schema = source.schema().0;
        for check in &source.checks {
            check
                .condition
                .physical(&functions, &schema)
                .expect("physical check");
        }
    }
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
