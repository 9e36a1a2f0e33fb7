//! Of several rows with one key, the one that counts.
//!
//! Used by `apply.rs` on each chunk before it is staged, so that a key that changes often travels once. The merge
//! statement does the same over the chunks of a run, by Postgres's own idea of equality; this is only to send less.
//! Pure; works on the rows' Arrow values of any type.

use std::collections::HashSet;

use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};

/// Which row of a key counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// The last: a later change overrides an earlier one.
    Last,
    /// The first: a row that is there stays.
    First,
}

/// The rows of `chunk` that count, in their order, and the index that each had.
pub(super) fn compact(
    chunk: &RecordBatch,
    key_columns: &[usize],
    keep: Keep,
) -> Result<(RecordBatch, UInt64Array), ArrowError> {
    let kept = kept_rows(chunk, key_columns, keep)?;
    let indices = UInt64Array::from(kept);
    if indices.len() == chunk.num_rows() {
        return Ok((chunk.clone(), indices));
    }
    let columns: Vec<ArrayRef> = chunk
        .columns()
        .iter()
        .map(|column| take(column, &indices, None))
        .collect::<Result<_, _>>()?;
    Ok((RecordBatch::try_new(chunk.schema(), columns)?, indices))
}

fn kept_rows(
    chunk: &RecordBatch,
    key_columns: &[usize],
    keep: Keep,
) -> Result<Vec<u64>, ArrowError> {
    let keys: Vec<ArrayRef> = key_columns
        .iter()
        .map(|index| chunk.column(*index).clone())
        .collect();
    let kinds = keys
        .iter()
        .map(|key| SortField::new(key.data_type().clone()));
    let converter = RowConverter::new(kinds.collect())?;
    let rows = converter.convert_columns(&keys)?;
    let mut seen = HashSet::with_capacity(rows.num_rows());
    let mut is_new = |index: &usize| seen.insert(rows.row(*index));
    let mut kept: Vec<usize> = match keep {
        Keep::First => (0..rows.num_rows()).filter(&mut is_new).collect(),
        Keep::Last => (0..rows.num_rows()).rev().filter(&mut is_new).collect(),
    };
    kept.sort_unstable();
    Ok(kept.into_iter().map(|index| index as u64).collect())
}

/// Whether keys of this type can be compared here; others are left to the merge statement.
pub(super) fn is_comparable(kind: &DataType) -> bool {
    RowConverter::supports_fields(&[SortField::new(kind.clone())])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array, StringArray};
    use arrow::datatypes::{Field, Int64Type, Schema};

    use super::*;

    fn chunk() -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("url", DataType::Utf8, true),
            Field::new("views", DataType::Int64, false),
        ]);
        let urls = StringArray::from(vec![Some("/a"), Some("/b"), Some("/a"), None, None]);
        let views = Int64Array::from(vec![1, 2, 3, 4, 5]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(urls), Arc::new(views)])
            .expect("a batch")
    }

    fn kept(keep: Keep) -> (Vec<i64>, Vec<u64>) {
        let (rows, indices) = compact(&chunk(), &[0], keep).expect("comparable");
        let views = rows.column(1).as_primitive::<Int64Type>();
        (views.values().to_vec(), indices.values().to_vec())
    }

    #[test]
    fn the_last_row_of_each_key_is_kept_in_order() {
        assert_eq!(kept(Keep::Last), (vec![2, 3, 5], vec![1, 2, 4]));
    }

    #[test]
    fn the_first_row_of_each_key_is_kept_where_rows_stay() {
        assert_eq!(kept(Keep::First), (vec![1, 2, 4], vec![0, 1, 3]));
    }
}
