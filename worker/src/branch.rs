//! Branches at run time: a head's rows, through stateless transforms, to an exchange or a ship actor.
//!
//! Owned by the task whose head feeds them (`reader_task.rs`, `keyed_actor.rs`) and used by it alone, so rows and barriers keep their
//! order. Where the exchange leads to an aggregate, the branch folds its rows first: what travels is one row a group.
//! Failure: an error of an edge or a plan ends the pipeline; a row on which an expression fails is handed back to the
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
use crate::operator::{OperatorError, PartialAggregate};
use crate::preview::tap::StageTap;
use crate::transform::{BranchProgram, FailedRow};
use crate::work::{Step, Stretch, TaskWork};

/// Where a branch ends.
pub enum BranchTarget {
    /// At the owners of the rows' keys.
    Exchange {
        /// The way there.
        exchange: ExchangeSender,
        /// What makes states of the rows where the owners aggregate.
        partial: Option<Box<PartialAggregate>>,
    },
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
    /// Who looks at the rows of the head.
    tap: Arc<StageTap>,
    work: Work,
}

/// What was done at the branches' targets since the last barrier.
struct Work {
    clock: ClockRef,
    /// Rows through filters and projections.
    transformed: Stretch,
    /// Rows folded in front of an exchange.
    folded: Stretch,
    /// Rows to other tasks.
    exchanged: Stretch,
    /// Waits for credit.
    blocked: Duration,
}

impl Branches {
    /// The branches of the task called `name`.
    pub fn new(name: String, runners: Vec<BranchRunner>, clock: ClockRef) -> Self {
        Self {
            flows: vec![BranchFlow::default(); runners.len()],
            runners,
            name,
            tap: Arc::default(),
            work: Work {
                clock,
                transformed: Stretch::default(),
                folded: Stretch::default(),
                exchanged: Stretch::default(),
                blocked: Duration::ZERO,
            },
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
            let begun = self.work.clock.monotonic();
            let transformed = runner.program.run(batch, late);
            let ended = self.work.clock.monotonic();
            let (all, row_count) = (&mut self.work.transformed, batch.num_rows() as u64);
            all.add_rows(begun, ended, row_count, 0);
            let transformed =
                transformed.map_err(|error| Failure::new(Kind::Internal, &self.name, &error))?;
            flow.given += row_count;
            flow.late += transformed.late_count as u64;
            flow.filtered += transformed.filtered_count as u64;
            flow.failed += transformed.failed.len() as u64;
            failed.extend(transformed.failed);
            let Some(rows) = transformed.batch else {
                continue;
            };
            flow.sent += rows.num_rows() as u64;
            self.work.send(&self.name, &mut runner.target, rows).await?;
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
        work.step(Step::Transform, std::mem::take(&mut self.work.transformed));
        work.step(Step::Operator, std::mem::take(&mut self.work.folded));
        work.step(Step::Exchange, std::mem::take(&mut self.work.exchanged));
        let blocked = std::mem::take(&mut self.work.blocked);
        work.blocked += blocked;
        work.busy = work.busy.saturating_sub(blocked);
    }

    /// Passes a barrier on, behind all rows before it.
    pub async fn send_barrier(&mut self, barrier: &BarrierCommand) -> Result<(), Failure> {
        for runner in &mut self.runners {
            let sent = match &mut runner.target {
                BranchTarget::Exchange { exchange, partial } => {
                    if let Some(partial) = partial {
                        let begun = self.work.clock.monotonic();
                        let states = partial.finish_epoch();
                        let states = states.map_err(|error| unfolded(&self.name, &error))?;
                        self.work.folded.add(begun, self.work.clock.monotonic());
                        if let Some(states) = states {
                            self.work.exchange(&self.name, exchange, states).await?;
                        }
                    }
                    exchange.send_barrier(barrier).await
                }
                BranchTarget::Ship(edge) => edge.send_barrier(barrier.clone()).await,
            };
            sent.map_err(|error| failure_of(&self.name, &error))?;
        }
        Ok(())
    }
}

impl Work {
    async fn send(
        &mut self,
        name: &str,
        target: &mut BranchTarget,
        rows: RecordBatch,
    ) -> Result<(), Failure> {
        match target {
            BranchTarget::Exchange { exchange, partial } => {
                let Some(partial) = partial else {
                    return self.exchange(name, exchange, rows).await;
                };
                let begun = self.clock.monotonic();
                let states = partial.fold(&rows);
                let states = states.map_err(|error| unfolded(name, &error))?;
                let row_count = rows.num_rows() as u64;
                self.folded
                    .add_rows(begun, self.clock.monotonic(), row_count, 0);
                match states {
                    Some(states) => self.exchange(name, exchange, states).await,
                    None => Ok(()),
                }
            }
            BranchTarget::Ship(edge) => {
                let sent = edge.send_batch(rows).await;
                self.blocked += edge.take_sent().blocked;
                sent.map_err(|error| failure_of(name, &error))
            }
        }
    }

    async fn exchange(
        &mut self,
        name: &str,
        exchange: &mut ExchangeSender,
        rows: RecordBatch,
    ) -> Result<(), Failure> {
        let row_count = rows.num_rows() as u64;
        let begun = self.clock.monotonic();
        let sent = exchange.send_batch(rows).await;
        let done = exchange.take_sent();
        self.blocked += done.blocked;
        let ended = self.clock.monotonic();
        self.exchanged.add_rows(begun, ended, row_count, done.bytes);
        sent.map_err(|error| failure_of(name, &error))
    }
}

fn unfolded(name: &str, error: &OperatorError) -> Failure {
    Failure::new(Kind::Internal, name, error)
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
