//! The stages of a job while it is being planned: expressions not yet encoded, columns not yet pruned.
//!
//! Built by `source`, `lower` and `sink`; finished by `stages`. Stages are added only behind what they read, so their order is
//! topological from the start.

use std::collections::BTreeSet;

use arrow::datatypes::Field;
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use millstream_common::plan::{Emit, Port, WindowPlan};

/// What is known of a column beyond its type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lineage {
    /// Holds event time unchanged: a watermark of the job bounds it from below.
    pub(super) event_time: bool,
    /// Holds a bound of a window over event time.
    pub(super) window: Option<Window>,
    /// The group column of the aggregate in front, by its position.
    pub(super) group: Option<usize>,
}

/// A bound of a tumbling window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) size_micros: i64,
    pub(super) is_end: bool,
}

/// A column that expressions can read.
#[derive(Clone, Debug)]
pub(super) struct ScopeColumn {
    pub(super) field: Field,
    pub(super) lineage: Lineage,
}

/// A column that is computed.
#[derive(Clone, Debug)]
pub(super) struct DraftColumn {
    pub(super) field: Field,
    pub(super) expression: Expr,
    pub(super) lineage: Lineage,
}

/// A stateless step; expressions read bare column names.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Filter(Expr),
    Project(Vec<DraftColumn>),
}

/// Stages and outputs so far.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) stages: Vec<DraftStage>,
    pub(super) outputs: Vec<DraftOutput>,
}

/// A stage.
#[derive(Debug)]
pub(super) struct DraftStage {
    pub(super) name: String,
    pub(super) head: DraftHead,
    /// Rows of its main ports.
    pub(super) columns: Vec<ScopeColumn>,
    /// Sources whose rows reach it.
    pub(super) sources: BTreeSet<usize>,
    /// Some source that reaches it never ends.
    pub(super) unbounded: bool,
    pub(super) branches: Vec<DraftBranch>,
}

/// What a stage begins with.
#[derive(Debug)]
pub(super) enum DraftHead {
    Source(usize),
    /// What the sink refuses: port `DeadLetters` only. Becomes part of the sink, not a stage of the plan.
    Sink(usize),
    Keyed {
        operator: String,
        /// What the state means, for its fingerprint.
        meaning: String,
        input: Vec<Field>,
        kind: DraftKind,
    },
}

/// A keyed operator.
#[derive(Debug)]
pub(super) enum DraftKind {
    Distinct {
        keys: Vec<usize>,
        time: Option<usize>,
    },
    Aggregate {
        /// The first this many input columns.
        group_count: usize,
        aggregates: Vec<(String, Expr)>,
        window: Option<WindowPlan>,
    },
}

/// A way from a port to a target.
#[derive(Debug)]
pub(super) struct DraftBranch {
    pub(super) port: Port,
    pub(super) steps: Vec<Step>,
    pub(super) columns: Vec<DraftColumn>,
    pub(super) target: DraftTarget,
}

/// Where a branch ends, as an index into the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DraftTarget {
    Exchange(usize),
    Output(usize),
}

/// An output.
#[derive(Debug)]
pub(super) struct DraftOutput {
    pub(super) relation: String,
    pub(super) emit: Emit,
    pub(super) fields: Vec<Field>,
}

/// A reference to a column by its bare name, whatever characters it has.
pub(super) fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

/// The schema that expressions over these columns are typed with.
pub(super) fn schema_of<'a>(fields: impl Iterator<Item = &'a Field>) -> Result<DFSchema> {
    let fields: Vec<Field> = fields.cloned().collect();
    DFSchema::from_unqualified_fields(fields.into(), Default::default())
}

/// `name`, or `name_2`, `name_3`, ... whichever is not taken.
pub(super) fn unused_name<'a>(name: &str, taken: impl Iterator<Item = &'a str> + Clone) -> String {
    let mut candidate = name.to_owned();
    let mut ordinal = 2;
    while taken.clone().any(|other| other == candidate) {
        candidate = format!("{name}_{ordinal}");
        ordinal += 1;
    }
    candidate
}
