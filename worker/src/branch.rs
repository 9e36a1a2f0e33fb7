//! Branches at run time: a head's rows, through stateless transforms, to an exchange or a ship actor.
//!
//! Owned by the task whose head feeds them (`reader_task.rs`, `keyed_actor.rs`) and used by it alone, so rows and barriers keep their
//! order. Failure: an error of an edge or a plan ends the pipeline; a row on which an expression fails is handed back to the
//! caller as [`FailedRow`], for its dead letters: once, even if it fails in several branches.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use millstream_common::dead_letter;
use millstream_common::error::{Failure, Kind};
use millstream_common::link::BarrierCommand;
use millstream_common::plan::{JobPlan, KeyedKind, Port, StageHead, StagePlan};
use millstream_common::report::BranchFlow;
use millstream_common::time::ClockRef;

use crate::exchange::sender::{EdgeSender, ExchangeSender, SendError};
use crate::preview::tap::StageTap;
use crate::transform::{BranchProgram, FailedRow};
use crate::work::{Step, Stretch, TaskWork};

/// Where a branch ends.
pub enum BranchTarget {
    /// At the owners of the rows' keys.
    Exchange(ExchangeSender),
    /// At this worker's ship actor of an output.
    Ship(EdgeSender),
}

/// A branch of one task.
pub struct BranchRunner {
    /// The stream it reads.
    pub port: Port,
    /// Its transforms.
    pub program: BranchProgram,
    /// Where its rows go.
    pub target: BranchTarget,
}

/// All branches of one task.
pub struct Branches {
    runners: Vec<BranchRunner>,
    /// Rows since the last barrier, by runner.
    flows: Vec<BranchFlow>,
    name: String,
    clock: ClockRef,
    /// Who looks at the rows of the head.
    tap: Arc<StageTap>,
    /// Rows to other tasks since the last barrier.
    exchanged: Stretch,
    /// Waits for credit since the last barrier.
    blocked: Duration,
}

impl Branches {
    /// The branches of the task called `name`.
    pub fn new(name: String, runners: Vec<BranchRunner>, clock: ClockRef) -> Self {
        Self {
            clock,
            tap: Arc::default(),
            exchanged: Stretch::default(),
            blocked: Duration::ZERO,
            flows: vec![BranchFlow::default(); runners.len()],
            runners,
            name,
        }
    }

    /// Shows the rows of every port to whoever looks at the stage.
    #[must_use]
    pub fn tapped(mut self, tap: Arc<StageTap>) -> Self {
        self.tap = tap;
        self
    }

    /// Hands rows of a port to its branches; returns the rows that an expression failed on.
    pub async fn send(
        &mut self,
        port: Port,
        batch: &RecordBatch,
        late: Option<&BooleanArray>,
    ) -> Result<Vec<FailedRow>, Failure> {
        let mut failed = Vec::new();
        if batch.num_rows() == 0 {
            return Ok(failed);
        }
        self.tap.offer(port, batch);
        let runners = self.runners.iter_mut().zip(&mut self.flows);
        for (runner, flow) in runners.filter(|(runner, _)| runner.port == port) {
            let transformed = runner.program.run(batch, late);
            let transformed =
                transformed.map_err(|error| Failure::new(Kind::Internal, &self.name, &error))?;
            flow.given += batch.num_rows() as u64;
            flow.late += transformed.late_count as u64;
            flow.filtered += transformed.filtered_count as u64;
            flow.failed += transformed.failed.len() as u64;
            failed.extend(transformed.failed);
            let Some(rows) = transformed.batch else {
                continue;
            };
            let row_count = rows.num_rows() as u64;
            flow.sent += row_count;
            let sent = match &mut runner.target {
                BranchTarget::Exchange(exchange) => {
                    let begun = self.clock.monotonic();
                    let result = exchange.send_batch(rows).await;
                    let sent = exchange.take_sent();
                    self.blocked += sent.blocked;
                    let ended = self.clock.monotonic();
                    self.exchanged.add_rows(begun, ended, row_count, sent.bytes);
                    result
                }
                BranchTarget::Ship(edge) => {
                    let result = edge.send_batch(rows).await;
                    self.blocked += edge.take_sent().blocked;
                    result
                }
            };
            sent.map_err(|error| failure_of(&self.name, &error))?;
        }
        failed.sort_by_key(|row| row.row);
        failed.dedup_by_key(|row| row.row);
        Ok(failed)
    }

    /// Rows through each branch since this was asked last.
    pub fn take_flows(&mut self) -> Vec<BranchFlow> {
        let idle = vec![BranchFlow::default(); self.runners.len()];
        std::mem::replace(&mut self.flows, idle)
    }

    /// Adds what was done since this was asked last, and takes waits out of the time worked.
    pub fn take_work(&mut self, work: &mut TaskWork) {
        work.step(Step::Exchange, std::mem::take(&mut self.exchanged));
        let blocked = std::mem::take(&mut self.blocked);
        work.blocked += blocked;
        work.busy = work.busy.saturating_sub(blocked);
    }

    /// Passes a barrier on, behind all rows before it.
    pub async fn send_barrier(&mut self, barrier: &BarrierCommand) -> Result<(), Failure> {
        for runner in &mut self.runners {
            let sent = match &mut runner.target {
                BranchTarget::Exchange(exchange) => exchange.send_barrier(barrier).await,
                BranchTarget::Ship(edge) => edge.send_barrier(barrier.clone()).await,
            };
            sent.map_err(|error| failure_of(&self.name, &error))?;
        }
        Ok(())
    }
}

fn failure_of(name: &str, error: &SendError) -> Failure {
    Failure::new(error.kind(), name, error)
}

/// The schema of the rows at a port of a stage's head, without `_op`.
pub fn input_schema(plan: &JobPlan, stage: &StagePlan, port: Port) -> SchemaRef {
    match (&stage.head, port) {
        (_, Port::DeadLetters) => dead_letter::schema(),
        (StageHead::Source(source), _) => plan.sources[source.index()].schema().0,
        (StageHead::Keyed(keyed), _) => match &keyed.kind {
            KeyedKind::Distinct { .. } => keyed.input.0.clone(),
            KeyedKind::Aggregate { output, .. } => output.0.clone(),
        },
    }
}
