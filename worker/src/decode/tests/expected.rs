//! The short way into columns. Goal: what it makes of a value is what the general way makes of it. Method: values of all kinds, well
//! and badly written, go both ways into a column of each type; columns and refusals are compared.

use arrow::array::ArrayRef;
use proptest::prelude::*;

use super::*;
use crate::decode::columns::{Block, Column};
use crate::decode::json::walk::ObjectWalker;
use crate::decode::refusals::Refusals;
use crate::decode::token::{Token, TokenKind};

/// A column of each type that records fill.
fn types() -> Vec<(DataType, &'static str)> {
    vec![
        (DataType::Boolean, "BOOLEAN"),
        (DataType::Int16, "SMALLINT"),
        (DataType::Int32, "INTEGER"),
        (DataType::Int64, "BIGINT"),
        (DataType::Float32, "REAL"),
        (DataType::Float64, "DOUBLE"),
        (DataType::Decimal128(10, 2), "NUMERIC(10, 2)"),
        (DataType::Decimal128(38, 0), "NUMERIC(38)"),
        (DataType::Utf8, "TEXT"),
        (DataType::Utf8, "JSON"),
        (DataType::Binary, "BYTEA"),
        (DataType::Date32, "DATE"),
        (DataType::Time64(TimeUnit::Microsecond), "TIME"),
        (timestamp(), "TIMESTAMP"),
        (
            DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
            "TIMESTAMPTZ",
        ),
    ]
}

/// A well-formed JSON value.
fn value() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        "-?(0|[1-9][0-9]{0,21})",
        "-?(0|[1-9][0-9]{0,8})\\.[0-9]{1,18}",
        "[1-9](\\.[0-9]{1,3})?e-?[0-9]{1,2}"
    ];
    let time = "[0-9]{4}-[01][0-9]-[0-3][0-9]([T ][0-2][0-9]:[0-6][0-9](:[0-6][0-9](\\.[0-9]{0,10})?)?(Z|[+-]0[0-9]:?[0-9]{2})?)?";
    let text = prop_oneof![
        number.clone(),
        " {0,1}[0-9]{1,3} {0,1}",
        time,
        "[0-2][0-9]:[0-6][0-9]:[0-6][0-9]",
        prop::sample::select(vec![
            "",
            "true",
            "F",
            "inf",
            "NaN",
            "{}",
            "\\\\x00ff",
            "\\\"\\u00e4\\n",
            "ä€😀"
        ])
        .prop_map(str::to_owned),
        "[ -!#-\\[\\]-~]{0,60}",
    ];
    prop_oneof![
        2 => number,
        4 => text.prop_map(|text| format!("\"{text}\"")),
        1 => prop::sample::select(vec!["true", "false", "null", "{\"a\":[1,\"ä\"]}", "[]"]).prop_map(str::to_owned),
    ]
}

/// What came of a column: its values, and who was refused with which code.
type Made = (ArrayRef, Vec<(usize, Code)>);

fn refused(refusals: Refusals) -> Vec<(usize, Code)> {
    let refusals = refusals.into_sorted();
    let refusals = refusals.iter();
    refusals
        .map(|refusal| (refusal.record, refusal.code))
        .collect()
}

fn the_short_way(column: &mut Column, texts: &[&[u8]], tokens: &[Token]) -> Made {
    let mut refusals = Refusals::new(texts.len());
    let block = Block {
        texts,
        tokens,
        width: 1,
        first_record: 0,
    };
    column.begin(texts.len());
    column.append_block(&block, 0, &mut refusals);
    (column.finish(), refused(refusals))
}

fn the_general_way(column: &mut Column, is_json: bool, texts: &[&[u8]], tokens: &[Token]) -> Made {
    let mut refusals = Refusals::new(texts.len());
    let mut scratch = String::new();
    column.begin(0);
    for (record, (text, token)) in texts.iter().zip(tokens).enumerate() {
        let value = match is_json {
            true => token.json_value(text),
            false => token.value(text, &mut scratch),
        };
        column.append_value(value, record, &mut refusals);
    }
    (column.finish(), refused(refusals))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_value_becomes_the_same_the_short_way_and_the_general_one(
        values in prop::collection::vec(value(), 1..40),
        nullable in any::<bool>(),
        are_fields in any::<bool>(),
        format in prop::sample::select(vec![TimestampFormat::Iso, TimestampFormat::UnixMs]),
    ) {
        let records: Vec<String> = values.iter().map(|value| format!("{{\"v\":{value}}}")).collect();
        let texts: Vec<&[u8]> = records.iter().map(|record| record.as_bytes()).collect();
        let mut tokens = vec![Token::MISSING; texts.len()];
        let mut walker = ObjectWalker::new(["v"].into_iter());
        for (text, token) in texts.iter().zip(&mut tokens) {
            walker.walk_bytes(text, std::slice::from_mut(token)).expect("a record");
            if are_fields && token.kind == TokenKind::String {
                token.kind = TokenKind::Field;
            }
        }
        for (data_type, type_name) in types() {
            let mut planned = super::column("v", data_type, nullable);
            planned.type_name = type_name.to_owned();
            let mut column = Column::new(&planned, format).expect("a column");
            let (short, short_refused) = the_short_way(&mut column, &texts, &tokens);
            let is_json = type_name == "JSON";
            let (general, general_refused) = the_general_way(&mut column, is_json, &texts, &tokens);
            prop_assert_eq!(short.to_data(), general.to_data(), "{}", type_name);
            prop_assert_eq!(short_refused, general_refused, "{}", type_name);
        }
    }
}
