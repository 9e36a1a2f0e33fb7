//! DataFusion's errors as problems: with a place, in our words, with the nearest right name.
//!
//! Called wherever a query or an expression could not be planned.

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;

use super::catalog::Catalog;
use super::problem::{Place, Problem};
use crate::plan::problem::place_in_plan;

/// The problem behind `error`; `fallback` is its place where DataFusion knows none.
pub(super) fn problem_of(error: &DataFusionError, fallback: Place, catalog: &Catalog) -> Problem {
    let diagnostic = error.diagnostic();
    let place = diagnostic
        .and_then(|diagnostic| diagnostic.span)
        .map_or(fallback, place_in_plan);
    if let Some(problem) = schema_problem(error, place) {
        return problem;
    }
    let root = error.find_root().message().into_owned();
    let message = first_line(&root);
    if let Some(name) = message.strip_prefix("unknown relation ") {
        return catalog.unknown(name, place);
    }
    if let Some(rest) = message.strip_prefix("Invalid function '") {
        let name = rest.split('\'').next().unwrap_or(rest);
        let problem = Problem::at(place, format!("unknown function {name}"));
        return match suggested_function(&root) {
            Some(nearest) if millstream_common::suggest::nearest(name, [nearest]).is_some() => {
                problem.hint(format!("did you mean {nearest}?"))
            }
            _ => problem,
        };
    }
    if let Some(problem) = reworded(message, diagnostic.map(|found| &found.message), place) {
        return problem;
    }
    let problem = match diagnostic {
        Some(diagnostic) => {
            let hint = diagnostic
                .helps
                .first()
                .map(|help| help.message.clone())
                .or_else(|| diagnostic.notes.first().map(|note| note.message.clone()));
            Problem {
                hint,
                ..Problem::at(place, lower_first(&diagnostic.message))
            }
        }
        None => Problem::at(place, lower_first(message)),
    };
    Problem {
        message: in_sql_types(first_line(&problem.message)),
        ..problem
    }
}

/// Errors that DataFusion words for its own developers.
fn reworded(message: &str, diagnostic: Option<&String>, place: Place) -> Option<Problem> {
    if let Some(text) = diagnostic.filter(|text| text.contains("must appear in GROUP BY")) {
        let name = text.split('\'').nth(1)?.rsplit('.').next()?;
        let message = format!("{name} is neither in GROUP BY nor inside an aggregate");
        let hint = format!("add it to GROUP BY, or write max({name})");
        return Some(Problem::at(place, message).hint(hint));
    }
    if message.starts_with("Projections require unique expression names") {
        let name = message.split('"').nth(1)?.rsplit('.').next()?;
        let problem = Problem::at(place, format!("column {name} stands twice"));
        return Some(problem.hint("give one of them another name with AS"));
    }
    if message.starts_with("Cannot create filter with non-boolean predicate") {
        let found = in_sql_types(message.rsplit_once(" returning ")?.1);
        let problem = Problem::at(
            place,
            format!("a condition is BOOLEAN, and this is {found}"),
        );
        return Some(problem.hint("compare it with something: = , <> , IS NOT NULL"));
    }
    if let Some(rest) = message.strip_prefix("Cannot coerce arithmetic expression ") {
        let operation = in_sql_types(rest.strip_suffix(" to valid types")?);
        let problem = Problem::at(place, format!("{operation} cannot be computed"));
        return Some(match arithmetic_hint(&operation) {
            Some(hint) => problem.hint(hint),
            None => problem,
        });
    }
    None
}

/// What to write in place of `BIGINT + TEXT` and its like.
fn arithmetic_hint(operation: &str) -> Option<String> {
    const OPERATORS: [&str; 5] = [" + ", " - ", " * ", " / ", " % "];
    const NUMBERS: [&str; 6] = [
        "SMALLINT",
        "INTEGER",
        "BIGINT",
        "REAL",
        "DOUBLE PRECISION",
        "DECIMAL",
    ];
    let mut sides = OPERATORS
        .iter()
        .filter_map(|operator| operation.split_once(operator));
    let (left, right) = sides.next()?;
    let is_number = |side: &str| NUMBERS.iter().any(|number| side.starts_with(number));
    match (left, right) {
        ("TEXT", "TEXT") if operation.contains('+') => Some("texts are joined by ||".to_owned()),
        ("TEXT", number) | (number, "TEXT") if is_number(number) => {
            Some(format!("cast the text: CAST(x AS {number})"))
        }
        ("TIMESTAMP" | "TIMESTAMPTZ" | "DATE", number) if is_number(number) => {
            Some("what is added to a time is an INTERVAL, as in INTERVAL '5 minutes'".to_owned())
        }
        _ => None,
    }
}

/// `text` with the names of Arrow's types replaced by those of SQL.
fn in_sql_types(text: &str) -> String {
    const NAMES: [(&str, &str); 12] = [
        ("Utf8View", "TEXT"),
        ("Utf8", "TEXT"),
        ("Int64", "BIGINT"),
        ("Int32", "INTEGER"),
        ("Int16", "SMALLINT"),
        ("Float64", "DOUBLE PRECISION"),
        ("Float32", "REAL"),
        ("Timestamp(µs, \"UTC\")", "TIMESTAMPTZ"),
        ("Timestamp(µs)", "TIMESTAMP"),
        ("Decimal128(", "DECIMAL("),
        ("Boolean", "BOOLEAN"),
        ("Date32", "DATE"),
    ];
    NAMES.iter().fold(text.to_owned(), |text, (arrow, sql)| {
        text.replace(arrow, sql)
    })
}

fn suggested_function(message: &str) -> Option<&str> {
    message.split_once("Did you mean '")?.1.split('\'').next()
}

fn schema_problem(error: &DataFusionError, place: Place) -> Option<Problem> {
    let DataFusionError::SchemaError(schema_error, _) = error.find_root() else {
        return None;
    };
    Some(match schema_error.as_ref() {
        SchemaError::FieldNotFound {
            field,
            valid_fields,
        } => {
            // Without a diagnostic the column itself may know where it stands.
            let place = field.spans().first().map_or(place, place_in_plan);
            let name = field.name.as_str();
            let exact = valid_fields.iter().find(|known| known.name == name);
            if let (Some(relation), Some(known)) = (&field.relation, exact) {
                let message = format!("unknown column {relation}.{name}");
                let known = known.flat_name();
                return Some(Problem::at(place, message).hint(format!("did you mean {known}?")));
            }
            let problem = Problem::at(place, format!("unknown column {name}"));
            let mut names: Vec<&str> = valid_fields.iter().map(|field| field.name()).collect();
            names.dedup();
            let quoted = names
                .iter()
                .find(|known| known.to_lowercase() == name.to_lowercase());
            match quoted {
                Some(known) => problem.hint(format!("quote it: \"{known}\"")),
                None => match millstream_common::suggest::nearest(name, names.iter().copied()) {
                    Some(nearest) => problem.hint(format!("did you mean {nearest}?")),
                    None => problem.hint(format!("columns are {}", names.join(", "))),
                },
            }
        }
        SchemaError::AmbiguousReference { field } if field.relation.is_none() => {
            Problem::at(place, format!("column {} is ambiguous", field.name))
                .hint("write the relation before it: relation.column")
        }
        // With its relation it is a column of the result, beside another of that name.
        SchemaError::AmbiguousReference { field } => {
            Problem::at(place, format!("column {} stands twice", field.name))
                .hint("give one of them another name with AS")
        }
        SchemaError::DuplicateQualifiedField { name, .. }
        | SchemaError::DuplicateUnqualifiedField { name } => {
            let problem = Problem::at(place, format!("column {name} stands twice"));
            if name.contains('(') {
                // DataFusion names aggregates without the casts inside them.
                problem.hint("compute the cast inside of it as a column of a view before")
            } else {
                problem.hint("give one of them another name with AS")
            }
        }
    })
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or(text).trim_end_matches('.')
}

fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        // `SELECT ...` and other words in capitals stay.
        (Some(first), Some(second)) if !second.is_uppercase() => first
            .to_lowercase()
            .chain(std::iter::once(second))
            .chain(characters)
            .collect(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_that_cannot_be_is_told_what_to_write() {
        for (operation, hint) in [
            ("Int64 + Utf8", "CAST(x AS BIGINT)"),
            ("Utf8 * Float64", "CAST(x AS DOUBLE PRECISION)"),
            ("Decimal128(10, 2) - Utf8", "CAST(x AS DECIMAL(10, 2))"),
            ("Utf8 + Utf8", "||"),
            ("Timestamp(µs, \"UTC\") + Int64", "INTERVAL"),
        ] {
            let told = arithmetic_hint(&in_sql_types(operation)).expect(operation);
            assert!(told.contains(hint), "{operation}: {told}");
        }
        assert_eq!(arithmetic_hint(&in_sql_types("Boolean + Int64")), None);
    }
}
