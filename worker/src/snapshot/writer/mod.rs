//! Writes the state parts of one keyed task, epoch by epoch, beside its path of rows.
//!
//! Owned by the actor of the task, which hands over at each barrier what has changed and folds the next epoch meanwhile. In the order of
//! the epochs a part is made, encoded and checked off the actor's thread, stored, and the epoch is reported: so a report names nothing that
//! is not stored (INV-8). At most [`WAITING_MAX`] epochs wait; with one more the barrier waits, and with it the rows behind it (INV-9).
//! Failure: the pipeline is told, which ends as a whole, and nothing later is written.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use millstream_common::blocking::{self, BlockingRef};
use millstream_common::error::{Failure, Kind};
use millstream_common::ids::Epoch;
use millstream_common::report::{StageFlow, StatePart};
use millstream_common::store::StoreRef;
use millstream_common::task;
use millstream_common::time::ClockRef;
use ractor::ActorRef;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{LiveParts, PartScope, encode_part};
use crate::operator::{PartRows, StateWrite};
use crate::pipeline::pipeline_actor::PipelineMessage;
use crate::pipeline::report::TaskReport;
use crate::work::{Step, Stretch, TaskWork};

/// Epochs that wait for the one that is written. More would be of no use: the next barrier comes when that one is in the log.
const WAITING_MAX: usize = 1;

/// What a writer starts with.
pub(crate) struct WriterConfig {
    /// For texts: the task.
    pub(crate) name: String,
    /// Whose parts.
    pub(crate) scope: PartScope,
    /// The parts that the task was restored from.
    pub(crate) parts: Vec<StatePart>,
    /// Where parts go.
    pub(crate) store: StoreRef,
    /// Where they are made.
    pub(crate) blocking: BlockingRef,
    /// Time.
    pub(crate) clock: ClockRef,
    /// Who is told.
    pub(crate) pipeline: ActorRef<PipelineMessage>,
}

/// What a barrier brought about.
pub(crate) struct EndedEpoch {
    /// The epoch.
    pub(crate) epoch: Epoch,
    /// What storage has to learn.
    pub(crate) write: StateWrite,
    /// Epochs whose parts are not needed any more.
    pub(crate) forget: BTreeSet<Epoch>,
    /// What became of its rows.
    pub(crate) flow: StageFlow,
    /// What the task did.
    pub(crate) work: TaskWork,
}

/// The writer has ended; the pipeline was told why.
#[derive(Debug, thiserror::Error)]
#[error("the writer of state parts has ended")]
pub(crate) struct Ended;

/// Hands epochs to the task that writes them, which ends with it.
pub(crate) struct SnapshotWriter {
    ended_epochs: mpsc::Sender<EndedEpoch>,
    _tasks: JoinSet<()>,
}

impl SnapshotWriter {
    pub(crate) fn start(mut config: WriterConfig) -> Self {
        let (ended_epochs, received) = mpsc::channel(WAITING_MAX);
        let live = LiveParts::new(std::mem::take(&mut config.parts));
        let mut tasks = JoinSet::new();
        tasks.spawn(Writing { config, live }.run(received));
        Self {
            ended_epochs,
            _tasks: tasks,
        }
    }

    /// Waits while too many epochs are on their way.
    pub(crate) async fn write(&self, ended: EndedEpoch) -> Result<(), Ended> {
        self.ended_epochs.send(ended).await.map_err(|_| Ended)
    }
}

/// The task's side.
struct Writing {
    config: WriterConfig,
    live: LiveParts,
}

impl Writing {
    async fn run(mut self, mut ended_epochs: mpsc::Receiver<EndedEpoch>) {
        while let Some(ended) = ended_epochs.recv().await {
            let written = task::caught(self.write(ended)).await;
            let written = written.unwrap_or_else(|panicked| {
                let name = &self.config.name;
                Err(Failure::new(Kind::Internal, name, &panicked))
            });
            let has_failed = written.is_err();
            let message = match written {
                Ok(report) => PipelineMessage::Reported(report),
                Err(failure) => PipelineMessage::Failed(failure),
            };
            // A pipeline that has ended needs no report.
            let _ = self.config.pipeline.cast(message);
            if has_failed {
                return;
            }
        }
    }

    async fn write(&mut self, ended: EndedEpoch) -> Result<TaskReport, Failure> {
        let EndedEpoch {
            epoch,
            write,
            forget,
            flow,
            mut work,
        } = ended;
        self.live.forget(&forget);
        if let Some((rows, replaces)) = LiveParts::rows_of(write) {
            if replaces {
                self.live.clear();
            }
            if rows.count() > 0 {
                let begun = self.config.clock.monotonic();
                let part = self.store(epoch, rows).await?;
                let mut stretch = Stretch::default();
                let ended = self.config.clock.monotonic();
                stretch.add_rows(begun, ended, part.row_count, part.bytes);
                work.step(Step::Snapshot, stretch);
                self.live.add(part);
            }
        }
        Ok(TaskReport::Snapshotted {
            task: self.config.scope.task,
            operator: self.config.scope.operator.clone(),
            epoch,
            parts: self.live.list().to_vec(),
            flow,
            work,
        })
    }

    async fn store(&self, epoch: Epoch, rows: PartRows) -> Result<StatePart, Failure> {
        let WriterConfig { name, scope, .. } = &self.config;
        let path = scope.path(epoch);
        let encode = move || encode_part(path, epoch, rows);
        let encoded = blocking::run(&self.config.blocking, encode).await;
        let encoded = encoded.map_err(|error| Failure::new(Kind::Internal, name, &error))?;
        let pending = encoded.map_err(|error| Failure::new(error.kind(), name, &error))?;
        let stored = pending.store(&self.config.store).await;
        stored.map_err(|error| Failure::new(error.kind(), name, &error))?;
        Ok(pending.part)
    }
}
