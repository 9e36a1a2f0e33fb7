//! Options of `CREATE SOURCE`: the connector, the format, and what every source has.

use std::collections::BTreeMap;

use millstream_common::plan::connector::{RECORD_BYTES_MAX, TimestampFormat};
use millstream_common::plan::{FormatSpec, OnViolation, SourceSpec};
use millstream_common::secret::Lookup;

use super::{Options, connector, datagen, files, kafka};
use crate::plan::parse::SourceStatement;
use crate::plan::problem::{Place, Problem};

/// What the options of a source mean.
pub(in crate::plan) struct SourceOptions {
    /// `None`: the connector is missing or unknown.
    pub(in crate::plan) spec: Option<(SourceSpec, FormatSpec)>,
    pub(in crate::plan) on_violation: OnViolation,
    pub(in crate::plan) idle_timeout_ms: Option<u64>,
    pub(in crate::plan) bounded: bool,
    pub(in crate::plan) places: BTreeMap<String, Place>,
    pub(in crate::plan) problems: Vec<Problem>,
    /// Something is wrong with an option.
    pub(in crate::plan) has_problems: bool,
}

/// A record column, as far as options need to know it.
pub(in crate::plan) struct RecordColumn {
    pub(in crate::plan) name: String,
    pub(in crate::plan) data_type: arrow::datatypes::DataType,
}

/// Until a quiet split is idle, where nothing is said.
const IDLE_TIMEOUT_MS: u64 = 30_000;

/// Reads the options of `source`, whose record columns are `columns`.
pub(in crate::plan) fn read_source(
    source: &SourceStatement,
    columns: &[RecordColumn],
    lookup: &dyn Lookup,
) -> SourceOptions {
    let owner = format!("source {}", source.name.text);
    let mut options = Options::new(owner, source.name.place, &source.options, lookup);
    let on_violation = on_violation(&mut options);
    let idle_timeout_ms = idle_timeout(&mut options);
    let known = ["kafka", "files", "datagen"];
    let mut bounded = false;
    let spec = match connector(&mut options, &known, "kafka").as_deref() {
        Some("kafka") => {
            let spec = kafka::read_source(&mut options);
            bounded = spec.end.is_some();
            let format = record_format(&mut options, Some("json"), &["json"]);
            format.map(|format| (SourceSpec::Kafka(spec), format))
        }
        Some("files") => {
            let spec = files::read_source(&mut options);
            bounded = !spec.watch;
            let format = record_format(&mut options, None, &["csv", "json", "parquet"]);
            format.map(|format| (SourceSpec::Files(spec), format))
        }
        Some("datagen") => {
            let spec = datagen::read(&mut options, columns);
            bounded = spec.row_count.is_some();
            Some((SourceSpec::Datagen(spec), FormatSpec::Native))
        }
        _ => None,
    };
    let (places, problems) = options.finish();
    SourceOptions {
        spec,
        on_violation,
        idle_timeout_ms,
        bounded,
        places,
        has_problems: !problems.is_empty(),
        problems,
    }
}

/// `on_violation`, of sources and sinks.
pub(super) fn on_violation(options: &mut Options<'_>) -> OnViolation {
    let words = [
        ("dead_letter", OnViolation::DeadLetter),
        ("drop", OnViolation::Drop),
        ("fail", OnViolation::Fail),
    ];
    options
        .word("on_violation", &words)
        .unwrap_or(OnViolation::DeadLetter)
}

fn idle_timeout(options: &mut Options<'_>) -> Option<u64> {
    options
        .parsed("idle_timeout", |text| match text {
            "never" => Ok(None),
            _ => crate::plan::value::duration_millis(text).map(Some),
        })
        .unwrap_or(Some(IDLE_TIMEOUT_MS))
}

fn record_format(
    options: &mut Options<'_>,
    default: Option<&'static str>,
    known: &[&'static str],
) -> Option<FormatSpec> {
    let words: Vec<(&str, &str)> = known.iter().map(|name| (*name, *name)).collect();
    let format = if options.places.contains_key("format") {
        options.word("format", &words)
    } else if default.is_none() {
        options.required_text("format", known[0]);
        None
    } else {
        options.known.push("format".to_owned());
        default
    };
    let Some(format) = format else {
        // Whatever the format, these are no unknown options.
        for name in [
            "timestamp_format",
            "record_bytes_max",
            "delimiter",
            "header",
            "null_string",
        ] {
            options.take(name);
        }
        return None;
    };
    Some(match format {
        "csv" => FormatSpec::Csv {
            delimiter: delimiter(options),
            header: options.flag("header", true),
            null_string: options.resolved("null_string"),
            timestamp_format: timestamp_format(options),
            record_bytes_max: record_bytes_max(options),
        },
        "parquet" => FormatSpec::Parquet,
        _ => FormatSpec::Json {
            timestamp_format: timestamp_format(options),
            record_bytes_max: record_bytes_max(options),
        },
    })
}

fn delimiter(options: &mut Options<'_>) -> char {
    let text = options.take("delimiter");
    let Some(text) = text else { return ',' };
    let mut characters = text.chars();
    match (text.as_str(), characters.next(), characters.next()) {
        ("\\t" | "tab", _, _) => '\t',
        (_, Some(character), None) if character.is_ascii() && character != '"' => character,
        _ => {
            options
                .refuse("delimiter", "option delimiter is one ASCII character")
                .hint = Some("write delimiter = ';' or delimiter = 'tab'".to_owned());
            ','
        }
    }
}

fn timestamp_format(options: &mut Options<'_>) -> TimestampFormat {
    let words = [
        ("iso", TimestampFormat::Iso),
        ("unix_s", TimestampFormat::UnixS),
        ("unix_ms", TimestampFormat::UnixMs),
        ("unix_us", TimestampFormat::UnixUs),
    ];
    options
        .word("timestamp_format", &words)
        .unwrap_or(TimestampFormat::Iso)
}

fn record_bytes_max(options: &mut Options<'_>) -> usize {
    let bytes = options.bytes("record_bytes_max", RECORD_BYTES_MAX as u64);
    usize::try_from(bytes).unwrap_or(RECORD_BYTES_MAX)
}
