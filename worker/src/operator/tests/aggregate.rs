//! GROUP BY against lists of rows that are summed up anew each time they are asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::functions_aggregate::expr_fn::{avg, count, count_distinct, max, min, sum};
use datafusion::logical_expr::{Expr, ExprFunctionExt};
use datafusion::prelude::{col, lit};
use millstream_common::blocking::{BlockingRef, ThreadPool};
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{
    KeyedKind, KeyedPlan, NamedExpression, PlanExpression, PlanSchema, WindowPlan,
};
use millstream_common::time::{EventSpan, EventTime};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::super::spill::Spill;
use super::super::spill::budget::StateBudget;
use super::super::spill::disk::SpillFolder;
use super::super::{OperatorError, build};
use super::cluster::{Cluster, Rows};

const MINUTE: i64 = 60_000_000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Grouping {
    WindowAndName,
    Name,
    All,
}

impl Grouping {
    fn column_count(self) -> usize {
        match self {
            Self::WindowAndName => 2,
            Self::Name => 1,
            Self::All => 0,
        }
    }
}

#[derive(Clone, Debug)]
struct Row {
    /// The start of its window.
    minute: i64,
    name: Option<String>,
    cents: Option<i64>,
    text: Option<String>,
    number: Option<i64>,
}

type Key = (Option<i64>, Option<Option<String>>);

fn key(grouping: Grouping, row: &Row) -> Key {
    match grouping {
        Grouping::WindowAndName => (Some(row.minute), Some(row.name.clone())),
        Grouping::Name => (None, Some(row.name.clone())),
        Grouping::All => (None, None),
    }
}

fn aggregates() -> Vec<(&'static str, Expr, DataType)> {
    let at_least_one = col("number").gt_eq(lit(1_i64));
    let filtered = count(lit(1_i64))
        .filter(at_least_one)
        .build()
        .expect("filter");
    vec![
        ("rows", count(lit(1_i64)), DataType::Int64),
        ("total", sum(col("amount")), DataType::Decimal128(38, 2)),
        ("mean", avg(col("weight")), DataType::Float64),
        ("least", min(col("text")), DataType::Utf8),
        ("greatest", max(col("text")), DataType::Utf8),
        ("texts", count_distinct(col("text")), DataType::Int64),
        ("numbers", count_distinct(col("number")), DataType::Int64),
        ("filtered", filtered, DataType::Int64),
    ]
}

fn input(grouping: Grouping) -> PlanSchema {
    let mut fields = vec![
        Field::new(
            "window_start",
            DataType::Timestamp(TimeUnit::Microsecond, None),
            false,
        ),
        Field::new("name", DataType::Utf8, true),
    ];
    fields.drain(..2 - grouping.column_count());
    fields.extend([
        Field::new("amount", DataType::Decimal128(10, 2), true),
        Field::new("weight", DataType::Float64, true),
        Field::new("text", DataType::Utf8, true),
        Field::new("number", DataType::Int64, true),
    ]);
    PlanSchema::from_fields(fields)
}

/// Windows are a minute long and shown as a number, so that groups are converted as well.
fn plan(grouping: Grouping) -> KeyedPlan {
    let column_count = grouping.column_count();
    let mut output = vec![
        Field::new("window_start", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
    ];
    output.drain(..2 - column_count);
    let mut calls = Vec::new();
    for (name, expression, data_type) in aggregates() {
        output.push(Field::new(name, data_type, true));
        calls.push(NamedExpression {
            name: name.to_owned(),
            expression: PlanExpression::encode(&expression, name).expect("encode"),
        });
    }
    let window = WindowPlan {
        column: 0,
        end_offset: EventSpan(MINUTE),
    };
    KeyedPlan {
        operator: "views/aggregate/0".into(),
        fingerprint: "test".to_owned(),
        input: input(grouping),
        key_columns: (0..column_count).collect(),
        kind: KeyedKind::Aggregate {
            aggregates: calls,
            window: (grouping == Grouping::WindowAndName).then_some(window),
            output: PlanSchema::from_fields(output),
        },
    }
}

fn batch(grouping: Grouping, rows: &[Row]) -> RecordBatch {
    let starts = rows.iter().map(|row| Some(row.minute * MINUTE));
    let starts: TimestampMicrosecondArray = starts.collect();
    let names: StringArray = rows.iter().map(|row| row.name.as_deref()).collect();
    let amounts = rows.iter().map(|row| row.cents.map(i128::from));
    let amounts = amounts
        .collect::<Decimal128Array>()
        .with_precision_and_scale(10, 2);
    let weights: Float64Array = rows
        .iter()
        .map(|row| row.number.map(|n| n as f64))
        .collect();
    let texts: StringArray = rows.iter().map(|row| row.text.as_deref()).collect();
    let numbers: Int64Array = rows.iter().map(|row| row.number).collect();
    let mut columns: Vec<ArrayRef> = vec![Arc::new(starts), Arc::new(names)];
    columns.drain(..2 - grouping.column_count());
    columns.push(Arc::new(amounts.expect("amounts")));
    columns.push(Arc::new(weights));
    columns.push(Arc::new(texts));
    columns.push(Arc::new(numbers));
    RecordBatch::try_new(input(grouping).0, columns).expect("batch")
}

/// What the aggregates mean, in the plainest words.
fn sum_up(key: &Key, rows: &[Row]) -> String {
    let text = |value: Option<String>| value.unwrap_or("NULL".to_owned());
    let cents: Vec<i64> = rows.iter().filter_map(|row| row.cents).collect();
    let texts: BTreeSet<&String> = rows.iter().filter_map(|row| row.text.as_ref()).collect();
    let numbers: Vec<i64> = rows.iter().filter_map(|row| row.number).collect();
    let distinct: BTreeSet<&i64> = numbers.iter().collect();
    let total = cents.iter().sum::<i64>();
    let sign = if total < 0 { "-" } else { "" };
    let total = format!("{sign}{}.{:02}", total.abs() / 100, total.abs() % 100);
    let mean = numbers.iter().sum::<i64>() as f64 / numbers.len() as f64;
    let mut values = Vec::new();
    values.extend(key.0.map(|minute| (minute * MINUTE).to_string()));
    values.extend(key.1.clone().map(text));
    values.push(rows.len().to_string());
    values.push(text((!cents.is_empty()).then_some(total)));
    values.push(text((!numbers.is_empty()).then(|| format!("{mean:?}"))));
    values.push(text(texts.first().map(|text| (*text).clone())));
    values.push(text(texts.last().map(|text| (*text).clone())));
    values.push(texts.len().to_string());
    values.push(distinct.len().to_string());
    values.push(
        numbers
            .iter()
            .filter(|number| **number >= 1)
            .count()
            .to_string(),
    );
    values.join("|")
}

#[derive(Default)]
struct Model {
    groups: BTreeMap<Key, Vec<Row>>,
    pending: BTreeSet<Key>,
}

impl Model {
    fn fold(&mut self, grouping: Grouping, rows: &[Row]) {
        for row in rows {
            let key = key(grouping, row);
            self.pending.insert(key.clone());
            self.groups.entry(key).or_default().push(row.clone());
        }
    }

    fn barrier(&mut self, EventTime(watermark): EventTime, emit_changes: bool) -> Rows {
        let mut rows = Rows::default();
        let is_closed = |key: &Key| {
            key.0
                .is_some_and(|minute| (minute + 1) * MINUTE <= watermark)
        };
        for (key, group) in &self.groups {
            let is_closed = is_closed(key);
            if is_closed {
                rows.closed.push(sum_up(key, group));
            }
            if (emit_changes || is_closed) && self.pending.remove(key) {
                rows.changed.push(format!("{}|0", sum_up(key, group)));
            }
        }
        self.groups.retain(|key, _| !is_closed(key));
        rows.closed.sort();
        rows.changed.sort();
        rows
    }
}

#[derive(Clone, Debug)]
struct Step {
    batches: Vec<Vec<Row>>,
    /// Minutes by which the watermark moves.
    advance: i64,
    emit_changes: bool,
    restore: Option<u32>,
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (
        0..6_i64,
        option::of("[a-c]?"),
        option::of(-500..500_i64),
        option::of("[x-z]{0,2}"),
        option::of(0..4_i64),
    );
    let row = row.prop_map(|(minute, name, cents, text, number)| Row {
        minute,
        name,
        cents,
        text,
        number,
    });
    vec(row, 0..10)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        vec(rows(), 0..3),
        0..2_i64,
        any::<bool>(),
        option::of(1..4_u32),
    );
    let step = step.prop_map(|(batches, advance, emit_changes, restore)| Step {
        batches,
        advance,
        emit_changes,
        restore,
    });
    vec(step, 1..10)
}

/// Memory for state: more than there is, less, or none.
fn state_bytes() -> impl Strategy<Value = usize> {
    prop_oneof![Just(usize::MAX), 0..20_000_usize, Just(0)]
}

fn answers_as_the_model(
    grouping: Grouping,
    steps: Vec<Step>,
    state_bytes: usize,
) -> Result<(), TestCaseError> {
    let mut cluster = Cluster::with_memory(plan(grouping), 2, state_bytes);
    let mut model = Model::default();
    let mut watermark = EventTime(0);
    for step in steps {
        for rows in &step.batches {
            model.fold(grouping, rows);
            cluster.fold(&batch(grouping, rows));
        }
        watermark = watermark + EventSpan(step.advance * MINUTE);
        let emitted = cluster.barrier(Some(watermark), step.emit_changes);
        prop_assert_eq!(emitted, model.barrier(watermark, step.emit_changes));
        if let Some(task_count) = step.restore {
            cluster.restore(task_count);
        }
        prop_assert_eq!(cluster.key_count(), model.groups.len());
    }
    let emitted = cluster.barrier(Some(EventTime::MAX), true);
    prop_assert_eq!(emitted, model.barrier(EventTime::MAX, true));
    if grouping == Grouping::WindowAndName {
        prop_assert_eq!(cluster.key_count(), 0);
        // What groups on disk leave behind is known when they have left.
        cluster.barrier(Some(EventTime::MAX), true);
        prop_assert_eq!(cluster.part_count(), 0);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn windowed_groups_answer_as_the_model(steps in steps(), state_bytes in state_bytes()) {
        answers_as_the_model(Grouping::WindowAndName, steps, state_bytes)?;
    }

    #[test]
    fn groups_without_window_answer_as_the_model(steps in steps(), state_bytes in state_bytes()) {
        answers_as_the_model(Grouping::Name, steps, state_bytes)?;
    }

    #[test]
    fn one_group_of_all_rows_answers_as_the_model(steps in steps(), state_bytes in state_bytes()) {
        answers_as_the_model(Grouping::All, steps, state_bytes)?;
    }
}

fn row(minute: i64, name: &str) -> Row {
    Row {
        minute,
        name: Some(name.to_owned()),
        cents: Some(150),
        text: None,
        number: Some(1),
    }
}

fn named(names: impl Iterator<Item = usize>) -> Vec<Row> {
    names.map(|name| row(0, &format!("{name:06}"))).collect()
}

#[test]
fn without_rows_nothing_is_emitted_or_written() {
    let mut cluster = Cluster::new(plan(Grouping::All), 1);
    cluster.fold(&batch(Grouping::All, &[]));
    assert_eq!(cluster.barrier(Some(EventTime::MAX), true), Rows::default());
    assert_eq!(cluster.part_count(), 0);
}

#[test]
fn a_window_that_changes_as_it_closes_is_final_and_a_change_once() {
    let mut cluster = Cluster::new(plan(Grouping::WindowAndName), 1);
    cluster.fold(&batch(Grouping::WindowAndName, &[row(0, "a"), row(1, "a")]));
    let rows = cluster.barrier(Some(EventTime(MINUTE)), true);
    assert_eq!(rows.closed.len(), 1);
    assert_eq!(rows.changed.len(), 2);
    assert_eq!(
        cluster.barrier(Some(EventTime(MINUTE)), true),
        Rows::default()
    );
}

#[test]
fn all_restored_groups_are_emitted_once_for_a_sink_that_begins_with_them() {
    let mut cluster = Cluster::new(plan(Grouping::WindowAndName), 1);
    let rows = [row(0, "a"), row(0, "b"), row(MINUTE, "c")];
    cluster.fold(&batch(Grouping::WindowAndName, &rows));
    let first = cluster.barrier(None, true);
    assert_eq!(first.changed.len(), 3);
    cluster.restore(2);
    cluster.mark_all_changed();
    cluster.fold(&batch(Grouping::WindowAndName, &[row(0, "b")]));
    let all = cluster.barrier(None, true);
    let is_again = |changed: &&String| all.changed.contains(changed);
    assert_eq!(all.changed.len(), 3, "{all:?}");
    assert_eq!(
        first.changed.iter().filter(is_again).count(),
        2,
        "b has changed: {all:?}"
    );
    assert_eq!(cluster.barrier(None, true), Rows::default());
    cluster.restore(1);
    assert_eq!(cluster.barrier(None, true), Rows::default(), "once");
}

#[test]
fn a_sink_that_begins_with_all_groups_gets_those_on_disk_too_and_once() {
    for closes in [false, true] {
        let mut cluster = Cluster::with_memory(plan(Grouping::WindowAndName), 1, 0);
        let rows: Vec<Row> = (0..20_000)
            .map(|name| row(name % 2, &format!("{name}")))
            .collect();
        cluster.fold(&batch(Grouping::WindowAndName, &rows));
        assert_eq!(cluster.barrier(None, true).changed.len(), 20_000);
        cluster.restore(1);
        cluster.mark_all_changed();
        cluster.fold(&batch(Grouping::WindowAndName, &[row(0, "0")]));
        let watermark = closes.then_some(EventTime(MINUTE));
        let all = cluster.barrier(watermark, true);
        assert_eq!(all.closed.len(), if closes { 10_000 } else { 0 });
        assert_eq!(all.changed.len(), 20_000);
        assert!(all.changed.iter().any(|row| row.starts_with("0|0|2|")));
        assert_eq!(cluster.barrier(watermark, true), Rows::default());
        assert!(cluster.spilled_count >= 3);
    }
}

#[test]
fn a_change_that_was_not_due_is_emitted_when_its_window_closes() {
    let mut cluster = Cluster::new(plan(Grouping::WindowAndName), 1);
    cluster.fold(&batch(Grouping::WindowAndName, &[row(0, "a")]));
    assert_eq!(cluster.barrier(None, false), Rows::default());
    cluster.restore(1);
    let rows = cluster.barrier(Some(EventTime(MINUTE)), false);
    assert_eq!(rows.closed, ["0|a|1|1.50|1.0|NULL|NULL|0|1|1"]);
    assert_eq!(rows.changed, ["0|a|1|1.50|1.0|NULL|NULL|0|1|1|0"]);
}

#[test]
fn a_new_group_without_values_is_null_beside_an_earlier_one_with_values() {
    let mut cluster = Cluster::new(plan(Grouping::Name), 1);
    cluster.fold(&batch(Grouping::Name, &[row(0, "a")]));
    cluster.barrier(None, true);
    let mut empty = row(0, "b");
    empty.cents = None;
    empty.number = None;
    cluster.fold(&batch(Grouping::Name, &[row(0, "a"), empty]));
    let rows = cluster.barrier(None, true);
    let expected = [
        "a|2|3.00|1.0|NULL|NULL|0|1|2|0",
        "b|1|NULL|NULL|NULL|NULL|0|0|0|0",
    ];
    assert_eq!(rows.changed, expected);
}

#[test]
fn a_part_whose_groups_all_changed_again_is_forgotten() {
    let mut cluster = Cluster::new(plan(Grouping::Name), 1);
    for _ in 0..50 {
        cluster.fold(&batch(Grouping::Name, &named(0..10)));
        cluster.barrier(None, true);
        assert_eq!(cluster.part_count(), 1);
    }
    assert_eq!(cluster.full_count, 0);
}

#[test]
fn garbage_never_outweighs_what_lives_by_much() {
    let mut cluster = Cluster::new(plan(Grouping::Name), 1);
    let mut model = Model::default();
    let mut bytes_max = 0;
    for epoch in 0..40 {
        // One group of each part never changes again, so no part dies whole.
        let rows = named((0..2_000).chain(10_000 + epoch..10_001 + epoch));
        model.fold(Grouping::Name, &rows);
        cluster.fold(&batch(Grouping::Name, &rows));
        let emitted = cluster.barrier(None, true);
        assert_eq!(emitted, model.barrier(EventTime(0), true));
        if epoch == 3 {
            bytes_max = 2 * cluster.state_bytes();
        }
    }
    assert!(cluster.full_count > 2, "{}", cluster.full_count);
    assert!(cluster.state_bytes() < bytes_max);
    cluster.restore(2);
    let rows = named(0..20_000);
    model.fold(Grouping::Name, &rows);
    cluster.fold(&batch(Grouping::Name, &rows));
    assert_eq!(
        cluster.barrier(None, true),
        model.barrier(EventTime(0), true)
    );
}

#[test]
fn many_small_parts_are_gathered_into_one() {
    let mut cluster = Cluster::new(plan(Grouping::Name), 1);
    for epoch in 0..600 {
        cluster.fold(&batch(Grouping::Name, &named(epoch..epoch + 1)));
        cluster.barrier(None, true);
        assert!(cluster.part_count() <= 257);
    }
    assert_eq!(cluster.full_count, 2);
    cluster.restore(1);
    assert_eq!(cluster.key_count(), 600);
}

/// Some groups of each epoch come again soon, some late, some never.
fn visits(epoch: usize) -> Vec<Row> {
    let names = (epoch * 40..epoch * 40 + 40).chain((0..60).map(|back| epoch * 40 / (back + 1)));
    let rows = names.map(|name| row(name as i64 % 7, &format!("{name:06}")));
    rows.collect()
}

fn groups_on_disk_answer_as_those_in_memory(spill: Spill) {
    let grouping = Grouping::WindowAndName;
    let mut cluster = Cluster::with_spill(plan(grouping), 2, spill);
    let mut model = Model::default();
    for epoch in 0..120 {
        let mut rows = visits(epoch);
        // A window of some epochs, now and then; what does not close stays long.
        let open = epoch as i64 / 30 * 3;
        rows.iter_mut().for_each(|row| row.minute += open);
        model.fold(grouping, &rows);
        cluster.fold(&batch(grouping, &rows));
        let watermark = EventTime(open * MINUTE);
        let is_due = epoch % 3 > 0;
        let emitted = cluster.barrier(Some(watermark), is_due);
        assert_eq!(emitted, model.barrier(watermark, is_due), "epoch {epoch}");
        assert_eq!(cluster.key_count(), model.groups.len());
        if epoch % 25 == 24 {
            cluster.restore(1 + epoch as u32 % 3);
            assert_eq!(cluster.key_count(), model.groups.len());
        }
    }
    assert!(cluster.spilled_count > 100, "{}", cluster.spilled_count);
    let emitted = cluster.barrier(Some(EventTime::MAX), true);
    assert_eq!(emitted, model.barrier(EventTime::MAX, true));
    cluster.barrier(Some(EventTime::MAX), true);
    assert_eq!((cluster.key_count(), cluster.part_count()), (0, 0));
}

#[test]
fn groups_on_a_disk_answer_as_those_in_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let blocking: BlockingRef = Arc::new(ThreadPool);
    let disk = SpillFolder::new(folder.path().to_owned(), 1 << 20, blocking);
    groups_on_disk_answer_as_those_in_memory(Spill {
        budget: StateBudget::new(100_000),
        disk: Arc::new(disk),
    });
}

#[test]
fn parts_whose_groups_are_on_disk_do_not_become_many() {
    let mut cluster = Cluster::with_memory(plan(Grouping::Name), 1, 0);
    let mut model = Model::default();
    for epoch in 0..1_500 {
        let rows = named((epoch..epoch + 3).chain([epoch / 2]));
        model.fold(Grouping::Name, &rows);
        cluster.fold(&batch(Grouping::Name, &rows));
        cluster.barrier(None, true);
        model.barrier(EventTime(0), true);
        assert!(cluster.part_count() <= 300, "{}", cluster.part_count());
        assert_eq!(cluster.key_count(), model.groups.len());
    }
    cluster.restore(2);
    cluster.mark_all_changed();
    for group in model.groups.keys() {
        model.pending.insert(group.clone());
    }
    assert_eq!(
        cluster.barrier(None, true),
        model.barrier(EventTime(0), true)
    );
    assert_eq!(cluster.barrier(None, true), Rows::default());
}

#[test]
fn an_output_that_cannot_be_made_of_the_results_is_refused() {
    let mut plan = plan(Grouping::All);
    let KeyedKind::Aggregate { output, .. } = &mut plan.kind else {
        panic!("an aggregate");
    };
    *output = PlanSchema::from_fields(vec![Field::new("rows", DataType::Int64, true)]);
    let refused = build(&plan, &Functions::new());
    assert!(matches!(refused, Err(OperatorError::Build { .. })));
}

#[test]
fn state_of_other_columns_is_refused() {
    let functions = Functions::new();
    let mut operator = build(&plan(Grouping::Name), &functions).expect("build");
    let foreign = batch(Grouping::All, &[row(0, "a")]);
    let refused = operator.restore(Default::default(), &foreign, &|_| true, None);
    assert!(matches!(refused, Err(OperatorError::Run { .. })));
}
