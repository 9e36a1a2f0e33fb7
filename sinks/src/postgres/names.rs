//! Names in SQL text: how a table option is read, how identifiers are quoted.
//!
//! Used by everything in this folder that writes SQL; values never go into SQL text, only names do, and only
//! through here. Pure.

use std::fmt;

/// A table as the user named it, folded as in Postgres: bare names to lower case, quoted ones exact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableName {
    /// `None`: found by the search path.
    pub schema: Option<String>,
    /// Its name.
    pub table: String,
}

impl TableName {
    /// Reads `name`, `schema.name`, or either part in double quotes.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = split(text)?;
        let table = parts.pop().filter(|part| !part.is_empty());
        let schema = parts.pop();
        match (table, parts.is_empty()) {
            (Some(table), true) => Ok(Self { schema, table }),
            _ => Err(format!("{text:?} is no table: write name or schema.name")),
        }
    }
}

/// As it stands in SQL, quoted.
impl fmt::Display for TableName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(formatter, "{}.", quote(schema))?;
        }
        formatter.write_str(&quote(&self.table))
    }
}

/// `name` as a quoted identifier.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quoted identifiers, joined by commas.
pub(super) fn quote_all<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(quote).collect();
    quoted.join(", ")
}

fn split(text: &str) -> Result<Vec<String>, String> {
    let mut parts = vec![String::new()];
    let mut is_quoted = false;
    let mut characters = text.trim().chars().peekable();
    while let Some(character) = characters.next() {
        let part = parts.last_mut().expect("one part from the beginning");
        match character {
            '"' if is_quoted && characters.peek() == Some(&'"') => {
                characters.next();
                part.push('"');
            }
            '"' => is_quoted = !is_quoted,
            '.' if !is_quoted => parts.push(String::new()),
            other if is_quoted => part.push(other),
            other => part.extend(other.to_lowercase()),
        }
    }
    if is_quoted {
        return Err(format!("{text:?} lacks its closing quote"));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, String> {
        TableName::parse(text).map(|name| name.to_string())
    }

    #[test]
    fn bare_names_fold_and_quoted_ones_are_exact() {
        assert_eq!(shown("Fact_Views").as_deref(), Ok("\"fact_views\""));
        assert_eq!(shown("Web.Views").as_deref(), Ok("\"web\".\"views\""));
        assert_eq!(
            shown("web.\"My.T\"\"x\"").as_deref(),
            Ok("\"web\".\"My.T\"\"x\"")
        );
    }

    #[test]
    fn what_is_no_table_is_refused() {
        for text in ["", "a.b.c", "a.", "\"open"] {
            assert!(TableName::parse(text).is_err(), "{text}");
        }
    }
}
