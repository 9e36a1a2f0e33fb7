//! Rows to their owners: splits a batch into one batch for each task of the next stage.
//!
//! Called by `sender.rs` with each batch of a branch. Pure. The owner of a row is the owner of its vnode, the top
//! byte of its key's hash; the hash is the operators' own ([`RowHasher`]), because state is found again by it.
//! Rows of one owner keep their order. The batch itself is shared: what travels is which rows, and the fingerprints of their keys,
//! so that an owner in this process need not hash them again.

use std::mem;

use arrow::array::RecordBatch;
use millstream_common::ids::{VNODE_COUNT, Vnode};

use super::message::OwnedRows;

/// Fingerprints of the keys of rows: equal keys have equal ones in every process.
pub trait RowHasher: Send {
    /// One for each row of `batch`; its upper half is the key's hash.
    fn fingerprints(&mut self, batch: &RecordBatch) -> &[u128];
}

/// Rows that one task owns.
#[derive(Debug, PartialEq)]
pub struct Routed {
    /// The index of the task in its stage.
    pub task: u32,
    /// Its rows, in order; never none.
    pub rows: OwnedRows,
}

/// Routes the batches of one branch.
pub struct Router {
    hasher: Box<dyn RowHasher>,
    /// By vnode.
    owners: Vec<u32>,
    /// By task: rows and fingerprints of the batch at hand.
    owned: Vec<(Vec<u32>, Vec<u128>)>,
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
            owned: vec![Default::default(); task_count as usize],
        }
    }

    /// The rows of `batch` by owner, in order of tasks.
    pub fn route(&mut self, batch: RecordBatch) -> Vec<Routed> {
        let whole = |task: usize, batch| Routed {
            task: task as u32,
            rows: OwnedRows::whole(batch),
        };
        if batch.num_rows() == 0 {
            return Vec::new();
        }
        if self.owned.len() == 1 {
            return vec![whole(0, batch)];
        }
        self.assign(&batch);
        let mut owners = self.owned.iter().map(|(rows, _)| rows.len());
        if let Some(only) = owners.position(|count| count == batch.num_rows()) {
            self.owned[only] = Default::default();
            return vec![whole(only, batch)];
        }
        let owned = self.owned.iter_mut().enumerate();
        let owned = owned.filter(|(_, (rows, _))| !rows.is_empty());
        let routed = owned.map(|(task, owned)| {
            let (rows, fingerprints) = mem::take(owned);
            Routed {
                task: task as u32,
                rows: OwnedRows::chosen(batch.clone(), rows, fingerprints),
            }
        });
        routed.collect()
    }

    fn assign(&mut self, batch: &RecordBatch) {
        let fingerprints = self.hasher.fingerprints(batch);
        let count = batch.num_rows();
        assert_eq!(fingerprints.len(), count, "each row has one key");
        let share = count / self.owned.len() + count / 8;
        for (rows, prints) in &mut self.owned {
            rows.reserve(share);
            prints.reserve(share);
        }
        for (row, fingerprint) in (0..).zip(fingerprints) {
            let vnode = Vnode::of_fingerprint(*fingerprint);
            let task = self.owners[usize::from(vnode.0)];
            let (rows, prints) = &mut self.owned[task as usize];
            rows.push(row);
            prints.push(*fingerprint);
        }
    }
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
        let routed = router(1).route(batch);
        assert_eq!(routed.len(), 1);
        let rows = &routed[0].rows;
        assert!(Arc::ptr_eq(rows.batch().column(0), &column));
        assert_eq!(rows.choice(), None);
    }

    #[test]
    fn rows_of_one_owner_are_not_copied() {
        let batch = numbers([7, 7, 7]);
        let column = batch.column(0).clone();
        let mut router = router(4);
        for _ in 0..2 {
            let routed = router.route(batch.clone());
            assert_eq!(routed.len(), 1);
            let rows = &routed[0].rows;
            assert!(Arc::ptr_eq(rows.batch().column(0), &column));
            assert_eq!(rows.choice(), None);
        }
    }

    #[test]
    fn a_batch_without_rows_goes_nowhere() {
        assert_eq!(router(4).route(numbers([])), []);
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
                let prints = ColumnHasher::default().fingerprints(&batch).to_vec();
                let mut expected = vec![Vec::new(); task_count as usize];
                for (value, print) in rows.iter().zip(prints) {
                    let owner = Vnode::of_hash((print >> 64) as u64).owner(task_count);
                    expected[owner as usize].push((*value, print));
                }
                let mut found = vec![Vec::new(); task_count as usize];
                for Routed { task, rows } in router.route(batch) {
                    prop_assert!(rows.count() > 0);
                    let all = ColumnHasher::default().fingerprints(rows.batch()).to_vec();
                    let prints = rows.choice().map_or(all, |(_, prints)| prints.to_vec());
                    let values = values(&rows.into_batch().expect("take"));
                    found[task as usize] = values.into_iter().zip(prints).collect();
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
        for routed in router(8).route(batch) {
            let rows = routed.rows.into_batch().expect("take");
            let names = arrow::array::as_string_array(rows.column(1));
            for (value, name) in values(&rows).into_iter().zip(names) {
                assert_eq!(name, Some(format!("row {value}").as_str()));
            }
        }
    }
}
