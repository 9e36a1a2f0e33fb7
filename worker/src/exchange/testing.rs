//! Small batches and a hasher for the tests of this module.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, as_primitive_array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use millstream_common::ids::{StageIndex, TaskId};

use super::message::EdgeId;
use super::route::RowHasher;

/// A batch of one BIGINT column.
pub(super) fn numbers(values: impl IntoIterator<Item = i64>) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, false)]);
    let column = Int64Array::from_iter_values(values);
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(column)]).expect("batch")
}

/// The edge from task `from` of stage 0 to task `to` of stage 1.
pub(super) fn edge(from: u32, to: u32) -> EdgeId {
    let task = |stage, index| TaskId {
        stage: StageIndex(stage),
        index,
    };
    EdgeId {
        from: task(0, from),
        to: task(1, to),
        branch: 0,
    }
}

/// Spreads the values of the first column.
#[derive(Default)]
pub(super) struct ColumnHasher(Vec<u128>);

impl RowHasher for ColumnHasher {
    fn fingerprints(&mut self, batch: &RecordBatch) -> &[u128] {
        let values = as_primitive_array::<Int64Type>(batch.column(0)).values();
        let spread =
            |value: &i64| u128::from((*value as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64;
        self.0 = values.iter().map(spread).collect();
        &self.0
    }
}
