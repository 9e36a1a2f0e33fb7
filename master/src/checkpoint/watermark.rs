//! A source's watermark, from the progress of its splits.
//!
//! Computed once an epoch by the coordinator, recorded in the Epoch entry, and carried by the next barrier
//! to every operator: so all tasks act on the same value at the same place in the stream, and a split that wakes or
//! is found later can be started at it without a race. Pure; keeps INV-6: the result is never below the
//! previous one.

use millstream_common::plan::SourceSpec;
use millstream_common::report::{SplitProgress, SplitStatus};
use millstream_common::time::EventTime;

/// The watermark after an epoch; `previous` is that of the epoch before.
///
/// While splits are active it is the least of theirs. Without active ones it holds, except for files: there the
/// ended files move it to the greatest of theirs.
pub fn source_watermark<'a>(
    spec: &SourceSpec,
    splits: impl Iterator<Item = &'a SplitProgress> + Clone,
    previous: Option<EventTime>,
) -> Option<EventTime> {
    let of_status = |status| {
        let of = move |progress: &&SplitProgress| progress.status == status;
        splits.clone().filter(of).map(|progress| progress.watermark)
    };
    let mut active = of_status(SplitStatus::Active).peekable();
    let now = if active.peek().is_some() {
        // `None` is less than any time: a split without a row holds everybody back.
        active.min().flatten()
    } else {
        match spec {
            SourceSpec::Files(_) => of_status(SplitStatus::Ended).max().flatten(),
            SourceSpec::Kafka(_) | SourceSpec::Datagen(_) => None,
        }
    };
    now.max(previous)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use millstream_common::ids::SplitId;
    use millstream_common::plan::connector::{Compression, DatagenSpec, FilesSourceSpec};

    use super::*;

    fn stream() -> SourceSpec {
        SourceSpec::Datagen(DatagenSpec {
            row_count: None,
            rows_per_second: None,
            seed: 0,
            fields: Vec::new(),
        })
    }

    fn files() -> SourceSpec {
        SourceSpec::Files(FilesSourceSpec {
            path: "in".to_owned(),
            watch: true,
            settle_ms: 0,
            discovery_interval_ms: 1_000,
            files_per_epoch_max: None,
            compression: Compression::Auto,
        })
    }

    fn splits(list: &[(SplitStatus, Option<i64>)]) -> BTreeMap<SplitId, SplitProgress> {
        let named = list.iter().enumerate().map(|(index, (status, watermark))| {
            let progress = SplitProgress {
                position: 0,
                end: None,
                watermark: watermark.map(EventTime),
                status: *status,
                identity: None,
                gaps: None,
            };
            (SplitId(format!("split-{index}")), progress)
        });
        named.collect()
    }

    fn watermark(
        spec: &SourceSpec,
        splits: &BTreeMap<SplitId, SplitProgress>,
        previous: Option<EventTime>,
    ) -> Option<EventTime> {
        source_watermark(spec, splits.values(), previous)
    }

    use SplitStatus::{Active, Ended, Idle};

    #[test]
    fn the_slowest_active_split_decides() {
        let three = splits(&[(Active, Some(30)), (Active, Some(10)), (Active, Some(20))]);
        assert_eq!(watermark(&stream(), &three, None), Some(EventTime(10)));
    }

    #[test]
    fn an_active_split_without_a_row_holds_everybody_back() {
        let two = splits(&[(Active, Some(30)), (Active, None)]);
        assert_eq!(watermark(&stream(), &two, None), None);
        assert_eq!(
            watermark(&stream(), &two, Some(EventTime(5))),
            Some(EventTime(5))
        );
    }

    #[test]
    fn idle_and_ended_splits_neither_hold_back_nor_push_forward() {
        let mixed = splits(&[(Idle, Some(1)), (Ended, Some(99)), (Active, Some(7))]);
        assert_eq!(watermark(&stream(), &mixed, None), Some(EventTime(7)));
        let silent = splits(&[(Idle, Some(50)), (Ended, Some(99))]);
        assert_eq!(
            watermark(&stream(), &silent, Some(EventTime(7))),
            Some(EventTime(7))
        );
    }

    #[test]
    fn it_never_goes_back() {
        let one = splits(&[(Active, Some(3))]);
        assert_eq!(
            watermark(&stream(), &one, Some(EventTime(8))),
            Some(EventTime(8))
        );
    }

    #[test]
    fn files_move_it_only_when_they_end() {
        let reading = splits(&[(Ended, Some(40)), (Active, Some(10))]);
        assert_eq!(
            watermark(&files(), &reading, Some(EventTime(10))),
            Some(EventTime(10))
        );
        let ended = splits(&[(Ended, Some(40)), (Ended, Some(30))]);
        assert_eq!(
            watermark(&files(), &ended, Some(EventTime(10))),
            Some(EventTime(40))
        );
    }
}
