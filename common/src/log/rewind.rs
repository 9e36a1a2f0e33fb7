//! Sinks that a person has sent back, as the log folds it.
//!
//! Called by whoever folds a job's entries, and by its actor once an entry is recorded. A sink's marker moves forward only (INV-3); this
//! entry is the one exception, and it takes effect under a token that is newer than itself: that of the first assignment behind it. The
//! deliverer with that token fences all older ones, then moves the marker back and notes in the sink, in the same unit, the position of the
//! entry; so whoever comes later, over losses and takeovers, finds that it was done and goes on from the marker (INV-4). Markers that are
//! heard of from generations before it are of the past. Pure.

use serde::{Deserialize, Serialize};

use super::entry::JobProgress;
use crate::ids::{Epoch, Generation, Seq, SinkIndex};
use crate::mutant::{self, Mutant};

/// The last time that a sink was sent back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkRewind {
    /// The epoch that it is to hold.
    pub to: Epoch,
    /// The position of the entry.
    pub at: Seq,
}

impl JobProgress {
    /// Folds the entry at `at`; says whether the sink goes back. It does not where epochs that it would need are forgotten.
    pub fn rewind_sink(&mut self, sink: SinkIndex, to: Epoch, at: Seq) -> bool {
        let is_kept = to >= self.retained_from || mutant::is(Mutant::RewindPastForgotten);
        if !is_kept || to > self.epoch {
            return false;
        }
        self.note_counted_drops(sink, self.marker(sink));
        self.sink_markers.insert(sink, to);
        self.sink_rewinds.insert(sink, SinkRewind { to, at });
        if let Some(start) = self.sink_starts.get_mut(&sink) {
            *start = (*start).min(to);
        }
        // How far behind it is now is what the person wanted.
        self.excused_sinks.insert(sink);
        self.delivered = self.delivered.min(to);
        true
    }

    /// Rows that the sink drops of epochs up to `marker` are counted.
    pub fn note_counted_drops(&mut self, sink: SinkIndex, marker: Epoch) {
        let counted = self.counted_drops.entry(sink).or_default();
        *counted = (*counted).max(marker);
    }

    /// Whether rows that the sink drops on its way to `marker` were counted when it first came there.
    pub fn has_counted_drops(&self, sink: SinkIndex, marker: Epoch) -> bool {
        let counted = self.counted_drops.get(&sink);
        counted.is_some_and(|counted| marker <= *counted)
    }

    /// Whether the sink was sent back after `generation` began: its deliverer does not know of it.
    pub fn is_going_back(&self, sink: SinkIndex, generation: Generation) -> bool {
        let rewind = self.sink_rewinds.get(&sink);
        rewind.is_some_and(|rewind| rewind.at.0 >= generation.0)
    }

    /// Whether any sink was sent back after `generation` began.
    pub fn has_going_back(&self, generation: Generation) -> bool {
        let mut sinks = self.sink_rewinds.keys();
        sinks.any(|sink| self.is_going_back(*sink, generation))
    }

    /// Where the sink has yet to be sent back to, as far as is known: it has told nothing since. Once it has, its marker is the truth again.
    pub fn open_rewind(&self, sink: SinkIndex) -> Option<SinkRewind> {
        let rewind = self.sink_rewinds.get(&sink).copied();
        rewind.filter(|rewind| rewind.to == self.marker(sink))
    }
}
