//! Whether the rows of an output fit into a table of Postgres.
//!
//! Pure. What loses nothing is converted by the sink (an INTEGER into a bigint column); what might is refused here,
//! with the line to change.

use arrow::datatypes::{DataType, Field, Schema};
use millstream_common::plan::connector::PostgresSinkSpec;

use super::{Obstacle, StatementPlaces, TableColumn, TableShape};
use crate::plan::problem::Problem;
use crate::plan::types::type_name;

/// The table is not there; without a `schema` nobody knows yet what to create.
pub(super) fn missing(
    spec: &PostgresSinkSpec,
    schema: Option<&Schema>,
    tables: &[String],
    places: &StatementPlaces,
) -> Problem {
    let message = format!("there is no table {}", spec.table);
    let problem = Problem::at(places.option("table"), message);
    let create = match schema {
        Some(schema) => format!(
            "add create = 'if_missing', or create it:\n{}",
            create_table(spec, schema)
        ),
        None => "add create = 'if_missing', or create it".to_owned(),
    };
    let bare = spec.table.rsplit('.').next().unwrap_or(&spec.table);
    let names = tables.iter().map(String::as_str);
    match millstream_common::suggest::nearest(bare, names) {
        Some(nearest) => problem.hint(format!("did you mean {nearest}?\n{create}")),
        None => problem.hint(create),
    }
}

/// The table cannot be created.
pub(super) fn obstacle(obstacle: &Obstacle, places: &StatementPlaces) -> Problem {
    let (message, hint) = match obstacle {
        Obstacle::NoSchema(schema) => (
            format!("there is no schema {schema}"),
            format!("create it: CREATE SCHEMA {};", quote(schema)),
        ),
        Obstacle::NotAllowed { schema, user } => (
            format!("user {user} may not create tables in schema {schema}"),
            format!(
                "allow it: GRANT CREATE ON SCHEMA {} TO {};",
                quote(schema),
                quote(user)
            ),
        ),
    };
    Problem::at(places.option("table"), message).hint(hint)
}

fn create_table(spec: &PostgresSinkSpec, schema: &Schema) -> String {
    let mut lines: Vec<String> = schema
        .fields()
        .iter()
        .map(|field| {
            let not_null = if field.is_nullable() { "" } else { " NOT NULL" };
            let column = quote(field.name());
            format!("  {column} {}{not_null}", column_type(field.data_type()))
        })
        .collect();
    if !spec.primary_key.is_empty() {
        lines.push(format!("  PRIMARY KEY ({})", quote_all(&spec.primary_key)));
    }
    format!("CREATE TABLE {} (\n{}\n);", spec.table, lines.join(",\n"))
}

/// The type of a column that holds these values best.
fn column_type(data_type: &DataType) -> String {
    match data_type {
        // A sum may have any number of digits.
        DataType::Decimal128(38, 0) => "NUMERIC".to_owned(),
        other => type_name(other),
    }
}

/// All that does not fit.
pub(super) fn compare(
    spec: &PostgresSinkSpec,
    schema: &Schema,
    shape: &TableShape,
    places: &StatementPlaces,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for field in schema.fields() {
        match shape
            .columns
            .iter()
            .find(|column| column.name == *field.name())
        {
            Some(column) => problems.extend(compare_column(spec, field, column, places)),
            None => problems.push(lacking_column(spec, field, schema, shape, places)),
        }
    }
    for column in &shape.columns {
        let is_written = schema.field_with_name(&column.name).is_ok();
        if !is_written && !column.nullable && !column.filled {
            let message = format!(
                "column {} of table {} must not be NULL, and the rows have no such column",
                column.name, spec.table
            );
            let problem = Problem::at(places.option("table"), message);
            problems.push(problem.hint(format!(
                "select it in the view, or: ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL;",
                spec.table,
                quote(&column.name)
            )));
        }
    }
    problems.extend(missing_index(spec, shape, places));
    problems
}

fn lacking_column(
    spec: &PostgresSinkSpec,
    field: &Field,
    schema: &Schema,
    shape: &TableShape,
    places: &StatementPlaces,
) -> Problem {
    let name = field.name();
    let message = format!("table {} has no column {name}", spec.table);
    let problem = Problem::at(places.option("table"), message);
    // Only columns that no other column of the rows goes into can be meant.
    let free = shape.columns.iter().map(|column| column.name.as_str());
    let free = free.filter(|other| schema.field_with_name(other).is_err());
    let alter = format!(
        "ALTER TABLE {} ADD COLUMN {} {};",
        spec.table,
        quote(name),
        column_type(field.data_type())
    );
    match millstream_common::suggest::nearest(name, free) {
        Some(nearest) => problem.hint(format!(
            "did you mean {nearest}? write AS {nearest} in the view, or: {alter}"
        )),
        None => problem.hint(format!("leave it out of the view, or: {alter}")),
    }
}

fn compare_column(
    spec: &PostgresSinkSpec,
    field: &Field,
    column: &TableColumn,
    places: &StatementPlaces,
) -> Option<Problem> {
    let name = field.name();
    let place = places.option("table");
    if !fits(field.data_type(), &column.type_text) {
        let ours = type_name(field.data_type());
        let message = format!(
            "column {name} is {ours}, which does not fit {} of table {} without loss",
            column.type_text, spec.table
        );
        return Some(Problem::at(place, message).hint(format!(
            "write CAST({name} AS {}) AS {name} in the view, or: ALTER TABLE {} ALTER COLUMN {} TYPE {};",
            column.type_text,
            spec.table,
            quote(name),
            column_type(field.data_type())
        )));
    }
    if field.is_nullable() && !column.nullable {
        let message = format!("column {name} may be NULL, but not in table {}", spec.table);
        return Some(Problem::at(place, message).hint(format!(
            "declare it NOT NULL in its source, select COALESCE({name}, ...) AS {name}, \
             or: ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL;",
            spec.table,
            quote(name)
        )));
    }
    None
}

/// Whether every value of `data_type` can be written into a column of this type as it is. Types that are not known here
/// (an enumeration, a domain) are left to the sink, which asks Postgres for their base.
fn fits(data_type: &DataType, type_text: &str) -> bool {
    let (name, arguments) = split_type(type_text);
    match (name.as_str(), data_type) {
        ("smallint", other) => *other == DataType::Int16,
        ("integer", other) => matches!(other, DataType::Int16 | DataType::Int32),
        ("bigint", other) => {
            matches!(other, DataType::Int16 | DataType::Int32 | DataType::Int64)
        }
        ("real", other) => matches!(other, DataType::Int16 | DataType::Float32),
        ("double precision", other) => matches!(
            other,
            DataType::Int16 | DataType::Int32 | DataType::Float32 | DataType::Float64
        ),
        ("numeric", DataType::Int16 | DataType::Int32 | DataType::Int64) => {
            scale_of(&arguments).is_none_or(|kept| kept >= 0)
        }
        ("numeric", DataType::Decimal128(_, scale)) => {
            scale_of(&arguments).is_none_or(|kept| i32::from(*scale) <= kept)
        }
        ("numeric", _) => false,
        ("boolean", other) => *other == DataType::Boolean,
        ("date", other) => *other == DataType::Date32,
        ("bytea", other) => *other == DataType::Binary,
        ("timestamp without time zone", other) => {
            matches!(other, DataType::Timestamp(_, None) | DataType::Date32)
        }
        ("timestamp with time zone", other) => matches!(other, DataType::Timestamp(_, _)),
        ("text" | "character varying" | "character" | "json" | "jsonb" | "uuid", other) => {
            *other == DataType::Utf8
        }
        _ => true,
    }
}

/// `numeric(10,2)` as `numeric` and `10,2`; `timestamp(3) without time zone` loses its `(3)` too.
fn split_type(type_text: &str) -> (String, String) {
    let Some((before, rest)) = type_text.split_once('(') else {
        return (type_text.to_owned(), String::new());
    };
    let (arguments, after) = rest.split_once(')').unwrap_or((rest, ""));
    (format!("{before}{after}"), arguments.to_owned())
}

/// The digits that a numeric column keeps behind the point; `None` is any number of them.
fn scale_of(arguments: &str) -> Option<i32> {
    if arguments.is_empty() {
        return None;
    }
    let scale = arguments.split_once(',').map_or("0", |(_, scale)| scale);
    scale.trim().parse().ok()
}

/// An upsert needs a unique index over exactly the key.
fn missing_index(
    spec: &PostgresSinkSpec,
    shape: &TableShape,
    places: &StatementPlaces,
) -> Option<Problem> {
    if spec.primary_key.is_empty() {
        return None;
    }
    let mut key = spec.primary_key.clone();
    key.sort();
    let found = shape.unique_indexes.iter().any(|index| {
        let mut columns = index.clone();
        columns.sort();
        columns == key
    });
    if found {
        return None;
    }
    let shown = spec.primary_key.join(", ");
    let message = format!("table {} has no unique index on ({shown})", spec.table);
    let create = format!(
        "CREATE UNIQUE INDEX ON {} ({});",
        spec.table,
        quote_all(&spec.primary_key)
    );
    Some(Problem::at(places.option("primary_key"), message).hint(create))
}

fn quote(name: &str) -> String {
    let plain = name
        .chars()
        .all(|character| matches!(character, 'a'..='z' | '0'..='9' | '_'));
    if plain {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

fn quote_all(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| quote(name)).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_loses_nothing_fits_and_what_might_does_not() {
        let instant = crate::plan::types::timestamptz();
        let time = crate::plan::types::TIMESTAMP;
        for (data_type, type_text) in [
            (DataType::Int32, "bigint"),
            (DataType::Int64, "numeric(20,0)"),
            (DataType::Decimal128(10, 2), "numeric"),
            (DataType::Decimal128(10, 2), "numeric(12,2)"),
            (DataType::Utf8, "character varying(20)"),
            (DataType::Utf8, "mood"),
            (time.clone(), "timestamp(3) without time zone"),
            (time, "timestamp with time zone"),
        ] {
            assert!(fits(&data_type, type_text), "{data_type} {type_text}");
        }
        for (data_type, type_text) in [
            (DataType::Int64, "integer"),
            (DataType::Int64, "double precision"),
            (DataType::Float64, "numeric"),
            (DataType::Decimal128(38, 0), "bigint"),
            (DataType::Decimal128(10, 3), "numeric(12,2)"),
            (DataType::Utf8, "integer"),
            (DataType::Int64, "text"),
            (instant, "timestamp without time zone"),
        ] {
            assert!(!fits(&data_type, type_text), "{data_type} {type_text}");
        }
    }
}
