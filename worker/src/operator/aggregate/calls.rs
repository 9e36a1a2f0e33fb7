//! The aggregate calls of a plan, as DataFusion's accumulators.
//!
//! Used by `fold.rs`, which feeds rows and states, and by `mod.rs`, which merges and evaluates states. Accumulators are made afresh
//! for each use and drained once: none is used again after it was emptied.
//! Failure: an expression that is no aggregate call, or cannot be evaluated, is an error.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, SchemaRef};
use datafusion::common::{DFSchema, DataFusionError, exec_err};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::{AggregateFunctionExpr, LoweredAggregateBuilder};
use datafusion::physical_expr::{GroupsAccumulatorAdapter, PhysicalExpr};
use millstream_common::plan::NamedExpression;
use millstream_common::plan::expression::Functions;

/// One accumulator a call.
pub(super) type Accumulators = Vec<Box<dyn GroupsAccumulator>>;

/// The calls of one plan, in order.
#[derive(Debug)]
pub(super) struct AggregateCalls {
    calls: Vec<AggregateCall>,
    state_fields: Vec<Field>,
}

#[derive(Debug)]
struct AggregateCall {
    function: Arc<AggregateFunctionExpr>,
    /// The call's arguments, then what it orders by.
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    state_count: usize,
}

impl AggregateCalls {
    /// Calls over rows of `input`.
    pub(super) fn lower(
        aggregates: &[NamedExpression],
        input: &SchemaRef,
        functions: &Functions,
    ) -> Result<Self, DataFusionError> {
        let schema = DFSchema::try_from(input.as_ref().clone())?;
        let mut calls = Vec::new();
        let mut state_fields = Vec::new();
        for (index, aggregate) in aggregates.iter().enumerate() {
            let (call, fields) = AggregateCall::lower(aggregate, &schema, input, functions)?;
            for (position, data_type) in fields.into_iter().enumerate() {
                let name = format!("state_{index}_{position}");
                state_fields.push(Field::new(name, data_type, true));
            }
            calls.push(call);
        }
        Ok(Self {
            calls,
            state_fields,
        })
    }

    /// The columns of a group's state, all calls side by side.
    pub(super) fn state_fields(&self) -> &[Field] {
        &self.state_fields
    }

    pub(super) fn accumulators(&self) -> Result<Accumulators, DataFusionError> {
        let calls = self.calls.iter();
        calls.map(AggregateCall::accumulator).collect()
    }

    /// Feeds the rows of a batch; `groups` has the group of each row, of `group_count`.
    pub(super) fn update(
        &self,
        accumulators: &mut Accumulators,
        batch: &RecordBatch,
        groups: &[usize],
        group_count: usize,
    ) -> Result<(), DataFusionError> {
        for (call, accumulator) in self.calls.iter().zip(accumulators) {
            let arguments = call.evaluate_arguments(batch)?;
            let filter = call.evaluate_filter(batch)?;
            accumulator.update_batch(&arguments, groups, filter.as_ref(), group_count)?;
        }
        Ok(())
    }

    /// Feeds states that were drained before; `states` are columns as in [`Self::state_fields`].
    pub(super) fn merge(
        &self,
        accumulators: &mut Accumulators,
        states: &[ArrayRef],
        groups: &[usize],
        group_count: usize,
    ) -> Result<(), DataFusionError> {
        let mut rest = states;
        for (call, accumulator) in self.calls.iter().zip(accumulators) {
            let (columns, after) = rest.split_at(call.state_count);
            accumulator.merge_batch(columns, groups, group_count)?;
            rest = after;
        }
        Ok(())
    }

    /// Whether [`Self::states_by_row`] needs no accumulator a row.
    pub(super) fn are_cheap_by_row(&self) -> bool {
        let mut calls = self.calls.iter();
        calls.all(|call| call.function.groups_accumulator_supported())
    }

    /// The state of each row, as if it were a group of its own; where [`Self::are_cheap_by_row`].
    pub(super) fn states_by_row(
        &self,
        batch: &RecordBatch,
    ) -> Result<Vec<ArrayRef>, DataFusionError> {
        let mut states = Vec::with_capacity(self.state_fields.len());
        for call in &self.calls {
            let arguments = call.evaluate_arguments(batch)?;
            let filter = call.evaluate_filter(batch)?;
            let accumulator = call.accumulator()?;
            states.extend(accumulator.convert_to_state(&arguments, filter.as_ref())?);
        }
        self.typed(&states)
    }

    /// Drains the states of all groups, at least one.
    pub(super) fn drain_states(
        &self,
        accumulators: Accumulators,
    ) -> Result<Vec<ArrayRef>, DataFusionError> {
        let mut states = Vec::with_capacity(self.state_fields.len());
        for mut accumulator in accumulators {
            states.extend(accumulator.state(EmitTo::All)?);
        }
        self.typed(&states)
    }

    /// The columns in the types of [`Self::state_fields`].
    fn typed(&self, states: &[ArrayRef]) -> Result<Vec<ArrayRef>, DataFusionError> {
        if states.len() != self.state_fields.len() {
            let expected = self.state_fields.len();
            return exec_err!(
                "aggregate states have {} columns, not {expected}",
                states.len()
            );
        }
        let fields = self.state_fields.iter();
        let typed = states.iter().zip(fields);
        typed
            .map(|(column, field)| convert(column, field.data_type()))
            .collect()
    }

    /// The results of groups from their states: one column a call.
    pub(super) fn evaluate(&self, states: &[ArrayRef]) -> Result<Vec<ArrayRef>, DataFusionError> {
        let group_count = states.first().map_or(0, |column| column.len());
        let groups: Vec<usize> = (0..group_count).collect();
        let mut accumulators = self.accumulators()?;
        self.merge(&mut accumulators, states, &groups, group_count)?;
        let drained = accumulators.iter_mut();
        drained
            .map(|accumulator| accumulator.evaluate(EmitTo::All))
            .collect()
    }

    /// The type of each call's result.
    pub(super) fn result_types(&self) -> impl Iterator<Item = DataType> {
        let calls = self.calls.iter();
        calls.map(|call| call.function.field().data_type().clone())
    }
}

impl AggregateCall {
    fn lower(
        aggregate: &NamedExpression,
        schema: &DFSchema,
        input: &SchemaRef,
        functions: &Functions,
    ) -> Result<(Self, Vec<DataType>), DataFusionError> {
        let expression = aggregate
            .expression
            .decode(functions)
            .map_err(|error| DataFusionError::External(Box::new(error)))?;
        let properties = ExecutionProps::new();
        let context = PhysicalPlanningContext::default();
        let lowered =
            LoweredAggregateBuilder::new(&expression, schema, input, &properties, &context)
                .with_name(&aggregate.name)
                .build()?;
        let function = lowered.aggregate;
        let mut arguments = function.expressions();
        let order = function.order_bys().iter();
        arguments.extend(order.map(|by| Arc::clone(&by.expr)));
        let fields = function.state_fields()?;
        let types: Vec<DataType> = fields.iter().map(|f| f.data_type().clone()).collect();
        let call = Self {
            function,
            arguments,
            filter: lowered.filter,
            state_count: types.len(),
        };
        Ok((call, types))
    }

    /// DataFusion's vectorised accumulator; for calls that have none, one accumulator a group behind its adapter.
    fn accumulator(&self) -> Result<Box<dyn GroupsAccumulator>, DataFusionError> {
        if self.function.groups_accumulator_supported() {
            return self.function.create_groups_accumulator();
        }
        let function = Arc::clone(&self.function);
        let adapter = GroupsAccumulatorAdapter::new(move || function.create_accumulator());
        Ok(Box::new(adapter))
    }

    fn evaluate_arguments(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>, DataFusionError> {
        let row_count = batch.num_rows();
        let arguments = self.arguments.iter();
        arguments
            .map(|argument| argument.evaluate(batch)?.into_array(row_count))
            .collect()
    }

    fn evaluate_filter(
        &self,
        batch: &RecordBatch,
    ) -> Result<Option<BooleanArray>, DataFusionError> {
        let Some(filter) = &self.filter else {
            return Ok(None);
        };
        let passed = filter.evaluate(batch)?.into_array(batch.num_rows())?;
        match passed.as_boolean_opt() {
            Some(passed) => Ok(Some(passed.clone())),
            None => exec_err!("filter {filter} is {}, not a boolean", passed.data_type()),
        }
    }
}

/// The column as `data_type`; a value that does not fit is an error, never NULL.
pub(super) fn convert(
    column: &ArrayRef,
    data_type: &DataType,
) -> Result<ArrayRef, DataFusionError> {
    if column.data_type() == data_type {
        return Ok(Arc::clone(column));
    }
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    Ok(cast_with_options(column, data_type, &options)?)
}
