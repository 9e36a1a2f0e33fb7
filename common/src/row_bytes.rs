//! How large rows are, wherever they are.
//!
//! Used wherever rows are gathered, sent or kept up to some size. Pure. Cannot fail.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{BinaryViewType, ByteViewType, DataType, StringViewType};

/// A view's own size; up to [`VIEW_INLINE_BYTES`] bytes stand inside it.
const VIEW_BYTES: usize = 16;
const VIEW_INLINE_BYTES: usize = 12;

/// Bytes of the rows themselves: a slice counts what it shows, not what it shares.
pub fn row_bytes(batch: &RecordBatch) -> usize {
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
            let entries: ArrayRef = Arc::new(map.entries().clone());
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
    use arrow::array::{Int64Array, ListArray, StringViewArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn a_slice_counts_what_it_shows() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let lists = (0..1000).map(|row| Some(vec![Some(row); 4]));
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists));
        let long = "a text that does not fit into a view";
        let views: ArrayRef = Arc::new(StringViewArray::from(vec![long; 1000]));
        for column in [numbers, lists, views] {
            let whole = RecordBatch::try_from_iter([("column", column)]).expect("batch");
            let tenth = row_bytes(&whole.slice(500, 100));
            assert!(tenth * 9 < row_bytes(&whole), "{}", whole.schema());
            assert!(tenth * 11 > row_bytes(&whole), "{}", whole.schema());
        }
    }
}
