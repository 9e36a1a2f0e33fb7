//! Rows that a real table refuses.
//!
//! Goal: a refused row is found, kept with its reason and alone in being left out. Method: constraints that
//! few of many rows break, with each choice of `on_violation`.

use std::sync::Arc;

use arrow::array::{Int64Array, StringArray};
use millstream_common::plan::OnViolation;
use millstream_sinks::conformance::{self, Change, MemoryRows};

use super::server::Database;
use super::{deliver, refusal, rows, spec};

#[tokio::test]
async fn refused_rows_are_kept_with_their_reason_and_the_others_arrive() {
    for is_keyed in [false, true] {
        let database = Database::new().await;
        database
            .run("CREATE TABLE t (id bigint PRIMARY KEY, name varchar(5) CONSTRAINT no_bad CHECK (name <> 'bad'))")
            .await;
        let names: Vec<String> = (0..20_000)
            .map(|id| match id {
                17 | 19_999 => "bad".to_owned(),
                4_711 => "much too long".to_owned(),
                _ => format!("n{}", id % 1_000),
            })
            .collect();
        let (schema, rows) = rows(vec![
            ("id", Arc::new(Int64Array::from_iter_values(0..20_000))),
            ("name", Arc::new(StringArray::from(names))),
        ]);
        let key: &[&str] = if is_keyed { &["id"] } else { &[] };
        let spec = spec(&database, "t", key);
        let (applied, rejected) = deliver(spec, schema, OnViolation::DeadLetter, &rows)
            .await
            .expect("delivered");
        assert_eq!((applied.row_count, applied.rejected_count), (19_997, 3));
        assert_eq!(database.text("SELECT count(*) FROM t").await, "19997");
        let find = |id: i64| {
            let mut found = rejected.iter().filter(|row| {
                let payload: serde_json::Value = serde_json::from_str(&row.payload).expect("JSON");
                payload["id"] == id
            });
            let row = found.next().expect("kept");
            assert!(found.next().is_none(), "kept once");
            row.reason.clone()
        };
        assert!(find(17).contains("no_bad"), "{}", find(17));
        assert!(find(19_999).contains("no_bad"));
        assert!(
            find(4_711).contains("character varying(5)"),
            "{}",
            find(4_711)
        );
    }
}

#[tokio::test]
async fn dropped_rows_are_counted_and_a_failing_sink_keeps_nothing() {
    let database = Database::new().await;
    database
        .run("CREATE TABLE t (id bigint CHECK (id > 0), name text)")
        .await;
    let rows = MemoryRows::of(&[&[Change::Put(1, "a"), Change::Put(-1, "b")]]);
    let schema = conformance::schema();
    let refused = deliver(
        spec(&database, "t", &[]),
        schema.clone(),
        OnViolation::Fail,
        &rows,
    )
    .await;
    let text = refusal(refused);
    assert!(
        text.contains("t_id_check") && text.contains("\"id\":-1"),
        "{text}"
    );
    assert_eq!(database.text("SELECT count(*) FROM t").await, "0");
    let (applied, rejected) = deliver(spec(&database, "t", &[]), schema, OnViolation::Drop, &rows)
        .await
        .expect("delivered");
    assert_eq!((applied.row_count, applied.dropped_count), (1, 1));
    assert!(rejected.is_empty());
}

#[tokio::test]
async fn a_row_that_made_way_for_a_refused_one_of_its_key_is_tried_again_without_that() {
    let database = Database::new().await;
    database
        .run("CREATE TABLE t (id bigint PRIMARY KEY, name text CHECK (name <> 'bad'))")
        .await;
    let rows = MemoryRows::of(&[&[Change::Put(1, "fine"), Change::Put(1, "bad")]]);
    let spec = spec(&database, "t", &["id"]);
    let applied = deliver(spec, conformance::schema(), OnViolation::DeadLetter, &rows).await;
    let text = applied.expect_err("the fine row is not in").to_string();
    assert!(text.contains("displaced"), "{text}");
    assert_eq!(database.text("SELECT count(*) FROM t").await, "0");
}

/// Two bad rows behind a fine one of the same key: the second is found only once the first is left out.
#[tokio::test]
async fn a_row_that_made_way_for_dropped_ones_of_its_key_is_written_in_the_same_run() {
    let database = Database::new().await;
    database
        .run("CREATE TABLE t (id bigint PRIMARY KEY, name text CHECK (name NOT LIKE 'bad%'))")
        .await;
    let rows = MemoryRows::of(&[&[
        Change::Put(2, "other"),
        Change::Put(1, "fine"),
        Change::Put(1, "bad"),
        Change::Put(3, "bad alone"),
        Change::Put(1, "bad again"),
    ]]);
    let spec = spec(&database, "t", &["id"]);
    let (applied, rejected) = deliver(spec, conformance::schema(), OnViolation::Drop, &rows)
        .await
        .expect("delivered");
    assert_eq!((applied.row_count, applied.dropped_count), (2, 3));
    assert!(rejected.is_empty());
    let held = "SELECT string_agg(id || name, ',' ORDER BY id) FROM t";
    assert_eq!(database.text(held).await, "1fine,2other");
}

#[tokio::test]
async fn too_many_refused_rows_suspend_the_sink() {
    let database = Database::new().await;
    database
        .run("CREATE TABLE t (id bigint CHECK (id < 0), name text)")
        .await;
    let (schema, rows) = rows(vec![
        ("id", Arc::new(Int64Array::from_iter_values(0..1_001))),
        (
            "name",
            Arc::new(StringArray::from(vec![None::<&str>; 1_001])),
        ),
    ]);
    let spec = spec(&database, "t", &[]);
    let text = refusal(deliver(spec, schema, OnViolation::DeadLetter, &rows).await);
    assert!(text.contains("more than 1000 rows"), "{text}");
}

#[tokio::test]
async fn a_constraint_that_breaks_at_commit_suspends_the_sink() {
    let database = Database::new().await;
    database
        .run(
            "CREATE TABLE parents (id bigint PRIMARY KEY); \
             CREATE TABLE t (id bigint REFERENCES parents DEFERRABLE INITIALLY DEFERRED, name text)",
        )
        .await;
    let rows = MemoryRows::of(&[&[Change::Put(1, "orphan")]]);
    let spec = spec(&database, "t", &[]);
    let text = refusal(deliver(spec, conformance::schema(), OnViolation::DeadLetter, &rows).await);
    assert!(text.contains("t_id_fkey"), "{text}");
}
