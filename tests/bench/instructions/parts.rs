//! The pure parts of the path whose instructions are counted: each does the same work as often as it is told to.
//!
//! Run by `mod.rs`, in a process of its own under the counter. No clock, no service, no thread; the input follows from a seed. Failure: a part
//! of an unknown name, or one that cannot do its work.

use anyhow::{Context, bail};
use arrow::array::RecordBatch;
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{JobPlan, StageHead, Target};
use millstream_common::secret::Environment;
use millstream_master::plan::plan_job;
use millstream_worker::branch;
use millstream_worker::operator::PartialAggregate;
use millstream_worker::transform::BranchProgram;

use crate::decode::{self, BATCH_ROWS, Decoding, Shape};
use crate::dedup;
use crate::throughput::queries;

/// Rows of one time.
pub(super) const ROWS: usize = 4 * BATCH_ROWS;
const SEED: u64 = 1;

/// A part of the path.
#[derive(Clone, Copy)]
pub(super) enum Part {
    /// JSON records of a shape to rows.
    Decode(&'static str, Shape),
    /// Rows through the filter of a window's view and into its groups, before the exchange.
    Windows,
    /// Keys that are new to a DISTINCT ON.
    NewKeys,
    /// Keys that it knows.
    KnownKeys,
}

/// All of them, as they follow each other on the path.
pub(super) const PARTS: [Part; 8] = [
    Part::Decode("decode-steady", Shape::Steady),
    Part::Decode("decode-judged", Shape::Judged),
    Part::Decode("decode-shuffled", Shape::Shuffled),
    Part::Decode("decode-escaped", Shape::Escaped),
    Part::Decode("decode-numbers", Shape::Numbers),
    Part::Windows,
    Part::NewKeys,
    Part::KnownKeys,
];

impl Part {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Decode(name, _) => name,
            Self::Windows => "windows",
            Self::NewKeys => "new-keys",
            Self::KnownKeys => "known-keys",
        }
    }

    pub(super) fn named(name: &str) -> anyhow::Result<Self> {
        let part = PARTS.into_iter().find(|part| part.name() == name);
        part.with_context(|| format!("there is no part {name}"))
    }

    /// Does the work so often.
    pub(super) fn run(self, times: usize) -> anyhow::Result<()> {
        match self {
            Self::Decode(_, shape) => decode::repeat(shape, ROWS, SEED, times),
            Self::Windows => Windows::of_the_job()?.repeat(times),
            Self::NewKeys => dedup::repeat(times, ROWS, 0, SEED),
            Self::KnownKeys => dedup::repeat(1, ROWS, times, SEED),
        }
    }
}

/// What a reader does with the rows of jobs/page_views.sql without DISTINCT ON.
struct Windows {
    program: BranchProgram,
    partial: PartialAggregate,
    batches: Vec<RecordBatch>,
}

impl Windows {
    fn of_the_job() -> anyhow::Result<Self> {
        let sql = queries::without_dedup()?.sql()?;
        let planned = plan_job(&sql, &Environment);
        let plan = planned.map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        Self::of(&plan.plan)
    }

    fn of(plan: &JobPlan) -> anyhow::Result<Self> {
        let functions = Functions::new();
        for stage in &plan.stages {
            for branch in &stage.branches {
                let Target::Exchange(next) = branch.target else {
                    continue;
                };
                let StageHead::Keyed(keyed) = &plan.stages[next.index()].head else {
                    continue;
                };
                let Some(partial) = PartialAggregate::new(keyed, &functions)? else {
                    continue;
                };
                let input = branch::input_schema(plan, stage, branch.port);
                let source = plan.sources.first().context("the plan has a source")?;
                let mut decoding = Decoding::new(source)?;
                let records = Shape::Judged.records(ROWS, SEED);
                let batches = records.chunks(BATCH_ROWS).map(|some| decoding.decode(some));
                return Ok(Self {
                    program: BranchProgram::build(branch, &input, &functions)?,
                    partial,
                    batches: batches.collect::<anyhow::Result<_>>()?,
                });
            }
        }
        bail!("no branch of the job leads to an aggregate")
    }

    fn repeat(mut self, times: usize) -> anyhow::Result<()> {
        for _ in 0..times {
            for batch in &self.batches {
                if let Some(rows) = self.program.run(batch, None)?.batch {
                    self.partial.fold(&rows)?;
                }
            }
            self.partial.finish_epoch()?;
        }
        Ok(())
    }
}
