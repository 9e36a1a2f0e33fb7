//! Rows that are typed already: matched by name, cast without loss.

use arrow::array::{
    ArrayRef, Decimal128Array, DictionaryArray, Float64Array, Int32Array, Int64Array, StringArray,
    StringViewArray, TimestampNanosecondArray,
};
use arrow::datatypes::{Int32Type, Schema};

use super::*;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
        .collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("batch")
}

/// The values of one column cast to `target`; `!` where a value is refused.
fn cast(array: ArrayRef, target: DataType) -> Vec<String> {
    let mut plan = source();
    plan.format = FormatSpec::Parquet;
    plan.columns = vec![column("v", target, true)];
    let mut decoder = decoder(&plan);
    let slot = open(&mut decoder);
    let rows = decoder
        .decode_typed(slot, 0, &batch(vec![("v", array.clone())]))
        .expect("decode");
    let mut found = lines(&rows.batch);
    for reason in reasons(&rows) {
        let position: usize = reason
            .split('|')
            .next()
            .expect("position")
            .parse()
            .expect("number");
        found.insert(position, "!".to_owned());
    }
    found
}

#[test]
fn columns_are_matched_by_name_and_rules_hold() {
    let mut plan = source();
    plan.format = FormatSpec::Parquet;
    plan.columns = vec![
        column("id", DataType::Int64, false),
        column("url", DataType::Utf8, false),
        column("note", DataType::Utf8, true),
    ];
    let mut decoder = decoder(&plan);
    let slot = open(&mut decoder);
    let rows = decoder
        .decode_typed(
            slot,
            11,
            &batch(vec![
                ("extra", Arc::new(Int64Array::from(vec![1, 2, 3]))),
                (
                    "url",
                    Arc::new(StringArray::from(vec![Some("/a"), None, Some("/c")])),
                ),
                ("id", Arc::new(Int32Array::from(vec![1, 2, 3]))),
            ]),
        )
        .expect("decode");
    assert_eq!(lines(&rows.batch), ["1|/a|-", "3|/c|-"]);
    assert_eq!(
        reasons(&rows),
        ["12|null_violation|column \"url\": NULL in a NOT NULL column"]
    );
    let rejects = rows.rejects.expect("dead letters");
    let payload = array_value_to_string(rejects.column(3), 0).expect("payload");
    assert_eq!(payload, r#"{"extra":2,"url":null,"id":2}"#);
    assert!(rows.counters.bytes > 0);
}

#[test]
fn numbers_are_cast_where_nothing_is_lost() {
    let doubles: ArrayRef = Arc::new(Float64Array::from(vec![
        Some(1.0),
        Some(1.5),
        None,
        Some(1e300),
    ]));
    assert_eq!(cast(doubles.clone(), DataType::Int64), ["1", "!", "-", "!"]);
    assert_eq!(cast(doubles, DataType::Boolean), ["!", "!", "-", "!"]);
    let wide: ArrayRef = Arc::new(Int64Array::from(vec![7, 40_000]));
    assert_eq!(cast(wide.clone(), DataType::Int16), ["7", "!"]);
    assert_eq!(cast(wide.clone(), DataType::Utf8), ["7", "40000"]);
    assert_eq!(cast(wide, timestamp()), ["!", "!"]);
    let decimals = Decimal128Array::from(vec![150, 155]).with_precision_and_scale(5, 2);
    let decimals: ArrayRef = Arc::new(decimals.expect("decimals"));
    assert_eq!(
        cast(decimals.clone(), DataType::Decimal128(5, 1)),
        ["1.5", "!"]
    );
    assert_eq!(cast(decimals, DataType::Float64), ["1.5", "1.55"]);
}

#[test]
fn text_converts_as_everywhere() {
    let text: ArrayRef = Arc::new(StringViewArray::from(vec![Some("1.0"), Some("x"), None]));
    assert_eq!(cast(text, DataType::Int64), ["1", "!", "-"]);
    let words: DictionaryArray<Int32Type> = vec!["a", "b", "a"].into_iter().collect();
    assert_eq!(cast(Arc::new(words), DataType::Utf8), ["a", "b", "a"]);
}

#[test]
fn times_keep_their_instant() {
    let nanos = TimestampNanosecondArray::from(vec![1_709_596_800_123_456_789]);
    let zoned = nanos.clone().with_timezone("America/New_York");
    for array in [Arc::new(nanos) as ArrayRef, Arc::new(zoned)] {
        assert_eq!(cast(array, timestamp()), ["2024-03-05T00:00:00.123456"]);
    }
}
