//! The Postgres sink against a real Postgres: exactly once, real types, refused rows, refused tables.
//!
//! Goal: what notes and types promise holds on the server that users have. Method: each test has its own schema, writes
//! through the sink and reads by SQL of its own.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int8Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use millstream_common::ids::Epoch;
use millstream_common::plan::OnViolation;
use millstream_common::plan::connector::PostgresSinkSpec;
use millstream_sinks::conformance::{
    self, Change, MemoryRejects, MemoryRows, Row, Subject, deliverer,
};
use millstream_sinks::postgres::{self, PostgresSink};
use millstream_sinks::sink::{Applied, Deliverer, EpochRun, RejectedRow, RunRows, Sink, SinkError};
use support::Database;

fn spec(database: &Database, table: &str, primary_key: &[&str]) -> PostgresSinkSpec {
    PostgresSinkSpec {
        url: database.url.clone(),
        table: table.to_owned(),
        primary_key: primary_key.iter().map(|key| (*key).to_owned()).collect(),
        on_conflict_ignore: false,
        create_if_missing: false,
    }
}

/// A table of its own for the rules of every sink.
struct Table {
    database: Database,
    name: String,
    is_keyed: bool,
}

static TABLES: AtomicU64 = AtomicU64::new(0);

impl Table {
    async fn new(is_keyed: bool) -> Self {
        let database = Database::new().await;
        let name = format!("rows_{}", TABLES.fetch_add(1, Ordering::Relaxed));
        let key = if is_keyed { " PRIMARY KEY" } else { "" };
        database
            .run(&format!("CREATE TABLE {name} (id bigint{key}, name text)"))
            .await;
        Self {
            database,
            name,
            is_keyed,
        }
    }
}

#[async_trait]
impl Subject for Table {
    fn sink(&self, deliverer: Deliverer) -> Box<dyn Sink> {
        let key: &[&str] = if self.is_keyed { &["id"] } else { &[] };
        Box::new(PostgresSink::new(
            spec(&self.database, &self.name, key),
            deliverer,
            conformance::schema(),
            OnViolation::Fail,
        ))
    }

    async fn read(&self) -> Vec<Row> {
        let query = format!("SELECT id, name FROM {}", self.name);
        let rows = self.database.client.query(&query, &[]).await.expect("read");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    fn is_keyed(&self) -> bool {
        self.is_keyed
    }
}

#[tokio::test]
async fn appending_keeps_the_rules_of_every_sink() {
    conformance::check(async || Table::new(false).await).await;
}

#[tokio::test]
async fn upserting_keeps_the_rules_of_every_sink() {
    conformance::check(async || Table::new(true).await).await;
}

/// Rows of any columns, all upserts.
fn rows(columns: Vec<(&str, ArrayRef)>) -> (SchemaRef, MemoryRows) {
    let mut fields: Vec<Field> = columns
        .iter()
        .map(|(name, values)| Field::new(*name, values.data_type().clone(), true))
        .collect();
    let own = Arc::new(Schema::new(fields.clone()));
    fields.push(Field::new("_op", DataType::Int8, false));
    let mut arrays: Vec<ArrayRef> = columns.into_iter().map(|(_, values)| values).collect();
    arrays.push(Arc::new(Int8Array::from(vec![0; arrays[0].len()])));
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema.clone(), arrays).expect("a batch");
    (own, MemoryRows::new(schema, vec![batch]))
}

/// Fences and applies one run; what was refused comes with it.
async fn deliver(
    spec: PostgresSinkSpec,
    schema: SchemaRef,
    on_violation: OnViolation,
    rows: &MemoryRows,
) -> Result<(Applied, Vec<RejectedRow>), SinkError> {
    let mut sink = PostgresSink::new(spec, deliverer(1), schema, on_violation);
    let held = sink.fence().await?;
    let guard = held.marker.expect("a marker");
    let run = EpochRun {
        guard,
        last: Epoch(guard.0 + 1),
        row_count: rows.row_count(),
    };
    let rejects = MemoryRejects::default();
    let applied = sink.apply(&run, rows, &rejects).await?;
    let kept = rejects.kept().into_iter().flat_map(|(_, rows)| rows);
    Ok((applied, kept.collect()))
}

fn refusal<T: std::fmt::Debug>(result: Result<T, SinkError>) -> String {
    match result {
        Err(error @ SinkError::Refused { .. }) => error.to_string(),
        other => panic!("not refused: {other:?}"),
    }
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
    let micros = 1_700_000_000_123_456_i64;
    let decimal = |values: Vec<Option<i128>>, precision, scale| {
        Arc::new(
            Decimal128Array::from(values)
                .with_precision_and_scale(precision, scale)
                .expect("precision"),
        ) as ArrayRef
    };
    let instants = TimestampMicrosecondArray::from(vec![Some(micros), None]).with_timezone("UTC");
    let (schema, rows) = rows(vec![
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
    ]);
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

#[tokio::test]
async fn a_missing_table_is_created_when_asked_and_never_altered() {
    let database = Database::new().await;
    let (schema, rows) = rows(vec![
        ("url", Arc::new(StringArray::from(vec!["/a"]))),
        ("views", Arc::new(Int64Array::from(vec![3]))),
    ]);
    let asking = PostgresSinkSpec {
        create_if_missing: true,
        ..spec(&database, "Page_Views", &["url"])
    };
    for _ in 0..2 {
        deliver(asking.clone(), schema.clone(), OnViolation::Fail, &rows)
            .await
            .expect("delivered");
    }
    let key = "SELECT pg_get_constraintdef(oid) FROM pg_constraint \
               WHERE conrelid = 'page_views'::regclass AND contype = 'p'";
    assert_eq!(database.text(key).await, "PRIMARY KEY (url)");
    database
        .run("ALTER TABLE page_views DROP COLUMN views")
        .await;
    let refused = refusal(deliver(asking, schema, OnViolation::Fail, &rows).await);
    assert!(refused.contains("ADD COLUMN \"views\" bigint"), "{refused}");
}

#[tokio::test]
async fn what_does_not_fit_the_table_is_refused_with_what_to_write() {
    let database = Database::new().await;
    database
        .run(
            "CREATE TABLE page_views (url text, views integer); \
             CREATE TABLE strict (url text, views bigint, at timestamp NOT NULL); \
             CREATE TABLE named (uri text, views bigint)",
        )
        .await;
    let (schema, rows) = rows(vec![
        ("url", Arc::new(StringArray::from(vec!["/a"]))),
        ("views", Arc::new(Int64Array::from(vec![3]))),
    ]);
    let try_table = async |table: &str, key: &[&str]| {
        let spec = spec(&database, table, key);
        refusal(deliver(spec, schema.clone(), OnViolation::Fail, &rows).await)
    };
    let text = try_table("page_view", &[]).await;
    assert!(text.contains("did you mean page_views?"), "{text}");
    assert!(text.contains("CREATE TABLE IF NOT EXISTS"), "{text}");
    let text = try_table("page_views", &[]).await;
    assert!(
        text.contains("column views: the rows hold bigint but the table has integer")
            && text.contains("ALTER COLUMN \"views\" TYPE bigint, or CAST(views AS integer)"),
        "{text}"
    );
    let text = try_table("strict", &[]).await;
    assert!(
        text.contains("column at is NOT NULL without a default"),
        "{text}"
    );
    let text = try_table("named", &[]).await;
    assert!(text.contains("no column url (did you mean uri?)"), "{text}");
    database
        .run("ALTER TABLE page_views ALTER views TYPE bigint")
        .await;
    let text = try_table("page_views", &["url"]).await;
    assert!(
        text.contains("CREATE UNIQUE INDEX ON \"page_views\" (\"url\")"),
        "{text}"
    );
}

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

/// Rows during whose reading the sink's session is ended by the server.
struct Interrupted<'a> {
    rows: MemoryRows,
    database: &'a Database,
}

impl RunRows for Interrupted<'_> {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn batches(&self) -> BoxStream<'_, Result<RecordBatch, SinkError>> {
        let end = async {
            self.database
                .text(
                    "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity \
                     WHERE application_name = 'millstream/conformance/interrupted/1'",
                )
                .await
        };
        let ending = stream::once(end).filter_map(|ended| async move {
            assert_eq!(ended, "1", "the sink has a session");
            None
        });
        self.rows.batches().chain(ending).boxed()
    }
}

#[tokio::test]
async fn a_server_that_goes_away_in_the_middle_leaves_nothing_and_the_run_is_repeated() {
    let database = Database::new().await;
    database.run("CREATE TABLE t (id bigint, name text)").await;
    let deliverer = Deliverer {
        sink: "interrupted".to_owned(),
        ..deliverer(1)
    };
    let spec = spec(&database, "t", &[]);
    let mut sink = PostgresSink::new(spec, deliverer, conformance::schema(), OnViolation::Fail);
    assert_eq!(conformance::fence(&mut sink).await, Epoch(0));
    let changes: &[&[Change]] = &[&[Change::Put(1, "a")]];
    let rows = Interrupted {
        rows: MemoryRows::of(changes),
        database: &database,
    };
    let run = EpochRun {
        guard: Epoch(0),
        last: Epoch(1),
        row_count: 1,
    };
    let lost = sink.apply(&run, &rows, &MemoryRejects::default()).await;
    assert!(
        matches!(lost, Err(SinkError::Unavailable { .. })),
        "{lost:?}"
    );
    assert_eq!(conformance::fence(&mut sink).await, Epoch(0));
    conformance::apply(&mut sink, 0, 1, changes)
        .await
        .expect("repeated");
    assert_eq!(database.text("SELECT count(*) FROM t").await, "1");
}

#[tokio::test]
async fn sinks_that_start_at_once_share_one_marker_table() {
    let database = Database::new().await;
    let fences = (0..8).map(|index| {
        let deliverer = Deliverer {
            sink: format!("sink {index}"),
            ..deliverer(1)
        };
        let spec = PostgresSinkSpec {
            create_if_missing: true,
            ..spec(&database, "shared", &["id"])
        };
        let mut sink = PostgresSink::new(spec, deliverer, conformance::schema(), OnViolation::Fail);
        async move { sink.fence().await.map(|held| held.marker) }
    });
    for held in futures::future::join_all(fences).await {
        assert_eq!(held.expect("fence"), Some(Epoch(0)));
    }
    let count = database
        .text("SELECT count(*) FROM millstream_markers")
        .await;
    assert_eq!(count, "8");
}

#[tokio::test]
async fn a_check_finds_what_is_wrong_and_changes_nothing() {
    let database = Database::new().await;
    let schema = conformance::schema();
    let mut spec = spec(&database, "rows", &["id"]);
    let text = refusal(postgres::check(&spec, &schema).await);
    assert!(text.contains("the table does not exist"), "{text}");
    spec.create_if_missing = true;
    postgres::check(&spec, &schema)
        .await
        .expect("would be created");
    let count = "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace";
    assert_eq!(database.text(count).await, "0");
    database.run("CREATE TABLE rows (id bigint)").await;
    let text = refusal(postgres::check(&spec, &schema).await);
    assert!(text.contains("no column name"), "{text}");
}

#[tokio::test]
async fn a_vanished_deliverer_that_holds_the_lock_is_ended() {
    let database = Database::new().await;
    database.run("CREATE TABLE t (id bigint, name text)").await;
    let make = |token| {
        PostgresSink::new(
            spec(&database, "t", &[]),
            deliverer(token),
            conformance::schema(),
            OnViolation::Fail,
        )
    };
    make(3).fence().await.expect("fence");
    let zombie = support::connect(&format!(
        "{}&application_name=millstream/conformance/out/3",
        database.url
    ))
    .await;
    zombie
        .batch_execute("BEGIN; SELECT * FROM millstream_markers FOR UPDATE")
        .await
        .expect("lock");
    make(4).fence().await.expect("takes over");
    assert!(zombie.batch_execute("COMMIT").await.is_err(), "ended");
    let refused = make(3).fence().await;
    assert!(
        matches!(refused, Err(SinkError::Fenced { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named_without_its_password() {
    let spec = PostgresSinkSpec {
        url: "postgres://ann:hunter2@127.0.0.1:1/shop".to_owned(),
        table: "t".to_owned(),
        primary_key: vec![],
        on_conflict_ignore: false,
        create_if_missing: false,
    };
    let mut sink = PostgresSink::new(spec, deliverer(1), conformance::schema(), OnViolation::Fail);
    let error = sink.fence().await.expect_err("nobody listens");
    assert!(matches!(error, SinkError::Unavailable { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("postgres at 127.0.0.1:1/shop as ann"),
        "{text}"
    );
    assert!(!format!("{error:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_secret_in_the_url_is_resolved_and_a_missing_one_is_named() {
    let database = Database::new().await;
    let mut spec = spec(&database, "t", &[]);
    spec.url = "postgres://ann:${MILLSTREAM_TEST_NO_SUCH_SECRET}@h/d".to_owned();
    let mut sink = PostgresSink::new(spec, deliverer(1), conformance::schema(), OnViolation::Fail);
    let text = refusal(sink.fence().await);
    assert!(text.contains("MILLSTREAM_TEST_NO_SUCH_SECRET"), "{text}");
}
