//! Cuts a batch into parts of at most [`BATCH_BYTES_MAX`], by rows.
//!
//! Called by `sender.rs` before it asks for credit. Pure; parts are slices, nothing is copied.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{BinaryViewType, ByteViewType, DataType, StringViewType};

/// The most that travels in one message: small enough that a barrier behind it is soon there, large enough that the
/// cost of a message does not count. Only a single row may be larger.
pub(super) const BATCH_BYTES_MAX: usize = 1 << 20;

/// A view's own size; up to [`VIEW_INLINE_BYTES`] bytes stand inside it.
const VIEW_BYTES: usize = 16;
const VIEW_INLINE_BYTES: usize = 12;

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
        let bytes = batch_bytes(&batch);
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

/// Bytes of the rows themselves: a slice counts what it shows, not what it shares.
pub(super) fn batch_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(array_bytes).sum()
}

fn array_bytes(array: &ArrayRef) -> usize {
    match array.data_type() {
        DataType::Utf8View => view_bytes::<StringViewType>(array),
        DataType::BinaryView => view_bytes::<BinaryViewType>(array),
        DataType::Struct(_) => array.as_struct().columns().iter().map(array_bytes).sum(),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let (first, last) = bounds(list.value_offsets());
            children_bytes(list.values(), first, last) + size_of_val(list.value_offsets())
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let (first, last) = bounds(list.value_offsets());
            children_bytes(list.values(), first, last) + size_of_val(list.value_offsets())
        }
        DataType::Map(_, _) => {
            let map = array.as_map();
            let (first, last) = bounds(map.value_offsets());
            let entries: ArrayRef = std::sync::Arc::new(map.entries().clone());
            children_bytes(&entries, first, last) + size_of_val(map.value_offsets())
        }
        _ => array
            .to_data()
            .get_slice_memory_size()
            .unwrap_or_else(|_| array.get_array_memory_size()),
    }
}

fn bounds<T: Copy + TryInto<usize>>(offsets: &[T]) -> (usize, usize) {
    let at = |offset: Option<&T>| offset.and_then(|value| (*value).try_into().ok());
    let first = at(offsets.first()).unwrap_or(0);
    (first, at(offsets.last()).unwrap_or(first))
}

fn children_bytes(values: &ArrayRef, first: usize, last: usize) -> usize {
    array_bytes(&values.slice(first, last - first))
}

fn view_bytes<T: ByteViewType>(array: &ArrayRef) -> usize {
    let outside = |view: &u128| {
        let length = *view as u32 as usize;
        if length > VIEW_INLINE_BYTES {
            length
        } else {
            0
        }
    };
    let views = array.as_byte_view::<T>().views();
    VIEW_BYTES * views.len() + views.iter().map(outside).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, ListArray, StringArray, StringViewArray};
    use arrow::compute::concat_batches;
    use arrow::datatypes::Int64Type;

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
    fn a_slice_counts_what_it_shows() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let lists = (0..1000).map(|row| Some(vec![Some(row); 4]));
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists));
        let long = "a text that does not fit into a view";
        let views: ArrayRef = Arc::new(StringViewArray::from(vec![long; 1000]));
        for column in [numbers, lists, views] {
            let whole = batch_of(vec![("column", column)]);
            let tenth = batch_bytes(&whole.slice(500, 100));
            assert!(tenth * 9 < batch_bytes(&whole), "{}", whole.schema());
            assert!(tenth * 11 > batch_bytes(&whole), "{}", whole.schema());
        }
    }

    #[test]
    fn a_batch_without_rows_has_no_parts() {
        let batch = batch_of(vec![("n", Arc::new(Int64Array::from(Vec::<i64>::new())))]);
        assert!(split(batch, 1).is_empty());
    }
}
