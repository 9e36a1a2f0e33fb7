//! The Postgres sink against a real Postgres: exactly once, real types, refused rows, refused tables, TLS.
//!
//! Goal: what notes and types promise holds on the server that users have. Method: each test has its own schema, writes
//! through the sink and reads by SQL of its own. Here are the rules of every sink and what the other files share.

mod refused_rows;
mod server;
mod sessions;
mod tables;
mod tls;
mod types;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, Int8Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use millstream_common::blocking::{BlockingRef, ThreadPool};
use millstream_common::ids::{Epoch, Seq};
use millstream_common::log::rewind::SinkRewind;
use millstream_common::plan::OnViolation;
use millstream_common::plan::connector::PostgresSinkSpec;
use millstream_sinks::conformance::{self, MemoryRejects, MemoryRows, Row, Subject, deliverer};
use millstream_sinks::postgres::PostgresSink;
use millstream_sinks::sent_back;
use millstream_sinks::sink::{Applied, Deliverer, EpochRun, RejectedRow, Sink, SinkError};

use server::Database;

fn spec(database: &Database, table: &str, primary_key: &[&str]) -> PostgresSinkSpec {
    PostgresSinkSpec {
        url: database.url.clone(),
        table: table.to_owned(),
        primary_key: primary_key.iter().map(|key| (*key).to_owned()).collect(),
        on_conflict_ignore: false,
        create_if_missing: false,
    }
}

/// A sink that runs what blocks on threads.
fn sink(
    spec: PostgresSinkSpec,
    deliverer: Deliverer,
    schema: SchemaRef,
    on_violation: OnViolation,
) -> PostgresSink {
    PostgresSink::new(spec, deliverer, schema, on_violation, threads())
}

fn threads() -> BlockingRef {
    Arc::new(ThreadPool)
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
        Box::new(sink(
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
async fn a_sink_that_is_sent_back_goes_back_once() {
    sent_back::check(async || Table::new(false).await).await;
    sent_back::check(async || Table::new(true).await).await;
}

/// Without a place for a rewind's number.
const MARKERS_OF_BEFORE: &str = "CREATE TABLE millstream_markers (job text NOT NULL, incarnation uuid NOT NULL, \
    sink text NOT NULL, partition int NOT NULL, token bigint NOT NULL, epoch bigint NOT NULL, \
    PRIMARY KEY (incarnation, sink, partition))";

#[tokio::test]
async fn a_marker_table_of_before_notes_rewinds_too() {
    let table = Table::new(true).await;
    table.database.run(MARKERS_OF_BEFORE).await;
    let table = &std::sync::Mutex::new(Some(table));
    let taken = async || {
        table
            .lock()
            .expect("no holder panics")
            .take()
            .expect("once")
    };
    sent_back::check(taken).await;
}

#[tokio::test]
async fn a_marker_table_of_before_that_another_role_owns_is_refused_with_what_its_owner_has_to_run()
{
    let mut table = Table::new(true).await;
    let database = &table.database;
    database.run(MARKERS_OF_BEFORE).await;
    let role = format!("millstream_limited_{}", std::process::id());
    let schema = database.text("current_schema()").await;
    let make = format!(
        "CREATE ROLE {role}; GRANT USAGE ON SCHEMA {schema} TO {role}; \
         GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}"
    );
    database.run(&make).await;
    let url = format!("{}%20-c%20role%3D{role}", database.url);
    table.database.url = url;
    let rewind = SinkRewind {
        to: Epoch(0),
        at: Seq(7),
    };
    let told = Deliverer {
        rewind: Some(rewind),
        ..deliverer(1)
    };
    let refused = table.sink(told).fence().await.map(|_| ());
    let drop = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    table.database.run(&drop).await;
    let refused = refused.expect_err("it may not").to_string();
    assert!(
        refused.contains("ALTER TABLE millstream_markers ADD COLUMN"),
        "{refused}"
    );
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
    let mut sink = sink(spec, deliverer(1), schema, on_violation);
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
