//! The epochs of a job that are kept: those that some sink lacks, and those that every sink holds, for a while.
//!
//! Called by whoever folds a job's entries, and by its actor when a sink has moved. What every sink holds is kept until a Forgotten entry
//! says otherwise, so that a sink can be sent back, and one that is added can begin with what was shipped before it came. Segments are
//! deleted only behind such an entry (INV-8): what was forgotten once never comes back, whichever master deletes it and when. The epochs
//! that are kept form one chain, the oldest in storage, so memory stays bounded however long they are kept (INV-9). Pure.

use super::backlog::BacklogPart;
use super::entry::{EpochEntry, JobProgress};
use crate::ids::{Epoch, OutputIndex, SinkIndex};
use crate::mutant::{self, Mutant};
use crate::report::RefusedRows;

/// What the rows may weigh that epochs in storage name as refused. They stay in memory as long as these are kept.
const LEFT_OUT_BYTES_MAX: usize = 32 << 20;

impl JobProgress {
    /// How far a sink is known to be; 0 if it is not known to hold anything.
    pub fn marker(&self, sink: SinkIndex) -> Epoch {
        self.sink_markers.get(&sink).copied().unwrap_or_default()
    }

    /// The oldest epoch behind which every row of `output` is kept, in its present columns.
    pub fn oldest_of(&self, output: OutputIndex) -> Epoch {
        let start = self.output_starts.get(&output).copied();
        start.unwrap_or_default().max(self.retained_from)
    }

    /// Takes the markers that an Epoch tells of, but for sinks that were sent back since its generation began.
    pub(super) fn hear_markers(&mut self, entry: &EpochEntry) {
        for (sink, marker) in &entry.sink_markers {
            let is_old = self.is_going_back(*sink, entry.generation);
            if is_old && !mutant::is(Mutant::HearOldMarkers) {
                continue;
            }
            let sent_back = self.sink_rewinds.get(sink).map(|rewind| rewind.to);
            let known = self.sink_markers.entry(*sink).or_default();
            // Until it has told, a sink is taken to hold what it was sent back to; it may hold less, as it was restored from an older copy.
            let was_assumed = sent_back == Some(*known) && marker < known;
            *known = match was_assumed {
                true => *marker,
                false => (*known).max(*marker),
            };
        }
    }

    /// Notes what every one of `sink_count` sinks holds.
    pub fn note_delivered(&mut self, sink_count: usize) {
        let markers = (0..sink_count).map(|sink| self.marker(SinkIndex(sink as u32)));
        let delivered = match mutant::is(Mutant::ForgetByFastestSink) {
            true => markers.max(),
            false => markers.min(),
        };
        self.delivered = delivered.unwrap_or(self.epoch);
    }

    /// What may be forgotten of the epochs up to `through`: those that every sink holds. None while a sink that was sent back has told nothing
    /// since: restored from an older copy it holds less than it was sent back to.
    pub fn forgettable(&self, through: Epoch) -> Epoch {
        let mut sent_back = self.sink_rewinds.keys();
        match sent_back.any(|sink| self.open_rewind(*sink).is_some()) {
            true => self.retained_from,
            false => self.retained_from.max(through.min(self.delivered)),
        }
    }

    /// Epochs up to `through` are kept no longer, as far as they are [`Self::forgettable`].
    pub fn forget(&mut self, through: Epoch) {
        self.retained_from = self.forgettable(through);
        let floor = self.retained_from;
        self.backlog.retain(|part| part.last > floor);
        let count = self.recent.partition_point(|kept| kept.epoch <= floor);
        self.recent.drain(..count);
        self.left_out
            .retain(|refused| refused.is_needed_behind(floor));
    }

    /// The epoch up to which has to be forgotten before its time, because rows that sinks refused would fill the memory (INV-9); 0 if none.
    pub fn crowded(&self) -> Epoch {
        let mut bytes: usize = self.left_out.iter().map(weight).sum();
        let mut oldest = self.left_out.iter();
        let mut through = Epoch(0);
        while bytes > LEFT_OUT_BYTES_MAX
            && let Some(refused) = oldest.next()
        {
            bytes -= weight(refused);
            let last = refused.rows.keys().next_back().copied();
            through = through.max(last.unwrap_or_default());
        }
        through
    }

    /// The epochs of `part` are in storage: they are forgotten here, but for the rows that they name as refused.
    pub fn fold(&mut self, part: &BacklogPart) {
        let count = self
            .recent
            .partition_point(|committed| committed.epoch <= part.last);
        if count == 0 {
            // They are kept no longer.
            return;
        }
        let end = self.backlog.last().map(|last| last.last);
        let end = end.or(self.recent.first().map(|first| first.parent));
        if end.is_some_and(|end| end < part.parent) {
            // Who wrote the part had heard of markers that are not in the log, and forgotten more.
            self.backlog.clear();
            self.retained_from = self.retained_from.max(part.parent);
        }
        let floor = self.retained_from;
        let named = self.recent.drain(..count).flat_map(|kept| kept.refused);
        let needed = named.filter(|refused| refused.is_needed_behind(floor));
        self.left_out.extend(needed);
        self.backlog.push(part.clone());
    }

    /// The epochs that some sink may lack: parts of the backlog, and the number of the oldest of [`Self::recent`] that all hold.
    pub fn lacked(&self) -> (Vec<BacklogPart>, usize) {
        let parts = self.backlog.iter();
        let parts = parts.filter(|part| part.last > self.delivered).cloned();
        let held = self
            .recent
            .partition_point(|kept| kept.epoch <= self.delivered);
        (parts.collect(), held)
    }
}

/// About what they take in memory.
fn weight(refused: &RefusedRows) -> usize {
    let rows = refused.rows.values();
    rows.map(|rows| 500 + 8 * rows.len()).sum()
}
