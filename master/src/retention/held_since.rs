//! Since when every sink of a job holds which epoch: what was held for long enough may be forgotten.
//!
//! Called by the collector at each look. Of a long time only some epochs are remembered, evenly (INV-9): what lies between two of them
//! counts as held since the later one. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use millstream_common::ids::Epoch;

/// How many are remembered.
const COUNT_MAX: u32 = 1_000;

/// Epochs with when they were seen to be held, in order.
#[derive(Debug, Default)]
pub(super) struct HeldSince {
    seen: VecDeque<(Duration, Epoch)>,
}

impl HeldSince {
    /// Every sink holds `epoch` at `now`; what was held for `kept` is all that is asked for.
    pub(super) fn note(&mut self, epoch: Epoch, now: Duration, kept: Duration) {
        // A sink that was sent back holds less than before.
        while self.seen.back().is_some_and(|(_, last)| *last > epoch) {
            self.seen.pop_back();
        }
        let apart = kept / COUNT_MAX;
        let is_due = |(since, last): &(Duration, Epoch)| {
            *last < epoch && now.saturating_sub(*since) >= apart
        };
        if self.seen.back().is_none_or(is_due) {
            self.seen.push_back((now, epoch));
        }
        while self.seen.len() > 1 && now.saturating_sub(self.seen[1].0) >= kept {
            self.seen.pop_front();
        }
    }

    /// What had been held for `kept` at `now`.
    pub(super) fn before(&self, now: Duration, kept: Duration) -> Epoch {
        let is_old = |(since, _): &&(Duration, Epoch)| now.saturating_sub(*since) >= kept;
        let old = self.seen.iter().rev().find(is_old);
        old.map_or(Epoch(0), |(_, epoch)| *epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_month_of_epochs_some_are_remembered_and_each_is_held_long_enough() {
        let kept = Duration::from_secs(2_592_000);
        let mut held = HeldSince::default();
        // An epoch every ten minutes, for two months.
        for number in 1..=8_640 {
            let now = Duration::from_secs(number * 600);
            held.note(Epoch(number), now, kept);
            let old = held.before(now, kept);
            let due = number.saturating_sub(4_320);
            assert!(old.0 <= due && due - old.0 <= 5, "{old} {due}");
        }
        assert!(held.seen.len() <= COUNT_MAX as usize + 2);
    }

    #[test]
    fn a_sink_that_was_sent_back_begins_to_hold_anew() {
        let kept = Duration::from_secs(10);
        let mut held = HeldSince::default();
        let at = Duration::from_secs;
        held.note(Epoch(5), at(1), kept);
        held.note(Epoch(2), at(2), kept);
        held.note(Epoch(5), at(8), kept);
        assert_eq!(held.before(at(11), kept), Epoch(0));
        assert_eq!(held.before(at(12), kept), Epoch(2));
        assert_eq!(held.before(at(18), kept), Epoch(5));
    }
}
