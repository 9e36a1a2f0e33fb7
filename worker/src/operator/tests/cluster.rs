//! Tasks of one operator with the storage they need: what the pipeline around an operator does, without actors.

use std::io::Cursor;
use std::sync::{Arc, LazyLock};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use millstream_common::ids::{Epoch, Vnode};
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{KeyedPlan, Port};
use millstream_common::time::EventTime;

use super::super::key_hash::KeyHasher;
use super::super::spill::Spill;
use super::super::spill::budget::StateBudget;
use super::super::spill::memory::MemoryDisk;
use super::super::task_state::TaskState;
use super::super::{
    BarrierRequest, Emitted, KeyedOperator, PartRows, PartialAggregate, StateWrite, build,
};
use crate::exchange::message::OwnedRows;

static FUNCTIONS: LazyLock<Functions> = LazyLock::new(Functions::new);

/// Tasks of one operator.
pub(super) struct Cluster {
    plan: KeyedPlan,
    partial: Option<PartialAggregate>,
    tasks: Vec<Task>,
    epoch: Epoch,
    watermark: Option<EventTime>,
    /// How often all of a task's state was written.
    pub(super) full_count: usize,
    /// How often a barrier or a part left state on disk.
    pub(super) spilled_count: usize,
    spill: Spill,
}

struct Task {
    state: TaskState,
    /// As storage keeps them.
    parts: Vec<(Epoch, Vec<u8>)>,
}

/// What a barrier emitted, as text, sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) closed: Vec<String>,
    pub(super) changed: Vec<String>,
}

impl Cluster {
    pub(super) fn new(plan: KeyedPlan, task_count: u32) -> Self {
        Self::with_spill(plan, task_count, Spill::without_limit())
    }

    /// With so much memory for state, and something that stands for a disk.
    pub(super) fn with_memory(plan: KeyedPlan, task_count: u32, state_bytes: usize) -> Self {
        let spill = Spill {
            budget: StateBudget::new(state_bytes),
            disk: Arc::new(MemoryDisk),
        };
        Self::with_spill(plan, task_count, spill)
    }

    pub(super) fn with_spill(plan: KeyedPlan, task_count: u32, spill: Spill) -> Self {
        let mut cluster = Self {
            partial: PartialAggregate::new(&plan, &FUNCTIONS).expect("plan"),
            plan,
            tasks: Vec::new(),
            epoch: Epoch(0),
            watermark: None,
            full_count: 0,
            spilled_count: 0,
            spill,
        };
        cluster.restore(task_count);
        cluster
    }

    /// Hands each row to its owner; returns what is emitted at once, sorted.
    pub(super) fn fold(&mut self, batch: &RecordBatch) -> Vec<String> {
        let mut hasher =
            KeyHasher::new(&self.plan.input.0, &self.plan.key_columns).expect("hasher");
        let hashes = hasher.hash(batch).to_vec();
        let task_count = self.tasks.len() as u32;
        let mut rows = Vec::new();
        for (index, task) in (0..).zip(&mut self.tasks) {
            let owned = (0..batch.num_rows() as u32)
                .filter(|row| Vnode::of_hash(hashes[*row as usize]).owner(task_count) == index);
            let owned = take_record_batch(batch, &UInt32Array::from_iter_values(owned));
            let owned = owned.expect("take");
            let emitted = match &mut self.partial {
                None => {
                    let owned = OwnedRows::whole(owned);
                    task.state.operator().fold(owned).expect("fold")
                }
                Some(partial) => fold_states(partial, task.state.operator(), &owned),
            };
            for emitted in emitted {
                assert_eq!(emitted.port, Port::Rows);
                rows.extend(texts(&emitted.batch));
            }
        }
        rows.sort();
        rows
    }

    pub(super) fn barrier(&mut self, watermark: Option<EventTime>, emit_changes: bool) -> Rows {
        self.epoch = self.epoch.next();
        self.watermark = watermark;
        let request = BarrierRequest {
            epoch: self.epoch,
            watermark,
            emit_changes,
        };
        let mut rows = Rows::default();
        for task in &mut self.tasks {
            let operator = task.state.operator();
            let mut outcome = operator.barrier(&request).expect("barrier");
            loop {
                let more = operator.emit_more().expect("more");
                if more.is_empty() {
                    break;
                }
                outcome.emitted.extend(more);
            }
            for Emitted { port, batch } in &outcome.emitted {
                match port {
                    Port::Final => rows.closed.extend(texts(batch)),
                    Port::Changes => rows.changed.extend(texts(batch)),
                    other => panic!("nothing belongs to {other:?}"),
                }
            }
            task.parts
                .retain(|(epoch, _)| !outcome.forget.contains(epoch));
            match outcome.write {
                StateWrite::Nothing => {}
                StateWrite::Delta(rows) => task.parts.push((self.epoch, to_ipc(rows))),
                StateWrite::Full(rows) => {
                    self.full_count += 1;
                    task.parts = vec![(self.epoch, to_ipc(rows))];
                }
            }
            task.state.give_back().expect("given back");
            self.spilled_count += usize::from(task.state.operator().waits_for_disk());
        }
        rows.closed.sort();
        rows.changed.sort();
        rows
    }

    /// A sink begins with what the tasks hold.
    pub(super) fn mark_all_changed(&mut self) {
        for task in &mut self.tasks {
            task.state.operator().mark_all_changed();
        }
    }

    /// Loses all memory and starts again from storage, on another number of tasks.
    pub(super) fn restore(&mut self, task_count: u32) {
        let mut parts: Vec<(Epoch, Vec<u8>)> = Vec::new();
        for task in self.tasks.drain(..) {
            for part in task.parts {
                // After a restore several tasks hold the same part.
                if !parts.contains(&part) {
                    parts.push(part);
                }
            }
        }
        parts.sort_by_key(|(epoch, _)| *epoch);
        for index in 0..task_count {
            let operator = build(&self.plan, &FUNCTIONS).expect("build");
            let mut state = TaskState::new(operator, self.spill.task("test"));
            let owns = |vnode: Vnode| vnode.owner(task_count) == index;
            for (epoch, part) in &parts {
                let part = from_ipc(part);
                let restored = state
                    .operator()
                    .restore(*epoch, &part, &owns, self.watermark);
                restored.expect("restore");
                state.give_back().expect("given back");
                self.spilled_count += usize::from(state.operator().waits_for_disk());
            }
            self.tasks.push(Task {
                state,
                parts: parts.clone(),
            });
        }
    }

    pub(super) fn key_count(&mut self) -> usize {
        let tasks = self.tasks.iter_mut();
        tasks.map(|task| task.state.operator().key_count()).sum()
    }

    pub(super) fn part_count(&self) -> usize {
        self.tasks.iter().map(|task| task.parts.len()).sum()
    }

    pub(super) fn state_bytes(&mut self) -> usize {
        let tasks = self.tasks.iter_mut();
        tasks.map(|task| task.state.operator().state_bytes()).sum()
    }
}

/// Rows as they come to an aggregate: as states.
fn fold_states(
    partial: &mut PartialAggregate,
    operator: &mut dyn KeyedOperator,
    rows: &RecordBatch,
) -> Vec<Emitted> {
    let early = partial.fold(rows).expect("fold rows");
    let rest = partial.finish_epoch().expect("states");
    let (mut emitted, mut row_count) = (Vec::new(), 0);
    for states in early.into_iter().chain(rest) {
        let states = OwnedRows::whole(states);
        row_count += operator.row_count(&states).expect("rows");
        emitted.extend(operator.fold(states).expect("fold states"));
    }
    assert_eq!(row_count, rows.num_rows() as u64);
    emitted
}

/// Each row as its values with bars between them.
pub(super) fn texts(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::new().with_null("NULL");
    let columns: Vec<ArrayFormatter<'_>> = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options).expect("format"))
        .collect();
    let row = |row: usize| {
        let values: Vec<String> = columns.iter().map(|c| c.value(row).to_string()).collect();
        values.join("|")
    };
    (0..batch.num_rows()).map(row).collect()
}

fn to_ipc(rows: PartRows) -> Vec<u8> {
    let part = rows.make().expect("a batch");
    assert_eq!(part.schema().field(0).name(), "_vnode");
    let mut writer = StreamWriter::try_new(Vec::new(), &part.schema()).expect("writer");
    writer.write(&part).expect("write");
    writer.into_inner().expect("finish")
}

fn from_ipc(bytes: &[u8]) -> RecordBatch {
    let mut reader = StreamReader::try_new(Cursor::new(bytes), None).expect("reader");
    reader.next().expect("one batch").expect("read")
}
