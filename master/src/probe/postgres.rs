//! A table of Postgres: its columns, and what ON CONFLICT can name.
//!
//! Called by [`super::RealProbe`] only. Reads the catalogue in one session of the sink's own kind, so that what connects here
//! connects there; it ends with the answer. Failure: the sink's, with its kind.

use std::time::Duration;

use millstream_common::blocking::BlockingRef;
use millstream_common::error::{Kind, chain};
use millstream_common::secret;
use millstream_sinks::postgres::session::Session;
use millstream_sinks::sink::SinkError;
use tokio_postgres::{Client, Error};

use crate::plan::check::{Obstacle, PostgresTable, ProbeError, TableColumn, TableShape};

/// How long a connection and its answer may take.
const PATIENCE: Duration = Duration::from_secs(9);
/// Names offered in place of a missing table.
const TABLES_MAX: usize = 1_000;

/// Postgres reads and folds the name itself.
const FIND_TABLE: &str = "\
    SELECT oid FROM pg_class WHERE oid = to_regclass($1) AND relkind IN ('r', 'p', 'v', 'f')";

const TABLES: &str = "\
    SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
      AND CASE WHEN cardinality(parse_ident($1)) > 1 THEN n.nspname = (parse_ident($1))[1] \
               ELSE pg_table_is_visible(c.oid) END \
    ORDER BY 1";

/// The schema that a new table would be in, whether it is there, and who may create tables in it.
const SCHEMA: &str = "\
    SELECT name, to_regnamespace(quote_ident(name)) IS NOT NULL, \
           has_schema_privilege(to_regnamespace(quote_ident(name)), 'CREATE'), current_user::text \
    FROM (SELECT CASE WHEN cardinality(parse_ident($1)) > 1 THEN (parse_ident($1))[1] \
                      ELSE current_schema()::text END AS name) AS wanted";

const COLUMNS: &str = "\
    SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), \
           NOT (a.attnotnull OR t.typnotnull), \
           a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL \
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

/// Without condition or expression, and not deferred: those ON CONFLICT cannot name.
const UNIQUE_INDEXES: &str = "\
    SELECT ARRAY( \
        SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place) \
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
        WHERE k.place <= i.indnkeyatts ORDER BY k.place) \
    FROM pg_index i WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate \
      AND i.indpred IS NULL AND i.indexprs IS NULL ORDER BY i.indisprimary DESC, i.indexrelid";

/// Looks `table` up at `url`.
pub(super) async fn table(
    url: &str,
    table: &str,
    blocking: &BlockingRef,
) -> Result<PostgresTable, ProbeError> {
    match tokio::time::timeout(PATIENCE, ask(url, table, blocking)).await {
        Ok(answer) => answer,
        Err(_) => Err(ProbeError {
            kind: Kind::External,
            what: format!("look up table {table} in postgres"),
            cause: format!("no answer within {} seconds", PATIENCE.as_secs()),
            is_advised: false,
        }),
    }
}

async fn ask(url: &str, table: &str, blocking: &BlockingRef) -> Result<PostgresTable, ProbeError> {
    secret::resolve(url).map_err(|error| ProbeError {
        kind: Kind::User,
        what: "read the url of postgres".to_owned(),
        cause: error.to_string(),
        is_advised: true,
    })?;
    let opened = Session::open(url, "millstream/check", blocking).await;
    let session = opened.map_err(refused)?;
    read(&session.client, table)
        .await
        .map_err(|error| ProbeError {
            kind: Kind::External,
            what: format!("look up table {table} in {}", session.address),
            cause: chain(&error),
            is_advised: false,
        })
}

fn refused(error: SinkError) -> ProbeError {
    let kind = error.kind();
    match error {
        SinkError::Unavailable { what, cause } | SinkError::Refused { what, cause } => ProbeError {
            kind,
            what,
            cause,
            is_advised: false,
        },
        SinkError::Fenced { .. } | SinkError::MarkerMismatch { .. } => ProbeError {
            kind,
            what: "connect to postgres".to_owned(),
            cause: error.to_string(),
            is_advised: false,
        },
    }
}

async fn read(client: &Client, table: &str) -> Result<PostgresTable, Error> {
    let Some(found) = client.query_opt(FIND_TABLE, &[&table]).await? else {
        let rows = client.query(TABLES, &[&table]).await?;
        let names = rows.iter().take(TABLES_MAX).map(|row| row.try_get(0));
        let tables = names.collect::<Result<_, _>>()?;
        let obstacle = obstacle(client, table).await?;
        return Ok(PostgresTable::Missing { tables, obstacle });
    };
    let oid: u32 = found.try_get(0)?;
    let mut shape = TableShape::default();
    for row in client.query(COLUMNS, &[&oid]).await? {
        shape.columns.push(TableColumn {
            name: row.try_get(0)?,
            type_text: row.try_get(1)?,
            nullable: row.try_get(2)?,
            filled: row.try_get(3)?,
        });
    }
    for row in client.query(UNIQUE_INDEXES, &[&oid]).await? {
        shape.unique_indexes.push(row.try_get(0)?);
    }
    Ok(PostgresTable::Found(shape))
}

async fn obstacle(client: &Client, table: &str) -> Result<Option<Obstacle>, Error> {
    /// Nothing of the search path is there; without a word of the user it is this that lacks.
    const USUAL: &str = "public";
    let row = client.query_one(SCHEMA, &[&table]).await?;
    let schema: Option<String> = row.try_get(0)?;
    let schema = schema.unwrap_or_else(|| USUAL.to_owned());
    if !row.try_get::<_, bool>(1)? {
        return Ok(Some(Obstacle::NoSchema(schema)));
    }
    let may_create: Option<bool> = row.try_get(2)?;
    if may_create == Some(true) {
        return Ok(None);
    }
    let user = row.try_get(3)?;
    Ok(Some(Obstacle::NotAllowed { schema, user }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use millstream_common::blocking::ThreadPool;

    use super::*;

    async fn look(url: &str) -> ProbeError {
        let blocking: BlockingRef = Arc::new(ThreadPool);
        let asked = table(url, "clicks", &blocking).await;
        asked.expect_err("nobody answers")
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named_without_the_password() {
        let refused = look("postgres://me:hunter2@127.0.0.1:1/db").await;
        assert_eq!(refused.kind, Kind::External);
        let text = refused.to_string();
        assert!(text.contains("127.0.0.1:1"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[tokio::test]
    async fn a_url_that_is_none_is_not_quoted() {
        let text = look("host: hunter2").await.to_string();
        assert!(text.contains("%XX"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}
