//! DISTINCT ON against a map from keys to the event time of their first row.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, TimeUnit};
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{KeyedKind, KeyedPlan, PlanSchema};
use millstream_common::time::EventTime;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::super::{OperatorError, build};
use super::cluster::{Cluster, texts};

const SECOND: i64 = 1_000_000;

#[derive(Clone, Debug)]
struct Row {
    name: Option<String>,
    number: Option<i64>,
    /// Since the watermark, as late rows do not come this far.
    time: Option<i64>,
}

#[derive(Clone, Debug)]
struct Step {
    batches: Vec<Vec<Row>>,
    /// Seconds by which the watermark moves.
    advance: i64,
    restore: Option<u32>,
}

fn plan(time_column: Option<usize>) -> KeyedPlan {
    KeyedPlan {
        operator: "clicks/distinct/0".into(),
        fingerprint: "test".to_owned(),
        input: PlanSchema::from_fields(vec![
            Field::new("name", DataType::Utf8, true),
            Field::new("number", DataType::Int64, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        ]),
        key_columns: vec![0, 1],
        kind: KeyedKind::Distinct { time_column },
    }
}

fn batch(rows: &[Row]) -> RecordBatch {
    let names: StringArray = rows.iter().map(|row| row.name.as_deref()).collect();
    let numbers: Int64Array = rows.iter().map(|row| row.number).collect();
    let times: TimestampMicrosecondArray = rows.iter().map(|row| row.time).collect();
    let schema = plan(None).input.0;
    let columns = vec![
        Arc::new(names) as _,
        Arc::new(numbers) as _,
        Arc::new(times) as _,
    ];
    RecordBatch::try_new(schema, columns).expect("batch")
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (
        option::of("[ab]?"),
        option::of(0..3_i64),
        option::weighted(0.95, 0..400_i64),
    );
    let row = row.prop_map(|(name, number, second)| Row {
        name,
        number,
        time: second.map(|second| second * SECOND),
    });
    vec(row, 0..12)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (vec(rows(), 0..3), 0..100_i64, option::of(1..4_u32));
    let step = step.prop_map(|(batches, advance, restore)| Step {
        batches,
        advance,
        restore,
    });
    vec(step, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_first_row_of_a_key_passes_until_the_watermark_is_past_it(
        steps in steps(),
        state_bytes in prop_oneof![Just(usize::MAX), 0..20_000_usize, Just(0)],
    ) {
        let mut cluster = Cluster::with_memory(plan(Some(2)), 2, state_bytes);
        let mut first_times = BTreeMap::new();
        let mut watermark = 0;
        for step in steps {
            for mut rows in step.batches {
                let mut expected = Vec::new();
                for row in &mut rows {
                    row.time = row.time.map(|time| time + watermark);
                }
                for row in &rows {
                    let key = (row.name.clone(), row.number);
                    if let Entry::Vacant(place) = first_times.entry(key) {
                        place.insert(row.time);
                        expected.extend(texts(&batch(std::slice::from_ref(row))));
                    }
                }
                expected.sort();
                prop_assert_eq!(cluster.fold(&batch(&rows)), expected);
            }
            watermark += step.advance * SECOND;
            first_times.retain(|_, time| time.is_none_or(|time| time >= watermark));
            cluster.barrier(Some(EventTime(watermark)), true);
            if let Some(task_count) = step.restore {
                cluster.restore(task_count);
                prop_assert_eq!(cluster.key_count(), first_times.len());
            }
        }
    }
}

fn row(name: &str, second: i64) -> Row {
    Row {
        name: Some(name.to_owned()),
        number: None,
        time: Some(second * SECOND),
    }
}

#[test]
fn parts_of_forgotten_keys_are_dropped() {
    let mut cluster = Cluster::new(plan(Some(2)), 1);
    for minute in 0..100 {
        cluster.fold(&batch(&[row(&format!("key {minute}"), minute * 60)]));
        cluster.barrier(Some(EventTime((minute - 5) * 60 * SECOND)), true);
        assert!(cluster.part_count() <= 7);
        assert!(cluster.key_count() <= 7);
    }
    cluster.barrier(Some(EventTime::MAX), true);
    assert_eq!(cluster.part_count(), 0);
    assert_eq!(cluster.full_count, 0);
}

#[test]
fn keys_without_time_are_rewritten_now_and_then_and_stay() {
    let mut cluster = Cluster::new(plan(None), 1);
    for key in 0..1_000 {
        let kept = cluster.fold(&batch(&[row(&format!("key {key}"), 0), row("again", 0)]));
        assert_eq!(kept.len(), if key == 0 { 2 } else { 1 });
        cluster.barrier(None, true);
    }
    assert!(cluster.full_count > 2);
    assert!(cluster.part_count() <= 257);
    cluster.restore(3);
    assert_eq!(cluster.key_count(), 1_001);
    assert!(
        cluster
            .fold(&batch(&[row("key 77", 0), row("again", 0)]))
            .is_empty()
    );
}

#[test]
fn a_time_column_without_times_is_refused() {
    let refused = build(&plan(Some(1)), &Functions::new());
    assert!(matches!(refused, Err(OperatorError::Build { .. })));
}
