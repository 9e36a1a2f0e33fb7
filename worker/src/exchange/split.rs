//! Cuts a batch into parts of at most [`BATCH_BYTES_MAX`], by rows.
//!
//! Called by `sender.rs` before it asks for credit. Pure; parts are slices, nothing is copied.

use arrow::array::RecordBatch;
use millstream_common::row_bytes::row_bytes;

/// The most that travels in one message: small enough that a barrier behind it is soon there, large enough that the
/// cost of a message does not count. Only a single row may be larger.
pub(super) const BATCH_BYTES_MAX: usize = 1 << 20;

/// A part of a batch and its size.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) batch: RecordBatch,
    pub(super) bytes: usize,
}

/// The batch as parts in order of rows. A batch without rows has none.
pub(super) fn split(batch: RecordBatch, bytes_max: usize) -> Vec<Part> {
    let mut parts = Vec::with_capacity(1);
    let mut rest = vec![batch];
    while let Some(batch) = rest.pop() {
        let row_count = batch.num_rows();
        let bytes = row_bytes(&batch);
        if row_count > 1 && bytes > bytes_max {
            let half = row_count / 2;
            rest.push(batch.slice(half, row_count - half));
            rest.push(batch.slice(0, half));
        } else if row_count > 0 {
            parts.push(Part { batch, bytes });
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::compute::concat_batches;

    use super::*;

    fn batch_of(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter(columns).expect("batch")
    }

    #[test]
    fn the_parts_are_the_rows_in_order() {
        let batch = batch_of(vec![("n", Arc::new(Int64Array::from_iter_values(0..1000)))]);
        let parts = split(batch.clone(), 100 * size_of::<i64>());
        assert!(parts.iter().all(|part| part.bytes <= 800));
        let rows: Vec<RecordBatch> = parts.into_iter().map(|part| part.batch).collect();
        let joined = concat_batches(&batch.schema(), &rows).expect("concat");
        assert_eq!(joined, batch);
    }

    #[test]
    fn a_large_row_travels_alone_and_does_not_shred_the_others() {
        let mut texts = vec!["x".to_owned(); 63];
        texts.push("y".repeat(10_000));
        let batch = batch_of(vec![("text", Arc::new(StringArray::from(texts)))]);
        let parts = split(batch, 1_000);
        let rows: Vec<usize> = parts.iter().map(|part| part.batch.num_rows()).collect();
        assert_eq!(rows, [32, 16, 8, 4, 2, 1, 1]);
    }

    #[test]
    fn a_batch_without_rows_has_no_parts() {
        let batch = batch_of(vec![("n", Arc::new(Int64Array::from(Vec::<i64>::new())))]);
        assert!(split(batch, 1).is_empty());
    }
}
