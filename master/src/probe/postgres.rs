//! A table of Postgres: its columns, and what ON CONFLICT can name.
//!
//! Called by [`super::RealProbe`] only. Reads the catalogue in one connection, which ends with the answer. The URL is
//! resolved here and never shown but for host, port, database and user.

use std::time::Duration;

use futures::future::{Either, select};
use millstream_common::error::{Kind, chain};
use millstream_common::secret;
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, Error, NoTls};

use crate::plan::check::{PostgresTable, ProbeError, TableColumn, TableShape};

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
pub(super) async fn table(url: &str, table: &str) -> Result<PostgresTable, ProbeError> {
    let (config, address) = configure(url)?;
    let what = format!("look up table {table} in {address}");
    let (kind, cause) = match tokio::time::timeout(PATIENCE, ask(&config, table)).await {
        Ok(Ok(table)) => return Ok(table),
        Ok(Err(error)) => explain(&error),
        Err(_) => {
            let cause = format!("no answer within {} seconds", PATIENCE.as_secs());
            (Kind::External, cause)
        }
    };
    Err(ProbeError { kind, what, cause })
}

async fn ask(config: &Config, table: &str) -> Result<PostgresTable, Error> {
    let (client, connection) = config.connect(NoTls).await?;
    let answer = Box::pin(read(&client, table));
    match select(answer, Box::pin(connection)).await {
        Either::Left((answer, _)) => answer,
        // The connection ends first only by an error; the answer then has it too.
        Either::Right((ended, answer)) => {
            ended?;
            answer.await
        }
    }
}

async fn read(client: &Client, table: &str) -> Result<PostgresTable, Error> {
    let Some(found) = client.query_opt(FIND_TABLE, &[&table]).await? else {
        let rows = client.query(TABLES, &[&table]).await?;
        let names = rows.iter().take(TABLES_MAX).map(|row| row.try_get(0));
        let tables = names.collect::<Result<_, _>>()?;
        return Ok(PostgresTable::Missing { tables });
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

/// The driver's configuration, and the address that people may see.
fn configure(url: &str) -> Result<(Config, String), ProbeError> {
    let unread = |cause: String| ProbeError {
        kind: Kind::User,
        what: "read the url of postgres".to_owned(),
        cause,
    };
    let resolved = secret::resolve(url).map_err(|error| unread(error.to_string()))?;
    // The driver's own words may quote a piece of a badly encoded password.
    let parsed: Result<Config, Error> = resolved.expose().parse();
    let mut config = parsed.map_err(|_| {
        let shape = "postgres://user:password@host:port/database";
        unread(format!(
            "write {shape}, special characters of the password as %XX"
        ))
    })?;
    config
        .application_name("millstream/check")
        .connect_timeout(PATIENCE);
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        #[cfg(unix)]
        Some(Host::Unix(path)) => path.display().to_string(),
        None => return Err(unread("it names no host".to_owned())),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let user = config.get_user().unwrap_or("the system's user");
    let database = config.get_dbname().unwrap_or(user);
    let address = format!("postgres at {host}:{port}/{database} as {user}");
    Ok((config, address))
}

fn explain(error: &Error) -> (Kind, String) {
    let Some(answer) = error.as_db_error() else {
        let cause = chain(error);
        let kind = if cause.contains("password missing") {
            Kind::User
        } else {
            Kind::External
        };
        return (kind, cause);
    };
    let message = answer.message();
    let code = answer.code();
    if code.code().starts_with("28") {
        let cause = format!("{message}: check the user and the password in the url");
        return (Kind::User, cause);
    }
    if *code == SqlState::INVALID_CATALOG_NAME {
        return (Kind::User, format!("{message}: create it with createdb"));
    }
    // Connection, resources, operator intervention (starting up, shutting down), system.
    let passes = ["08", "53", "57", "58"];
    let passes = passes.iter().any(|class| code.code().starts_with(class));
    let kind = if passes { Kind::External } else { Kind::User };
    (kind, format!("{message} [{}]", code.code()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named_without_the_password() {
        let asked = table("postgres://me:hunter2@127.0.0.1:1/db", "clicks").await;
        let refused = asked.expect_err("nobody listens");
        assert_eq!(refused.kind, Kind::External);
        let text = refused.to_string();
        assert!(text.contains("127.0.0.1:1"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[tokio::test]
    async fn a_url_that_is_none_is_not_quoted() {
        let refused = table("host: hunter2", "clicks").await;
        let text = refused.expect_err("a broken url").to_string();
        assert!(text.contains("%XX"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}
