//! GROUP BY: keyed aggregates, with or without windows.
//!
//! Made by `operator::build`, driven by the keyed actor. Rows become states of their groups in front of the exchange (`partial.rs`);
//! behind it the states of the running epoch are folded into a table of their own (`fold.rs`); at the barrier its groups are merged
//! with their earlier states, looked up in the store (`store.rs`), and appended to it.
//! So an epoch costs what its changed groups cost, whatever else is held, and the appended rows are the state part. A group's
//! change is pending until it is emitted;
//! a windowed group that closes while pending
//! emits its last change then, whether changes are due or not, as it is gone afterwards.
//! A closed window's groups leave ordered by end and key; changes leave in the order of the groups' first change.
//! A group without window end (NULL) closes with the end of time. An aggregate without group columns has one
//! group, and emits nothing as long as it has had no rows.
//! Groups that have no room in memory are on disk (`spilling.rs`). Those that close there leave behind the others, by window and in batches of some thousands,
//! each ordered by key.
//! The state of DISTINCT aggregates holds every distinct value, and is merged as a whole when its group changes.
//! Keeps INV-7: see `restore`.
//! Failure: an expression that fails, columns that do not fit, or a disk that fails, end the pipeline.

mod calls;
mod fold;
mod keys;
mod layout;
mod partial;
mod pending;
mod slots;
mod spilled;
mod spilling;
mod store;
mod unsent;

use std::iter::once;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat, concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::Field;
use datafusion::common::{DataFusionError, plan_err};
use millstream_common::ids::{Epoch, OperatorId, Vnode};
use millstream_common::plan::expression::Functions;
use millstream_common::plan::{KeyedPlan, NamedExpression, PlanSchema, Port, WindowPlan};
use millstream_common::time::EventTime;

use self::calls::AggregateCalls;
use self::fold::{DrainedGroups, GroupFold};
use self::keys::{GroupKeys, KeyEncoder};
use self::layout::Layout;
use self::partial::row_count;
use self::pending::PendingGroups;
use self::slots::SlotIndex;
use self::spilled::RowCodec;
use self::store::{NewRows, Rewrite, StateStore};
use self::unsent::Unsent;
use super::event_time::{is_time, micros};
use super::spill::{SpillError, TaskSpill};
use super::{
    BarrierOutcome, BarrierRequest, Emitted, KeyedOperator, OperatorError, StateWrite, build_error,
    run_error,
};
use crate::exchange::message::OwnedRows;

pub use self::partial::PartialAggregate;

/// The operator of one task.
pub(super) struct Aggregate {
    operator: OperatorId,
    calls: Arc<AggregateCalls>,
    layout: Layout,
    window: Option<WindowPlan>,
    fold: GroupFold,
    encoder: KeyEncoder,
    store: StateStore,
    pending: PendingGroups,
    /// `None`: a column has a type that stays in memory.
    codec: Option<RowCodec>,
    /// All groups on disk count as changed.
    spilled_pending: bool,
    unsent: Unsent,
}

/// State rows that an epoch appended to the store.
struct Appended {
    rows: RecordBatch,
    slots: Vec<SlotIndex>,
}

impl Aggregate {
    /// For the plan of an aggregate.
    pub(super) fn new(
        plan: &KeyedPlan,
        aggregates: &[NamedExpression],
        window: Option<WindowPlan>,
        output: &PlanSchema,
        functions: &Functions,
    ) -> Result<Self, OperatorError> {
        let refuse = |error: DataFusionError| build_error(&plan.operator, error.strip_backtrace());
        let groups = group_fields(plan, window).map_err(refuse)?;
        let calls = AggregateCalls::lower(aggregates, &plan.input.0, functions).map_err(refuse)?;
        let calls = Arc::new(calls);
        let layout = Layout::new(groups, &calls, &output.0).map_err(refuse)?;
        let encoder = KeyEncoder::new(Arc::clone(&layout.groups))
            .map_err(|error| build_error(&plan.operator, error))?;
        Ok(Self {
            codec: RowCodec::new(Arc::clone(&layout.state)).ok(),
            spilled_pending: false,
            unsent: Unsent::default(),
            operator: plan.operator.clone(),
            fold: GroupFold::new(Arc::clone(&calls), Arc::clone(&layout.groups)),
            calls,
            layout,
            window,
            encoder,
            store: StateStore::default(),
            pending: PendingGroups::default(),
        })
    }

    fn end_epoch(&mut self, request: &BarrierRequest) -> Result<BarrierOutcome, DataFusionError> {
        let mut appended = self.append_changed(request)?;
        let closed = match (self.window, request.watermark) {
            (Some(_), Some(EventTime(watermark))) => self.store.close(watermark),
            _ => Vec::new(),
        };
        let emitted = self.emit(&appended, &closed, request.emit_changes)?;
        let changed_count = appended.iter().map(|appended| appended.slots.len()).sum();
        // Before slots become free: whether what was appended is live is asked of them.
        appended.extend(self.sweep(request, changed_count)?);
        self.store.remove(&closed);
        self.note_unsent(request);
        let mut forget = self.store.drop_dead_parts();
        forget.remove(&request.epoch);
        let write = match self.store.rewrite(request.epoch, changed_count) {
            Rewrite::Nothing => self.delta(&appended)?,
            Rewrite::Some(slots) => {
                appended.push(self.append_again(request.epoch, slots)?);
                self.delta(&appended)?
            }
            Rewrite::All => {
                forget.clear();
                StateWrite::Full(self.compact(request.epoch)?.into())
            }
        };
        Ok(BarrierOutcome {
            emitted,
            write,
            forget,
        })
    }

    /// Appends the epoch's changed groups to the store. When changes are due, the groups whose change is pending
    /// from earlier epochs are appended again, so that the part says that they are not pending any more.
    fn append_changed(
        &mut self,
        request: &BarrierRequest,
    ) -> Result<Vec<Appended>, DataFusionError> {
        let mut appended = Vec::new();
        let changed = match self.fold.drain()? {
            Some(drained) => Some(self.merge(drained)?),
            None => None,
        };
        if request.emit_changes {
            let known = changed.iter().flat_map(|(_, known)| known).flatten();
            for &slot in known {
                self.pending.remove(slot);
            }
            let earlier = self.pending.take();
            if !earlier.is_empty() {
                appended.push(self.append_again(request.epoch, earlier)?);
            }
        }
        if let Some((rows, known)) = changed {
            let changed = self.append(request.epoch, rows, &known);
            if !request.emit_changes {
                for &slot in &changed.slots {
                    self.pending.add(slot);
                }
            }
            appended.push(changed);
        }
        Ok(appended)
    }

    /// Appends groups as they are.
    fn append_again(
        &mut self,
        epoch: Epoch,
        slots: Vec<SlotIndex>,
    ) -> Result<Appended, DataFusionError> {
        let rows = self.store.gather(&slots)?;
        let rows = self.new_rows(rows)?;
        let known: Vec<_> = slots.into_iter().map(Some).collect();
        Ok(self.append(epoch, rows, &known))
    }

    fn append(&mut self, epoch: Epoch, rows: NewRows, known: &[Option<SlotIndex>]) -> Appended {
        Appended {
            rows: rows.batch.clone(),
            slots: self.store.append(epoch, rows, known),
        }
    }

    /// The full states of groups that changed, and the slots of those that were there before.
    fn merge(
        &mut self,
        drained: DrainedGroups,
    ) -> Result<(NewRows, Vec<Option<SlotIndex>>), DataFusionError> {
        let DrainedGroups {
            groups,
            states,
            count,
        } = drained;
        let keys = self.encoder.encode(&groups, count)?;
        let ends = self.window_ends(&groups)?;
        let known = self.store.find(&keys);
        let (earlier, places) = self.earlier(&keys, &ends, &known)?;
        let states = match earlier.is_empty() {
            true => states,
            false => self.sum_states(&earlier, places, &states, count)?,
        };
        let batch = self.layout.state_rows(keys.vnodes(), groups, states)?;
        Ok((NewRows { batch, keys, ends }, known))
    }
    /// The sums of earlier and new states of `count` groups; `places`: which of these each earlier row is of.
    ///
    /// Both go into one call, earlier first: an accumulator takes a call's groups to be all groups, so groups that a
    /// first call had left out would count as not NULL.
    fn sum_states(
        &self,
        earlier: &[RecordBatch],
        places: Vec<usize>,
        new: &[ArrayRef],
        count: usize,
    ) -> Result<Vec<ArrayRef>, DataFusionError> {
        let columns = new.iter().enumerate().map(|(index, new)| {
            let earlier = earlier.iter();
            let earlier = earlier.map(|rows| self.layout.states(rows)[index].as_ref());
            concat(&earlier.chain(once(new.as_ref())).collect::<Vec<_>>())
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let mut groups = places;
        groups.extend(0..count);
        let mut sums = self.calls.accumulators()?;
        self.calls.merge(&mut sums, &columns, &groups, count)?;
        self.calls.drain_states(sums)
    }

    fn emit(
        &mut self,
        appended: &[Appended],
        closed: &[SlotIndex],
        emit_changes: bool,
    ) -> Result<Vec<Emitted>, DataFusionError> {
        let mut emitted = Vec::new();
        if !closed.is_empty() {
            let batch = self.evaluate(&self.ordered(&self.store.gather(closed)?)?)?;
            emitted.push(Emitted {
                port: Port::Final,
                batch,
            });
        }
        let mut changed: Vec<RecordBatch> = Vec::new();
        if emit_changes {
            changed.extend(appended.iter().map(|appended| appended.rows.clone()));
        }
        let mut leaving = closed.to_vec();
        leaving.retain(|slot| self.pending.remove(*slot));
        if !leaving.is_empty() {
            changed.push(self.ordered(&self.store.gather(&leaving)?)?);
        }
        for rows in changed {
            emitted.push(self.changed(&self.evaluate(&rows)?)?);
        }
        Ok(emitted)
    }

    fn changed(&self, output: &RecordBatch) -> Result<Emitted, DataFusionError> {
        Ok(Emitted {
            port: Port::Changes,
            batch: self.layout.changes(output)?,
        })
    }

    /// The rows of groups by the end of their windows and their keys.
    fn ordered(&self, rows: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
        let groups = self.layout.groups(rows);
        let ends = self.window_ends(groups)?;
        let order = self.encoder.order(groups, &ends, rows.num_rows())?;
        Ok(take_record_batch(rows, &UInt32Array::from(order))?)
    }

    fn evaluate(&self, rows: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
        let results = self.calls.evaluate(self.layout.states(rows))?;
        self.layout.output(self.layout.groups(rows), &results)
    }

    /// The appended rows whose groups still live.
    fn delta(&self, appended: &[Appended]) -> Result<StateWrite, DataFusionError> {
        let mut parts = Vec::new();
        for Appended { rows, slots } in appended {
            let live = slots.iter().map(|slot| Some(self.store.is_live(*slot)));
            let rows = filter_record_batch(rows, &live.collect::<BooleanArray>())?;
            if rows.num_rows() > 0 {
                let live = slots.iter().filter(|slot| self.store.is_live(**slot));
                let pending = live.map(|slot| Some(self.pending.contains(*slot)));
                parts.push(self.layout.store(&rows, pending.collect())?);
            }
        }
        match &parts[..] {
            [] => Ok(StateWrite::Nothing),
            [part] => Ok(StateWrite::Delta(part.clone().into())),
            [first, ..] => {
                let part = concat_batches(first.schema_ref(), &parts)?;
                Ok(StateWrite::Delta(part.into()))
            }
        }
    }

    /// Gathers all live groups into one part.
    fn compact(&mut self, epoch: Epoch) -> Result<RecordBatch, DataFusionError> {
        let slots = self.store.live_slots();
        let rows = self.store.gather(&slots)?;
        let pending = slots.iter().map(|slot| Some(self.pending.contains(*slot)));
        let part = self.layout.store(&rows, pending.collect())?;
        let rows = self.new_rows(rows)?;
        self.store.replace(epoch, rows, &slots);
        Ok(part)
    }

    fn restore_part(
        &mut self,
        epoch: Epoch,
        part: &RecordBatch,
        owns: &dyn Fn(Vnode) -> bool,
        watermark: Option<EventTime>,
    ) -> Result<(), DataFusionError> {
        let (vnodes, _) = self.layout.marks(part)?;
        let rows = self.layout.load(part)?;
        let ends = self.window_ends(self.layout.groups(&rows))?;
        let is_open = |row: usize| match (ends.get(row), watermark) {
            (Some(end), Some(EventTime(watermark))) => *end > watermark,
            _ => true,
        };
        let rows = vnodes.iter().enumerate();
        let kept = rows.map(|(row, vnode)| Some(owns(Vnode(*vnode)) && is_open(row)));
        let part = filter_record_batch(part, &kept.collect::<BooleanArray>())?;
        if part.num_rows() == 0 {
            self.store.note_unused(epoch);
            return Ok(());
        }
        let rows = self.new_rows(self.layout.load(&part)?)?;
        let known = self.store.find(&rows.keys);
        if let Some(codec) = &self.codec {
            // Their newer rows are these.
            self.store.recall(&rows.keys, &rows.ends, &known, codec)?;
        }
        let slots = self.store.append(epoch, rows, &known);
        let (_, pending) = self.layout.marks(&part)?;
        for (row, &slot) in slots.iter().enumerate() {
            if pending.value(row) {
                self.pending.add(slot);
            } else {
                self.pending.remove(slot);
            }
        }
        Ok(())
    }

    fn new_rows(&mut self, batch: RecordBatch) -> Result<NewRows, DataFusionError> {
        let keys: GroupKeys = self
            .encoder
            .encode(self.layout.groups(&batch), batch.num_rows())?;
        let ends = self.window_ends(self.layout.groups(&batch))?;
        Ok(NewRows { batch, keys, ends })
    }

    /// The end of each group's window; empty without windows.
    fn window_ends(&self, groups: &[ArrayRef]) -> Result<Vec<i64>, DataFusionError> {
        let Some(window) = self.window else {
            return Ok(Vec::new());
        };
        let times = micros(&groups[window.column])?;
        let end = |time: i64| (EventTime(time) + window.end_offset).0;
        let ends = times.iter().map(|time| time.map_or(EventTime::MAX.0, end));
        Ok(ends.collect())
    }
}

impl KeyedOperator for Aggregate {
    /// Takes what [`PartialAggregate`] makes of rows.
    fn fold(&mut self, rows: OwnedRows) -> Result<Vec<Emitted>, OperatorError> {
        let batch = rows.into_batch().map_err(DataFusionError::from);
        let folded = batch.and_then(|batch| self.fold.fold_states(&batch));
        folded.map_err(|error| self.failed(error))?;
        Ok(Vec::new())
    }

    fn row_count(&self, rows: &OwnedRows) -> Result<u64, OperatorError> {
        row_count(rows).map_err(|error| self.failed(error))
    }

    fn barrier(&mut self, request: &BarrierRequest) -> Result<BarrierOutcome, OperatorError> {
        self.end_epoch(request).map_err(|error| self.failed(error))
    }

    fn emit_more(&mut self) -> Result<Vec<Emitted>, OperatorError> {
        self.emit_unsent().map_err(|error| self.failed(error))
    }

    /// Groups whose change was not emitted yet stay.
    fn spill(&mut self, bytes: usize, spill: &TaskSpill) -> Result<bool, OperatorError> {
        let Some(codec) = &self.codec else {
            return Ok(false);
        };
        let spilled = self.store.spill(bytes, &mut self.pending, codec, spill);
        spilled.map_err(|error| self.failed(error))
    }

    fn waits_for_disk(&self) -> bool {
        self.store.has_spilled()
    }

    /// A later part's row takes the place of an earlier one's. `watermark` has to be that of the restored epoch's
    /// barrier: the windows it closed were emitted, those that a later one would close were not.
    fn restore(
        &mut self,
        part_epoch: Epoch,
        part: &RecordBatch,
        owns: &dyn Fn(Vnode) -> bool,
        watermark: Option<EventTime>,
    ) -> Result<(), OperatorError> {
        self.restore_part(part_epoch, part, owns, watermark)
            .map_err(|error| self.failed(error))
    }

    fn mark_all_changed(&mut self) {
        self.spilled_pending = self.store.has_spilled();
        for slot in self.store.live_slots() {
            self.pending.add(slot);
        }
    }

    fn state_bytes(&self) -> usize {
        self.store.bytes() + self.fold.bytes() + self.pending.bytes()
    }

    fn disk_bytes(&self) -> u64 {
        self.store.disk_bytes()
    }

    /// Groups of finished epochs; those first seen in the running one count from its barrier on.
    fn key_count(&self) -> usize {
        self.store.live_count()
    }
}

impl Aggregate {
    fn failed(&self, error: DataFusionError) -> OperatorError {
        if let DataFusionError::External(cause) = &error
            && let Some(error) = cause.downcast_ref::<SpillError>()
        {
            return error.clone().into();
        }
        run_error(&self.operator, error.strip_backtrace())
    }
}

/// The columns to group by: the first of the input, as many as there are key columns.
fn group_fields(
    plan: &KeyedPlan,
    window: Option<WindowPlan>,
) -> Result<Vec<Field>, DataFusionError> {
    let count = plan.key_columns.len();
    let fields = plan.input.0.fields();
    if !plan.key_columns.iter().copied().eq(0..count) || count > fields.len() {
        return plan_err!(
            "group columns are the first of the input, not {:?}",
            plan.key_columns
        );
    }
    let groups = fields.iter().take(count);
    let groups: Vec<Field> = groups.map(|field| field.as_ref().clone()).collect();
    if let Some(window) = window {
        let column = groups.get(window.column);
        if !column.is_some_and(|field| is_time(field.data_type())) {
            return plan_err!(
                "window column {} is no group column with a time",
                window.column
            );
        }
    }
    Ok(groups)
}
