//! Rows that a sink refused before: what of a run's segments is left out, and where a row of the rest stands in its epoch.
//!
//! Made by `delivery` from the Epochs that name refused rows; used by `segment_rows.rs` to leave them out and by
//! `sink_actor.rs` to name newly refused ones. A row's name is its epoch and its place among the epoch's rows of the
//! output, so it is the same whatever run it comes in and whoever delivers it. Pure.

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use millstream_common::ids::Epoch;
use millstream_common::report::Segment;

/// A segment of a run, without the rows that are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSegment {
    /// The epoch it belongs to.
    pub epoch: Epoch,
    /// The segment.
    pub segment: Segment,
    /// The place of its first row among the epoch's rows of the output.
    pub first: u64,
    /// Places within the segment of the rows that are left out, ascending.
    pub left_out: Vec<u64>,
}

impl RunSegment {
    /// Rows that are left.
    pub fn row_count(&self) -> u64 {
        self.segment.row_count - self.left_out.len() as u64
    }

    /// The place within the segment of the row that is number `kept` of those left, from 0.
    fn place(&self, kept: u64) -> u64 {
        place_without(&self.left_out, kept)
    }

    /// Its rows without those that are left out.
    pub fn without_left_out(
        &self,
        batches: Vec<RecordBatch>,
    ) -> Result<Vec<RecordBatch>, ArrowError> {
        if self.left_out.is_empty() {
            return Ok(batches);
        }
        let mut first = 0;
        let mut kept = Vec::with_capacity(batches.len());
        for batch in batches {
            let end = first + batch.num_rows() as u64;
            let is_kept = |row: u64| self.left_out.binary_search(&row).is_err();
            let mask: BooleanArray = (first..end).map(|row| Some(is_kept(row))).collect();
            kept.push(filter_record_batch(&batch, &mask)?);
            first = end;
        }
        Ok(kept)
    }
}

/// The place of the row that is number `kept` of those left without `left_out` (ascending).
pub fn place_without(left_out: &[u64], kept: u64) -> u64 {
    let mut place = kept;
    for left_out in left_out {
        if *left_out > place {
            break;
        }
        place += 1;
    }
    place
}

/// The segments of one epoch, in order, without the rows at `left_out` (places in the epoch, ascending).
pub fn run_segments(epoch: Epoch, segments: &[Segment], left_out: &[u64]) -> Vec<RunSegment> {
    let mut first = 0;
    let mut cut = Vec::with_capacity(segments.len());
    for segment in segments {
        let end = first + segment.row_count;
        let own = left_out.iter().filter(|row| (first..end).contains(*row));
        cut.push(RunSegment {
            epoch,
            segment: segment.clone(),
            first,
            left_out: own.map(|row| row - first).collect(),
        });
        first = end;
    }
    cut
}

/// The epoch and the place in it of the row that is number `row` of a run, from 0; `None` behind its end.
pub fn locate(segments: &[RunSegment], row: u64) -> Option<(Epoch, u64)> {
    let mut before = 0;
    for part in segments {
        let count = part.row_count();
        if row < before + count {
            return Some((part.epoch, part.first + part.place(row - before)));
        }
        before += count;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use millstream_common::ids::OutputIndex;

    use super::*;

    fn segment(row_count: u64) -> Segment {
        Segment {
            output: OutputIndex(0),
            path: "segments/a".to_owned(),
            bytes: 1,
            checksum: 0,
            row_count,
        }
    }

    #[test]
    fn a_row_keeps_its_name_whatever_was_left_out_before_it() {
        let mut run = run_segments(Epoch(3), &[segment(3), segment(2)], &[0, 2, 3]);
        run.extend(run_segments(Epoch(4), &[segment(2)], &[]));
        let names: Vec<_> = (0..5).map(|row| locate(&run, row)).collect();
        let expected = [
            Some((Epoch(3), 1)),
            Some((Epoch(3), 4)),
            Some((Epoch(4), 0)),
            Some((Epoch(4), 1)),
            None,
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn left_out_rows_are_gone_from_the_batches_they_were_in() {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let batch = |rows: std::ops::Range<i64>| {
            let values = Arc::new(Int64Array::from_iter_values(rows));
            RecordBatch::try_new(schema.clone(), vec![values]).expect("batch")
        };
        let run = run_segments(Epoch(1), &[segment(5)], &[1, 4]);
        let kept = run[0].without_left_out(vec![batch(0..2), batch(2..5)]);
        let kept: Vec<i64> = kept
            .expect("filtered")
            .iter()
            .flat_map(|batch| batch["n"].as_primitive::<Int64Type>().values().to_vec())
            .collect();
        assert_eq!(kept, [0, 2, 3]);
    }
}
