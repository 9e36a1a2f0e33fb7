//! How much memory a batch keeps alive.
//!
//! Called by operators that keep batches as state and have to say how much they hold. What Arrow says itself counts an allocation once for each
//! column in it, and what was read from storage as it was written there is one allocation for all of them. Pure. Cannot fail.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayData, RecordBatch};
use arrow::buffer::Buffer;

/// Of a column, beside its values, about.
const COLUMN_BYTES: usize = 200;

/// Bytes of all allocations that the batch refers to, each once, whole even where only a part of it is shown.
pub(super) fn held_bytes(batch: &RecordBatch) -> usize {
    let mut allocations = BTreeMap::new();
    for column in batch.columns() {
        add_allocations(&column.to_data(), &mut allocations);
    }
    allocations.values().sum::<usize>() + batch.num_columns() * COLUMN_BYTES
}

/// By address.
fn add_allocations(data: &ArrayData, allocations: &mut BTreeMap<usize, usize>) {
    let nulls = data.nulls().map(|nulls| nulls.buffer());
    for buffer in data.buffers().iter().chain(nulls) {
        let address = |buffer: &Buffer| buffer.data_ptr().as_ptr() as usize;
        allocations.insert(address(buffer), buffer.capacity());
    }
    for child in data.child_data() {
        add_allocations(child, allocations);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringViewArray};
    use millstream_common::ipc;

    use super::*;

    const TEXT: &str = "a text that does not fit into a view";

    fn batch(row_count: usize) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..row_count as i64));
        let texts: ArrayRef = Arc::new(StringViewArray::from(vec![TEXT; row_count]));
        let columns = [("a", numbers.clone()), ("b", numbers), ("c", texts)];
        RecordBatch::try_from_iter(columns).expect("a batch")
    }

    #[test]
    fn a_batch_that_was_read_counts_its_memory_once() {
        let written = batch(1_000);
        let object = ipc::encode_plain("x", &written).expect("encode");
        let bytes = object.bytes.whole();
        let read = ipc::decode("x", &bytes, object.checksum).expect("decode");
        let held: usize = read.iter().map(held_bytes).sum();
        assert!(held >= bytes.len() - 1_000, "{held} of {}", bytes.len());
        assert!(held < bytes.len() * 5 / 4, "{held} of {}", bytes.len());
    }

    #[test]
    fn a_slice_keeps_all_of_its_batch() {
        let whole = batch(1_000);
        assert_eq!(held_bytes(&whole.slice(10, 1)), held_bytes(&whole));
    }

    #[test]
    fn columns_that_share_their_values_count_them_once() {
        let texts = TEXT.len() * 1_000;
        let views_and_numbers = 1_000 * (16 + 8);
        let held = held_bytes(&batch(1_000));
        assert!(held >= texts + views_and_numbers, "{held}");
        assert!(held < (texts + views_and_numbers) * 5 / 4, "{held}");
    }
}
