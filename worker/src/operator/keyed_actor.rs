//! The actor of one keyed task: alignment, operator, branches, state parts.
//!
//! Child of the pipeline, one a task of a keyed stage. Receives the messages of its input edges; sends what the operator emits down its
//! branches, and the barrier behind it; hands what has changed to a writer of its own (`snapshot/writer`), which stores and reports it
//! while the next epoch runs. Owns the operator (`task_state.rs`) and that writer. Decides nothing: epochs are `align.rs`'s, rows the operator's.
//! Failure: any error is told to the pipeline, which ends as a whole; nothing is repaired in place.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::RecordBatch;
use millstream_common::blocking::BlockingRef;
use millstream_common::error::{Failure, Kind};
use millstream_common::ids::SourceIndex;
use millstream_common::link::BarrierKind;
use millstream_common::plan::Port;
use millstream_common::report::{StageFlow, StatePart};
use millstream_common::store::StoreRef;
use millstream_common::time::{ClockRef, EventTime};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::task_state::StateSeat;
use super::{BarrierRequest, Emitted, KeyedOperator};
use crate::branch::Branches;
use crate::exchange::align::{Alignment, Outcome};
use crate::exchange::message::{EdgeBarrier, EdgeBatch, EdgeId, StreamMessage};
use crate::failed_rows;
use crate::pipeline::pipeline_actor::PipelineMessage;
use crate::snapshot::PartScope;
use crate::snapshot::writer::{EndedEpoch, SnapshotWriter, WriterConfig};
use crate::transform::FailedRow;
use crate::work::{Step, Stretch, TaskWork};

/// What a keyed task takes.
pub enum KeyedMessage {
    /// The next message of an edge.
    Stream {
        /// Which edge.
        edge: EdgeId,
        /// What came.
        message: StreamMessage,
    },
}

/// What a keyed task starts with, its state already restored.
pub struct KeyedConfig {
    /// For texts.
    pub name: String,
    /// Restored.
    pub seat: StateSeat,
    /// It is a DISTINCT: what it does not hand on is a duplicate. Others keep what they take in their groups.
    pub keeps_first_rows: bool,
    /// The parts it was restored from.
    pub parts: Vec<StatePart>,
    /// Where parts go.
    pub scope: PartScope,
    /// All edges on which it receives.
    pub edges: Vec<EdgeId>,
    /// The sources whose rows reach it.
    pub sources: Vec<SourceIndex>,
    /// Where its rows go.
    pub branches: Branches,
    /// Least time between two emissions of changes, as long as there is room for what waits.
    pub changes_interval: Duration,
    /// All groups leave with the first barrier, whatever the interval.
    pub emits_all: bool,
    /// Storage for parts.
    pub store: StoreRef,
    /// Where parts are made.
    pub blocking: BlockingRef,
    /// Time.
    pub clock: ClockRef,
    /// Who is told.
    pub pipeline: ActorRef<PipelineMessage>,
}

/// The state of a keyed task.
pub struct KeyedState {
    config: KeyedConfig,
    alignment: Alignment,
    writer: SnapshotWriter,
    /// Rows since the last barrier.
    flow: StageFlow,
    /// Work of the operator since the last barrier.
    worked: Stretch,
    /// The same, with what became of its rows.
    busy: Duration,
    changes_emitted_at: Duration,
    /// Changes leave with the next barrier, due or not: as long as they wait, their groups cannot move to disk.
    has_to_emit: bool,
}

/// The actor.
pub struct KeyedActor;

impl Actor for KeyedActor {
    type Msg = KeyedMessage;
    type State = KeyedState;
    type Arguments = KeyedConfig;

    async fn pre_start(
        &self,
        _: ActorRef<KeyedMessage>,
        mut config: KeyedConfig,
    ) -> Result<KeyedState, ActorProcessingErr> {
        let writer = SnapshotWriter::start(WriterConfig {
            name: config.name.clone(),
            scope: config.scope.clone(),
            parts: std::mem::take(&mut config.parts),
            store: config.store.clone(),
            blocking: config.blocking.clone(),
            clock: config.clock.clone(),
            pipeline: config.pipeline.clone(),
        });
        Ok(KeyedState {
            alignment: Alignment::new(config.edges.iter().copied()),
            writer,
            flow: StageFlow::default(),
            worked: Stretch::default(),
            busy: Duration::ZERO,
            has_to_emit: false,
            changes_emitted_at: config.clock.monotonic(),
            config,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<KeyedMessage>,
        message: KeyedMessage,
        state: &mut KeyedState,
    ) -> Result<(), ActorProcessingErr> {
        let KeyedMessage::Stream { edge, message } = message;
        if let Err(failure) = state.accept(edge, message).await {
            // The pipeline ends as a whole; until it does, this task takes nothing more.
            state
                .config
                .pipeline
                .cast(PipelineMessage::Failed(failure))?;
            myself.stop(None);
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<KeyedMessage>,
        event: SupervisionEvent,
        _: &mut KeyedState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorStarted(_) | SupervisionEvent::ProcessGroupChanged(_) => Ok(()),
            SupervisionEvent::ActorTerminated(child, _, _)
            | SupervisionEvent::ActorFailed(child, _) => {
                Err(format!("a keyed task has no children, but {} ended", child.get_id()).into())
            }
        }
    }
}

impl KeyedState {
    async fn accept(&mut self, edge: EdgeId, message: StreamMessage) -> Result<(), Failure> {
        let outcomes = self
            .alignment
            .accept(edge, message)
            .map_err(|error| Failure::new(Kind::Internal, &self.config.name, &error))?;
        for outcome in outcomes {
            match outcome {
                Outcome::Fold { batch, .. } => self.fold(batch).await?,
                Outcome::Snapshot(barrier) => self.finish_epoch(barrier).await?,
            }
        }
        Ok(())
    }

    /// The rows' credit is dropped once its rows are in the state and what they brought about is sent.
    async fn fold(&mut self, batch: EdgeBatch) -> Result<(), Failure> {
        let begun = self.config.clock.monotonic();
        let EdgeBatch { rows, permit } = batch;
        let taken = rows.count() as u64;
        let fold = |operator: &mut dyn KeyedOperator| {
            let row_count = operator.row_count(&rows)?;
            Ok((row_count, operator.fold(rows)?))
        };
        let (row_count, emitted) = self.config.seat.call(fold).await?;
        let folded = self.config.clock.monotonic();
        let bytes = u64::from(permit.bytes());
        self.worked.add_rows(begun, folded, taken, bytes);
        self.flow.received += row_count;
        match self.config.keeps_first_rows {
            true => {
                let first_rows = emitted
                    .iter()
                    .map(|emitted| emitted.batch.num_rows() as u64);
                self.flow.duplicates += row_count - first_rows.sum::<u64>();
            }
            false => self.flow.folded += row_count,
        }
        self.send(emitted).await?;
        drop(permit);
        self.busy += self.config.clock.monotonic().saturating_sub(begun);
        Ok(())
    }

    async fn send(&mut self, emitted: Vec<Emitted>) -> Result<(), Failure> {
        for Emitted { port, batch } in emitted {
            let failed = self.config.branches.send(port, &batch, None).await?;
            if !failed.is_empty() {
                self.flow.failed += failed.len() as u64;
                self.send_dead_letters(&batch, &failed).await?;
            }
        }
        Ok(())
    }

    /// Rows on which an expression behind the operator fails are dead letters of its view.
    async fn send_dead_letters(
        &mut self,
        batch: &RecordBatch,
        failed: &[FailedRow],
    ) -> Result<(), Failure> {
        let operator = self.config.scope.operator.to_string();
        let view = operator.rsplitn(3, '/').last().unwrap_or_default();
        let place_of = |_| (operator.as_str(), failed_rows::NO_POSITION);
        let received_at_us = self.config.clock.unix_micros();
        let letters = failed_rows::dead_letters(view, place_of, batch, failed, received_at_us)
            .map_err(|error| Failure::new(Kind::Internal, &self.config.name, &error))?;
        let branches = &mut self.config.branches;
        branches
            .send(Port::DeadLetters, &letters, None)
            .await
            .map(drop)
    }

    async fn finish_epoch(&mut self, barrier: EdgeBarrier) -> Result<(), Failure> {
        let begun = self.config.clock.monotonic();
        let request = BarrierRequest {
            epoch: barrier.epoch,
            watermark: least_watermark(&self.config.sources, &barrier.watermarks),
            emit_changes: self.are_changes_due(barrier.kind),
        };
        let seat = &mut self.config.seat;
        let outcome = seat
            .call(move |operator| operator.barrier(&request))
            .await?;
        self.worked.add(begun, self.config.clock.monotonic());
        self.send(outcome.emitted).await?;
        self.send_more().await?;
        self.config.branches.send_barrier(&barrier).await?;
        let mut flow = std::mem::take(&mut self.flow);
        flow.branches = self.config.branches.take_flows();
        self.busy += self.config.clock.monotonic().saturating_sub(begun);
        let mut work = TaskWork {
            busy: std::mem::take(&mut self.busy),
            ..TaskWork::default()
        };
        work.step(Step::Operator, std::mem::take(&mut self.worked));
        self.config.branches.take_work(&mut work);
        let ended = EndedEpoch {
            epoch: barrier.epoch,
            write: outcome.write,
            forget: outcome.forget,
            flow,
            work,
        };
        let taken = self.writer.write(ended).await;
        taken.map_err(|error| Failure::new(Kind::Internal, &self.config.name, &error))?;
        self.has_to_emit = self.config.seat.give_back().await?;
        Ok(())
    }

    /// What the last barrier emits out of state that is on disk.
    async fn send_more(&mut self) -> Result<(), Failure> {
        loop {
            let begun = self.config.clock.monotonic();
            let seat = &mut self.config.seat;
            let emitted = seat.call(|operator| operator.emit_more()).await?;
            if emitted.is_empty() {
                return Ok(());
            }
            self.worked.add(begun, self.config.clock.monotonic());
            self.send(emitted).await?;
        }
    }

    fn are_changes_due(&mut self, kind: BarrierKind) -> bool {
        let now = self.config.clock.monotonic();
        let is_due = now.saturating_sub(self.changes_emitted_at) >= self.config.changes_interval;
        let is_forced = !kind.reads_on() || std::mem::take(&mut self.config.emits_all);
        let is_forced = is_forced || self.has_to_emit;
        if is_due || is_forced {
            self.changes_emitted_at = now;
        }
        is_due || is_forced
    }
}

/// The watermark of a stage: the least of its sources'; `None` while one of them has none.
pub fn least_watermark(
    sources: &[SourceIndex],
    watermarks: &BTreeMap<SourceIndex, EventTime>,
) -> Option<EventTime> {
    sources
        .iter()
        .map(|source| watermarks.get(source).copied())
        .min()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_as_far_as_its_slowest_source() {
        let two = [SourceIndex(0), SourceIndex(1)];
        let mut watermarks = BTreeMap::from([(SourceIndex(0), EventTime(5))]);
        assert_eq!(least_watermark(&two, &watermarks), None);
        watermarks.insert(SourceIndex(1), EventTime(3));
        assert_eq!(least_watermark(&two, &watermarks), Some(EventTime(3)));
        assert_eq!(least_watermark(&two[..1], &watermarks), Some(EventTime(5)));
    }
}
