//! Folds rows into groups: the vectorised inner loop of an aggregate.
//!
//! In front of an exchange it is fed with rows (`partial.rs`), behind it with the states made of them (`mod.rs`), and drained at the barrier
//! at the latest. Knows nothing of earlier epochs. Groups are in the order of their first row.
//! Failure: an expression that cannot be evaluated is an error; the fold is not usable after it.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::common::DataFusionError;
use datafusion::logical_expr::EmitTo;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use super::super::key_hash::canonical;
use super::calls::{Accumulators, AggregateCalls};

/// The groups of one epoch.
pub(super) struct GroupFold {
    calls: Arc<AggregateCalls>,
    group_schema: SchemaRef,
    open: Option<OpenGroups>,
    /// The group of each row of the batch at hand.
    row_groups: Vec<usize>,
}

/// Groups that have rows. Dropped when drained: DataFusion's tables must not be used again after they were emptied
/// without being cleared.
struct OpenGroups {
    /// `None` without group columns: there is one group.
    values: Option<Box<dyn GroupValues>>,
    accumulators: Accumulators,
}

/// Groups with their states, drained.
pub(super) struct DrainedGroups {
    pub(super) groups: Vec<ArrayRef>,
    pub(super) states: Vec<ArrayRef>,
    pub(super) count: usize,
}

impl GroupFold {
    /// Groups by the first columns of each batch, those of `group_schema`.
    pub(super) fn new(calls: Arc<AggregateCalls>, group_schema: SchemaRef) -> Self {
        Self {
            calls,
            group_schema,
            open: None,
            row_groups: Vec::new(),
        }
    }

    /// Takes rows; returns the group of each.
    pub(super) fn fold_rows(&mut self, batch: &RecordBatch) -> Result<&[usize], DataFusionError> {
        self.row_groups.clear();
        if batch.num_rows() > 0 {
            let open = opened(&mut self.open, &self.calls, &self.group_schema)?;
            let groups = &batch.columns()[..self.group_schema.fields().len()];
            open.assign(groups, batch.num_rows(), &mut self.row_groups)?;
            let count = open.count();
            self.calls
                .update(&mut open.accumulators, batch, &self.row_groups, count)?;
        }
        Ok(&self.row_groups)
    }

    /// Takes states of groups: group columns, then states as in [`AggregateCalls::state_fields`]; what follows them is not
    /// looked at.
    pub(super) fn fold_states(&mut self, batch: &RecordBatch) -> Result<(), DataFusionError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let open = opened(&mut self.open, &self.calls, &self.group_schema)?;
        let (groups, states) = batch.columns().split_at(self.group_schema.fields().len());
        open.assign(groups, batch.num_rows(), &mut self.row_groups)?;
        let count = open.count();
        self.calls
            .merge(&mut open.accumulators, states, &self.row_groups, count)
    }

    /// The groups folded since the last call; `None` if there were no rows.
    pub(super) fn drain(&mut self) -> Result<Option<DrainedGroups>, DataFusionError> {
        let Some(open) = self.open.take() else {
            return Ok(None);
        };
        let count = open.count();
        let groups = match open.values {
            Some(mut values) => values.emit(EmitTo::All)?,
            None => Vec::new(),
        };
        Ok(Some(DrainedGroups {
            groups,
            states: self.calls.drain_states(open.accumulators)?,
            count,
        }))
    }

    /// Bytes of memory held, about.
    pub(super) fn bytes(&self) -> usize {
        let Some(open) = &self.open else {
            return 0;
        };
        let states = open.accumulators.iter().map(|a| a.size()).sum::<usize>();
        states + open.values.as_ref().map_or(0, |values| values.size())
    }
}

fn opened<'a>(
    open: &'a mut Option<OpenGroups>,
    calls: &AggregateCalls,
    group_schema: &SchemaRef,
) -> Result<&'a mut OpenGroups, DataFusionError> {
    match open {
        Some(open) => Ok(open),
        empty => Ok(empty.insert(OpenGroups::new(calls, group_schema)?)),
    }
}

impl OpenGroups {
    fn new(calls: &AggregateCalls, group_schema: &SchemaRef) -> Result<Self, DataFusionError> {
        let values = if group_schema.fields().is_empty() {
            None
        } else {
            let schema = Arc::clone(group_schema);
            Some(new_group_values(schema, &GroupOrdering::None)?)
        };
        Ok(Self {
            values,
            accumulators: calls.accumulators()?,
        })
    }

    fn assign(
        &mut self,
        columns: &[ArrayRef],
        row_count: usize,
        row_groups: &mut Vec<usize>,
    ) -> Result<(), DataFusionError> {
        match &mut self.values {
            Some(values) => {
                let columns: Vec<ArrayRef> = columns.iter().map(canonical).collect();
                values.intern(&columns, row_groups)
            }
            None => {
                row_groups.clear();
                row_groups.resize(row_count, 0);
                Ok(())
            }
        }
    }

    fn count(&self) -> usize {
        self.values.as_ref().map_or(1, |values| values.len())
    }
}
