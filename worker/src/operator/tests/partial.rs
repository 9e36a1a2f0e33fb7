//! What stands in front of an exchange: whatever is folded there, and whenever it leaves, the answer is that of the rows.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field};
use datafusion::functions_aggregate::expr_fn::{count, count_distinct, sum};
use datafusion::logical_expr::Expr;
use datafusion::prelude::{col, lit};
use millstream_common::ids::Epoch;
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{KeyedKind, KeyedPlan, NamedExpression, PlanExpression, PlanSchema};

use super::super::{BarrierRequest, KeyedOperator, PartialAggregate, build};
use super::cluster::texts;
use crate::exchange::message::OwnedRows;

const BATCH_ROWS: i64 = 8_192;

fn plan(calls: Vec<(&str, Expr)>) -> KeyedPlan {
    let number = |name: &str| Field::new(name, DataType::Int64, true);
    let mut output = vec![number("key")];
    output.extend(calls.iter().map(|(name, _)| number(name)));
    let calls = calls.into_iter().map(|(name, call)| NamedExpression {
        name: name.to_owned(),
        expression: PlanExpression::encode(&call, name).expect("encode"),
    });
    KeyedPlan {
        operator: "views/aggregate/0".into(),
        fingerprint: "test".to_owned(),
        input: PlanSchema::from_fields(vec![number("key"), number("value")]),
        key_columns: vec![0],
        kind: KeyedKind::Aggregate {
            aggregates: calls.collect(),
            window: None,
            output: PlanSchema::from_fields(output),
        },
    }
}

fn rows(plan: &KeyedPlan, rows: impl Iterator<Item = (i64, i64)>) -> RecordBatch {
    let (keys, values): (Vec<i64>, Vec<i64>) = rows.unzip();
    let columns = [keys, values].map(|column| Arc::new(Int64Array::from(column)) as _);
    RecordBatch::try_new(plan.input.0.clone(), columns.to_vec()).expect("batch")
}

/// A task with the branch in front of it.
struct Path {
    plan: KeyedPlan,
    partial: PartialAggregate,
    operator: Box<dyn KeyedOperator>,
    /// Rows of each batch that travelled.
    travelled: Vec<usize>,
    row_count: u64,
}

impl Path {
    fn new(calls: Vec<(&str, Expr)>) -> Self {
        let plan = plan(calls);
        let functions = Functions::new();
        let partial = PartialAggregate::new(&plan, &functions).expect("plan");
        Self {
            partial: partial.expect("an aggregate"),
            operator: build(&plan, &functions).expect("build"),
            plan,
            travelled: Vec::new(),
            row_count: 0,
        }
    }

    fn fold(&mut self, rows: &RecordBatch) {
        let states = self.partial.fold(rows).expect("fold");
        self.travel(states);
    }

    fn travel(&mut self, states: Option<RecordBatch>) {
        if let Some(states) = states {
            self.travelled.push(states.num_rows());
            let states = OwnedRows::whole(states);
            self.row_count += self.operator.row_count(&states).expect("rows");
            self.operator.fold(states).expect("fold states");
        }
    }

    fn end_epoch(&mut self) -> Vec<String> {
        let states = self.partial.finish_epoch().expect("states");
        self.travel(states);
        let request = BarrierRequest {
            epoch: Epoch(1),
            watermark: None,
            emit_changes: true,
        };
        let outcome = self.operator.barrier(&request).expect("barrier");
        let emitted = outcome.emitted.iter();
        let mut changes: Vec<String> = emitted.flat_map(|rows| texts(&rows.batch)).collect();
        changes.sort();
        changes
    }
}

#[test]
fn of_keys_that_repeat_one_row_each_travels() {
    let mut path = Path::new(vec![
        ("rows", count(lit(1_i64))),
        ("total", sum(col("value"))),
    ]);
    for first in 0..20 {
        let repeated = (0..BATCH_ROWS).map(|row| (row % 4, first));
        let batch = rows(&path.plan, repeated);
        path.fold(&batch);
    }
    let changes = path.end_epoch();
    assert_eq!(path.travelled, [4]);
    assert_eq!(path.row_count, 20 * BATCH_ROWS as u64);
    let total = BATCH_ROWS / 4 * (0..20).sum::<i64>();
    assert_eq!(changes[3], format!("3|{}|{total}|0", 20 * BATCH_ROWS / 4));
}

#[test]
fn keys_that_hardly_repeat_travel_row_by_row_until_the_epoch_ends() {
    let mut path = Path::new(vec![
        ("rows", count(lit(1_i64))),
        ("total", sum(col("value"))),
    ]);
    let batch_count = 40;
    for batch in 0..batch_count {
        let first = batch * BATCH_ROWS;
        let batch = rows(
            &path.plan,
            (first..first + BATCH_ROWS).map(|key| (key, key)),
        );
        path.fold(&batch);
    }
    let by_row = path.travelled.iter().skip(1);
    assert!(path.travelled.len() > 10, "{:?}", path.travelled);
    assert!(by_row.clone().all(|rows| *rows as i64 == BATCH_ROWS));
    let changes = path.end_epoch();
    assert_eq!(changes.len() as i64, batch_count * BATCH_ROWS);
    assert_eq!(path.row_count as i64, batch_count * BATCH_ROWS);
    assert!(changes.contains(&"7|1|7|0".to_owned()));
    // The next epoch tries anew.
    path.travelled.clear();
    let batch = rows(&path.plan, (0..BATCH_ROWS).map(|row| (row % 2, 1)));
    path.fold(&batch);
    assert!(path.travelled.is_empty());
}

#[test]
fn distinct_values_of_a_group_travel_before_they_are_too_many_for_a_message() {
    let mut path = Path::new(vec![("values", count_distinct(col("value")))]);
    let batch_count = 60;
    for batch in 0..batch_count {
        let first = batch * BATCH_ROWS;
        let batch = rows(
            &path.plan,
            (first..first + BATCH_ROWS).map(|value| (1, value)),
        );
        path.fold(&batch);
    }
    assert!(path.travelled.len() > 1, "{:?}", path.travelled);
    let changes = path.end_epoch();
    assert_eq!(changes, [format!("1|{}|0", batch_count * BATCH_ROWS)]);
}
