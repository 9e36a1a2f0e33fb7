//! Sessions that end, wait for each other, or never come about.
//!
//! Goal: whatever becomes of a session, a run is there whole and once. Method: the server ends sessions in the middle of a
//! run; a deliverer that vanished holds its lock; nobody listens.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use millstream_common::ids::Epoch;
use millstream_common::plan::OnViolation;
use millstream_common::plan::connector::PostgresSinkSpec;
use millstream_sinks::conformance::{self, Change, MemoryRejects, MemoryRows, deliverer};
use millstream_sinks::sink::{Deliverer, EpochRun, RunRows, Sink, SinkError};

use super::server::{self, Database};
use super::{refusal, sink, spec};

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
    let mut sink = super::sink(spec, deliverer, conformance::schema(), OnViolation::Fail);
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
        let mut sink = super::sink(spec, deliverer, conformance::schema(), OnViolation::Fail);
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
async fn a_vanished_deliverer_that_holds_the_lock_is_ended() {
    let database = Database::new().await;
    database.run("CREATE TABLE t (id bigint, name text)").await;
    let make = |token| {
        sink(
            spec(&database, "t", &[]),
            deliverer(token),
            conformance::schema(),
            OnViolation::Fail,
        )
    };
    make(3).fence().await.expect("fence");
    let zombie = server::connect(&format!(
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

/// COMMIT waits there for as long as somebody else holds the lock 7.
const WAITS_IN_COMMIT: &str = "CREATE TABLE t (id bigint PRIMARY KEY, name text);
    CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION wait()";

#[tokio::test]
async fn a_deliverer_that_hangs_in_commit_is_ended_whatever_it_wrote() {
    let ways: [(&[&str], OnViolation); 3] = [
        (&[], OnViolation::Fail),
        (&["id"], OnViolation::Fail),
        (&["id"], OnViolation::Drop),
    ];
    for (primary_key, on_violation) in ways {
        let database = Database::new().await;
        database.run(WAITS_IN_COMMIT).await;
        let make = |token| {
            sink(
                spec(&database, "t", primary_key),
                deliverer(token),
                conformance::schema(),
                on_violation,
            )
        };
        let holder = server::connect(&database.url).await;
        let hold = "SELECT pg_advisory_lock(7)";
        holder.batch_execute(hold).await.expect("held");
        let mut hangs = make(3);
        assert_eq!(conformance::fence(&mut hangs).await, Epoch(0));
        let changes: &[&[Change]] = &[&[Change::Put(1, "a")]];
        let applied = conformance::apply(&mut hangs, 0, 1, changes);
        let takes_over = async {
            let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            while database.text(waits).await != "1" {
                tokio::task::yield_now().await;
            }
            let mut next = make(4);
            assert_eq!(conformance::fence(&mut next).await, Epoch(0));
            next
        };
        let (applied, mut next) = futures::join!(applied, takes_over);
        assert!(
            matches!(applied, Err(SinkError::Unavailable { .. })),
            "{applied:?}"
        );
        let release = "SELECT pg_advisory_unlock(7)";
        holder.batch_execute(release).await.expect("released");
        conformance::apply(&mut next, 0, 1, changes)
            .await
            .expect("repeated");
        assert_eq!(database.text("SELECT count(*) FROM t").await, "1");
    }
}

#[tokio::test]
async fn rows_are_not_kept_where_the_marker_cannot_be_moved() {
    let database = Database::new().await;
    database.run("CREATE TABLE t (id bigint, name text)").await;
    let spec = spec(&database, "t", &[]);
    let mut sink = super::sink(spec, deliverer(1), conformance::schema(), OnViolation::Fail);
    assert_eq!(conformance::fence(&mut sink).await, Epoch(0));
    database
        .run(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN RAISE EXCEPTION 'no marker moves'; END $$;
             CREATE TRIGGER refuses BEFORE UPDATE ON millstream_markers
                FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await;
    let changes: &[&[Change]] = &[&[Change::Put(1, "a")]];
    let text = refusal(conformance::apply(&mut sink, 0, 1, changes).await);
    assert!(text.contains("no marker moves"), "{text}");
    assert_eq!(database.text("SELECT count(*) FROM t").await, "0");
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
    let mut sink = super::sink(spec, deliverer(1), conformance::schema(), OnViolation::Fail);
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
    let mut sink = super::sink(spec, deliverer(1), conformance::schema(), OnViolation::Fail);
    let text = refusal(sink.fence().await);
    assert!(text.contains("MILLSTREAM_TEST_NO_SUCH_SECRET"), "{text}");
}
