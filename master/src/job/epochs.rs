//! The newest epochs of a job as people see them, with how long the phases of each took.
//!
//! Fed by `view.rs` with each commit and by `sinks.rs` when sinks catch up. Bounded (INV-9), begins anew with the actor. Cannot fail.

use std::collections::VecDeque;
use std::time::Duration;

use millstream_common::control::CheckpointView;
use millstream_common::ids::Epoch;

/// Epochs kept to be shown.
const KEPT: usize = 200;

/// The newest epochs, oldest first, with when each was committed.
#[derive(Debug, Default)]
pub(super) struct ShownEpochs(VecDeque<(Duration, CheckpointView)>);

impl ShownEpochs {
    /// The newest `limit`, newest first.
    pub(super) fn newest(&self, limit: usize) -> Vec<CheckpointView> {
        let newest = self.0.iter().rev().take(limit);
        newest.map(|(_, view)| view.clone()).collect()
    }

    /// An epoch is in the log.
    pub(super) fn committed(&mut self, view: CheckpointView, now: Duration) {
        self.0.push_back((now, view));
        if self.0.len() > KEPT {
            self.0.pop_front();
        }
    }

    /// Every sink holds `held`, and what was before it.
    pub(super) fn delivered(&mut self, held: Epoch, now: Duration) {
        for (committed, view) in &mut self.0 {
            if view.epoch <= held && view.deliver_ms.is_none() {
                view.deliver_ms = Some(now.saturating_sub(*committed).as_millis() as u64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_common::ids::Generation;

    use super::*;

    fn epoch(number: u64) -> CheckpointView {
        CheckpointView {
            epoch: Epoch(number),
            parent: Epoch(number.saturating_sub(1)),
            generation: Generation(1),
            watermark: None,
            rows_read: 1,
            segments: 0,
            segment_bytes: 0,
            state_parts: 0,
            state_bytes: 0,
            duration_ms: None,
            collect_ms: None,
            commit_ms: None,
            deliver_ms: None,
        }
    }

    #[test]
    fn an_epoch_is_delivered_once_when_the_last_sink_holds_it() {
        let at = Duration::from_millis;
        let mut epochs = ShownEpochs::default();
        epochs.committed(epoch(1), at(100));
        epochs.committed(epoch(2), at(200));
        epochs.delivered(Epoch(1), at(130));
        epochs.delivered(Epoch(1), at(900));
        let shown = epochs.newest(5);
        let delivered: Vec<_> = shown.iter().map(|view| view.deliver_ms).collect();
        assert_eq!(delivered, [None, Some(30)]);
    }

    #[test]
    fn only_the_newest_epochs_are_kept() {
        let mut epochs = ShownEpochs::default();
        for number in 1..=KEPT as u64 + 7 {
            epochs.committed(epoch(number), Duration::ZERO);
        }
        assert_eq!(epochs.newest(usize::MAX).len(), KEPT, "INV-9");
    }
}
