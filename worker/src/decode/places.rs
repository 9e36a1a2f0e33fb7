//! Where the rows of a decoded batch come from, for dead letters of rows whose record is gone.
//!
//! Made at the end of a batch, one entry for each run of consecutive positions of a split, so that a batch of one partition
//! without gaps costs one. Read only when an expression behind the decoder fails. Pure.

use std::sync::Arc;

use super::SplitSlot;
use super::input::Records;
use super::rows::Rows;
use super::splits::Splits;

/// The places of a batch's rows.
#[derive(Clone, Debug, Default)]
pub struct RowPlaces {
    runs: Vec<Run>,
}

#[derive(Clone, Debug)]
struct Run {
    /// Its first row in the batch.
    row: usize,
    origin: Arc<str>,
    /// Of that row.
    position: i64,
}

impl RowPlaces {
    /// Of the rows that are left in `rows`.
    pub(super) fn of(rows: &Rows, records: &impl Records, splits: &Splits) -> Self {
        let mut runs = Vec::new();
        let mut next: Option<(SplitSlot, i64)> = None;
        for row in 0..rows.count() {
            let record = rows.record(row);
            let (slot, position) = (records.slot(record), records.position(record));
            if next != Some((slot, position)) {
                runs.push(Run {
                    row,
                    origin: splits.get(slot).origin.clone(),
                    position,
                });
            }
            next = Some((slot, position + 1));
        }
        Self { runs }
    }

    /// Origin and position of a row.
    pub fn of_row(&self, row: usize) -> (&str, i64) {
        let after = self.runs.partition_point(|run| run.row <= row);
        let run = &self.runs[after.saturating_sub(1)];
        (&run.origin, run.position + (row - run.row) as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_found_in_the_run_it_belongs_to() {
        let run = |row, origin: &str, position| Run {
            row,
            origin: origin.into(),
            position,
        };
        let places = RowPlaces {
            runs: vec![run(0, "t-0", 7), run(2, "t-0", 12), run(3, "t-1", 0)],
        };
        let found: Vec<_> = (0..5).map(|row| places.of_row(row)).collect();
        let expected = [("t-0", 7), ("t-0", 8), ("t-0", 12), ("t-1", 0), ("t-1", 1)];
        assert_eq!(found, expected);
    }
}
