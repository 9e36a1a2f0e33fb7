//! The statements of a job and their `WITH (...)` options.
//!
//! Called by `parse` for each statement. Options are read as written, names with their places; what they mean
//! is decided in `plan/options`.

use datafusion::sql::sqlparser::ast::{Query, Value};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;

use super::source::{SourceStatement, parse_source};
use super::{Name, SyntaxError, expect_word, expected, next_is, take_word};
use crate::plan::problem::place_at;
use crate::plan::problem::{Place, Problem};

/// A statement of a job.
#[derive(Clone, Debug)]
pub(in crate::plan) enum Statement {
    Set(SetStatement),
    Source(Box<SourceStatement>),
    View(ViewStatement),
    Sink(SinkStatement),
}

/// `SET name = value`.
#[derive(Clone, Debug)]
pub(in crate::plan) struct SetStatement {
    pub(in crate::plan) option: OptionClause,
}

/// `CREATE VIEW name AS query`.
#[derive(Clone, Debug)]
pub(in crate::plan) struct ViewStatement {
    pub(in crate::plan) name: Name,
    pub(in crate::plan) query: Box<Query>,
}

/// `CREATE SINK name FROM relation WITH (...)`.
#[derive(Clone, Debug)]
pub(in crate::plan) struct SinkStatement {
    pub(in crate::plan) name: Name,
    /// `clicks`, or `clicks.dead_letters`.
    pub(in crate::plan) relation: Name,
    pub(in crate::plan) options: Vec<OptionClause>,
}

/// `name = value` of `SET` or `WITH`.
#[derive(Clone, Debug)]
pub(in crate::plan) struct OptionClause {
    pub(in crate::plan) name: Name,
    pub(in crate::plan) value: OptionValue,
    pub(in crate::plan) place: Place,
}

/// The value of an option, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::plan) enum OptionValue {
    /// In quotes; may hold references.
    Text(String),
    /// A number or `true` or `false` without quotes.
    Bare(String),
}

impl OptionValue {
    /// The value without its quotes.
    pub(in crate::plan) fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Bare(text) => text,
        }
    }
}

const STATEMENTS_HINT: &str =
    "a job is made of SET, CREATE SOURCE, CREATE VIEW and CREATE SINK statements";

/// Reads one statement, up to but without its semicolon.
pub(super) fn parse_statement(parser: &mut Parser<'_>) -> Result<Statement, SyntaxError> {
    if take_word(parser, "set") {
        let option = parse_option(parser)?;
        return Ok(Statement::Set(SetStatement { option }));
    }
    if !next_is(parser, "create") {
        return Err(unknown_statement(parser).into());
    }
    let create = parser.next_token();
    if take_word(parser, "source") {
        return Ok(Statement::Source(Box::new(parse_source(parser)?)));
    }
    if take_word(parser, "view") {
        return parse_view(parser);
    }
    if take_word(parser, "sink") {
        return parse_sink(parser);
    }
    let kind = parser.peek_token();
    let mut place = place_at(create.span);
    let kind_place = place_at(kind.span);
    if kind_place.line == place.line {
        place.length = kind_place.column + kind_place.length - place.column;
    }
    let word = kind.token.to_string();
    let problem = Problem::at(place, format!("unknown statement CREATE {word}"));
    Err(hint_for_create(problem, &word).into())
}

fn hint_for_create(problem: Problem, word: &str) -> Problem {
    let instead = match word.to_uppercase().as_str() {
        "TABLE" => "write CREATE SOURCE for what is read and CREATE SINK for what is written",
        "MATERIALIZED" | "OR" | "TEMPORARY" | "TEMP" | "RECURSIVE" => {
            "write CREATE VIEW name AS SELECT ..."
        }
        "INDEX" | "SCHEMA" | "DATABASE" | "FUNCTION" => STATEMENTS_HINT,
        _ => {
            let kinds = ["source", "view", "sink"];
            return match millstream_common::suggest::nearest(word, kinds) {
                Some(kind) => problem.hint(format!("did you mean CREATE {}?", kind.to_uppercase())),
                None => problem.hint(STATEMENTS_HINT),
            };
        }
    };
    problem.hint(instead)
}

fn unknown_statement(parser: &Parser<'_>) -> Problem {
    let token = parser.peek_token();
    let word = token.token.to_string();
    let problem = Problem::at(place_at(token.span), format!("unknown statement {word}"));
    match word.to_uppercase().as_str() {
        "SELECT" | "WITH" | "INSERT" => {
            problem.hint("write CREATE VIEW name AS SELECT ..., and CREATE SINK ... FROM name")
        }
        _ => match millstream_common::suggest::nearest(&word, ["create", "set"]) {
            Some(nearest) => problem.hint(format!("did you mean {}?", nearest.to_uppercase())),
            None => problem.hint(STATEMENTS_HINT),
        },
    }
}

fn parse_view(parser: &mut Parser<'_>) -> Result<Statement, SyntaxError> {
    let name = Name::fold(&parser.parse_identifier()?);
    expect_word(parser, "as")?;
    let query = parser.parse_query()?;
    Ok(Statement::View(ViewStatement { name, query }))
}

fn parse_sink(parser: &mut Parser<'_>) -> Result<Statement, SyntaxError> {
    let name = Name::fold(&parser.parse_identifier()?);
    if next_is(parser, "as") {
        let place = place_at(parser.peek_token().span);
        let problem = Problem::at(place, "a sink reads a relation by its name");
        return Err(problem
            .hint("write CREATE VIEW name AS SELECT ..., then CREATE SINK ... FROM name")
            .into());
    }
    expect_word(parser, "from")?;
    let mut relation = Name::fold(&parser.parse_identifier()?);
    if parser.consume_token(&Token::Period) {
        let part = Name::fold(&parser.parse_identifier()?);
        if part.place.line == relation.place.line {
            let end = part.place.column + part.place.length;
            relation.place.length = end - relation.place.column;
        }
        relation.text = format!("{}.{}", relation.text, part.text);
    }
    let options = parse_options(parser)?;
    Ok(Statement::Sink(SinkStatement {
        name,
        relation,
        options,
    }))
}

/// `WITH (name = value, ...)`, required.
pub(super) fn parse_options(parser: &mut Parser<'_>) -> Result<Vec<OptionClause>, SyntaxError> {
    if !parser.parse_keyword(Keyword::WITH) {
        return Err(expected(parser, "WITH (connector = '...', ...)"));
    }
    parser.expect_token(&Token::LParen)?;
    let mut options = Vec::new();
    while parser.peek_token().token != Token::RParen {
        options.push(parse_option(parser)?);
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    if parser.peek_token().token != Token::RParen {
        return Err(expected(parser, ", or ) after an option"));
    }
    parser.next_token();
    Ok(options)
}

fn parse_option(parser: &mut Parser<'_>) -> Result<OptionClause, SyntaxError> {
    // A name in single quotes has no place of its own.
    let name_place = place_at(parser.peek_token().span);
    let name = Name {
        place: name_place,
        ..Name::fold(&parser.parse_identifier()?)
    };
    if parser.peek_token().token == Token::Period {
        let problem = Problem::at(name.place, "an option whose name has a point needs quotes");
        return Err(problem
            .hint(format!("quote it: \"{}.…\" = '…'", name.text))
            .into());
    }
    if !parser.consume_token(&Token::Eq) {
        return Err(expected(parser, "= after the option's name"));
    }
    let first = parser.peek_token();
    let mut place = place_at(first.span);
    let negative = parser.consume_token(&Token::Minus);
    if negative {
        let number = place_at(parser.peek_token().span);
        place.length = number.column + number.length - place.column;
    }
    let Ok(value) = parser.parse_value() else {
        let problem = Problem::at(place, format!("expected a value, found {}", first.token));
        return Err(problem.hint("put text in single quotes").into());
    };
    let value = match value.value {
        Value::SingleQuotedString(text) => OptionValue::Text(text),
        Value::Number(text, _) if negative => OptionValue::Bare(format!("-{text}")),
        Value::Number(text, _) => OptionValue::Bare(text),
        Value::Boolean(value) => OptionValue::Bare(value.to_string()),
        other => {
            let problem = Problem::at(place, format!("{other} is no value of an option"));
            return Err(problem.hint("put text in single quotes").into());
        }
    };
    Ok(OptionClause { name, value, place })
}
