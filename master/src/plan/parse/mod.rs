//! From text to statements: our own statement parser over sqlparser's.
//!
//! Called by `plan_job` first. Statements are `SET`, `CREATE SOURCE`, `CREATE VIEW` and `CREATE SINK`; everything
//! inside them (columns, expressions, queries) is sqlparser's. Names are folded here, once. Failure: a
//! syntax error is one problem a statement; each ends at its semicolon.

mod source;
mod statement;

pub(super) use source::{ColumnClause, ColumnSource, SourceStatement, WatermarkClause};
pub(super) use statement::{
    OptionClause, OptionValue, SetStatement, SinkStatement, Statement, ViewStatement,
};

use datafusion::sql::sqlparser::ast::Ident;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::problem::{Place, Problem};
use crate::plan::problem::place_at;

/// A folded name and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) text: String,
    pub(super) place: Place,
}

impl Name {
    /// Folds as Postgres does: unquoted to lower case, quoted as it is.
    pub(super) fn fold(ident: &Ident) -> Self {
        let text = match ident.quote_style {
            Some(_) => ident.value.clone(),
            None => ident.value.to_lowercase(),
        };
        Self {
            text,
            place: place_at(ident.span),
        }
    }
}

/// What a text is made of.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) statements: Vec<Statement>,
    /// One for each statement that could not be read.
    pub(super) problems: Vec<Problem>,
    /// The sources and views that could not be read, by name.
    pub(super) broken: Vec<Name>,
}

/// Reads every statement of `sql`.
pub(super) fn parse(sql: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let dialect = GenericDialect {};
    let tokens = match Tokenizer::new(&dialect, sql).tokenize_with_location() {
        Ok(tokens) => tokens,
        Err(error) => {
            let place = Place {
                line: error.location.line,
                column: error.location.column,
                length: 0,
            };
            let message = lower_first(&error.message);
            parsed.problems.push(Problem::at(place, message));
            return parsed;
        }
    };
    // Each statement is read from its own tokens, so that one that cannot be read never takes the next along.
    for statement in tokens.split_inclusive(|token| token.token == Token::SemiColon) {
        let mut parser = Parser::new(&dialect).with_tokens_with_locations(statement.to_vec());
        let first_tokens = parser.peek_tokens_with_location::<3>();
        if matches!(first_tokens[0].token, Token::SemiColon | Token::EOF) {
            continue;
        }
        let result = statement::parse_statement(&mut parser).and_then(|statement| {
            match parser.peek_token().token {
                Token::SemiColon | Token::EOF => Ok(statement),
                _ => Err(expected(&parser, "; at the end of the statement")),
            }
        });
        match result {
            Ok(statement) => parsed.statements.push(statement),
            Err(error) => {
                parsed.problems.push(error.into_problem(statement));
                parsed.broken.extend(relation_name(&first_tokens));
            }
        }
    }
    parsed
}

/// The name behind `CREATE SOURCE` or `CREATE VIEW`.
fn relation_name([create, kind, name]: &[TokenWithSpan; 3]) -> Option<Name> {
    let is_relation = is_word(&kind.token, "source") || is_word(&kind.token, "view");
    match &name.token {
        Token::Word(word) if is_word(&create.token, "create") && is_relation => {
            Some(Name::fold(&word.clone().into_ident(name.span)))
        }
        _ => None,
    }
}

/// Why a statement could not be read.
pub(super) enum SyntaxError {
    /// sqlparser's own text with a place inside.
    Parser(ParserError),
    /// Ours.
    Problem(Problem),
}

impl From<ParserError> for SyntaxError {
    fn from(error: ParserError) -> Self {
        Self::Parser(error)
    }
}

impl From<Problem> for SyntaxError {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl SyntaxError {
    fn into_problem(self, tokens: &[TokenWithSpan]) -> Problem {
        match self {
            Self::Problem(problem) => problem,
            Self::Parser(ParserError::RecursionLimitExceeded) => {
                Problem::at(Place::default(), "expression is nested too deeply")
            }
            Self::Parser(ParserError::ParserError(text) | ParserError::TokenizerError(text)) => {
                located(&text, tokens)
            }
        }
    }
}

/// sqlparser writes the place of an error into its text: `... at Line: 3, Column: 5`.
fn located(text: &str, tokens: &[TokenWithSpan]) -> Problem {
    let (message, place) = match text.rsplit_once(" at Line: ") {
        Some((message, place)) => (message, parse_place(place)),
        None => (text, None),
    };
    let message = lower_first(message)
        .replace("expected: ", "expected ")
        .replace("found: EOF", "found the end of the file")
        .replace("found: ", "found ");
    let place = match place {
        Some((line, column)) => tokens
            .iter()
            .find(|token| token.span.start.line == line && token.span.start.column == column)
            .map_or(
                Place {
                    line,
                    column,
                    length: 1,
                },
                |token| place_at(token.span),
            ),
        None => end_of(tokens),
    };
    Problem::at(place, message)
}

fn parse_place(text: &str) -> Option<(u64, u64)> {
    let (line, column) = text.split_once(", Column: ")?;
    Some((line.trim().parse().ok()?, column.trim().parse().ok()?))
}

/// The last thing written.
fn end_of(tokens: &[TokenWithSpan]) -> Place {
    tokens
        .iter()
        .rev()
        .find(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF))
        .map_or(Place::default(), |token| place_at(token.span))
}

fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => String::new(),
    }
}

/// The error that `what` should stand where the parser is.
pub(super) fn expected(parser: &Parser<'_>, what: &str) -> SyntaxError {
    let found: Result<(), ParserError> = parser.expected(what, parser.peek_token());
    match found {
        Ok(()) => unreachable!("`expected` always makes an error"),
        Err(error) => SyntaxError::Parser(error),
    }
}

/// Whether the next word is `word`, unquoted, in any case.
pub(super) fn next_is(parser: &Parser<'_>, word: &str) -> bool {
    is_word(&parser.peek_token().token, word)
}

/// Takes the next word if it is `word`.
pub(super) fn take_word(parser: &mut Parser<'_>, word: &str) -> bool {
    let found = next_is(parser, word);
    if found {
        parser.next_token();
    }
    found
}

/// Takes `word` or fails.
pub(super) fn expect_word(parser: &mut Parser<'_>, word: &str) -> Result<(), SyntaxError> {
    if take_word(parser, word) {
        Ok(())
    } else {
        Err(expected(parser, word))
    }
}

fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(found) if found.quote_style.is_none()
        && found.value.eq_ignore_ascii_case(word))
}
