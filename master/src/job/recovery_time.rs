//! How long the last recovery took.
//!
//! Pure; owned by a job's actor, only to be shown. A recovery lasts from the loss to the first epoch that the new generation
//! commits. Where nothing came in meanwhile there is no such epoch, and it ends with the first barrier that all tasks have
//! passed and no source is behind: the time until somebody sends the next row is not recovery. Losses during a recovery prolong it.

use std::time::Duration;

/// The running recovery and the last one.
#[derive(Debug, Default)]
pub(super) struct RecoveryTime {
    lost_at: Option<Duration>,
    last: Option<Duration>,
}

impl RecoveryTime {
    /// The generation is lost at monotonic time `now`.
    pub(super) fn lost(&mut self, now: Duration) {
        self.lost_at.get_or_insert(now);
    }

    /// An epoch of the running generation is committed; or all its tasks have passed a barrier, and there was nothing to commit nor
    /// anything waiting.
    pub(super) fn over(&mut self, now: Duration) {
        if let Some(lost_at) = self.lost_at.take() {
            self.last = Some(now.saturating_sub(lost_at));
        }
    }

    /// What the last recovery took, once it is over.
    pub(super) fn last(&self) -> Option<Duration> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_recovery_ends_with_the_first_epoch_and_counts_from_the_first_loss() {
        let mut time = RecoveryTime::default();
        time.lost(at(1_000));
        time.lost(at(1_300));
        assert_eq!(time.last(), None);
        time.over(at(1_700));
        assert_eq!(time.last(), Some(at(700)));
        time.over(at(9_000));
        assert_eq!(time.last(), Some(at(700)));
    }
}
