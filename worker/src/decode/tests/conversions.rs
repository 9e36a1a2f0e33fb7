//! Each conversion of a JSON value or CSV text to a type, as a table of what is read and what is refused.

use millstream_common::plan::connector::TimestampFormat;

use super::*;

/// Decodes each value alone into a nullable column of the type; `!` where it is refused.
fn converted(data_type: DataType, type_name: &str, values: &[&str]) -> Vec<String> {
    with_format(data_type, type_name, TimestampFormat::Iso, values)
}

fn with_format(
    data_type: DataType,
    type_name: &str,
    timestamp_format: TimestampFormat,
    values: &[&str],
) -> Vec<String> {
    let mut plan = source();
    plan.columns = vec![column("v", data_type, true)];
    plan.columns[0].type_name = type_name.to_owned();
    plan.format = FormatSpec::Json {
        timestamp_format,
        record_bytes_max: 1 << 20,
    };
    let mut decoder = decoder(&plan);
    let slot = open(&mut decoder);
    let one = |value: &&str| {
        let rows = decode(&mut decoder, slot, &[&format!("{{\"v\":{value}}}")]);
        match rows.rejects {
            None => lines(&rows.batch).concat(),
            Some(_) => "!".to_owned(),
        }
    };
    values.iter().map(one).collect()
}

#[test]
fn booleans_come_from_booleans_and_words() {
    let values = [
        "true",
        "false",
        "null",
        "\"true\"",
        "\"F\"",
        "\"Yes\"",
        "\"off\"",
        "\"1\"",
        "1",
        "\"\"",
        "\"maybe\"",
        "{}",
        "[]",
    ];
    assert_eq!(
        converted(DataType::Boolean, "BOOLEAN", &values),
        [
            "true", "false", "-", "true", "false", "true", "false", "true", "!", "!", "!", "!", "!"
        ]
    );
}

#[test]
fn integers_come_from_whole_numbers_and_digits() {
    let values = [
        "1",
        "-7",
        "1.0",
        "1e3",
        "\"12\"",
        "\" 12 \"",
        "\"1.0\"",
        "null",
        "1.5",
        "\"1.5\"",
        "true",
        "\"\"",
        "\"x\"",
        "{}",
        "9223372036854775807",
        "9223372036854775808",
    ];
    assert_eq!(
        converted(DataType::Int64, "BIGINT", &values),
        [
            "1",
            "-7",
            "1",
            "1000",
            "12",
            "12",
            "1",
            "-",
            "!",
            "!",
            "!",
            "!",
            "!",
            "!",
            "9223372036854775807",
            "!"
        ]
    );
    assert_eq!(
        converted(DataType::Int32, "INT", &["2147483647", "2147483648"]),
        ["2147483647", "!"]
    );
    assert_eq!(
        converted(DataType::Int16, "SMALLINT", &["-32768", "-32769"]),
        ["-32768", "!"]
    );
}

#[test]
fn doubles_come_from_numbers_in_range() {
    let values = [
        "1",
        "0.1",
        "-1e-3",
        "\"2.5\"",
        "\"NaN\"",
        "\"Infinity\"",
        "\"1e999\"",
        "\"x\"",
        "true",
        "\"\"",
    ];
    assert_eq!(
        converted(DataType::Float64, "DOUBLE", &values),
        [
            "1.0", "0.1", "-0.001", "2.5", "NaN", "inf", "!", "!", "!", "!"
        ]
    );
    assert_eq!(
        converted(DataType::Float32, "REAL", &["0.5", "1e39"]),
        ["0.5", "!"]
    );
}

#[test]
fn decimals_are_exact_or_refused() {
    let values = [
        "1", "1.23", "1.230", "\"-1.5\"", "1e2", "1.234", "1000", "null", "true",
    ];
    assert_eq!(
        converted(DataType::Decimal128(5, 2), "NUMERIC(5, 2)", &values),
        [
            "1.00", "1.23", "1.23", "-1.50", "100.00", "!", "!", "-", "!"
        ]
    );
}

#[test]
fn text_keeps_numbers_and_booleans_as_they_are_written() {
    let values = [
        "\"a\"",
        "\"\"",
        "\"a\\u00e4\\n\"",
        "1.0",
        "1e2",
        "-0",
        "true",
        "false",
        "null",
        "{}",
        "[1]",
    ];
    assert_eq!(
        converted(DataType::Utf8, "TEXT", &values),
        [
            "a", "", "aä\n", "1.0", "1e2", "-0", "true", "false", "-", "!", "!"
        ]
    );
}

#[test]
fn json_keeps_every_value_as_it_is_written() {
    let values = ["{\"a\": [1, 2.0]}", "[]", "\"a\\n\"", "1.0", "true", "null"];
    assert_eq!(
        converted(DataType::Utf8, "JSON", &values),
        ["{\"a\": [1, 2.0]}", "[]", "\"a\\n\"", "1.0", "true", "-"]
    );
}

#[test]
fn bytes_come_from_hexadecimal_text() {
    let values = [
        "\"\\\\xdeadBEEF\"",
        "\"\\\\x\"",
        "\"\\\\xabc\"",
        "\"\\\\xzz\"",
        "\"dead\"",
        "1",
    ];
    assert_eq!(
        converted(DataType::Binary, "BYTEA", &values),
        ["deadbeef", "", "!", "!", "!", "!"]
    );
}

#[test]
fn dates_and_times_come_from_iso_text() {
    let values = [
        "\"2024-03-05\"",
        "\" 2024-03-05 \"",
        "\"2024-03-05T00:00:00\"",
        "19787",
        "\"\"",
    ];
    assert_eq!(
        converted(DataType::Date32, "DATE", &values),
        ["2024-03-05", "2024-03-05", "!", "!", "!"]
    );
    let time = DataType::Time64(TimeUnit::Microsecond);
    assert_eq!(
        converted(time, "TIME", &["\"01:02:03.5\"", "\"25:00:00\"", "1"]),
        ["01:02:03.500", "!", "!"]
    );
}

#[test]
fn timestamps_come_from_iso_text_in_utc() {
    let values = [
        "\"2024-03-05T06:07:08.123456789Z\"",
        "\"2024-03-05 06:07:08\"",
        "\"2024-03-05T06:07:08+02:00\"",
        "\"2024-03-05\"",
        "1709618828",
        "\"1709618828\"",
        "\"yesterday\"",
        "true",
    ];
    let expected = [
        "2024-03-05T06:07:08.123456",
        "2024-03-05T06:07:08",
        "2024-03-05T04:07:08",
        "2024-03-05T00:00:00",
        "!",
        "!",
        "!",
        "!",
    ];
    assert_eq!(converted(timestamp(), "TIMESTAMP", &values), expected);
    let zoned = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let with_zone = expected.map(|text| match text {
        "!" => text.to_owned(),
        text => format!("{text}Z"),
    });
    assert_eq!(converted(zoned, "TIMESTAMPTZ", &values), with_zone);
}

#[test]
fn numbers_are_times_only_with_a_timestamp_format() {
    let values = [
        "1709618828",
        "\"1709618828\"",
        "1709618828.5",
        "\"2024-03-05T06:07:08Z\"",
        "1e30",
    ];
    assert_eq!(
        with_format(timestamp(), "TIMESTAMP", TimestampFormat::UnixS, &values),
        [
            "2024-03-05T06:07:08",
            "2024-03-05T06:07:08",
            "2024-03-05T06:07:08.500",
            "2024-03-05T06:07:08",
            "!"
        ]
    );
    assert_eq!(
        with_format(
            timestamp(),
            "TIMESTAMP",
            TimestampFormat::UnixMs,
            &["1709618828123", "0.5"]
        ),
        ["2024-03-05T06:07:08.123", "1970-01-01T00:00:00.000500"]
    );
    assert_eq!(
        with_format(
            timestamp(),
            "TIMESTAMP",
            TimestampFormat::UnixUs,
            &["-1", "0.9"]
        ),
        ["1969-12-31T23:59:59.999999", "1970-01-01T00:00:00"]
    );
}

#[test]
fn a_reason_names_column_value_and_type() {
    let mut plan = source();
    plan.columns = vec![
        column("views", DataType::Int64, true),
        column("at", timestamp(), true),
        column("note", DataType::Utf8, true),
    ];
    let mut decoder = decoder(&plan);
    let slot = open(&mut decoder);
    let long = format!("{{\"views\":\"{}\"}}", "9".repeat(200));
    let rows = decode(
        &mut decoder,
        slot,
        &["{\"views\":1.5}", "{\"at\":5}", "{\"note\":[1,\n2]}", &long],
    );
    let nines = "9".repeat(79);
    assert_eq!(
        reasons(&rows),
        [
            "0|type_mismatch|column \"views\": 1.5 is not a BIGINT".to_owned(),
            "1|type_mismatch|column \"at\": 5 is not a TIMESTAMP; numbers are times only with timestamp_format = 'unix_s', 'unix_ms' or 'unix_us'".to_owned(),
            "2|type_mismatch|column \"note\": [1,\\n2] is not a TEXT; declare the column as JSON to keep objects and arrays".to_owned(),
            format!("3|type_mismatch|column \"views\": \"{nines}... is not a BIGINT"),
        ]
    );
}
