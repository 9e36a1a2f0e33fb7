//! How far each partition of one reader has been read, and what its status is at a cut.
//!
//! Pure; owned by `reader_thread.rs`. Keeps INV-5: a record is accepted only at or behind its partition's position and
//! before its end, and moves the position behind itself; so a record fetched twice counts once. Records that are gone are a step of their
//! own, which the progress tells. A partition is idle
//! only if the client has said that there is no more, and nothing has come for the source's timeout, as of
//! the last look that found nothing while brokers answered: neither a backlog behind a slow pipeline nor an outage is silence.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream_common::ids::SplitId;
use millstream_common::report::{SplitGaps, SplitProgress, SplitStart, SplitStatus};
use millstream_common::time::EventTime;

use super::answers::Heard;
use crate::decode::SplitSlot;

/// A partition being read.
#[derive(Debug)]
pub(super) struct ReadSplit {
    split: SplitId,
    slot: SplitSlot,
    position: i64,
    end: Option<i64>,
    identity: Option<String>,
    gaps: Option<SplitGaps>,
    /// The client has said that there is no more at present.
    at_end: bool,
    /// The last record came then; `None`: it has been silent since before it was assigned here.
    silent_since: Option<Duration>,
}

impl ReadSplit {
    /// A partition that was idle before stays so until a record comes, but only once its end has been seen.
    pub(super) fn new(start: SplitStart, slot: SplitSlot, now: Duration) -> Self {
        let was_idle = start.progress.status == SplitStatus::Idle;
        Self {
            split: start.split,
            slot,
            position: start.progress.position,
            end: start.progress.end,
            identity: start.progress.identity,
            gaps: start.progress.gaps,
            at_end: false,
            silent_since: (!was_idle).then_some(now),
        }
    }

    fn is_finished(&self) -> bool {
        self.end.is_some_and(|end| self.position >= end)
    }

    fn progress(&self, watermark: Option<EventTime>, status: SplitStatus) -> SplitProgress {
        SplitProgress {
            position: self.position,
            end: self.end,
            watermark,
            status,
            identity: self.identity.clone(),
            gaps: self.gaps,
        }
    }
}

/// All partitions of one reader.
#[derive(Debug, Default)]
pub(super) struct SplitTable {
    /// By partition number, which the broker counts from 0.
    open: Vec<Option<ReadSplit>>,
    /// Partitions read to their end since the last call of [`Self::take_finished`].
    finished: Vec<i32>,
    /// Ended since the last cut.
    ended: BTreeMap<SplitId, SplitProgress>,
}

impl SplitTable {
    /// Begins a partition; false if it is being read already.
    pub(super) fn open(&mut self, partition: i32, split: ReadSplit) -> bool {
        let Ok(index) = usize::try_from(partition) else {
            return false;
        };
        if self.open.len() <= index {
            self.open.resize_with(index + 1, || None);
        }
        if self.open[index].is_some() {
            return false;
        }
        self.open[index] = Some(split);
        true
    }

    /// Takes a partition that has nothing left to read.
    pub(super) fn add_ended(&mut self, split: SplitId, progress: SplitProgress) {
        let progress = SplitProgress {
            status: SplitStatus::Ended,
            ..progress
        };
        self.ended.insert(split, progress);
    }

    /// Takes a record; `None`: it is not for this reader (before the position, behind the end, or of a
    /// partition no longer read).
    pub(super) fn accept(
        &mut self,
        partition: i32,
        offset: i64,
        now: Duration,
    ) -> Option<SplitSlot> {
        let split = slot_of(&mut self.open, partition)?;
        if offset < split.position || split.is_finished() {
            return None;
        }
        let slot = split.slot;
        let inside = split.end.is_none_or(|end| offset < end);
        // A record behind the end says as well that nothing before it is left.
        split.position = if inside {
            offset + 1
        } else {
            split.end.unwrap_or(offset)
        };
        split.at_end = false;
        split.silent_since = Some(now);
        if split.is_finished() {
            self.finished.push(partition);
        }
        inside.then_some(slot)
    }

    /// The client says that there is nothing before `offset` left, and nothing behind it yet. What lies between
    /// the last record and `offset` are marks of transactions.
    pub(super) fn reach_end(&mut self, partition: i32, offset: i64) {
        let Some(split) = slot_of(&mut self.open, partition) else {
            return;
        };
        if split.is_finished() {
            return;
        }
        split.at_end = true;
        split.position = split.position.max(offset);
        if let Some(end) = split.end {
            split.position = split.position.min(end);
        }
        if split.is_finished() {
            self.finished.push(partition);
        }
    }

    /// Passes over what is gone before `first`, the first record that is there. Returns where to read on, if anything is left.
    pub(super) fn skip_to(&mut self, partition: i32, first: i64) -> Option<i64> {
        let split = slot_of(&mut self.open, partition)?;
        let to = split.end.map_or(first, |end| first.min(end));
        if to > split.position {
            split.gaps = Some(SplitGaps::and(split.gaps, split.position, to));
            split.position = to;
            split.at_end = false;
        }
        if split.is_finished() {
            self.finished.push(partition);
            return None;
        }
        Some(split.position)
    }

    /// Ends the partitions that have been read to their end; `close` gives the slot back and says the last watermark.
    pub(super) fn take_finished(
        &mut self,
        mut close: impl FnMut(SplitSlot) -> Option<EventTime>,
    ) -> Vec<i32> {
        let finished = std::mem::take(&mut self.finished);
        for partition in &finished {
            let index = usize::try_from(*partition).unwrap_or(usize::MAX);
            if let Some(split) = self.open.get_mut(index).and_then(Option::take) {
                let progress = split.progress(close(split.slot), SplitStatus::Ended);
                self.ended.insert(split.split, progress);
            }
        }
        finished
    }

    /// Progress of all partitions, those that have ended for the last time. `heard` is as of when the client last
    /// had nothing more.
    pub(super) fn cut(
        &mut self,
        heard: Heard,
        idle_timeout: Option<Duration>,
        watermark_of: impl Fn(SplitSlot) -> Option<EventTime>,
    ) -> BTreeMap<SplitId, SplitProgress> {
        let mut splits = std::mem::take(&mut self.ended);
        for split in self.open.iter().flatten() {
            // `None` is before anything.
            let silent_since = split.silent_since.max(heard.since);
            let silent = idle_timeout.is_some_and(|timeout| {
                silent_since.is_none_or(|since| heard.until.saturating_sub(since) >= timeout)
            });
            let status = if split.at_end && silent {
                SplitStatus::Idle
            } else {
                SplitStatus::Active
            };
            let progress = split.progress(watermark_of(split.slot), status);
            splits.insert(split.split.clone(), progress);
        }
        splits
    }

    /// The partitions being read, with their names and positions.
    pub(super) fn positions(&self) -> impl Iterator<Item = (i32, &SplitId, i64)> {
        self.open.iter().enumerate().filter_map(|(index, split)| {
            let split = split.as_ref()?;
            Some((i32::try_from(index).ok()?, &split.split, split.position))
        })
    }

    /// The partitions being read, with their slots and positions.
    pub(super) fn reading(&self) -> impl Iterator<Item = (i32, SplitSlot, i64)> {
        self.open.iter().enumerate().filter_map(|(index, split)| {
            let split = split.as_ref()?;
            Some((i32::try_from(index).ok()?, split.slot, split.position))
        })
    }
}

fn slot_of(open: &mut [Option<ReadSplit>], partition: i32) -> Option<&mut ReadSplit> {
    open.get_mut(usize::try_from(partition).ok()?)?.as_mut()
}

#[cfg(test)]
mod tests {
    use millstream_common::ids::SourceIndex;

    use super::*;

    const SLOT: SplitSlot = SplitSlot(4);
    const TIMEOUT: Option<Duration> = Some(Duration::from_secs(30));

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn table(position: i64, end: Option<i64>, status: SplitStatus) -> SplitTable {
        let start = SplitStart {
            source: SourceIndex(0),
            split: "clicks-0".into(),
            progress: SplitProgress {
                position,
                end,
                watermark: None,
                status,
                identity: None,
                gaps: None,
            },
        };
        let mut table = SplitTable::default();
        assert!(table.open(0, ReadSplit::new(start, SLOT, at(0))));
        table
    }

    fn progress(table: &mut SplitTable, until: Duration) -> Option<(i64, SplitStatus)> {
        progress_after(table, None, until)
    }

    fn progress_after(
        table: &mut SplitTable,
        since: Option<Duration>,
        until: Duration,
    ) -> Option<(i64, SplitStatus)> {
        let splits = table.cut(Heard { since, until }, TIMEOUT, |_| None);
        splits
            .values()
            .next()
            .map(|progress| (progress.position, progress.status))
    }

    #[test]
    fn a_record_fetched_twice_counts_once() {
        let mut table = table(5, None, SplitStatus::Active);
        assert_eq!(table.accept(0, 4, at(0)), None);
        assert_eq!(table.accept(0, 5, at(0)), Some(SLOT));
        assert_eq!(table.accept(0, 5, at(0)), None);
        assert_eq!(table.accept(0, 9, at(0)), Some(SLOT));
        assert_eq!(progress(&mut table, at(0)), Some((10, SplitStatus::Active)));
    }

    #[test]
    fn a_partition_ends_once_at_its_end_even_if_its_last_offsets_are_no_records() {
        let mut table = table(0, Some(10), SplitStatus::Active);
        assert_eq!(table.accept(0, 8, at(0)), Some(SLOT));
        assert!(table.take_finished(|_| None).is_empty());
        assert_eq!(table.accept(0, 12, at(0)), None);
        assert_eq!(table.take_finished(|_| Some(EventTime(7))), vec![0]);
        assert_eq!(progress(&mut table, at(0)), Some((10, SplitStatus::Ended)));
        assert_eq!(progress(&mut table, at(0)), None);
        assert_eq!(table.accept(0, 13, at(0)), None);
    }

    #[test]
    fn a_partition_ends_when_the_client_has_reached_its_end() {
        let mut table = table(0, Some(10), SplitStatus::Active);
        table.reach_end(0, 9);
        assert!(table.take_finished(|_| None).is_empty());
        table.reach_end(0, 11);
        assert_eq!(table.take_finished(|_| None), vec![0]);
        assert_eq!(progress(&mut table, at(0)), Some((10, SplitStatus::Ended)));
    }

    #[test]
    fn a_partition_is_idle_after_its_end_was_seen_and_the_timeout_is_over() {
        let mut table = table(0, None, SplitStatus::Active);
        assert_eq!(progress(&mut table, at(99)), Some((0, SplitStatus::Active)));
        table.accept(0, 0, at(10));
        table.reach_end(0, 1);
        assert_eq!(progress(&mut table, at(39)), Some((1, SplitStatus::Active)));
        assert_eq!(progress(&mut table, at(40)), Some((1, SplitStatus::Idle)));
        table.accept(0, 1, at(41));
        assert_eq!(progress(&mut table, at(99)), Some((2, SplitStatus::Active)));
    }

    #[test]
    fn an_idle_partition_stays_idle_over_a_restart_once_nothing_was_found_in_it() {
        let mut table = table(3, None, SplitStatus::Idle);
        assert_eq!(progress(&mut table, at(0)), Some((3, SplitStatus::Active)));
        table.reach_end(0, 3);
        assert_eq!(progress(&mut table, at(0)), Some((3, SplitStatus::Idle)));
    }

    #[test]
    fn an_outage_does_not_make_a_partition_idle_and_silence_behind_it_does() {
        let mut table = table(3, None, SplitStatus::Active);
        table.reach_end(0, 3);
        let mut after = |since: Option<u64>, until| {
            let progress = progress_after(&mut table, since.map(at), at(until));
            progress.map(|(_, status)| status)
        };
        assert_eq!(after(None, 10), Some(SplitStatus::Active), "down since");
        assert_eq!(after(Some(100), 129), Some(SplitStatus::Active));
        assert_eq!(after(Some(100), 130), Some(SplitStatus::Idle));
    }

    #[test]
    fn a_partition_is_not_begun_twice() {
        let mut table = table(0, None, SplitStatus::Active);
        let again = ReadSplit {
            split: "clicks-0".into(),
            slot: SLOT,
            position: 0,
            end: None,
            identity: None,
            gaps: None,
            at_end: false,
            silent_since: None,
        };
        assert!(!table.open(0, again));
    }
}
