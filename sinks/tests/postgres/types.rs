//! Values of every type, and keys of every kind, in a real table.
//!
//! Goal: a row arrives as it was. Method: each type once with a value and once with NULL, read back as text.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int16Array, Int32Array, Int64Array, StringArray, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::SchemaRef;
use millstream_common::plan::OnViolation;
use millstream_sinks::conformance::{self, Change, MemoryRows};

use super::server::Database;
use super::{deliver, rows, spec};

/// Each type once with a value and once with NULL.
fn every_type() -> (SchemaRef, MemoryRows) {
    let micros = 1_700_000_000_123_456_i64;
    let instants = TimestampMicrosecondArray::from(vec![Some(micros), None]).with_timezone("UTC");
    rows(vec![
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("small", Arc::new(Int16Array::from(vec![Some(-7), None]))),
        (
            "whole",
            Arc::new(Int32Array::from(vec![Some(i32::MIN), None])),
        ),
        (
            "big",
            Arc::new(Int64Array::from(vec![Some(i64::MAX), None])),
        ),
        ("wide", Arc::new(Int32Array::from(vec![Some(5), None]))),
        ("real_", Arc::new(Float32Array::from(vec![Some(1.5), None]))),
        (
            "double_",
            Arc::new(Float64Array::from(vec![Some(-0.1), None])),
        ),
        ("exact", decimal(vec![Some(-12_345_678), None], 12, 3)),
        (
            "total",
            decimal(vec![Some(10_i128.pow(38) - 1), None], 38, 0),
        ),
        (
            "counted",
            Arc::new(Int64Array::from(vec![Some(-10_000), None])),
        ),
        (
            "words",
            Arc::new(StringViewArray::from(vec![Some("ü\t\\N"), None])),
        ),
        (
            "short",
            Arc::new(StringArray::from(vec![Some("abc"), None])),
        ),
        ("fixed", Arc::new(StringArray::from(vec![Some("ab"), None]))),
        (
            "body",
            Arc::new(StringArray::from(vec![Some("{\"a\" : 1}"), None])),
        ),
        (
            "parsed",
            Arc::new(StringArray::from(vec![Some("{\"a\" : 1}"), None])),
        ),
        (
            "id",
            Arc::new(StringArray::from(vec![
                Some("6BA7B810-9DAD-11D1-80B4-00C04FD430C8"),
                None,
            ])),
        ),
        (
            "raw",
            Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), None])),
        ),
        ("day", Arc::new(Date32Array::from(vec![Some(-1), None]))),
        (
            "at",
            Arc::new(TimestampMicrosecondArray::from(vec![Some(micros), None])),
        ),
        ("instant", Arc::new(instants)),
    ])
}

fn decimal(values: Vec<Option<i128>>, precision: u8, scale: i8) -> ArrayRef {
    let values = Decimal128Array::from(values).with_precision_and_scale(precision, scale);
    Arc::new(values.expect("precision"))
}

#[tokio::test]
async fn every_type_arrives_as_it_was() {
    let database = Database::new().await;
    database
        .run(
            "CREATE TABLE t (flag boolean, small smallint, whole integer, big bigint, wide bigint, \
             real_ real, double_ double precision, exact numeric(12,3), total numeric, counted numeric, \
             words text, short varchar(9), fixed char(3), body json, parsed jsonb, id uuid, raw bytea, \
             day date, at timestamp, instant timestamptz, extra text DEFAULT 'filled')",
        )
        .await;
    let (schema, rows) = every_type();
    deliver(spec(&database, "t", &[]), schema, OnViolation::Fail, &rows)
        .await
        .expect("delivered");
    database.run("SET TimeZone = 'UTC'").await;
    let found = database.text("SELECT t FROM t WHERE flag").await;
    assert_eq!(
        found,
        "(t,-7,-2147483648,9223372036854775807,5,1.5,-0.1,-12345.678,\
         99999999999999999999999999999999999999,-10000,\"ü\t\\\\N\",abc,\"ab \",\"{\"\"a\"\" : 1}\",\
         \"{\"\"a\"\": 1}\",6ba7b810-9dad-11d1-80b4-00c04fd430c8,\"\\\\x00ff\",1969-12-31,\
         \"2023-11-14 22:13:20.123456\",\"2023-11-14 22:13:20.123456+00\",filled)"
    );
    let nulls = database.text("SELECT t FROM t WHERE flag IS NULL").await;
    assert_eq!(nulls, "(,,,,,,,,,,,,,,,,,,,,filled)");
}

#[tokio::test]
async fn keys_of_every_kind_are_upserted() {
    let database = Database::new().await;
    database
        .run("CREATE TABLE t (at timestamp, url text, price numeric(8,2), n bigint, UNIQUE (url, at, price))")
        .await;
    let (schema, rows) = rows(vec![
        (
            "at",
            Arc::new(TimestampMicrosecondArray::from(vec![0, 0, 1, 0])),
        ),
        (
            "url",
            Arc::new(StringArray::from(vec!["/a", "/a", "/a", "/b"])),
        ),
        (
            "price",
            Arc::new(
                Decimal128Array::from(vec![150, 150, 150, 150])
                    .with_precision_and_scale(8, 2)
                    .expect("precision"),
            ),
        ),
        ("n", Arc::new(Int64Array::from(vec![1, 2, 3, 4]))),
    ]);
    for _ in 0..2 {
        let spec = spec(&database, "t", &["at", "url", "price"]);
        deliver(spec, schema.clone(), OnViolation::Fail, &rows)
            .await
            .expect("delivered");
    }
    let found = database
        .text("SELECT string_agg(n::text, ' ' ORDER BY n) FROM t")
        .await;
    assert_eq!(found, "2 3 4");
}

#[tokio::test]
async fn a_row_that_is_there_stays_where_conflicts_are_ignored() {
    let database = Database::new().await;
    database
        .run("CREATE TABLE t (id bigint PRIMARY KEY, name text); INSERT INTO t VALUES (1, 'there')")
        .await;
    let rows = MemoryRows::of(&[&[
        Change::Put(1, "new"),
        Change::Put(2, "first"),
        Change::Put(2, "second"),
    ]]);
    let mut spec = spec(&database, "t", &["id"]);
    spec.on_conflict_ignore = true;
    deliver(spec, conformance::schema(), OnViolation::Fail, &rows)
        .await
        .expect("delivered");
    let found = database
        .text("SELECT string_agg(name, ' ' ORDER BY id) FROM t")
        .await;
    assert_eq!(found, "there first");
}
