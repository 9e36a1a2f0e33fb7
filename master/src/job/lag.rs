//! How far behind a source and a sink are, and how many rows a sink holds, by what the log tells of its job.
//!
//! Called by `view.rs`, `sinks.rs` and `quotas.rs`, and by `carry` for what a sink takes along. Nothing here was counted by a deliverer: a count that
//! somebody says is lost with who was to hear it, while the marker and the log survive both (INV-10). Pure.

use std::collections::BTreeMap;

use millstream_common::ids::{Epoch, OutputIndex, SinkIndex, SplitId};
use millstream_common::log::entry::JobProgress;
use millstream_common::replay_split::is_replay;
use millstream_common::report::{SplitProgress, SplitStatus};

/// What a sink lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lag {
    /// The oldest epoch of it.
    pub(crate) first: Option<Epoch>,
    pub(crate) epoch_count: u64,
    pub(crate) row_count: u64,
    pub(crate) bytes: u64,
}

/// The records that the splits of a source hold and nobody has read. `told` is what readers know of the ends of some: `None` unless all
/// that are being read are among them, for a sum of the others would call a job read to its end that is not.
pub(crate) fn of_splits(
    splits: &BTreeMap<SplitId, SplitProgress>,
    told: &BTreeMap<SplitId, u64>,
) -> Option<u64> {
    let read = |(split, progress): &(&SplitId, &SplitProgress)| {
        progress.status != SplitStatus::Ended && !is_replay(split)
    };
    splits
        .iter()
        .filter(read)
        .map(|(split, _)| told.get(split))
        .sum()
}

/// What a sink of `output` lacks that holds everything up to `marker`. Of a part of the backlog that the marker lies in, a share by
/// numbers of epochs.
pub(crate) fn lag(progress: &JobProgress, output: OutputIndex, marker: Epoch) -> Lag {
    let mut lag = Lag::default();
    for part in progress.backlog.iter().filter(|part| part.last > marker) {
        let from = marker.max(part.parent);
        let share = (part.last.0 - from.0) as f64 / (part.last.0 - part.parent.0) as f64;
        let of = |count: u64| (count as f64 * share).ceil() as u64;
        let sum = part.outputs.get(&output).copied().unwrap_or_default();
        lag.first.get_or_insert(from.next());
        lag.epoch_count += of(part.epoch_count);
        lag.row_count += of(sum.row_count);
        lag.bytes += of(sum.bytes);
    }
    let held = progress
        .recent
        .partition_point(|epoch| epoch.epoch <= marker);
    for epoch in &progress.recent[held..] {
        lag.first.get_or_insert(epoch.epoch);
        lag.epoch_count += 1;
        let segments = epoch.segments.iter();
        for segment in segments.filter(|segment| segment.output == output) {
            lag.row_count += segment.row_count;
            lag.bytes += segment.bytes;
        }
    }
    lag
}

/// The rows that a sink holds: all that it was to get but those that it lacks, that are dead letters, or that it dropped.
pub(crate) fn delivered(
    progress: &JobProgress,
    sink: SinkIndex,
    output: OutputIndex,
    lacked: u64,
    dropped: u64,
) -> u64 {
    let shipped = progress.shipped.get(&output).copied();
    let owed = progress.owed.get(&sink).copied();
    let refused = progress.refused.get(&sink).copied();
    let refused = refused.unwrap_or_default();
    let due = shipped.unwrap_or_default() + owed.unwrap_or_default();
    // Those of an epoch that is not delivered yet are among what the sink lacks.
    let refused = refused.saturating_sub(refused_and_lacked(progress, sink));
    due.saturating_sub(lacked + refused + dropped)
}

/// The rows that a sink refused of epochs which it does not hold yet.
fn refused_and_lacked(progress: &JobProgress, sink: SinkIndex) -> u64 {
    let marker = progress.marker(sink);
    let named = progress.recent.iter().flat_map(|epoch| &epoch.refused);
    let named = named.chain(&progress.left_out);
    let rows = named
        .filter(|named| named.sink == sink)
        .flat_map(|named| named.rows.range(marker.next()..));
    rows.map(|(_, rows)| rows.len() as u64).sum()
}

#[cfg(test)]
mod tests {
    use millstream_common::log::backlog::{BacklogPart, OutputSum};
    use millstream_common::log::entry::CommittedEpoch;
    use millstream_common::report::{RefusedRows, Segment};

    use super::*;

    const OUTPUT: OutputIndex = OutputIndex(1);
    const SINK: SinkIndex = SinkIndex(0);

    fn segment(output: OutputIndex, row_count: u64) -> Segment {
        Segment {
            output,
            path: String::new(),
            bytes: row_count * 10,
            checksum: 0,
            row_count,
        }
    }

    /// Ten epochs of two rows each are put away, two wait in memory.
    fn progress() -> JobProgress {
        let sum = OutputSum {
            row_count: 20,
            bytes: 200,
        };
        let waiting = [11, 12].map(|epoch| CommittedEpoch {
            epoch: Epoch(epoch),
            parent: Epoch(epoch - 1),
            segments: vec![segment(OUTPUT, 2), segment(OutputIndex(0), 9)],
            refused: Vec::new(),
            last: false,
        });
        JobProgress {
            backlog: vec![BacklogPart {
                path: String::new(),
                checksum: 0,
                parent: Epoch(0),
                last: Epoch(10),
                epoch_count: 10,
                outputs: BTreeMap::from([(OUTPUT, sum)]),
            }],
            recent: waiting.into(),
            shipped: BTreeMap::from([(OUTPUT, 24)]),
            ..JobProgress::default()
        }
    }

    #[test]
    fn a_source_whose_splits_have_not_all_told_their_ends_has_no_lag_yet() {
        let split = |name: &str, status| {
            let progress = SplitProgress {
                position: 5,
                end: None,
                watermark: None,
                status,
                identity: None,
                gaps: None,
            };
            (SplitId::from(name), progress)
        };
        let splits = BTreeMap::from([
            split("clicks-0", SplitStatus::Active),
            split("clicks-1", SplitStatus::Idle),
            split("clicks-2", SplitStatus::Ended),
        ]);
        let mut told = BTreeMap::from([(SplitId::from("clicks-0"), 0)]);
        assert_eq!(of_splits(&splits, &told), None);
        told.insert("clicks-1".into(), 7);
        assert_eq!(of_splits(&splits, &told), Some(7));
    }

    #[test]
    fn a_sink_lacks_what_lies_behind_its_marker_put_away_or_not() {
        let found = |marker| lag(&progress(), OUTPUT, Epoch(marker));
        let expected = |first: u64, epoch_count, row_count| Lag {
            first: Some(Epoch(first)),
            epoch_count,
            row_count,
            bytes: row_count * 10,
        };
        assert_eq!(found(0), expected(1, 12, 24));
        assert_eq!(found(5), expected(6, 7, 14));
        assert_eq!(found(11), expected(12, 1, 2));
        assert_eq!(found(12), Lag::default());
    }

    #[test]
    fn rows_that_a_sink_refused_before_it_holds_their_epoch_are_not_taken_off_twice() {
        let mut progress = progress();
        progress.sink_markers.insert(SINK, Epoch(11));
        let held = |progress: &JobProgress| {
            let marker = progress.marker(SINK);
            let lacked = lag(progress, OUTPUT, marker).row_count;
            delivered(progress, SINK, OUTPUT, lacked, 0)
        };
        assert_eq!(held(&progress), 22);
        progress.refused.insert(SINK, 1);
        progress.recent[1].refused.push(RefusedRows {
            sink: SINK,
            attempt: String::new(),
            rows: BTreeMap::from([(Epoch(12), vec![0])]),
        });
        assert_eq!(held(&progress), 22, "the row is among those it lacks");
        progress.sink_markers.insert(SINK, Epoch(12));
        assert_eq!(held(&progress), 23);
    }

    #[test]
    fn rows_that_a_sink_holds_follow_from_the_log_whoever_has_counted() {
        let mut progress = progress();
        let held = |progress: &JobProgress, marker, dropped| {
            let lacked = lag(progress, OUTPUT, Epoch(marker)).row_count;
            delivered(progress, SINK, OUTPUT, lacked, dropped)
        };
        assert_eq!(held(&progress, 0, 0), 0);
        assert_eq!(held(&progress, 11, 0), 22);
        progress.refused.insert(SINK, 3);
        assert_eq!(held(&progress, 12, 1), 20);
        progress.owed.insert(SINK, 5);
        assert_eq!(held(&progress, 12, 1), 25);
    }

    #[test]
    fn refused_rows_of_an_epoch_that_a_sink_lacks_again_are_left_out_once() {
        let mut progress = progress();
        progress.refused.insert(SINK, 2);
        progress.recent[1].refused.push(RefusedRows {
            sink: SINK,
            attempt: "first".to_owned(),
            rows: BTreeMap::from([(Epoch(11), vec![0]), (Epoch(10), vec![1])]),
        });
        let mut held = |marker| {
            progress.sink_markers.insert(SINK, Epoch(marker));
            let lacked = lag(&progress, OUTPUT, Epoch(marker)).row_count;
            delivered(&progress, SINK, OUTPUT, lacked, 0)
        };
        assert_eq!(held(12), 22);
        assert_eq!(held(11), 20);
        assert_eq!(held(10), 19, "one of its two rows of epoch 11 is a letter");
        assert_eq!(held(0), 0);
    }
}
