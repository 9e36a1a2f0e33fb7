//! What becomes of good and bad records: order of rules, dead letters, counters.

use std::ffi::CStr;

use datafusion::prelude::{col, lit};
use millstream_common::plan::Metadata;
use millstream_common::report::RowCounters;

use super::*;

fn plan() -> SourcePlan {
    let mut plan = source();
    plan.columns = vec![
        column("id", DataType::Int64, false),
        column("url", DataType::Utf8, false),
        column("at", timestamp(), true),
    ];
    plan
}

#[test]
fn missing_is_null_extra_is_ignored_and_the_last_duplicate_wins() {
    let mut decoder = decoder(&plan());
    let slot = open(&mut decoder);
    let rows = decode(
        &mut decoder,
        slot,
        &[
            r#"{"id":1,"url":"/a","other":{"id":9}}"#,
            r#"{"url":"/b","id":2,"ID":7,"url":"/c"}"#,
        ],
    );
    assert_eq!(lines(&rows.batch), ["1|/a|-", "2|/c|-"]);
    assert!(rows.rejects.is_none());
    assert_eq!(rows.counters.accepted, 2);
}

#[test]
fn a_record_has_one_dead_letter_the_first_by_column_order() {
    let mut decoder = decoder(&plan());
    let slot = open(&mut decoder);
    let rows = decode(
        &mut decoder,
        slot,
        &[
            r#"{"at":"x","id":"x"}"#,
            r#"{"id":1,"url":"/a"}"#,
            r#"{"id":1,"url":null,"at":"2024-03-05T01:00:00"}"#,
            r#"{"id":1"#,
            r#"[]"#,
            "",
        ],
    );
    assert_eq!(lines(&rows.batch), ["1|/a|-"]);
    assert_eq!(
        reasons(&rows),
        [
            "0|type_mismatch|column \"id\": \"x\" is not a BIGINT",
            "2|null_violation|column \"url\": NULL in a NOT NULL column",
            "3|malformed|not JSON: EOF while parsing an object at line 1 column 7",
            "4|malformed|a JSON object is expected, found an array",
            "5|malformed|not JSON: EOF while parsing a value at line 1 column 0",
        ]
    );
}

#[test]
fn a_dead_letter_shows_the_whole_record() {
    let mut plan = plan();
    plan.watermark = watermark(2);
    let mut decoder = decoder(&plan);
    let slot = open(&mut decoder);
    let payload = br#"{"at":"2024-03-05T01:00:00","id":1}"#;
    let broken = b"{\"id\":\xff1}";
    let mut null = record(slot, 9, b"");
    null.payload = None;
    let rows = decoder
        .decode_records(&[record(slot, 7, payload), record(slot, 8, broken), null])
        .expect("decode");
    let rejects = rows.rejects.expect("dead letters");
    assert_eq!(rejects.schema(), millstream_common::dead_letter::schema());
    assert_eq!(
        lines(&rejects),
        [
            "clicks|clicks-0|7|{\"at\":\"2024-03-05T01:00:00\",\"id\":1}|-|null_violation|column \"url\": NULL in a NOT NULL column|2024-03-05T01:00:00|2024-03-05T00:00:00Z",
            "clicks|clicks-0|8|{\"id\":\\xFF1}|7b226964223aff317d|malformed|the byte at index 6 is not UTF-8|-|2024-03-05T00:00:00Z",
            "clicks|clicks-0|9|-|-|null_payload|the record has no value|-|2024-03-05T00:00:00Z",
        ]
    );
    assert_eq!(
        rows.counters,
        RowCounters {
            read: 3,
            accepted: 0,
            rejected: 3,
            dropped: 0,
            bytes: (payload.len() + broken.len()) as u64,
        }
    );
}

#[test]
fn a_record_over_the_limit_is_too_long_and_its_beginning_kept() {
    let mut plan = plan();
    plan.format = FormatSpec::Json {
        timestamp_format: TimestampFormat::Iso,
        record_bytes_max: 100_000,
    };
    let mut decoder = decoder(&plan);
    let slot = open(&mut decoder);
    let fits = format!(r#"{{"id":1,"url":"{}"}}"#, "a".repeat(100_000 - 17));
    let long = format!("{fits} ");
    let rows = decode(&mut decoder, slot, &[&fits, &long]);
    assert_eq!(rows.counters.accepted, 1);
    assert_eq!(
        reasons(&rows),
        [
            "1|too_long|the record has more than 100000 bytes (record_bytes_max); payload is its beginning"
        ]
    );
    let rejects = rows.rejects.expect("dead letters");
    let payload = array_value_to_string(rejects.column(3), 0).expect("payload");
    assert_eq!(payload, long[..64 << 10]);
}

#[test]
fn a_false_check_refuses_and_null_passes() {
    let mut plan = plan();
    plan.checks = vec![
        check(Some("positive"), col("id").gt(lit(0_i64)), "id > 0"),
        check(None, col("at").gt(col("at")), "at > at"),
    ];
    let mut decoder = decoder(&plan);
    let slot = open(&mut decoder);
    let rows = decode(
        &mut decoder,
        slot,
        &[
            r#"{"id":0,"url":"/a","at":"2024-03-05"}"#,
            r#"{"id":1,"url":"/a"}"#,
            r#"{"id":1,"url":"/a","at":"2024-03-05"}"#,
        ],
    );
    assert_eq!(lines(&rows.batch), ["1|/a|-"]);
    assert_eq!(
        reasons(&rows),
        [
            "0|check_violation|check \"positive\" (id > 0) is false",
            "2|check_violation|check at > at is false",
        ]
    );
}

#[test]
fn an_expression_that_fails_takes_only_its_own_rows() {
    let mut plan = plan();
    let mut share = column("share", DataType::Int64, false);
    share.origin = ColumnOrigin::Computed(expression(lit(100_i64) / col("id"), "100 / id"));
    plan.columns.insert(0, share);
    let mut decoder = decoder(&plan);
    let slot = open(&mut decoder);
    let payloads: Vec<String> = (0..9)
        .map(|id| format!(r#"{{"id":{},"url":"/a"}}"#, (id - 4) % 4))
        .collect();
    let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
    let rows = decode(&mut decoder, slot, &payloads);
    assert_eq!(
        lines(&rows.batch),
        [
            "-33|-3|/a|-",
            "-50|-2|/a|-",
            "-100|-1|/a|-",
            "100|1|/a|-",
            "50|2|/a|-",
            "33|3|/a|-"
        ]
    );
    let reasons = reasons(&rows);
    assert_eq!(reasons.len(), 3);
    for (reason, position) in reasons.iter().zip([0, 4, 8]) {
        let start = format!("{position}|expression|column \"share\": 100 / id: ");
        assert!(reason.starts_with(&start), "{reason}");
    }
}

#[test]
fn computed_columns_and_checks_see_only_rows_whose_columns_are_good() {
    let mut plan = plan();
    plan.checks = vec![check(
        None,
        (lit(1_i64) / col("id")).gt(lit(-9_i64)),
        "1 / id > -9",
    )];
    let mut decoder = decoder(&plan);
    let slot = open(&mut decoder);
    let rows = decode(
        &mut decoder,
        slot,
        &[r#"{"id":0}"#, r#"{"id":2,"url":"/a"}"#],
    );
    assert_eq!(lines(&rows.batch), ["2|/a|-"]);
    assert_eq!(
        reasons(&rows),
        ["0|null_violation|column \"url\": NULL in a NOT NULL column"]
    );
}

#[test]
fn drop_counts_and_fail_stops() {
    let mut plan = plan();
    plan.on_violation = OnViolation::Drop;
    let mut dropping = decoder(&plan);
    let slot = open(&mut dropping);
    let rows = decode(&mut dropping, slot, &[r#"{"id":1,"url":"/a"}"#, "nonsense"]);
    assert!(rows.rejects.is_none());
    assert_eq!((rows.counters.accepted, rows.counters.dropped), (1, 1));
    plan.on_violation = OnViolation::Fail;
    let mut failing = decoder(&plan);
    let slot = open(&mut failing);
    let error = failing
        .decode_records(&[
            record(slot, 5, br#"{"id":1,"url":"/a"}"#),
            record(slot, 6, br#"{"id":1}"#),
        ])
        .expect_err("the second record breaks a rule");
    assert_eq!(error.kind(), millstream_common::error::Kind::User);
    assert!(
        error
            .to_string()
            .starts_with("decode record 6 of clicks-0: null_violation: column \"url\"")
    );
}

#[derive(Debug)]
struct TraceHeader;

impl HeaderLookup for TraceHeader {
    fn last(&self, name: &CStr) -> Option<&[u8]> {
        (name == c"trace").then_some(b"t-1")
    }
}

#[test]
fn metadata_columns_come_from_beside_the_payload() {
    let mut plan = source();
    let metadata = |name: &str, data_type: DataType, metadata: Metadata| {
        let mut column = column(name, data_type, true);
        column.origin = ColumnOrigin::Metadata(metadata);
        column
    };
    plan.columns = vec![
        metadata("key", DataType::Utf8, Metadata::Key),
        metadata("partition", DataType::Int64, Metadata::Partition),
        column("id", DataType::Int64, true),
        metadata("offset", DataType::Int64, Metadata::Offset),
        metadata("sent", timestamp(), Metadata::Timestamp),
        metadata(
            "trace",
            DataType::Utf8,
            Metadata::Header("trace".to_owned()),
        ),
        metadata("file", DataType::Utf8, Metadata::File),
    ];
    let mut decoder = decoder(&plan);
    let slot = open(&mut decoder);
    let mut full = record(slot, 3, b"{\"id\":1}");
    full.key = Some(b"k");
    full.timestamp_ms = Some(1_709_596_800_001);
    full.headers = Some(&TraceHeader);
    let mut unreadable = record(slot, 4, b"{}");
    unreadable.key = Some(b"\xff");
    let rows = decoder
        .decode_records(&[full, unreadable, record(slot, 5, b"{}")])
        .expect("decode");
    assert_eq!(
        lines(&rows.batch),
        [
            "k|0|1|3|2024-03-05T00:00:00.001|t-1|clicks-0",
            "-|0|-|5|-|-|clicks-0"
        ]
    );
    assert_eq!(
        reasons(&rows),
        ["4|type_mismatch|column \"key\": the record's key is not UTF-8"]
    );
}

#[test]
fn an_event_time_that_is_no_timestamp_is_refused_when_built() {
    let mut plan = plan();
    plan.watermark = watermark(1);
    let error = SourceDecoder::new(&plan, &Functions::new(), Arc::new(StillClock), false)
        .expect_err("url is no timestamp");
    assert!(
        error
            .to_string()
            .contains("event time \"url\" is a Utf8, not a timestamp")
    );
}

#[test]
fn batches_longer_than_a_block_keep_every_record_in_its_place() {
    let mut decoder = decoder(&plan());
    let slot = open(&mut decoder);
    let payloads: Vec<String> = (0..1_000)
        .map(|id| match id % 10 {
            3 => format!("{{\"id\":{id}"),
            7 => format!("{{\"id\":{id}}}"),
            _ => format!("{{\"id\":{id},\"url\":\"/{id}\"}}"),
        })
        .collect();
    let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
    let rows = decode(&mut decoder, slot, &payloads);
    let good = (0..1_000).filter(|id| id % 10 != 3 && id % 10 != 7);
    let expected: Vec<String> = good.map(|id| format!("{id}|/{id}|-")).collect();
    assert_eq!(lines(&rows.batch), expected);
    assert_eq!(reasons(&rows).len(), 200);
    assert!(reasons(&rows)[199].starts_with("997|null_violation"));
}
