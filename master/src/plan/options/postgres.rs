//! Options of the `postgres` sink.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_common::plan::connector::PostgresSinkSpec;

use super::{Options, password};
use crate::plan::parse::Name;

/// Takes the options of a `postgres` sink.
pub(super) fn read(options: &mut Options<'_>) -> PostgresSinkSpec {
    let url = options.required_text("url", "${POSTGRES_URL}");
    if let Some(instead) = password::instead_of_literal(&url) {
        options
            .refuse("url", "the url holds a literal password")
            .hint = Some(instead);
    }
    let given = options.places.contains_key("table");
    let table = if given {
        options.parsed("table", table_name).unwrap_or_default()
    } else {
        options.required_text("table", "fact_page_views")
    };
    let primary_key = options.names("primary_key");
    let conflict = options.word("on_conflict", &[("update", false), ("ignore", true)]);
    if conflict == Some(true) && primary_key.is_empty() {
        options
            .refuse("on_conflict", "on_conflict needs a primary_key")
            .hint = Some("add primary_key = 'column,...'".to_owned());
    }
    PostgresSinkSpec {
        url,
        table,
        primary_key,
        on_conflict_ignore: conflict.unwrap_or(false),
        create_if_missing: options
            .word("create", &[("if_missing", true), ("never", false)])
            .unwrap_or(false),
    }
}

/// `name` or `schema.name`, folded as Postgres folds it and quoted where it needs quotes.
fn table_name(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is no table: write it as 'name' or 'schema.name'");
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect)
        .try_with_sql(text)
        .map_err(|_| wrong())?;
    let mut parts = Vec::new();
    loop {
        let ident = parser.parse_identifier().map_err(|_| wrong())?;
        parts.push(quote_where_needed(&Name::fold(&ident).text));
        if !parser.consume_token(&Token::Period) {
            break;
        }
    }
    if parser.peek_token().token != Token::EOF || parts.len() > 2 {
        return Err(wrong());
    }
    Ok(parts.join("."))
}

fn quote_where_needed(name: &str) -> String {
    let plain = name
        .chars()
        .all(|character| matches!(character, 'a'..='z' | '0'..='9' | '_'))
        && !name.starts_with(|character: char| character.is_ascii_digit());
    if plain {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names_fold_as_in_postgres() {
        assert_eq!(
            table_name("Fact_Page_Views").as_deref(),
            Ok("fact_page_views")
        );
        assert_eq!(table_name("app.\"Views\"").as_deref(), Ok("app.\"Views\""));
        assert!(table_name("a.b.c").is_err());
        assert!(table_name("a b").is_err());
    }
}
