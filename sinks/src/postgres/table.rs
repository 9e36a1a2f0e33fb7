//! The table that a sink writes to, as it really is, and whether the output fits into it.
//!
//! Loaded by `mod.rs` once a connection, right after fencing. All that can be wrong with a table is found
//! here, before a row is sent: missing table or column, types, missing unique index; each
//! is refused with the statement to write. Never alters a table; creates one only when asked.

use std::collections::BTreeSet;

use arrow::datatypes::{Field, Schema};
use millstream_common::plan::connector::PostgresSinkSpec;
use millstream_common::suggest::nearest;
use tokio_postgres::Client;

use super::copy::CopyColumn;
use super::error::classify;
use super::names::{TableName, quote, quote_all};
use super::types::{TargetType, best_type, encoding};
use crate::sink::SinkError;

const FIND_TABLE: &str =
    "SELECT c.oid, c.relkind::text FROM pg_catalog.pg_class c WHERE c.oid = to_regclass($1)";
const TABLES_BESIDE: &str = "SELECT c.relname::text FROM pg_catalog.pg_class c \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'p') AND n.nspname = coalesce($1, current_schema()) ORDER BY 1 LIMIT 10000";
/// Of a domain the base type counts.
const COLUMNS: &str = "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), \
       coalesce(b.typname, t.typname)::text, coalesce(b.typtype, t.typtype)::text = 'e', \
       CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END, \
       a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND a.attgenerated = '', \
       a.attgenerated <> '' \
     FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
     LEFT JOIN pg_catalog.pg_type b ON t.typtype = 'd' AND b.oid = t.typbasetype \
     WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
/// Of each index that can stand behind ON CONFLICT.
const UNIQUE_INDEXES: &str = "SELECT array_agg(a.attname::text) FROM pg_catalog.pg_index i \
     JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid \
       AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) \
     WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate \
       AND i.indpred IS NULL AND i.indexprs IS NULL GROUP BY i.indexrelid";

/// The table, and how the output's columns go into it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// Its name.
    pub name: TableName,
    /// The output's columns, in their order.
    pub columns: Vec<CopyColumn>,
    /// Upsert by these; empty appends.
    pub primary_key: Vec<String>,
    /// Keep the row that is there.
    pub ignores_conflicts: bool,
}

impl Target {
    /// Whether rows go through the staging table.
    pub(super) fn is_keyed(&self) -> bool {
        !self.primary_key.is_empty()
    }

    /// Looks the table up, or creates it if the spec asks for that, and compares it to `schema` (without `_op`).
    pub(super) async fn load(
        client: &Client,
        spec: &PostgresSinkSpec,
        schema: &Schema,
        address: &str,
    ) -> Result<Self, SinkError> {
        let loader = Loader::new(client, spec, schema, address);
        let name = loader.name()?;
        let oid = loader.find_or_create(&name).await?;
        loader.load(name, oid).await
    }

    /// Finds all that [`Target::load`] would refuse, and changes nothing.
    pub(super) async fn check(
        client: &Client,
        spec: &PostgresSinkSpec,
        schema: &Schema,
        address: &str,
    ) -> Result<(), SinkError> {
        let loader = Loader::new(client, spec, schema, address);
        let name = loader.name()?;
        match loader.find(&name).await? {
            Some(oid) => loader.load(name, oid).await.map(drop),
            None if spec.create_if_missing => loader.create_statement(&name).map(drop),
            None => Err(loader.missing(&name).await),
        }
    }
}

/// A column of the table.
#[derive(Clone, Debug)]
struct TableColumn {
    name: String,
    kind: TargetType,
    /// NOT NULL, and nothing fills it in.
    is_required: bool,
    is_generated: bool,
}

struct Loader<'a> {
    client: &'a Client,
    spec: &'a PostgresSinkSpec,
    schema: &'a Schema,
    what: String,
}

impl<'a> Loader<'a> {
    fn new(
        client: &'a Client,
        spec: &'a PostgresSinkSpec,
        schema: &'a Schema,
        address: &str,
    ) -> Self {
        Self {
            client,
            spec,
            schema,
            what: format!("write to table {} of {address}", spec.table),
        }
    }

    fn name(&self) -> Result<TableName, SinkError> {
        self.check_key()?;
        TableName::parse(&self.spec.table).map_err(|cause| self.refused(cause))
    }

    async fn load(&self, name: TableName, oid: u32) -> Result<Target, SinkError> {
        let columns = self.columns(oid).await?;
        let target = Target {
            columns: self.matched(&name, &columns)?,
            primary_key: self.spec.primary_key.clone(),
            ignores_conflicts: self.spec.on_conflict_ignore,
            name,
        };
        if target.is_keyed() {
            self.check_unique_index(oid, &target).await?;
        }
        Ok(target)
    }

    fn refused(&self, cause: impl ToString) -> SinkError {
        SinkError::refused(&self.what, cause)
    }

    fn failed(&self, error: &tokio_postgres::Error) -> SinkError {
        classify(&self.what, error)
    }

    fn check_key(&self) -> Result<(), SinkError> {
        for key in &self.spec.primary_key {
            if self.schema.column_with_name(key).is_none() {
                let names = self
                    .schema
                    .fields()
                    .iter()
                    .map(|field| field.name().as_str());
                let hint = suggestion(key, names);
                return Err(self.refused(format!(
                    "primary_key names column {key}, which the sink's rows lack{hint}"
                )));
            }
        }
        if self.spec.on_conflict_ignore && self.spec.primary_key.is_empty() {
            return Err(self.refused("on_conflict = 'ignore' needs primary_key"));
        }
        Ok(())
    }

    async fn find_or_create(&self, name: &TableName) -> Result<u32, SinkError> {
        let mut found = self.find(name).await?;
        if found.is_none() && self.spec.create_if_missing {
            self.create(name).await?;
            found = self.find(name).await?;
        }
        match found {
            Some(oid) => Ok(oid),
            None => Err(self.missing(name).await),
        }
    }

    async fn find(&self, name: &TableName) -> Result<Option<u32>, SinkError> {
        let found = self
            .client
            .query_opt(FIND_TABLE, &[&name.to_string()])
            .await;
        let Some(row) = found.map_err(|error| self.failed(&error))? else {
            return Ok(None);
        };
        match row.get::<_, &str>(1) {
            "r" | "p" => Ok(Some(row.get(0))),
            _ => Err(self.refused("it is a view or foreign table, not a table")),
        }
    }

    async fn missing(&self, name: &TableName) -> SinkError {
        let rows = match self.client.query(TABLES_BESIDE, &[&name.schema]).await {
            Ok(rows) => rows,
            Err(error) => return self.failed(&error),
        };
        let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let hint = suggestion(&name.table, names.iter().map(String::as_str));
        let statement = self.create_statement(name).unwrap_or_default();
        self.refused(format!(
            "the table does not exist{hint}: write create = 'if_missing', or run {statement}"
        ))
    }

    async fn create(&self, name: &TableName) -> Result<(), SinkError> {
        let statement = self.create_statement(name)?;
        match self.client.batch_execute(&statement).await {
            Ok(()) => Ok(()),
            Err(error) if is_creation_race(&error) => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Columns, NOT NULL and primary key, nothing more.
    fn create_statement(&self, name: &TableName) -> Result<String, SinkError> {
        let mut lines = Vec::new();
        for field in self.schema.fields() {
            let kind = best_type(field.data_type()).ok_or_else(|| self.no_type(field))?;
            let is_key = self.spec.primary_key.contains(field.name());
            let not_null = if field.is_nullable() && !is_key {
                ""
            } else {
                " NOT NULL"
            };
            lines.push(format!("{} {kind}{not_null}", quote(field.name())));
        }
        if !self.spec.primary_key.is_empty() {
            let key = quote_all(self.spec.primary_key.iter().map(String::as_str));
            lines.push(format!("PRIMARY KEY ({key})"));
        }
        Ok(format!(
            "CREATE TABLE IF NOT EXISTS {name} ({})",
            lines.join(", ")
        ))
    }

    fn no_type(&self, field: &Field) -> SinkError {
        self.refused(format!(
            "column {}: values of type {} have no type in Postgres; write CAST({} AS TEXT)",
            field.name(),
            field.data_type(),
            field.name()
        ))
    }

    async fn columns(&self, oid: u32) -> Result<Vec<TableColumn>, SinkError> {
        let rows = self.client.query(COLUMNS, &[&oid]).await;
        let rows = rows.map_err(|error| self.failed(&error))?;
        let columns = rows.iter().map(|row| TableColumn {
            name: row.get(0),
            kind: TargetType {
                shown: row.get(1),
                name: row.get(2),
                is_enum: row.get(3),
                modifier: row.get(4),
            },
            is_required: row.get(5),
            is_generated: row.get(6),
        });
        Ok(columns.collect())
    }

    /// Pairs the output's columns with the table's by name; gathers all that is wrong before it refuses.
    fn matched(
        &self,
        table: &TableName,
        columns: &[TableColumn],
    ) -> Result<Vec<CopyColumn>, SinkError> {
        let mut matched = Vec::new();
        let mut problems = Vec::new();
        for (index, field) in self.schema.fields().iter().enumerate() {
            let column = columns.iter().find(|column| column.name == *field.name());
            match self.fit(table, field, column, columns) {
                Ok(encoding) => matched.push(CopyColumn {
                    name: field.name().clone(),
                    index,
                    encoding,
                }),
                Err(problem) => problems.push(problem),
            }
        }
        for column in columns.iter().filter(|column| column.is_required) {
            if self.schema.column_with_name(&column.name).is_none() {
                problems.push(format!(
                    "column {} is NOT NULL without a default and the sink's rows lack it",
                    column.name
                ));
            }
        }
        if problems.is_empty() {
            Ok(matched)
        } else {
            Err(self.refused(problems.join("; ")))
        }
    }

    fn fit(
        &self,
        table: &TableName,
        field: &Field,
        column: Option<&TableColumn>,
        columns: &[TableColumn],
    ) -> Result<super::types::Encoding, String> {
        let name = field.name();
        let best = best_type(field.data_type());
        let shown = best
            .clone()
            .unwrap_or_else(|| field.data_type().to_string());
        let Some(column) = column else {
            let hint = suggestion(name, columns.iter().map(|column| column.name.as_str()));
            return Err(format!(
                "the table has no column {name}{hint}: write ALTER TABLE {table} ADD COLUMN {} {shown}",
                quote(name)
            ));
        };
        if column.is_generated {
            return Err(format!(
                "column {name} is generated by the table: leave it out"
            ));
        }
        encoding(field.data_type(), &column.kind).ok_or_else(|| {
            let target = &column.kind.shown;
            let alter = match best {
                Some(best) => format!(
                    "ALTER TABLE {table} ALTER COLUMN {} TYPE {best}, or ",
                    quote(name)
                ),
                None => String::new(),
            };
            format!(
                "column {name}: the rows hold {shown} but the table has {target}: \
                 write {alter}CAST({name} AS {target}) in the query"
            )
        })
    }

    async fn check_unique_index(&self, oid: u32, target: &Target) -> Result<(), SinkError> {
        let rows = self.client.query(UNIQUE_INDEXES, &[&oid]).await;
        let rows = rows.map_err(|error| self.failed(&error))?;
        let wanted: BTreeSet<&str> = target.primary_key.iter().map(String::as_str).collect();
        let is_there = rows.iter().any(|row| {
            let columns: Vec<String> = row.get(0);
            columns.iter().map(String::as_str).collect::<BTreeSet<_>>() == wanted
        });
        if is_there {
            return Ok(());
        }
        let key = quote_all(target.primary_key.iter().map(String::as_str));
        Err(self.refused(format!(
            "upserting by primary_key needs a unique index: run CREATE UNIQUE INDEX ON {} ({key})",
            target.name
        )))
    }
}

/// Two sessions that create one table at once: one of them gets a unique violation of the catalog.
pub(super) fn is_creation_race(error: &tokio_postgres::Error) -> bool {
    const CODES: [&str; 3] = ["23505", "42P07", "42710"];
    let code = error.code().map(|code| code.code());
    code.is_some_and(|code| CODES.contains(&code))
}

fn suggestion<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(name, candidates) {
        Some(candidate) => format!(" (did you mean {candidate}?)"),
        None => String::new(),
    }
}
