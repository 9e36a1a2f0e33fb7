//! Connectors with their options, typed: what `WITH (...)` means after `master/src/plan` has read it.
//!
//! Text options may hold references (`${NAME}`), resolved by [`crate::secret`] only where the
//! connection is made; numbers and words are already values. Plain data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::datagen::nexmark::{NexmarkTable, NexmarkValue};

/// A source's connector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "connector", rename_all = "snake_case")]
pub enum SourceSpec {
    /// Partitions of one topic.
    Kafka(KafkaSourceSpec),
    /// Files of a folder or glob.
    Files(FilesSourceSpec),
    /// Rows made up from a seed.
    Datagen(DatagenSpec),
}

/// `connector = 'kafka'` as a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KafkaSourceSpec {
    /// `brokers`: `host:port,...`; may hold references.
    pub brokers: String,
    /// `topic`; may hold references.
    pub topic: String,
    /// `start`: where a partition without a recorded position begins.
    pub start: KafkaStart,
    /// `end`: where a bounded read stops; fixed to offsets when the job is submitted.
    pub end: Option<KafkaEnd>,
    /// `group_id`: where positions are committed for outside tools; never read back; may hold references.
    pub group_id: Option<String>,
    /// `"kafka.x.y"` options, without the prefix, handed to librdkafka; may hold references.
    pub properties: BTreeMap<String, String>,
    /// `discovery_interval`: how often new partitions are looked for.
    pub discovery_interval_ms: u64,
    /// `on_gap`: records that the broker deleted before they were read.
    #[serde(default)]
    pub on_gap: OnGap,
}

/// `on_gap` of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnGap {
    /// The job fails, and says what is gone.
    #[default]
    Fail,
    /// What is gone is recorded and passed over.
    Skip,
}

/// A topic and the way to it: what a source and a sink have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaTopicSpec {
    /// `brokers`; may hold references.
    pub brokers: String,
    /// `topic`; may hold references.
    pub topic: String,
    /// Properties of librdkafka; may hold references.
    pub properties: BTreeMap<String, String>,
}

impl KafkaSourceSpec {
    /// The topic that is read.
    pub fn topic_spec(&self) -> KafkaTopicSpec {
        KafkaTopicSpec {
            brokers: self.brokers.clone(),
            topic: self.topic.clone(),
            properties: self.properties.clone(),
        }
    }
}

impl KafkaSinkSpec {
    /// The topic that is written.
    pub fn topic_spec(&self) -> KafkaTopicSpec {
        KafkaTopicSpec {
            brokers: self.brokers.clone(),
            topic: self.topic.clone(),
            properties: self.properties.clone(),
        }
    }
}

/// `start` of a Kafka source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KafkaStart {
    /// The first record kept.
    Earliest,
    /// Behind the last record at submit.
    Latest,
    /// The first record at or after this time.
    Timestamp {
        /// Milliseconds since 1970 UTC.
        unix_ms: i64,
    },
}

/// `end` of a Kafka source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KafkaEnd {
    /// Behind the last record at submit.
    Latest,
    /// Before the first record at or after this time.
    Timestamp {
        /// Milliseconds since 1970 UTC.
        unix_ms: i64,
    },
}

/// `connector = 'files'` as a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FilesSourceSpec {
    /// `path`: a folder, or a glob; `file://` may stand before it; may hold references.
    pub path: String,
    /// `watch`: go on looking for new files. False: the files there at submit, then the end.
    pub watch: bool,
    /// `settle`: a file is closed when size and mtime stood still for this long.
    pub settle_ms: u64,
    /// `discovery_interval`: how often the folder is listed.
    pub discovery_interval_ms: u64,
    /// `max_files_per_epoch`: files claimed at once, for the whole job; `None` is no limit.
    pub files_per_epoch_max: Option<u32>,
    /// `compression`; `Auto` goes by the name's ending.
    pub compression: Compression,
}

/// `compression` of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// By the ending of the name: `.gz`, `.zst`.
    Auto,
    /// As they are.
    None,
    /// gzip, members one after another.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// `connector = 'datagen'`: rows made up, repeatable by seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DatagenSpec {
    /// `rows`: how many in all; `None` goes on for ever.
    pub row_count: Option<u64>,
    /// `rows_per_second`: `None` is as fast as possible.
    pub rows_per_second: Option<u64>,
    /// `seed`: the same seed makes the same rows.
    pub seed: u64,
    /// One for each record column, in order, by `"fields.<column>.<option>"`.
    pub fields: Vec<DatagenField>,
}

/// How one column is made up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DatagenField {
    /// The column's name.
    pub column: String,
    /// How its values come.
    pub kind: DatagenKind,
    /// `null_rate`: the share of NULLs, 0 to 1.
    pub null_rate: f64,
}

/// How values of a column come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DatagenKind {
    /// `start`, `start + step`, ...
    Sequence {
        /// The first value.
        start: i64,
        /// From one row to the next; for times in microseconds.
        step: i64,
    },
    /// Evenly in `min..=max`; for times in microseconds.
    Uniform {
        /// Least value.
        min: f64,
        /// Greatest value.
        max: f64,
        /// Digits after the point that are kept.
        decimals: u32,
    },
    /// One of these, the first most often if `skew` > 0 (Zipf exponent).
    Choice {
        /// The values as text, converted to the column's type.
        values: Vec<String>,
        /// 0 is evenly.
        skew: f64,
    },
    /// Text with `{n}` (row number), `{n:05}` (padded), `{uniform:A:B}` (whole number), `{hex:N}` (random digits) replaced.
    Template {
        /// The text.
        template: String,
    },
    /// As in a table of the Nexmark benchmark.
    Nexmark {
        /// The table whose rows these are.
        table: NexmarkTable,
        /// What the column holds.
        value: NexmarkValue,
    },
}

/// How a source's bytes become rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "format", rename_all = "snake_case")]
pub enum FormatSpec {
    /// One JSON object a record (Kafka) or line (files).
    Json {
        /// How numbers become timestamps.
        timestamp_format: TimestampFormat,
        /// `record_bytes_max`.
        record_bytes_max: usize,
    },
    /// Comma-separated values with a header.
    Csv {
        /// `delimiter`.
        delimiter: char,
        /// `header`: false takes the columns in their declared order.
        header: bool,
        /// `null_string`: this text is NULL; by default the empty field is.
        null_string: Option<String>,
        /// How numbers become timestamps.
        timestamp_format: TimestampFormat,
        /// `record_bytes_max`.
        record_bytes_max: usize,
    },
    /// Parquet files.
    Parquet,
    /// The connector makes typed rows itself.
    Native,
}

/// `timestamp_format`: what a number or digits mean as a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestampFormat {
    /// ISO 8601 text only.
    Iso,
    /// Seconds since 1970.
    UnixS,
    /// Milliseconds since 1970.
    UnixMs,
    /// Microseconds since 1970.
    UnixUs,
}

/// `record_bytes_max` where none is given: 1 MiB.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// A sink's connector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "connector", rename_all = "snake_case")]
pub enum SinkSpec {
    /// A table of Postgres.
    Postgres(PostgresSinkSpec),
    /// Files in a folder.
    Files(FilesSinkSpec),
    /// A topic of Kafka.
    Kafka(KafkaSinkSpec),
    /// Lines on standard output of the worker.
    Console(ConsoleSinkSpec),
    /// Nowhere: counts rows.
    Blackhole,
}

/// `connector = 'postgres'`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PostgresSinkSpec {
    /// `url`: `postgres://user:${PASSWORD}@host/db`; may hold references.
    pub url: String,
    /// `table`: `name` or `schema.name`, folded as in Postgres.
    pub table: String,
    /// `primary_key`: upsert by these columns; empty appends.
    pub primary_key: Vec<String>,
    /// `on_conflict = 'ignore'`: keep the row that is there.
    pub on_conflict_ignore: bool,
    /// `create = 'if_missing'`: make the table.
    pub create_if_missing: bool,
}

/// `connector = 'files'` as a sink.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FilesSinkSpec {
    /// `path`: a folder; `file://` may stand before it; may hold references.
    pub path: String,
    /// `format`.
    pub format: FileFormat,
    /// `partition_by`: columns whose values name sub-folders (`url=/a`).
    pub partition_by: Vec<String>,
    /// `roll_interval`: a run of epochs becomes files at the latest after this.
    pub roll_interval_ms: u64,
    /// `roll_bytes`: or when this much has gathered.
    pub roll_bytes: u64,
}

/// `format` of written files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// Apache Parquet, zstd.
    Parquet,
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object a line.
    Json,
}

/// `connector = 'kafka'` as a sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaSinkSpec {
    /// `brokers`: `host:port,...`; may hold references.
    pub brokers: String,
    /// `topic`; may hold references.
    pub topic: String,
    /// `key` or `primary_key`: columns of the record's key; empty for records without one.
    pub key: Vec<String>,
    /// `primary_key` was given: a later record of a key replaces the one before.
    pub upsert: bool,
    /// `headers`: columns that become headers.
    pub headers: Vec<String>,
    /// `partitioner`.
    pub partitioner: KafkaPartitioner,
    /// `transaction_timeout`: the brokers give up a transaction that is open for longer.
    pub transaction_timeout_ms: u64,
    /// `progress_topic`: where the sink's marker is; may hold references.
    pub progress_topic: String,
    /// `"kafka.x.y"` options, without the prefix, handed to librdkafka; may hold references.
    pub properties: BTreeMap<String, String>,
}

/// `partitioner`: how a key becomes a partition. Records without a key are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KafkaPartitioner {
    /// As the Java clients do.
    Murmur2,
    /// As librdkafka and its languages do.
    Crc32,
    /// As Sarama, for Go, does.
    Fnv1a,
    /// Regardless of the key.
    Random,
}

/// `connector = 'console'`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleSinkSpec {
    /// `format`: `table` for people, `json` for programs.
    pub json: bool,
}
