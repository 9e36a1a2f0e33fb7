//! Draft branches and heads as those of the plan, with every expression encoded.

use arrow::datatypes::Field;
use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use millstream_common::dead_letter;
use millstream_common::ids::{OperatorId, OutputIndex, SourceIndex, StageIndex};
use millstream_common::plan::{
    Branch, KeyedKind, KeyedPlan, NamedExpression, PlanExpression, PlanSchema, Port, StageHead,
    Target, Transform,
};

use super::Error;
use crate::plan::graph::{
    DraftBranch, DraftColumn, DraftHead, DraftKind, DraftStage, DraftTarget, Graph, Step, schema_of,
};
use crate::plan::{text, tumble, types};

/// The head of `stage`.
pub(super) fn head(stage: &DraftStage) -> Result<StageHead, Error> {
    let DraftHead::Keyed {
        operator,
        meaning,
        input,
        kind,
    } = &stage.head
    else {
        let DraftHead::Source(source) = stage.head else {
            unreachable!("the head of a stage is a source or keyed");
        };
        return Ok(StageHead::Source(SourceIndex(source as u32)));
    };
    let (key_columns, planned) = match kind {
        DraftKind::Distinct { keys, time } => {
            (keys.clone(), KeyedKind::Distinct { time_column: *time })
        }
        DraftKind::Aggregate {
            group_count,
            aggregates,
            window,
        } => {
            let schema = schema_of(input.iter())?;
            let mut calls = Vec::new();
            for (name, call) in aggregates {
                calls.push(named(name, call, &schema)?);
            }
            let output = stage
                .columns
                .iter()
                .map(|column| column.field.clone())
                .collect();
            let kind = KeyedKind::Aggregate {
                aggregates: calls,
                window: *window,
                output: PlanSchema::from_fields(output),
            };
            ((0..*group_count).collect(), kind)
        }
    };
    Ok(StageHead::Keyed(KeyedPlan {
        operator: OperatorId(operator.clone()),
        fingerprint: fingerprint(meaning, input, &key_columns, &planned),
        input: PlanSchema::from_fields(input.clone()),
        key_columns,
        kind: planned,
    }))
}

/// A hash of what the state means: keys with their types, window, aggregates. Columns that only pass through are not in it.
fn fingerprint(meaning: &str, input: &[Field], keys: &[usize], kind: &KeyedKind) -> String {
    let mut description = meaning.to_owned();
    for key in keys {
        let field = &input[*key];
        description.push_str(&format!("; {}", types::type_name(field.data_type())));
    }
    if let KeyedKind::Aggregate { window, output, .. } = kind {
        if let Some(window) = window {
            let offset = window.end_offset.0;
            description.push_str(&format!("; window {} {offset}", window.column));
        }
        for field in output.0.fields() {
            description.push_str(&format!("; {}", types::type_name(field.data_type())));
        }
    }
    // FNV-1a: stable across versions and machines, which std's hasher is not.
    let hash = description
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{hash:016x}")
}

/// The branches of stage `index`. The stages of sinks stand before all keyed ones and are left out of the plan.
pub(super) fn branches(
    graph: &Graph,
    index: usize,
    keeps_time: &[bool],
    sink_count: usize,
) -> Result<Vec<Branch>, Error> {
    let stage = &graph.stages[index];
    stage
        .branches
        .iter()
        .map(|branch| encode_branch(graph, stage, branch, keeps_time, sink_count))
        .collect()
}

/// The columns of a stage's port.
pub(super) fn port_fields(stage: &DraftStage, port: Port) -> Vec<Field> {
    match port {
        Port::DeadLetters => {
            let schema = dead_letter::schema();
            let fields = schema.fields().iter();
            fields.map(|field| field.as_ref().clone()).collect()
        }
        Port::Rows | Port::Final | Port::Changes => {
            let columns = stage.columns.iter();
            columns.map(|column| column.field.clone()).collect()
        }
    }
}

/// `steps`, then `columns`, over rows of these fields.
pub(super) fn transforms(
    fields: &[Field],
    steps: &[Step],
    columns: &[DraftColumn],
) -> Result<Vec<Transform>, Error> {
    let mut schema = schema_of(fields.iter())?;
    let mut transforms = Vec::new();
    for step in steps {
        match step {
            Step::Filter(condition) => {
                transforms.push(Transform::Filter(encode(condition, &schema)?));
            }
            Step::Project(columns) => {
                transforms.push(project(columns, &schema)?);
                schema = schema_of(columns.iter().map(|column| &column.field))?;
            }
        }
    }
    if !is_identity(columns, &schema) {
        transforms.push(project(columns, &schema)?);
    }
    Ok(transforms)
}

fn encode_branch(
    graph: &Graph,
    stage: &DraftStage,
    branch: &DraftBranch,
    keeps_time: &[bool],
    sink_count: usize,
) -> Result<Branch, Error> {
    let port_fields = port_fields(stage, branch.port);
    let (target, fields, keeps_time) = match branch.target {
        DraftTarget::Exchange(target) => {
            let DraftHead::Keyed { input, .. } = &graph.stages[target].head else {
                unreachable!("an exchange leads to a keyed stage");
            };
            let stage_index = StageIndex((target - sink_count) as u32);
            (Target::Exchange(stage_index), input, keeps_time[target])
        }
        DraftTarget::Output(output) => {
            let output_index = OutputIndex(output as u32);
            (
                Target::Output(output_index),
                &graph.outputs[output].fields,
                false,
            )
        }
    };
    Ok(Branch {
        port: branch.port,
        keeps_time,
        transforms: transforms(&port_fields, &branch.steps, &branch.columns)?,
        schema: PlanSchema::from_fields(fields.clone()),
        target,
    })
}

/// Whether the columns are those of the schema, in its order.
fn is_identity(columns: &[DraftColumn], schema: &DFSchema) -> bool {
    columns.len() == schema.fields().len()
        && columns.iter().zip(schema.fields()).all(|(column, field)| {
            column.field.name() == field.name()
                && matches!(&column.expression, Expr::Column(read) if read.name == *field.name())
        })
}

fn project(columns: &[DraftColumn], schema: &DFSchema) -> Result<Transform, Error> {
    let mut expressions = Vec::with_capacity(columns.len());
    for column in columns {
        expressions.push(named(column.field.name(), &column.expression, schema)?);
    }
    Ok(Transform::Project(expressions))
}

fn named(name: &str, expression: &Expr, schema: &DFSchema) -> Result<NamedExpression, Error> {
    Ok(NamedExpression {
        name: name.to_owned(),
        expression: encode(expression, schema)?,
    })
}

fn encode(expression: &Expr, schema: &DFSchema) -> Result<PlanExpression, Error> {
    let shown = text::show(expression);
    let expanded = tumble::expand(expression.clone(), schema)?;
    Ok(PlanExpression::encode(&expanded, shown)?)
}
