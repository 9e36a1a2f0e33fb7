//! Options of the `files` source and the `files` sink.

use millstream_common::plan::connector::{Compression, FileFormat, FilesSinkSpec, FilesSourceSpec};

use super::Options;

const SETTLE_MS: u64 = 2_000;
const DISCOVERY_INTERVAL_MS: u64 = 1_000;
const ROLL_INTERVAL_MS: u64 = 60_000;
const ROLL_BYTES: u64 = 128 << 20;

/// Takes the options of a `files` source.
pub(super) fn read_source(options: &mut Options<'_>) -> FilesSourceSpec {
    let compressions = [
        ("auto", Compression::Auto),
        ("none", Compression::None),
        ("gzip", Compression::Gzip),
        ("zstd", Compression::Zstd),
    ];
    FilesSourceSpec {
        path: options.required_text("path", "data/input"),
        watch: options.flag("watch", true),
        settle_ms: options.millis("settle", SETTLE_MS),
        discovery_interval_ms: options.positive_millis("discovery_interval", DISCOVERY_INTERVAL_MS),
        files_per_epoch_max: options
            .number("max_files_per_epoch", 1)
            .and_then(|number| u32::try_from(number).ok()),
        compression: options
            .word("compression", &compressions)
            .unwrap_or(Compression::Auto),
    }
}

/// Takes the options of a `files` sink.
pub(super) fn read_sink(options: &mut Options<'_>) -> FilesSinkSpec {
    let formats = [
        ("parquet", FileFormat::Parquet),
        ("csv", FileFormat::Csv),
        ("json", FileFormat::Json),
    ];
    let path = options.required_text("path", "data/output");
    if !options.places.contains_key("format") {
        options.required_text("format", "parquet");
    }
    FilesSinkSpec {
        path,
        format: options
            .word("format", &formats)
            .unwrap_or(FileFormat::Parquet),
        partition_by: options.names("partition_by"),
        roll_interval_ms: options.positive_millis("roll_interval", ROLL_INTERVAL_MS),
        roll_bytes: options.bytes("roll_bytes", ROLL_BYTES),
    }
}
