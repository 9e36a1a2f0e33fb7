//! A table of Postgres: its columns, its keys.
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

use super::ProbeError;

/// How long a connection and its answer may take.
const PATIENCE: Duration = Duration::from_secs(9);

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnInfo {
    /// Its name, exact.
    pub name: String,
    /// Its type as Postgres writes it: `timestamp without time zone`, `numeric(10,2)`.
    pub type_text: String,
    /// NULL is allowed.
    pub nullable: bool,
    /// It is filled where a row does not name it: by a default, an identity or a generation.
    pub default: Option<String>,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// Its columns, in order.
    pub columns: Vec<ColumnInfo>,
    /// The columns of its primary key, in order.
    pub primary_key: Option<Vec<String>>,
    /// The columns of each unique index that ON CONFLICT can name, the primary key's among them: without condition
    /// or expression, and not deferred.
    pub unique_indexes: Vec<Vec<String>>,
}

const FIND_TABLE: &str = "SELECT to_regclass($1)::oid";
const COLUMNS: &str = "\
    SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), NOT a.attnotnull, \
           CASE WHEN a.attidentity <> '' THEN 'identity' ELSE pg_get_expr(d.adbin, d.adrelid) END \
    FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
const UNIQUE_INDEXES: &str = "\
    SELECT i.indisprimary, ARRAY( \
        SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place) \
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
        WHERE k.place <= i.indnkeyatts ORDER BY k.place) \
    FROM pg_index i WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate \
      AND i.indpred IS NULL AND i.indexprs IS NULL ORDER BY i.indisprimary DESC, i.indexrelid";

/// Looks `table` up at `url`.
pub(super) async fn table(url: &str, table: &str) -> Result<Option<TableInfo>, ProbeError> {
    let (config, address) = configure(url)?;
    let what = format!("look up table {table} in {address}");
    let answer = tokio::time::timeout(PATIENCE, ask(&config, table)).await;
    match answer {
        Ok(Ok(table)) => Ok(table),
        Ok(Err(error)) => {
            let (kind, cause) = explain(&error);
            Err(ProbeError { kind, what, cause })
        }
        Err(_) => Err(ProbeError {
            kind: Kind::External,
            what,
            cause: format!(
                "no answer within {} seconds: check the address, and that Postgres runs",
                PATIENCE.as_secs()
            ),
        }),
    }
}

async fn ask(config: &Config, table: &str) -> Result<Option<TableInfo>, Error> {
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

async fn read(client: &Client, table: &str) -> Result<Option<TableInfo>, Error> {
    let found = client.query_one(FIND_TABLE, &[&table]).await?;
    let Some(oid) = found.try_get::<_, Option<u32>>(0)? else {
        return Ok(None);
    };
    let mut columns = Vec::new();
    for row in client.query(COLUMNS, &[&oid]).await? {
        columns.push(ColumnInfo {
            name: row.try_get(0)?,
            type_text: row.try_get(1)?,
            nullable: row.try_get(2)?,
            default: row.try_get(3)?,
        });
    }
    let mut primary_key = None;
    let mut unique_indexes = Vec::new();
    for row in client.query(UNIQUE_INDEXES, &[&oid]).await? {
        let index: Vec<String> = row.try_get(1)?;
        if row.try_get(0)? {
            primary_key = Some(index.clone());
        }
        unique_indexes.push(index);
    }
    Ok(Some(TableInfo {
        columns,
        primary_key,
        unique_indexes,
    }))
}

/// The driver's configuration, and the address that people may see.
fn configure(url: &str) -> Result<(Config, String), ProbeError> {
    let refused = |cause: String| ProbeError {
        kind: Kind::User,
        what: "read the url of postgres".to_owned(),
        cause,
    };
    let resolved = secret::resolve(url).map_err(|error| refused(error.to_string()))?;
    // The driver's own words may quote a piece of a badly encoded password.
    let parsed: Result<Config, Error> = resolved.expose().parse();
    let mut config = parsed.map_err(|_| {
        refused(
            "write postgres://user:password@host:port/database, special characters of the password as %XX"
                .to_owned(),
        )
    })?;
    config
        .application_name("millstream/check")
        .connect_timeout(PATIENCE);
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        #[cfg(unix)]
        Some(Host::Unix(path)) => path.display().to_string(),
        None => return Err(refused("it names no host".to_owned())),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let user = config.get_user().unwrap_or("the system's user");
    let database = config.get_dbname().unwrap_or(user);
    let address = format!("postgres at {host}:{port}/{database} as {user}");
    Ok((config, address))
}

fn explain(error: &Error) -> (Kind, String) {
    let Some(answer) = error.as_db_error() else {
        let kind = if error.to_string().contains("password missing") {
            Kind::User
        } else {
            Kind::External
        };
        return (kind, chain(error));
    };
    let message = answer.message();
    let code = answer.code();
    if *code == SqlState::INVALID_PASSWORD || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION
    {
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
        assert!(text.contains("127.0.0.1:1/db as me"), "{text}");
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
