//! `CREATE SOURCE`: columns, checks, metadata and the watermark.
//!
//! Called by `statement`. Column types and expressions are sqlparser's; the words that SQL lacks (`AS` without parentheses,
//! `INCLUDE`, `WATERMARK FOR`) are read here.

use datafusion::sql::sqlparser::ast::{ColumnOption, DataType, Expr, TableConstraint};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_common::plan::Metadata;

use super::statement::{OptionClause, parse_options};
use super::{Name, SyntaxError, expect_word, expected, is_word, next_is, take_word};
use crate::plan::problem::place_at;
use crate::plan::problem::{Place, Problem};

/// `CREATE SOURCE name (...) WITH (...)`.
#[derive(Clone, Debug)]
pub(in crate::plan) struct SourceStatement {
    pub(in crate::plan) name: Name,
    pub(in crate::plan) columns: Vec<ColumnClause>,
    pub(in crate::plan) checks: Vec<CheckClause>,
    pub(in crate::plan) watermark: Option<WatermarkClause>,
    pub(in crate::plan) options: Vec<OptionClause>,
}

/// A column as declared.
#[derive(Clone, Debug)]
pub(in crate::plan) struct ColumnClause {
    pub(in crate::plan) name: Name,
    pub(in crate::plan) not_null: bool,
    pub(in crate::plan) source: ColumnSource,
}

/// Where a declared column comes from.
#[derive(Clone, Debug)]
pub(in crate::plan) enum ColumnSource {
    /// `name TYPE`.
    Record { data_type: DataType, place: Place },
    /// `name TYPE AS expression`.
    Computed {
        data_type: DataType,
        place: Place,
        expression: Box<Expr>,
    },
    /// `INCLUDE ... AS name`; the place of the word behind `INCLUDE`.
    Metadata { metadata: Metadata, place: Place },
}

/// `[CONSTRAINT name] CHECK (condition)`.
#[derive(Clone, Debug)]
pub(in crate::plan) struct CheckClause {
    pub(in crate::plan) name: Option<String>,
    pub(in crate::plan) condition: Expr,
}

/// `WATERMARK FOR column AS expression`.
#[derive(Clone, Debug)]
pub(in crate::plan) struct WatermarkClause {
    pub(in crate::plan) column: Name,
    pub(in crate::plan) expression: Expr,
}

/// Reads what stands behind `CREATE SOURCE`.
pub(super) fn parse_source(parser: &mut Parser<'_>) -> Result<SourceStatement, SyntaxError> {
    let name = Name::fold(&parser.parse_identifier()?);
    let mut source = SourceStatement {
        name,
        columns: Vec::new(),
        checks: Vec::new(),
        watermark: None,
        options: Vec::new(),
    };
    parser.expect_token(&Token::LParen)?;
    loop {
        parse_element(parser, &mut source)?;
        if parser.consume_token(&Token::Comma) {
            continue;
        }
        if parser.consume_token(&Token::RParen) {
            break;
        }
        return Err(expected(parser, ", or ) after a column"));
    }
    while is_include(parser) {
        source.columns.push(parse_include(parser)?);
    }
    source.options = parse_options(parser)?;
    Ok(source)
}

fn parse_element(parser: &mut Parser<'_>, source: &mut SourceStatement) -> Result<(), SyntaxError> {
    let tokens = parser.peek_tokens_with_location::<2>();
    if is_word(&tokens[0].token, "watermark") && is_word(&tokens[1].token, "for") {
        let place = place_at(tokens[0].span);
        if source.watermark.is_some() {
            return Err(Problem::at(place, "a source has one watermark").into());
        }
        source.watermark = Some(parse_watermark(parser)?);
        return Ok(());
    }
    if is_include(parser) {
        source.columns.push(parse_include(parser)?);
        return Ok(());
    }
    let place = place_at(tokens[0].span);
    // Asked word by word: sqlparser would take a column named `key` or `index` for a constraint.
    if is_word(&tokens[0].token, "constraint") || is_word(&tokens[0].token, "check") {
        let Some(TableConstraint::Check(check)) = parser.parse_optional_table_constraint()? else {
            return Err(refused_constraint(place).into());
        };
        source.checks.push(CheckClause {
            name: check.name.map(|name| Name::fold(&name).text),
            condition: *check.expr,
        });
        return Ok(());
    }
    let is_key = is_word(&tokens[1].token, "key");
    if (is_key && (is_word(&tokens[0].token, "primary") || is_word(&tokens[0].token, "foreign")))
        || (is_word(&tokens[0].token, "unique") && tokens[1].token == Token::LParen)
    {
        return Err(refused_constraint(place).into());
    }
    parse_column(parser, source)
}

fn parse_watermark(parser: &mut Parser<'_>) -> Result<WatermarkClause, SyntaxError> {
    expect_word(parser, "watermark")?;
    expect_word(parser, "for")?;
    let column = Name::fold(&parser.parse_identifier()?);
    expect_word(parser, "as")?;
    let expression = parser.parse_expr()?;
    Ok(WatermarkClause { column, expression })
}

fn parse_column(parser: &mut Parser<'_>, source: &mut SourceStatement) -> Result<(), SyntaxError> {
    let name = Name::fold(&parser.parse_identifier()?);
    if matches!(parser.peek_token().token, Token::Comma | Token::RParen) {
        return Err(expected(parser, "a type"));
    }
    let place = place_at(parser.peek_token().span);
    let data_type = parser.parse_data_type()?;
    let mut not_null = false;
    let mut computed = None;
    loop {
        let option_place = place_at(parser.peek_token().span);
        if next_is(parser, "as") && computed.is_none() {
            parser.next_token();
            computed = Some(parser.parse_expr()?);
            continue;
        }
        let check_name = if parser.parse_keyword(Keyword::CONSTRAINT) {
            Some(Name::fold(&parser.parse_identifier()?).text)
        } else {
            None
        };
        match parser.parse_optional_column_option()? {
            Some(ColumnOption::NotNull) => not_null = true,
            Some(ColumnOption::Null) => {}
            Some(ColumnOption::Check(check)) => source.checks.push(CheckClause {
                name: check_name,
                condition: *check.expr,
            }),
            Some(_) => return Err(refused_constraint(option_place).into()),
            None if check_name.is_some() => return Err(expected(parser, "CHECK (...)")),
            None => break,
        }
    }
    source.columns.push(ColumnClause {
        name,
        not_null,
        source: match computed {
            Some(expression) => ColumnSource::Computed {
                data_type,
                place,
                expression: Box::new(expression),
            },
            None => ColumnSource::Record { data_type, place },
        },
    });
    Ok(())
}

fn refused_constraint(place: Place) -> Problem {
    Problem::at(place, "a source enforces NOT NULL and CHECK only")
        .hint("duplicates are removed by SELECT DISTINCT ON (key); keys belong to the sink: primary_key = '...'")
}

/// `INCLUDE` followed by what can be included; a column may be named `include`.
fn is_include(parser: &Parser<'_>) -> bool {
    let tokens = parser.peek_tokens::<3>();
    let word = |token: &Token, word: &str| is_word(token, word);
    word(&tokens[0], "include")
        && (word(&tokens[2], "as") || matches!(tokens[2], Token::SingleQuotedString(_)))
}

fn parse_include(parser: &mut Parser<'_>) -> Result<ColumnClause, SyntaxError> {
    expect_word(parser, "include")?;
    let what = parser.next_token();
    let place = place_at(what.span);
    let word = what.token.to_string().to_lowercase();
    let metadata = match word.as_str() {
        "key" => Metadata::Key,
        "partition" => Metadata::Partition,
        "offset" => Metadata::Offset,
        "timestamp" => Metadata::Timestamp,
        "file" => Metadata::File,
        "header" => Metadata::Header(parser.parse_literal_string()?),
        _ => {
            let names = ["key", "partition", "offset", "timestamp", "header", "file"];
            let problem = Problem::at(place, format!("unknown metadata {word}"));
            return Err(problem.nearest(&word, names).into());
        }
    };
    if !take_word(parser, "as") {
        return Err(expected(parser, "AS name"));
    }
    let name = Name::fold(&parser.parse_identifier()?);
    Ok(ColumnClause {
        name,
        not_null: false,
        source: ColumnSource::Metadata { metadata, place },
    })
}
