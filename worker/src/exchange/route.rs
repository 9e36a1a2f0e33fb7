//! Rows to their owners: splits a batch into one batch for each task of the next stage.
//!
//! Called by `sender.rs` with each batch of a branch. Pure. The owner of a row is the owner of its vnode, the top
//! byte of its key's hash; the hash is the operators' own ([`RowHasher`]), because state is found again by it.
//! Rows of one owner keep their order. Index vectors are reused: no allocation by row.

use std::mem;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::error::ArrowError;
use millstream_common::ids::{VNODE_COUNT, Vnode};

/// Hashes the keys of rows: equal keys have equal hashes in every process.
pub trait RowHasher: Send {
    /// One hash for each row of `batch`.
    fn hash(&mut self, batch: &RecordBatch) -> &[u64];
}

/// Rows that one task owns.
#[derive(Debug, PartialEq)]
pub struct Routed {
    /// The index of the task in its stage.
    pub task: u32,
    /// Its rows, in order; never empty.
    pub batch: RecordBatch,
}

/// Routes the batches of one branch.
pub struct Router {
    hasher: Box<dyn RowHasher>,
    /// By vnode.
    owners: Vec<u32>,
    /// By task; emptied after each batch, their memory kept.
    rows: Vec<Vec<u32>>,
}

impl Router {
    /// To the `task_count` tasks of a stage: 1 to 256, as a task without a vnode would own nothing.
    pub fn new(hasher: Box<dyn RowHasher>, task_count: u32) -> Self {
        assert!(
            (1..=VNODE_COUNT).contains(&task_count),
            "a stage has one task to one a vnode"
        );
        let owners = (0..=u8::MAX).map(|vnode| Vnode(vnode).owner(task_count));
        Self {
            hasher,
            owners: owners.collect(),
            rows: vec![Vec::new(); task_count as usize],
        }
    }

    /// The rows of `batch` by owner, in order of tasks. Rows of a single owner are passed on without copying.
    ///
    /// # Errors
    /// Where Arrow cannot build the batches; a defect.
    pub fn route(&mut self, batch: RecordBatch) -> Result<Vec<Routed>, ArrowError> {
        if batch.num_rows() == 0 {
            return Ok(Vec::new());
        }
        if self.rows.len() == 1 {
            return Ok(vec![Routed { task: 0, batch }]);
        }
        self.assign(&batch);
        let only = self
            .rows
            .iter()
            .position(|rows| rows.len() == batch.num_rows());
        if let Some(task) = only {
            self.rows[task].clear();
            let task = task as u32;
            return Ok(vec![Routed { task, batch }]);
        }
        let mut routed = Vec::with_capacity(self.rows.len());
        for (task, rows) in self.rows.iter_mut().enumerate() {
            if !rows.is_empty() {
                let batch = take(&batch, rows)?;
                let task = task as u32;
                routed.push(Routed { task, batch });
            }
        }
        Ok(routed)
    }

    fn assign(&mut self, batch: &RecordBatch) {
        let hashes = self.hasher.hash(batch);
        assert_eq!(hashes.len(), batch.num_rows(), "each row has one hash");
        for (row, hash) in hashes.iter().enumerate() {
            let vnode = Vnode::of_hash(*hash);
            let task = self.owners[usize::from(vnode.0)];
            self.rows[task as usize].push(row as u32);
        }
    }
}

/// Takes `rows` out of `batch` and leaves them empty, with their memory.
fn take(batch: &RecordBatch, rows: &mut Vec<u32>) -> Result<RecordBatch, ArrowError> {
    let indices = UInt32Array::from(mem::take(rows));
    let taken = take_record_batch(batch, &indices)?;
    let (_, values, _) = indices.into_parts();
    *rows = values.into_inner().into_vec().unwrap_or_default();
    rows.clear();
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, as_primitive_array};
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;

    use super::*;
    use crate::exchange::testing::{ColumnHasher, numbers};

    fn router(task_count: u32) -> Router {
        Router::new(Box::new(ColumnHasher::default()), task_count)
    }

    fn values(batch: &RecordBatch) -> Vec<i64> {
        as_primitive_array::<Int64Type>(batch.column(0))
            .values()
            .to_vec()
    }

    #[test]
    fn a_single_target_gets_the_batch_itself() {
        let batch = numbers([3, 1, 2]);
        let column = batch.column(0).clone();
        let routed = router(1).route(batch).expect("route");
        assert_eq!(routed.len(), 1);
        assert!(Arc::ptr_eq(routed[0].batch.column(0), &column));
    }

    #[test]
    fn rows_of_one_owner_are_not_copied() {
        let batch = numbers([7, 7, 7]);
        let column = batch.column(0).clone();
        let mut router = router(4);
        for _ in 0..2 {
            let routed = router.route(batch.clone()).expect("route");
            assert_eq!(routed.len(), 1);
            assert!(Arc::ptr_eq(routed[0].batch.column(0), &column));
        }
    }

    #[test]
    fn a_batch_without_rows_goes_nowhere() {
        assert_eq!(router(4).route(numbers([])).expect("route"), []);
    }

    proptest! {
        #[test]
        fn every_row_goes_once_to_the_owner_of_its_vnode_in_order(
            batches in prop::collection::vec(prop::collection::vec(any::<i64>(), 0..200), 1..4),
            task_count in 1u32..=256,
        ) {
            let mut router = router(task_count);
            for rows in batches {
                let batch = numbers(rows.clone());
                let hashes = ColumnHasher::default().hash(&batch).to_vec();
                let mut expected = vec![Vec::new(); task_count as usize];
                for (value, hash) in rows.iter().zip(hashes) {
                    let owner = Vnode::of_hash(hash).owner(task_count);
                    expected[owner as usize].push(*value);
                }
                let mut found = vec![Vec::new(); task_count as usize];
                for routed in router.route(batch).expect("route") {
                    prop_assert!(routed.batch.num_rows() > 0);
                    found[routed.task as usize] = values(&routed.batch);
                }
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn all_columns_follow_their_row() {
        let names: Vec<String> = (0..100).map(|row| format!("row {row}")).collect();
        let batch = RecordBatch::try_from_iter(vec![
            ("n", Arc::new(Int64Array::from_iter_values(0..100)) as _),
            (
                "name",
                Arc::new(arrow::array::StringArray::from(names)) as _,
            ),
        ])
        .expect("batch");
        for routed in router(8).route(batch).expect("route") {
            let names = arrow::array::as_string_array(routed.batch.column(1));
            for (value, name) in values(&routed.batch).into_iter().zip(names) {
                assert_eq!(name, Some(format!("row {value}").as_str()));
            }
        }
    }
}
