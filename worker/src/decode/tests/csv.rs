//! CSV: what is a record, what is wrong with it, and that windows do not matter.

use millstream_common::plan::connector::TimestampFormat;
use proptest::prelude::*;

use super::*;
use crate::decode::csv::{CsvFile, CsvWindow};

const RECORD_BYTES_MAX: usize = 64;

fn plan(header: bool, null_string: Option<&str>) -> SourcePlan {
    let mut plan = source();
    plan.format = FormatSpec::Csv {
        delimiter: ',',
        header,
        null_string: null_string.map(str::to_owned),
        timestamp_format: TimestampFormat::Iso,
        record_bytes_max: RECORD_BYTES_MAX,
    };
    plan.columns = vec![
        column("id", DataType::Int64, true),
        column("name", DataType::Utf8, true),
    ];
    plan
}

/// Rows and reasons of a whole file, read through windows of `window_bytes`.
fn read(plan: &SourcePlan, file: &[u8], window_bytes: usize) -> (Vec<String>, Vec<String>) {
    let mut decoder = decoder(plan);
    let slot = open(&mut decoder);
    let mut csv = CsvFile::new(&decoder).expect("csv");
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    let (mut at, mut position) = (0, 1);
    loop {
        let end = file.len().min(at + window_bytes);
        let window = CsvWindow {
            slot,
            first_position: position,
            bytes: &file[at..end],
            is_last: end == file.len(),
            records_max: 3,
        };
        let step = csv.decode(&mut decoder, window).expect("decode");
        at += step.consumed;
        if let Some(rows) = &step.rows {
            found.extend(lines(&rows.batch));
            refused.extend(reasons(rows));
            position += rows.counters.read as i64;
        }
        if step.is_refused || window.is_last && step.rows.is_none() {
            return (found, refused);
        }
        assert!(step.consumed > 0 || end == at + window_bytes, "no progress");
    }
}

fn rows(file: &str) -> Vec<String> {
    read(&plan(true, None), file.as_bytes(), 1 << 10).0
}

fn refused(file: &[u8]) -> Vec<String> {
    read(&plan(true, None), file, 1 << 10).1
}

#[test]
fn columns_are_found_by_the_header_in_any_order() {
    assert_eq!(rows("name,id\na,1\nb,2\n"), ["1|a", "2|b"]);
    assert_eq!(rows("\u{feff}id,name\r\n1,a\r\n2,b"), ["1|a", "2|b"]);
    assert_eq!(
        rows("\"id\",\"name\"\n1,\"a \"\"b\"\", c\nd\"\n\n\n3,e\n"),
        ["1|a \"b\", c\nd", "3|e"]
    );
}

#[test]
fn a_file_with_a_header_only_has_no_records() {
    for file in ["id,name", "id,name\n"] {
        let found = read(&plan(true, None), file.as_bytes(), 1 << 10);
        assert_eq!(found, (vec![], vec![]), "{file:?}");
    }
    let found = read(&plan(false, None), b"", 1 << 10);
    assert_eq!(found, (vec![], vec![]), "no header is expected");
}

#[test]
fn an_empty_file_is_one_dead_letter_because_it_lacks_its_header() {
    for file in ["", "\n\n", "\u{feff}"] {
        let found = read(&plan(true, None), file.as_bytes(), 1 << 10);
        let reason = "0|header|the file is empty, so it has no header".to_owned();
        assert_eq!(found, (vec![], vec![reason]), "{file:?}");
    }
}

#[test]
fn bytes_of_two_fields_that_would_be_a_character_together_are_no_text() {
    // The first byte of a character, and behind a delimiter the rest of it.
    let file = b"id,name\n1\xef,\xbb\xbf\n2,b\n";
    let (rows, letters) = read(&plan(true, None), file, 1 << 10);
    assert_eq!((rows.len(), letters.len()), (1, 1), "{letters:?}");
    assert!(letters[0].contains("is not UTF-8"), "{letters:?}");
    let file = b"i\xef,\xbb\xbfname\n1,a\n";
    let (_, letters) = read(&plan(true, None), file, 1 << 10);
    let reason = "0|header|the name of a column is not UTF-8".to_owned();
    assert_eq!(letters, [reason]);
}

#[test]
fn a_header_that_does_not_fit_is_one_dead_letter_for_the_file() {
    for (header, reason) in [
        ("id", "the header lacks the column \"name\""),
        (
            "id,name,more",
            "the header has a column \"more\" that is not declared",
        ),
        (
            "id,Name",
            "the header has a column \"Name\" that is not declared",
        ),
        ("id,name,id", "the header has the column \"id\" twice"),
        ("id,\"name", "a quote is not closed"),
    ] {
        let file = format!("{header}\n1,a\n2,b\n");
        let found = read(&plan(true, None), file.as_bytes(), 1 << 10);
        assert_eq!(
            found,
            (vec![], vec![format!("0|header|{reason}")]),
            "{header}"
        );
    }
}

#[test]
fn without_a_header_columns_stand_in_their_declared_order() {
    assert_eq!(
        read(&plan(false, None), b"1,a\n2,b\n", 1 << 10).0,
        ["1|a", "2|b"]
    );
}

#[test]
fn empty_is_null_unless_a_null_string_is_given() {
    assert_eq!(rows("id,name\n,\n1,\"\"\n"), ["-|-", "1|-"]);
    let plan = plan(true, Some("\\N"));
    let (found, refused) = read(&plan, b"id,name\n\\N,\\N\n1,\n,x\n", 1 << 10);
    assert_eq!(found, ["-|-", "1|"]);
    assert_eq!(
        refused,
        ["3|type_mismatch|column \"id\": \"\" is not a BIGINT"]
    );
}

#[test]
fn records_with_more_or_fewer_fields_are_refused_and_the_rest_goes_on() {
    let file = b"id,name\n1\n1,a,x\n2,b\n";
    assert_eq!(
        refused(file),
        [
            "1|columns|1 fields where 2 are expected",
            "2|columns|3 fields where 2 are expected"
        ]
    );
    assert_eq!(read(&plan(true, None), file, 1 << 10).0, ["2|b"]);
}

#[test]
fn bytes_that_are_no_text_are_malformed() {
    let file = b"id,name\n1,\xff\n2,b\n";
    assert_eq!(
        refused(file),
        ["1|malformed|the byte at index 2 is not UTF-8"]
    );
    assert_eq!(read(&plan(true, None), file, 1 << 10).0, ["2|b"]);
}

#[test]
fn an_unclosed_quote_costs_its_line() {
    let file = b"id,name\n1,a\n2,\"b\n3,c\n4,d";
    let (found, refused) = read(&plan(true, None), file, 1 << 10);
    assert_eq!(found, ["1|a", "3|c", "4|d"]);
    assert_eq!(
        refused,
        ["2|malformed|a quote is not closed before the end of the file; payload is the first line"]
    );
    assert_eq!(
        read(&plan(true, None), b"id,name\n1,\"", 1 << 10).1.len(),
        1
    );
}

#[test]
fn a_record_that_is_too_long_is_refused_and_reading_goes_on_at_the_next_newline() {
    let fits = format!("1,{}", "a".repeat(RECORD_BYTES_MAX - 2));
    let file = format!("id,name\n{fits}\n{fits}b\n2,{}\n3,c\n", "x".repeat(1_000));
    let (found, refused) = read(&plan(true, None), file.as_bytes(), RECORD_BYTES_MAX + 1);
    assert_eq!(found, [fits.replace(',', "|"), "3|c".to_owned()]);
    let codes: Vec<&str> = refused.iter().map(|line| &line[..10]).collect();
    assert_eq!(codes, ["2|too_long", "3|too_long"]);
}

#[test]
fn text_in_a_csv_field_of_json_must_be_json() {
    let mut plan = plan(true, None);
    plan.columns[1].type_name = "JSON".to_owned();
    let (found, refused) = read(&plan, b"id,name\n1,\"{\"\"a\"\":1}\"\n2,{\n", 1 << 10);
    assert_eq!(found, ["1|{\"a\":1}"]);
    assert_eq!(
        refused,
        ["2|type_mismatch|column \"name\": \"{\" is not a JSON"]
    );
}

proptest! {
    #[test]
    fn where_windows_end_does_not_matter(
        body in "([a1,\"\n\r\u{feff}]|,a\n|1,a\n|\"\"){0,200}",
        window_bytes in RECORD_BYTES_MAX + 1..200,
    ) {
        let file = format!("id,name\n{body}");
        let plan = plan(true, None);
        let expected = read(&plan, file.as_bytes(), 1 << 20);
        prop_assert_eq!(read(&plan, file.as_bytes(), window_bytes), expected);
    }
}
