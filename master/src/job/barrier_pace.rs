//! When the next barrier of a job is due.
//!
//! Owned by the actor of the job, which tells it of each barrier that it sends. Pure. Cannot fail.

use std::time::Duration;

/// The first epochs of a generation follow each other faster, so that a small job and a recovery are soon
/// done: this long after the start, doubling up to the job's interval.
const FIRST_INTERVAL: Duration = Duration::from_millis(50);

/// Of one generation.
#[derive(Debug, Default)]
pub(super) struct BarrierPace {
    sent_count: u32,
    /// Monotonic.
    sent_at: Option<Duration>,
}

impl BarrierPace {
    /// A barrier was sent.
    pub(super) fn sent(&mut self, now: Duration) {
        self.sent_count += 1;
        self.sent_at = Some(now);
    }

    /// How long to wait for the next one. From barrier to barrier it is the job's interval, however long an epoch is on its way to
    /// the log; where that takes longer than the interval, a quarter of it is left to the rows alone.
    pub(super) fn pause(&self, job_interval: Duration, now: Duration) -> Duration {
        let ramp = FIRST_INTERVAL * 2_u32.saturating_pow(self.sent_count.min(16));
        let interval = ramp.min(job_interval);
        let elapsed = self
            .sent_at
            .map_or(Duration::ZERO, |at| now.saturating_sub(at));
        interval.saturating_sub(elapsed).max(interval / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// Far enough into a generation for its barriers to be as far apart as the job says.
    fn steady(sent_at: Duration) -> BarrierPace {
        BarrierPace {
            sent_count: 10,
            sent_at: Some(sent_at),
        }
    }

    #[test]
    fn the_first_barriers_follow_each_other_faster() {
        let mut pace = BarrierPace::default();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            pauses.push(pace.pause(SECOND, ms(7)));
            pace.sent(ms(7));
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1_000].map(ms));
    }

    #[test]
    fn what_an_epoch_took_is_not_waited_for_again() {
        assert_eq!(steady(ms(500)).pause(SECOND, ms(800)), ms(700));
    }

    #[test]
    fn epochs_that_take_longer_than_the_interval_leave_room_for_rows() {
        assert_eq!(steady(ms(500)).pause(SECOND, ms(60_000)), ms(250));
    }
}
