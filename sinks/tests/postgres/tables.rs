//! Tables that are missing, created, or do not fit.
//!
//! Goal: a table is made only when asked and never altered; what does not fit is refused with the line to write.
//! Method: tables that are wrong in one way each.

use std::sync::Arc;

use arrow::array::{Int64Array, StringArray};
use millstream_common::plan::OnViolation;
use millstream_common::plan::connector::PostgresSinkSpec;
use millstream_sinks::{conformance, postgres};

use super::server::Database;
use super::{deliver, refusal, rows, spec, threads};

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
async fn a_check_finds_what_is_wrong_and_changes_nothing() {
    let database = Database::new().await;
    let schema = conformance::schema();
    let mut spec = spec(&database, "rows", &["id"]);
    let text = refusal(postgres::check(&spec, &schema, &threads()).await);
    assert!(text.contains("the table does not exist"), "{text}");
    spec.create_if_missing = true;
    postgres::check(&spec, &schema, &threads())
        .await
        .expect("would be created");
    let count = "SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace";
    assert_eq!(database.text(count).await, "0");
    database.run("CREATE TABLE rows (id bigint)").await;
    let text = refusal(postgres::check(&spec, &schema, &threads()).await);
    assert!(text.contains("no column name"), "{text}");
}
