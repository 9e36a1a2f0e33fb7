//! The columns of an aggregate's batches: state rows in memory, state parts in storage, and what is emitted.
//!
//! Used by the operator in `mod.rs`. Pure. Failure: a plan or a state part whose columns do not fit is an error.

use std::iter::once;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int8Array, RecordBatch, UInt8Array};
use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::{DataFusionError, exec_err, plan_err};
use millstream_common::plan::{OP_COLUMN, OP_UPSERT};

use super::super::VNODE_COLUMN;
use super::calls::{AggregateCalls, convert};

/// The second column of a state part: the group changed and its change was not emitted yet.
const PENDING_COLUMN: &str = "_pending";

/// The schemas of one plan.
#[derive(Debug)]
pub(super) struct Layout {
    /// The group columns.
    pub(super) groups: SchemaRef,
    /// `_vnode`, group columns, state columns.
    pub(super) state: SchemaRef,
    /// `_vnode`, `_pending`, group columns, state columns.
    stored: SchemaRef,
    /// Group columns, results.
    output: SchemaRef,
    /// Group columns, results, `_op`.
    changes: SchemaRef,
}

impl Layout {
    pub(super) fn new(
        groups: Vec<Field>,
        calls: &AggregateCalls,
        output: &SchemaRef,
    ) -> Result<Self, DataFusionError> {
        let group_types = groups.iter().map(|field| field.data_type().clone());
        let types: Vec<DataType> = group_types.chain(calls.result_types()).collect();
        if types.is_empty() || types.len() != output.fields().len() {
            let (found, expected) = (types.len(), output.fields().len());
            return plan_err!("groups and aggregates are {found} columns, the output {expected}");
        }
        for (from, field) in types.iter().zip(output.fields()) {
            let to = field.data_type();
            if from != to && !can_cast_types(from, to) {
                let name = field.name();
                return plan_err!("output column {name} of type {to} cannot be made of {from}");
            }
        }
        let vnode = Field::new(VNODE_COLUMN, DataType::UInt8, false);
        let pending = Field::new(PENDING_COLUMN, DataType::Boolean, false);
        let states = calls.state_fields().to_vec();
        let state = [vec![vnode.clone()], groups.clone(), states.clone()].concat();
        let stored = [vec![vnode, pending], groups.clone(), states].concat();
        let operation = Arc::new(Field::new(OP_COLUMN, DataType::Int8, false));
        let changes = output.fields().iter().cloned().chain(once(operation));
        Ok(Self {
            groups: Arc::new(Schema::new(groups)),
            state: Arc::new(Schema::new(state)),
            stored: Arc::new(Schema::new(stored)),
            output: Arc::clone(output),
            changes: Arc::new(Schema::new(changes.collect::<Vec<_>>())),
        })
    }

    pub(super) fn state_rows(
        &self,
        vnodes: UInt8Array,
        groups: Vec<ArrayRef>,
        states: Vec<ArrayRef>,
    ) -> Result<RecordBatch, DataFusionError> {
        let columns = once(Arc::new(vnodes) as ArrayRef).chain(groups);
        let mut columns: Vec<ArrayRef> = columns.chain(states).collect();
        // They stay, and what made them took room in advance.
        columns.iter_mut().for_each(|column| column.shrink_to_fit());
        Ok(RecordBatch::try_new(Arc::clone(&self.state), columns)?)
    }

    pub(super) fn groups<'a>(&self, rows: &'a RecordBatch) -> &'a [ArrayRef] {
        &rows.columns()[1..=self.groups.fields().len()]
    }

    pub(super) fn states<'a>(&self, rows: &'a RecordBatch) -> &'a [ArrayRef] {
        &rows.columns()[self.groups.fields().len() + 1..]
    }

    /// State rows as a state part.
    pub(super) fn store(
        &self,
        rows: &RecordBatch,
        pending: BooleanArray,
    ) -> Result<RecordBatch, DataFusionError> {
        let mut columns = rows.columns().to_vec();
        columns.insert(1, Arc::new(pending));
        Ok(RecordBatch::try_new(Arc::clone(&self.stored), columns)?)
    }

    /// The `_vnode` and `_pending` columns of a state part.
    pub(super) fn marks<'a>(
        &self,
        part: &'a RecordBatch,
    ) -> Result<(&'a [u8], &'a BooleanArray), DataFusionError> {
        let found = part.schema_ref().fields().iter().map(|f| f.data_type());
        if !found.eq(self.stored.fields().iter().map(|f| f.data_type())) {
            let found = part.schema();
            return exec_err!("a state part of other columns than this aggregate writes: {found}");
        }
        let vnodes = part.column(0).as_primitive::<arrow::datatypes::UInt8Type>();
        Ok((vnodes.values(), part.column(1).as_boolean()))
    }

    /// The state rows of a state part.
    pub(super) fn load(&self, part: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
        let mut columns = part.columns().to_vec();
        columns.remove(1);
        Ok(RecordBatch::try_new(Arc::clone(&self.state), columns)?)
    }

    /// Results in the types that the plan promises.
    pub(super) fn output(
        &self,
        groups: &[ArrayRef],
        results: &[ArrayRef],
    ) -> Result<RecordBatch, DataFusionError> {
        let columns = groups.iter().chain(results);
        let typed = columns.zip(self.output.fields());
        let columns = typed
            .map(|(column, field)| convert(column, field.data_type()))
            .collect::<Result<_, _>>()?;
        Ok(RecordBatch::try_new(Arc::clone(&self.output), columns)?)
    }

    /// Results as upserts.
    pub(super) fn changes(&self, output: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
        let operation = Int8Array::from_value(OP_UPSERT, output.num_rows());
        let mut columns = output.columns().to_vec();
        columns.push(Arc::new(operation));
        Ok(RecordBatch::try_new(Arc::clone(&self.changes), columns)?)
    }
}
