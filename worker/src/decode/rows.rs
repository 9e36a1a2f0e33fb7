//! The rows of a batch that are still good: columns, and which record each row was.
//!
//! Made by `decoder.rs` from the first columns, thinned out after every step that refuses rows.

use arrow::array::{Array, ArrayRef, BooleanArray, TimestampMicrosecondArray};
use arrow::compute::FilterBuilder;
use arrow::error::ArrowError;

use super::refusals::Refusals;

/// Rows in order of record.
#[derive(Debug)]
pub(super) struct Rows {
    /// By column of the source; `None` where it is not computed yet.
    pub(super) columns: Vec<Option<ArrayRef>>,
    /// The record of each row; `None` while row `i` is record `i`.
    records: Option<Vec<usize>>,
    count: usize,
}

impl Rows {
    /// Rows of all records of an input.
    pub(super) fn new(columns: Vec<Option<ArrayRef>>, count: usize) -> Self {
        Self {
            columns,
            records: None,
            count,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The record that a row was.
    #[inline]
    pub(super) fn record(&self, row: usize) -> usize {
        match &self.records {
            None => row,
            Some(records) => records[row],
        }
    }

    fn row(&self, record: usize) -> Option<usize> {
        match &self.records {
            None => Some(record),
            Some(records) => records.binary_search(&record).ok(),
        }
    }

    /// Takes out the rows refused since `refusals` counted `before`, noting their event times.
    pub(super) fn drop_refused(
        &mut self,
        refusals: &mut Refusals,
        before: usize,
        time_column: Option<usize>,
    ) -> Result<(), ArrowError> {
        if refusals.count() == before {
            return Ok(());
        }
        if let Some(times) = time_column.and_then(|column| self.times(column)) {
            for refusal in refusals.since(before) {
                let row = self.row(refusal.record).filter(|row| times.is_valid(*row));
                refusal.event_time = row.map(|row| times.value(row));
            }
        }
        let keep = (0..self.count).map(|row| Some(!refusals.is_refused(self.record(row))));
        self.retain(&keep.collect())
    }

    /// Keeps the rows for which `keep` is true.
    pub(super) fn retain(&mut self, keep: &BooleanArray) -> Result<(), ArrowError> {
        let filter = FilterBuilder::new(keep).optimize().build();
        for column in self.columns.iter_mut().flatten() {
            *column = filter.filter(column)?;
        }
        let kept = (0..self.count).filter(|row| keep.value(*row));
        self.records = Some(kept.map(|row| self.record(row)).collect());
        self.count = filter.count();
        Ok(())
    }

    /// The event times, once their column is there.
    pub(super) fn times(&self, column: usize) -> Option<TimestampMicrosecondArray> {
        let array = self.columns[column].as_ref()?;
        array.as_any().downcast_ref().cloned()
    }
}
