//! The SQL that moves rows: COPY into the table or the staging table, and the merge from there.
//!
//! Made by `mod.rs` once a connection from the [`Target`]; run by `apply.rs`. Holds names only, never values. The
//! staging table is temporary, lives as long as the session, and is emptied by each commit.

use super::names::{quote, quote_all};
use super::table::Target;

/// What a staged row is to do; the values of `_op`.
const OP: &str = "_millstream_op";
/// The row's place in the run, so that of several rows with one key the right one counts.
const POSITION: &str = "_millstream_position";
const STAGE: &str = "pg_temp.millstream_stage";
const STAGE_INDEX: &str = "millstream_stage_position";

/// The statements of one target.
#[derive(Clone, Debug)]
pub(super) struct Statements {
    /// Makes the staging table of the session.
    pub create_stage: String,
    /// Rows straight into the table or, where it has a key, with `_op` and position into the staging table.
    pub copy: String,
    /// Removes keys whose row that counts is a delete.
    pub delete: Merge,
    /// Writes rows that count and are no deletes.
    pub upsert: Merge,
    /// Leaves in the staging table only the row of each key that counts, and makes it quick to
    /// take by position.
    pub prune: String,
    /// Undoes what `prune` added to the session.
    pub end_prune: String,
    /// The staged row at position $1 as JSON.
    pub staged_row: String,
}

/// A statement over the staged rows: all of them, or those of `$1 <= position < $2`.
#[derive(Clone, Debug)]
pub(super) struct Merge {
    /// Over all.
    pub all: String,
    /// Over a range of a pruned staging table.
    pub range: String,
}

impl Statements {
    /// The statements for `target`.
    pub(super) fn new(target: &Target) -> Self {
        let names = || target.columns.iter().map(|column| column.name.as_str());
        let columns = quote_all(names());
        let table = &target.name;
        let key = quote_all(target.primary_key.iter().map(String::as_str));
        let order = if target.ignores_conflicts {
            "ASC"
        } else {
            "DESC"
        };
        let counting = |what: &str, range: &str| {
            format!(
                "SELECT DISTINCT ON ({key}) {what} FROM {STAGE}{range} ORDER BY {key}, {POSITION} {order}"
            )
        };
        Self {
            create_stage: format!(
                "CREATE TEMP TABLE IF NOT EXISTS millstream_stage ON COMMIT DELETE ROWS AS \
                 SELECT {columns}, 0::int2 AS {OP}, 0::int8 AS {POSITION} FROM {table} WITH NO DATA"
            ),
            copy: match target.is_keyed() {
                true => {
                    format!("COPY {STAGE} ({columns}, {OP}, {POSITION}) FROM STDIN (FORMAT binary)")
                }
                false => format!("COPY {table} ({columns}) FROM STDIN (FORMAT binary)"),
            },
            delete: Merge::new(|range| delete(target, &counting("*", range))),
            upsert: Merge::new(|range| upsert(target, &counting("*", range))),
            prune: format!(
                "DELETE FROM {STAGE} WHERE {POSITION} NOT IN (SELECT {POSITION} FROM ({}) AS counting); \
                 CREATE INDEX {STAGE_INDEX} ON {STAGE} ({POSITION})",
                counting("*", "")
            ),
            end_prune: format!("DROP INDEX pg_temp.{STAGE_INDEX}"),
            staged_row: format!(
                "SELECT (to_jsonb(staged) - '{OP}' - '{POSITION}')::text \
                 FROM {STAGE} AS staged WHERE {POSITION} = $1"
            ),
        }
    }
}

impl Merge {
    fn new(statement: impl Fn(&str) -> String) -> Self {
        let range = format!(" WHERE {POSITION} >= $1 AND {POSITION} < $2");
        Self {
            all: statement(""),
            range: statement(&range),
        }
    }
}

fn delete(target: &Target, counting: &str) -> String {
    let key = target.primary_key.iter().map(|name| quote(name));
    let same: Vec<String> = key
        .map(|name| format!("old.{name} = counting.{name}"))
        .collect();
    format!(
        "DELETE FROM {} AS old USING ({counting}) AS counting WHERE counting.{OP} = 1 AND {}",
        target.name,
        same.join(" AND ")
    )
}

/// In the order of the key, so that two writers of one table do not lock each other out.
fn upsert(target: &Target, counting: &str) -> String {
    let names = || target.columns.iter().map(|column| column.name.as_str());
    let columns = quote_all(names());
    let key = quote_all(target.primary_key.iter().map(String::as_str));
    let sets: Vec<String> = names()
        .filter(|name| !target.primary_key.iter().any(|key| key == name))
        .map(|name| format!("{0} = EXCLUDED.{0}", quote(name)))
        .collect();
    let action = if target.ignores_conflicts || sets.is_empty() {
        "NOTHING".to_owned()
    } else {
        format!("UPDATE SET {}", sets.join(", "))
    };
    format!(
        "INSERT INTO {} ({columns}) SELECT {columns} FROM ({counting}) AS counting \
         WHERE {OP} = 0 ORDER BY {key} ON CONFLICT ({key}) DO {action}",
        target.name
    )
}
