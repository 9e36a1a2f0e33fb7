//! Tests of the walk. Goal: it accepts and reads exactly what serde_json does. Method: records made from small
//! alphabets and from grammars, whole, cut and corrupted, are read by both and compared value by value.

use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};

use super::walk::ObjectWalker;
use crate::decode::token::{Token, Value};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// A column's value as both readers tell it.
#[derive(Debug, PartialEq)]
enum Read {
    Missing,
    Boolean(bool),
    /// Numbers, objects and arrays as they are written.
    Source(String),
    Text(String),
}

/// What serde_json says: `None` where the record is not well formed or no object.
fn by_serde(bytes: &[u8]) -> Option<Vec<Read>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let values: Map<String, Json> = serde_json::from_str(text).ok()?;
    let sources: std::collections::HashMap<String, Box<RawValue>> =
        serde_json::from_str(text).ok()?;
    let read = NAMES.map(|name| match values.get(name) {
        None | Some(Json::Null) => Read::Missing,
        Some(Json::Bool(value)) => Read::Boolean(*value),
        Some(Json::String(value)) => Read::Text(value.clone()),
        Some(_) => Read::Source(sources[name].get().to_owned()),
    });
    Some(read.into())
}

fn by_walk(walker: &mut ObjectWalker, bytes: &[u8]) -> Option<Vec<Read>> {
    let mut row = [Token::MISSING; NAMES.len()];
    let text = walker.walk_bytes(bytes, &mut row).ok()?;
    let mut scratch = String::new();
    let read = row.map(|token| match token.value(text, &mut scratch) {
        Value::Null => Read::Missing,
        Value::Boolean(value) => Read::Boolean(value),
        Value::Text(value) => Read::Text(value.to_owned()),
        Value::Number(source) | Value::Json(source) => Read::Source(source.to_owned()),
        other => panic!("{other:?} is no JSON"),
    });
    Some(read.into())
}

fn walker() -> ObjectWalker {
    ObjectWalker::new(NAMES.into_iter())
}

fn assert_agreed(walker: &mut ObjectWalker, bytes: &[u8]) {
    let expected = by_serde(bytes);
    let record = String::from_utf8_lossy(bytes);
    assert_eq!(by_walk(walker, bytes), expected, "record {record}");
}

#[test]
fn records_are_read_as_serde_json_reads_them() {
    let mut walker = walker();
    let deep = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"a":{open}{close}}}"#)
    };
    let records = [
        r#"{}"#.to_owned(),
        " \t\r\n{ } \n".to_owned(),
        r#"{"a":1,"b":"x","c":null}"#.to_owned(),
        r#"{"a":1,"b":"x","c":null} "#.to_owned(),
        r#"{"c":1,"a":"x"}"#.to_owned(),
        r#"{"a":1,"a":2}"#.to_owned(),
        r#"{"a":1,"a":null}"#.to_owned(),
        r#"{"\u0061":"escaped key"}"#.to_owned(),
        r#"{"a":"\"\\\/\b\f\n\r\t\u00e4\ud83d\ude00"}"#.to_owned(),
        r#"{"a":"\ud83d"}"#.to_owned(),
        r#"{"x":"\ude00"}"#.to_owned(),
        r#"{"x":"\ud83dx"}"#.to_owned(),
        r#"{"x":"\ud83d\u0041"}"#.to_owned(),
        r#"{"a":{"b":[1,{"c":"]"}],"d":{}},"b":[[],[{}]]}"#.to_owned(),
        r#"{"a":{"b":1,}}"#.to_owned(),
        r#"{"a":{1:1}}"#.to_owned(),
        r#"{"a":[1 2]}"#.to_owned(),
        r#"{"a":[}"#.to_owned(),
        r#"{"a":-0.5e-3,"b":0,"c":-0}"#.to_owned(),
        r#"{"a":01}"#.to_owned(),
        r#"{"a":1.}"#.to_owned(),
        r#"{"a":.5}"#.to_owned(),
        r#"{"a":-}"#.to_owned(),
        r#"{"a":1e}"#.to_owned(),
        r#"{"a":1e400}"#.to_owned(),
        r#"{"x":1e400}"#.to_owned(),
        r#"{"x":0e400}"#.to_owned(),
        format!(r#"{{"x":{}}}"#, "9".repeat(308)),
        format!(r#"{{"x":{}}}"#, "9".repeat(310)),
        r#"{"a":truE}"#.to_owned(),
        r#"{"a":true}x"#.to_owned(),
        r#"{"a":true}{}"#.to_owned(),
        r#"{"a":true,}"#.to_owned(),
        r#"{,"a":true}"#.to_owned(),
        r#"{"a" : true , "b":false}"#.to_owned(),
        r#"{"a"}"#.to_owned(),
        r#"["a"]"#.to_owned(),
        r#""a""#.to_owned(),
        "".to_owned(),
        " ".to_owned(),
        "{\"a\":\"\u{1}\"}".to_owned(),
        "{\"a\":\"tab\there\"}".to_owned(),
        "{\"a\":\"\u{7f}\u{80}ä\"}".to_owned(),
        "\u{feff}{}".to_owned(),
        deep(125),
        deep(126),
        deep(127),
        deep(200),
    ];
    for record in &records {
        assert_agreed(&mut walker, record.as_bytes());
    }
    // Again, now that the layouts are known.
    for record in &records {
        assert_agreed(&mut walker, record.as_bytes());
    }
    assert_agreed(&mut walker, b"{\"a\":\"\xff\"}");
    assert_agreed(&mut walker, b"{\"x\":\"\xc3\"}");
}

#[test]
fn producers_that_space_their_records_differently_are_all_read() {
    let blanks = ["", " ", "  ", "\t", "\n "];
    let mut walker = walker();
    for behind in blanks.iter().chain(blanks.iter().rev()) {
        for before in blanks {
            let record = format!(
                "{{\"a\"{before}:{behind}1,\"b\":{behind}\"x\"{before},{before}\"c\":{before}{behind}true}}"
            );
            assert_agreed(&mut walker, record.as_bytes());
        }
    }
}

#[test]
fn every_cut_of_a_record_is_refused() {
    let mut walker = walker();
    let record = r#"{"a": {"x": [1, "\u00e4"]}, "b": -1.5e3, "c": "ä\n", "d": true}"#;
    assert_agreed(&mut walker, record.as_bytes());
    for length in 0..record.len() {
        assert_agreed(&mut walker, &record.as_bytes()[..length]);
    }
}

fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[ -!#-\\[\\]-~]{0,12}",
        1 => Just("ä€😀".to_owned()),
        1 => prop::sample::select(vec!["\\n", "\\\"", "\\\\", "\\/", "\\u00e4", "\\ud83d\\ude00", "\\ud83d", "\\u12", "\\x"])
            .prop_map(str::to_owned),
        1 => Just("\u{1f}".to_owned()),
    ];
    prop::collection::vec(piece, 0..3).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| format!("{number:e}")),
        "-?[0-9]{1,3}(\\.[0-9]{0,3})?([eE][+-]?[0-9]{0,3})?",
    ]
}

fn blank() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "", "", " ", "\n", "\t \r"])
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        string(),
        number(),
        prop::sample::select(vec!["true", "false", "null", "nul"]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..4), blank()).prop_map(
                |(items, blank)| format!("[{blank}{}]", items.join(&format!(",{blank}")))
            ),
            object(string(), inner),
        ]
    })
}

fn object(
    key: impl Strategy<Value = String>,
    value: impl Strategy<Value = String>,
) -> impl Strategy<Value = String> {
    (prop::collection::vec((key, value), 0..5), blank(), blank()).prop_map(
        |(fields, before, after)| {
            let fields: Vec<String> = fields
                .iter()
                .map(|(key, value)| format!("{before}{key}{after}:{before}{value}{after}"))
                .collect();
            format!("{{{}{before}}}{after}", fields.join(","))
        },
    )
}

fn record() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        4 => prop::sample::select(vec!["\"a\"", "\"b\"", "\"c\"", "\"d\"", "\"\\u0061\""]).prop_map(str::to_owned),
        1 => string(),
    ];
    object(key, json())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_walk_agrees_with_serde_json_on_records(records in prop::collection::vec(record(), 1..8)) {
        let mut walker = walker();
        for record in &records {
            assert_agreed(&mut walker, record.as_bytes());
        }
    }

    #[test]
    fn the_walk_agrees_with_serde_json_on_broken_records(
        record in record(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut walker = walker();
        assert_agreed(&mut walker, record.as_bytes());
        let mut bytes = record.into_bytes();
        for (index, byte) in edits {
            let index = index.index(bytes.len());
            bytes[index] = byte;
            assert_agreed(&mut walker, &bytes);
        }
        bytes.truncate(cut.index(bytes.len()));
        assert_agreed(&mut walker, &bytes);
    }

    #[test]
    fn the_walk_agrees_with_serde_json_on_noise(
        text in "[{}\\[\\]\":,abc\\\\u0d8 1.e+-truefalsn\n\u{1}ä]{0,24}",
    ) {
        let mut walker = walker();
        assert_agreed(&mut walker, text.as_bytes());
        assert_agreed(&mut walker, format!("{{\"a\":{text}}}").as_bytes());
        assert_agreed(&mut walker, format!("{{\"a\":\"{text}\"}}").as_bytes());
    }
}
