//! The plan of a job: what the master makes of a SQL file and workers run.
//!
//! Made by `master/src/plan`, stored in the log's `Job` entry, carried to workers in `Deploy`, wired into
//! actors by `worker/src/pipeline`. A plan is a list of stages in topological order. A stage has a head (a source,
//! or one keyed operator) and branches: stateless transforms that end in an exchange to a later stage
//! or in an output. Outputs become segments; sinks read outputs. Plain data: nothing here can fail
//! but decoding ([`expression::Error`]).

pub mod connector;
pub mod expression;
pub mod quota;
pub mod schema;

use serde::{Deserialize, Serialize};

pub use connector::{FormatSpec, SinkSpec, SourceSpec};
pub use expression::PlanExpression;
pub use quota::{OnQuota, SinkQuota};
pub use schema::PlanSchema;

use crate::ids::{OperatorId, OutputIndex, SourceIndex, StageIndex};
use crate::time::EventSpan;

/// Everything workers need to run a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobPlan {
    /// From `SET` statements.
    pub settings: JobSettings,
    /// In order of their statements.
    pub sources: Vec<SourcePlan>,
    /// Topologically ordered: a stage's inputs stand before it; stage `i` of the first
    /// `sources.len()` stages has source `i` as its head.
    pub stages: Vec<StagePlan>,
    /// What is shipped as segments. The dead letters of every source, of every view with a keyed operator and of every sink
    /// that keeps what it refuses are always among them.
    pub outputs: Vec<OutputPlan>,
    /// In order of their statements.
    pub sinks: Vec<SinkPlan>,
}

/// Settings of a job, by `SET name = 'value'`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSettings {
    /// `checkpoint_interval`: from one epoch to the next.
    pub checkpoint_interval_ms: u64,
    /// `restart_budget`: failures within [`Self::restart_window_ms`] before the job fails for good.
    pub restart_budget: u32,
    /// `restart_window`: failures older than this are forgiven.
    pub restart_window_ms: u64,
    /// `dead_letter_retention`.
    #[serde(default)]
    pub dead_letters: LetterRetention,
    /// `segment_retention`: how long segments are kept once every sink holds them; `None` is as the master says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment_retention_ms: Option<u64>,
}

/// How long dead letters are kept, whoever has read them: whichever bound is reached first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterRetention {
    /// Since their epoch was committed.
    pub age_ms: u64,
    /// In storage, of the whole job.
    pub bytes: u64,
}

impl LetterRetention {
    /// Seven days or 1 GiB.
    pub const DEFAULT: Self = Self {
        age_ms: 7 * 24 * 3_600 * 1_000,
        bytes: 1 << 30,
    };
}

impl Default for LetterRetention {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Default for JobSettings {
    fn default() -> Self {
        Self {
            checkpoint_interval_ms: 1_000,
            restart_budget: 10,
            restart_window_ms: 600_000,
            dead_letters: LetterRetention::DEFAULT,
            segment_retention_ms: None,
        }
    }
}

/// A source: where its bytes come from and what its rows are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourcePlan {
    /// The relation's name.
    pub name: String,
    /// The connector with its options.
    pub spec: SourceSpec,
    /// How bytes become rows; datagen ignores it.
    pub format: FormatSpec,
    /// The columns of the relation, in order. Decoded batches have exactly these.
    pub columns: Vec<SourceColumn>,
    /// Enforced on each row after its columns; a row for which one is false (not NULL) is refused.
    pub checks: Vec<CheckPlan>,
    /// What becomes of a row that breaks a rule.
    pub on_violation: OnViolation,
    /// `WATERMARK FOR column AS column - delay`.
    pub watermark: Option<WatermarkPlan>,
    /// Some view of the job keeps time over this source: its late rows are dead letters.
    pub keeps_time: bool,
    /// A split without rows for this long, read to its end, is idle; `None` is never.
    pub idle_timeout_ms: Option<u64>,
    /// The input ends by itself.
    pub bounded: bool,
}

impl SourcePlan {
    /// The schema of decoded batches.
    pub fn schema(&self) -> PlanSchema {
        let fields = self.columns.iter().map(|column| column.field.clone());
        PlanSchema::from_fields(fields.collect())
    }
}

/// A column of a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceColumn {
    /// Name, type, and whether NULL is allowed.
    #[serde(with = "schema::field_serde")]
    pub field: arrow::datatypes::Field,
    /// Where its values come from.
    pub origin: ColumnOrigin,
    /// The declared SQL type, for error texts (`BIGINT`).
    pub type_name: String,
}

/// Where a column's values come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ColumnOrigin {
    /// The field of exactly its name in the record.
    Record,
    /// An expression over the record and metadata columns.
    Computed(PlanExpression),
    /// `INCLUDE key | partition | offset | timestamp | header 'x' AS name`.
    Metadata(Metadata),
}

/// What a record carries beside its payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Metadata {
    /// Kafka record key as text.
    Key,
    /// Kafka partition, BIGINT.
    Partition,
    /// Kafka offset or 1-based record number, BIGINT.
    Offset,
    /// Kafka record timestamp, TIMESTAMP.
    Timestamp,
    /// The last Kafka header of this name, as text.
    Header(String),
    /// The file's path, TEXT.
    File,
}

/// A `CHECK` of a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckPlan {
    /// `CONSTRAINT name`.
    pub name: Option<String>,
    /// A boolean over the source's columns; its text is the reason of a dead letter.
    pub condition: PlanExpression,
}

/// `on_violation`: what becomes of a row that breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnViolation {
    /// To the dead letters.
    DeadLetter,
    /// Counted, not kept.
    Drop,
    /// The job fails.
    Fail,
}

/// A source's watermark: the greatest event time of a split less the delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarkPlan {
    /// Index into the source's columns; a TIMESTAMP, or TIMESTAMPTZ.
    pub column: usize,
    /// How much older than the newest a row may be.
    pub delay: EventSpan,
}

/// A run of operators with no exchange inside.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StagePlan {
    /// For people: the source's name, or the operator's id.
    pub name: String,
    /// What produces the rows.
    pub head: StageHead,
    /// The sources whose rows reach it: its watermark is the least of theirs.
    pub sources: Vec<SourceIndex>,
    /// Where the rows go.
    pub branches: Vec<Branch>,
}

/// What produces the rows of a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StageHead {
    /// A reader of splits; ports `Rows` and `DeadLetters`.
    Source(SourceIndex),
    /// A keyed operator; ports by its kind, and `DeadLetters`.
    Keyed(KeyedPlan),
}

/// One of the streams that a stage's head produces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Port {
    /// The rows of a source, or the first rows of a DISTINCT.
    Rows,
    /// The rows a source or sink refused, and those on which an expression behind a keyed operator fails; the schema is
    /// [`crate::dead_letter::schema`].
    DeadLetters,
    /// Groups of an aggregate, once, when the watermark has closed their window.
    Final,
    /// Groups of an aggregate that changed, at each epoch, with `_op` as last column.
    Changes,
}

/// The last column of the `Changes` port and of every segment: Int8, not null.
pub const OP_COLUMN: &str = "_op";
/// `_op` of a row that is to be in the sink.
pub const OP_UPSERT: i8 = 0;
/// `_op` of a row whose key is to be gone from the sink.
pub const OP_DELETE: i8 = 1;

/// A chain of stateless transforms from a port to one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Branch {
    /// The stream it reads.
    pub port: Port,
    /// Leads to an operator that keeps time: late rows are left out.
    pub keeps_time: bool,
    /// Applied in order. On the `Changes` port a filter does not drop a row but turns it into a
    /// delete, and `_op` passes every projection.
    pub transforms: Vec<Transform>,
    /// Of the rows after the last transform, without `_op`.
    pub schema: PlanSchema,
    /// Where they go.
    pub target: Target,
}

/// One stateless step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Transform {
    /// Keeps rows for which the condition is true.
    Filter(PlanExpression),
    /// Computes each column of the result.
    Project(Vec<NamedExpression>),
}

/// An expression and the name of its column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamedExpression {
    /// The column's name.
    pub name: String,
    /// How it is computed.
    pub expression: PlanExpression,
}

/// Where a branch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// To the task of the stage that owns the row's key.
    Exchange(StageIndex),
    /// Into the segments of the output.
    Output(OutputIndex),
}

/// A keyed operator: its input schema is that of every branch that targets its stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyedPlan {
    /// Its state's name across plans.
    pub operator: OperatorId,
    /// Of keys, types, window and aggregates; state of another fingerprint is refused.
    pub fingerprint: String,
    /// Of the rows it receives.
    pub input: PlanSchema,
    /// Input columns whose values decide the vnode. Empty: all rows have one key.
    pub key_columns: Vec<usize>,
    /// What it does.
    pub kind: KeyedKind,
}

/// The keyed operators.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum KeyedKind {
    /// Keeps the first row of each key; port `Rows` has the input's schema.
    Distinct {
        /// Event time of a row: a key is forgotten when the watermark passes its first row's.
        /// `None`: bounded input, never forgotten.
        time_column: Option<usize>,
    },
    /// Groups by the first `key_columns.len()` input columns; the aggregates read the columns after
    /// them. Ports `Final` and `Changes` have schema `output`: the group columns, then one column an aggregate.
    Aggregate {
        /// The aggregate calls over the input, in order.
        aggregates: Vec<NamedExpression>,
        /// The group column that holds the window's end; `None`: no window, so no `Final`.
        window: Option<WindowPlan>,
        /// Of the groups, without `_op`.
        output: PlanSchema,
    },
}

/// How a windowed group ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowPlan {
    /// A group column with the start or the end of the window.
    pub column: usize,
    /// What to add to it for the (exclusive) end: the size for a start, zero for an end.
    pub end_offset: EventSpan,
}

/// An output: a relation with an emit mode, shipped as segments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputPlan {
    /// The relation's name (`clicks.dead_letters` for those of a source).
    pub relation: String,
    /// How its rows come.
    pub emit: Emit,
    /// Of its rows, without `_op`.
    pub schema: PlanSchema,
}

/// How the rows of an output come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Emit {
    /// Each row once: plain streams, and groups when their window has closed.
    Final,
    /// Groups whenever they changed, at each epoch or at the first epoch after the interval.
    Changes {
        /// Least time between two emissions; 0 is each epoch.
        interval_ms: u64,
    },
}

/// A sink and the output it reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SinkPlan {
    /// The sink's name.
    pub name: String,
    /// The output it reads.
    pub output: OutputIndex,
    /// The connector with its options.
    pub spec: SinkSpec,
    /// What becomes of a row the sink refuses.
    pub on_violation: OnViolation,
    /// Its rows are dead letters, directly or through a view: it makes none of its own, but is suspended by a row it refuses.
    #[serde(default)]
    pub reads_dead_letters: bool,
    /// From its refused rows (port `DeadLetters`) to the outputs that hold them; empty where it keeps none.
    #[serde(default)]
    pub dead_letters: Vec<Branch>,
    /// How far behind it may be.
    #[serde(default, skip_serializing_if = "SinkQuota::is_unbounded")]
    pub quota: SinkQuota,
    /// Where it begins if its job did not have it before.
    #[serde(default, skip_serializing_if = "SinkStart::is_default")]
    pub start: SinkStart,
}

/// `start`: where a sink begins that is added to a job with a past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkStart {
    /// Not said: `snapshot` where rows change, `now` otherwise.
    #[default]
    Default,
    /// With what comes from then on.
    Now,
    /// With what was shipped for other sinks and is still kept.
    Retained,
    /// With the groups that the operator holds, then with their changes.
    Snapshot,
}

impl SinkStart {
    /// Whether nothing was said.
    pub fn is_default(&self) -> bool {
        *self == Self::Default
    }
}
