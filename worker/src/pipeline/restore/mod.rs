//! Brings back the state of the keyed tasks of a pipeline from the parts that the log names.
//!
//! Called by `build`. Every part of an operator may hold keys of every task, and storage answers each request after some
//! milliseconds: so a worker reads each part once for all its tasks, many at a time, and folds them in their order while the next ones
//! are read and decoded. Bounded in bytes and in requests (INV-9). Keeps INV-7 and INV-8. Failure: a part that is missing, damaged or of
//! another shape, by its name.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::future::{try_join, try_join_all};
use futures::{StreamExt, stream};
use millstream_common::blocking::{self, BlockingRef};
use millstream_common::error::{Failure, Kind};
use millstream_common::ids::{TaskId, Vnode};
use millstream_common::ipc::{self, ObjectError};
use millstream_common::mutant::{self, Mutant};
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{KeyedPlan, StageHead};
use millstream_common::report::{RestorePoint, StatePart};
use millstream_common::store::StoreRef;
use millstream_common::time::EventTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::wiring::Wiring;
use crate::operator::keyed_actor::least_watermark;
use crate::operator::spill::Spill;
use crate::operator::task_state::TaskState;
use crate::operator::{self, OperatorError};

/// Parts of one operator that are asked for at once.
const PARTS_AT_ONCE: usize = 32;
/// Bytes of parts on their way at once, as they are stored; a larger part comes alone.
const BYTES_AT_ONCE: u32 = 256 << 20;
/// The same, as a share of the memory that state may take: decoded they are some times as large, and are beside it until they are folded.
const LIMIT_SHARE: u64 = 8;

/// What it is done with.
pub(super) struct Restore<'a> {
    pub(super) wiring: &'a Wiring<'a>,
    pub(super) point: &'a RestorePoint,
    pub(super) functions: &'a Functions,
    pub(super) store: &'a StoreRef,
    pub(super) spill: &'a Spill,
    pub(super) blocking: &'a BlockingRef,
}

/// The operator of each local task as it was, and the parts it came from.
pub(super) type Restored = BTreeMap<TaskId, (TaskState, Vec<StatePart>)>;

/// The local tasks of one operator.
struct Stage<'a> {
    name: String,
    keyed: &'a KeyedPlan,
    watermark: Option<EventTime>,
    tasks: Vec<(TaskId, TaskState)>,
}

impl Restore<'_> {
    /// All keyed tasks of this worker.
    pub(super) async fn run(&self) -> Result<Restored, Failure> {
        let mut by_stage: BTreeMap<_, Vec<TaskId>> = BTreeMap::new();
        for task in self.wiring.local_tasks() {
            by_stage.entry(task.stage).or_default().push(task);
        }
        let mut stages = Vec::new();
        for tasks in by_stage.into_values() {
            stages.extend(self.stage(tasks)?);
        }
        let room = Room::new(self.spill.budget.bytes_limit());
        let restored = stages.into_iter().map(|stage| self.restore(stage, &room));
        let restored = try_join_all(restored).await?;
        Ok(restored.into_iter().flatten().collect())
    }

    /// Empty operators of a stage's tasks, if it is keyed.
    fn stage(&self, tasks: Vec<TaskId>) -> Result<Option<Stage<'_>>, Failure> {
        let Some(first) = tasks.first() else {
            return Ok(None);
        };
        let name = self.wiring.name_of(*first);
        let stage = self.wiring.stage(first.stage);
        let StageHead::Keyed(keyed) = &stage.head else {
            return Ok(None);
        };
        let watermark = least_watermark(&stage.sources, &self.point.acted_watermarks)
            .filter(|_| !mutant::is(Mutant::RestoreWithoutWatermark));
        let build = |task: TaskId| {
            let built = operator::build(keyed, self.functions);
            let built = built.map_err(|error| Failure::new(Kind::Internal, &name, &error));
            built.map(|operator| (task, TaskState::new(operator, self.spill.task(&name))))
        };
        Ok(Some(Stage {
            tasks: tasks.into_iter().map(build).collect::<Result<_, _>>()?,
            name,
            keyed,
            watermark,
        }))
    }

    async fn restore(&self, stage: Stage<'_>, room: &Room) -> Result<Restored, Failure> {
        let parts = self.point.parts.get(&stage.keyed.operator);
        let parts = parts.cloned().unwrap_or_default();
        let mut queues = Vec::new();
        let folds = stage.tasks.into_iter().map(|(task, state)| {
            let (queue, queued) = mpsc::channel(PARTS_AT_ONCE);
            queues.push(queue);
            let fold = Fold {
                stage: &stage.name,
                task,
                watermark: stage.watermark,
            };
            async move { Ok((task, self.fold_all(&fold, state, queued).await?)) }
        });
        let folds = try_join_all(folds.collect::<Vec<_>>());
        let load = self.load_all(&stage.name, &parts, queues, room);
        let (folded, ()) = try_join(folds, load).await?;
        let folded = folded.into_iter();
        Ok(folded
            .map(|(task, state)| (task, (state, parts.clone())))
            .collect())
    }

    /// Hands every part to every task, in their order.
    async fn load_all(
        &self,
        stage: &str,
        parts: &[StatePart],
        queues: Vec<mpsc::Sender<Arc<Loaded>>>,
        room: &Room,
    ) -> Result<(), Failure> {
        // Room is taken in the order of folding: a part never waits for room that a later one of its operator holds, and what other operators
        // hold they give back without this one.
        let begun = stream::iter(parts.to_vec()).then(|part| room.clone().begin(part));
        let loads = begun.map(|(part, room)| self.load(stage, part, room));
        let mut loads = pin!(loads.buffered(PARTS_AT_ONCE));
        while let Some(loaded) = loads.next().await {
            let loaded = Arc::new(loaded?);
            for queue in &queues {
                // Nobody receives any more where folding has failed, which is told there.
                if queue.send(Arc::clone(&loaded)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Reads a part, and decodes it where that holds nobody up.
    async fn load(
        &self,
        stage: &str,
        part: StatePart,
        room: OwnedSemaphorePermit,
    ) -> Result<Loaded, Failure> {
        let failed = |error: ObjectError| Failure::new(error.kind(), stage, &error);
        let bytes = ipc::load_bytes(self.store, &part.path).await;
        let bytes = bytes.map_err(failed)?;
        let decode = move || {
            let batches = ipc::decode(&part.path, &bytes, part.checksum)?;
            Ok(Loaded {
                part,
                batches,
                _room: room,
            })
        };
        let decoded = blocking::run(self.blocking, decode).await;
        let decoded = decoded.map_err(|panicked| Failure::new(Kind::Internal, stage, &panicked))?;
        decoded.map_err(failed)
    }

    /// A task takes the keys that it owns out of each part, beside the others, and may have to move some to disk.
    async fn fold_all(
        &self,
        fold: &Fold<'_>,
        mut state: TaskState,
        mut queued: mpsc::Receiver<Arc<Loaded>>,
    ) -> Result<TaskState, Failure> {
        let task_count = self.wiring.task_count();
        let owns_all = mutant::is(Mutant::RestoreKeysOfOthers);
        let (index, watermark) = (fold.task.index, fold.watermark);
        while let Some(loaded) = queued.recv().await {
            let restore = move || {
                let owns = |vnode: Vnode| owns_all || vnode.owner(task_count) == index;
                let restored = loaded.restore(&mut state, &owns, watermark);
                restored.map(|()| state)
            };
            let restored = blocking::run(self.blocking, restore).await;
            let restored =
                restored.map_err(|panicked| Failure::new(Kind::Internal, fold.stage, &panicked))?;
            state = restored.map_err(|error| Failure::new(error.kind(), fold.stage, &error))?;
        }
        Ok(state)
    }
}

/// What a task is folded with.
struct Fold<'a> {
    stage: &'a str,
    task: TaskId,
    watermark: Option<EventTime>,
}

/// A part that was read.
struct Loaded {
    part: StatePart,
    batches: Vec<RecordBatch>,
    /// Kept until every task has folded it.
    _room: OwnedSemaphorePermit,
}

impl Loaded {
    fn restore(
        &self,
        state: &mut TaskState,
        owns: &dyn Fn(Vnode) -> bool,
        watermark: Option<EventTime>,
    ) -> Result<(), OperatorError> {
        for batch in &self.batches {
            let operator = state.operator();
            operator.restore(self.part.epoch, batch, owns, watermark)?;
        }
        state.give_back().map(drop)
    }
}

/// For the parts of all operators on their way.
#[derive(Clone)]
struct Room {
    free: Arc<Semaphore>,
    bytes_max: u32,
}

impl Room {
    /// Beside state that may take so much memory.
    fn new(state_bytes_limit: Option<u64>) -> Self {
        let share = state_bytes_limit.map_or(u64::MAX, |limit| limit / LIMIT_SHARE);
        let bytes_max = share.clamp(1, u64::from(BYTES_AT_ONCE)) as u32;
        Self {
            free: Arc::new(Semaphore::new(bytes_max as usize)),
            bytes_max,
        }
    }

    /// Waits for room for the part.
    async fn begin(self, part: StatePart) -> (StatePart, OwnedSemaphorePermit) {
        let bytes = u32::try_from(part.bytes).unwrap_or(self.bytes_max);
        let bytes = bytes.clamp(1, self.bytes_max);
        let permit = self.free.acquire_many_owned(bytes).await;
        (part, permit.expect("nobody closes it"))
    }
}
