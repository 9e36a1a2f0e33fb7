//! When a failed job is tried again, and when it is given up.
//!
//! Pure; owned by a job's actor. Failures of the outside world are retried for ever with backoff, for the outage of a
//! broker must not end a job; defects are retried within the job's budget; what the user has to mend is not retried.

use std::collections::VecDeque;
use std::time::Duration;

use millstream_common::error::Kind;
use millstream_common::plan::JobSettings;

/// Delay before the second attempt in a row; the first is made at once.
const DELAY_MIN: Duration = Duration::from_millis(200);
/// Longest delay between two attempts.
const DELAY_MAX: Duration = Duration::from_secs(10);

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Assign the job again after this long.
    RetryAfter(Duration),
    /// The job has failed.
    GiveUp,
}

/// The failures of one job.
#[derive(Debug)]
pub struct RestartPolicy {
    budget: usize,
    window: Duration,
    /// When defects struck, within the window.
    defects: VecDeque<Duration>,
    /// Attempts since the last committed epoch.
    attempts: u32,
    /// When it failed last.
    failed_at: Option<Duration>,
}

impl RestartPolicy {
    /// By the job's settings.
    pub fn new(settings: &JobSettings) -> Self {
        Self {
            budget: settings.restart_budget as usize,
            window: Duration::from_millis(settings.restart_window_ms),
            defects: VecDeque::new(),
            attempts: 0,
            failed_at: None,
        }
    }

    /// Takes a failure at monotonic time `now`. After a whole window without one the next is the first again.
    pub fn failed(&mut self, kind: Kind, now: Duration) -> Decision {
        let failed_at = self.failed_at.replace(now);
        if failed_at.is_some_and(|at| now.saturating_sub(at) >= self.window) {
            self.attempts = 0;
        }
        match kind {
            Kind::User => return Decision::GiveUp,
            Kind::External => {}
            Kind::Internal => {
                self.defects.push_back(now);
                self.defects
                    .retain(|at| now.saturating_sub(*at) < self.window);
                if self.defects.len() > self.budget {
                    return Decision::GiveUp;
                }
            }
        }
        let delay = match self.attempts {
            0 => Duration::ZERO,
            earlier => (DELAY_MIN * 2_u32.saturating_pow(earlier.min(16) - 1)).min(DELAY_MAX),
        };
        self.attempts += 1;
        Decision::RetryAfter(delay)
    }

    /// An epoch was committed: the job works again.
    pub fn committed(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(budget: u32) -> RestartPolicy {
        RestartPolicy::new(&JobSettings {
            restart_budget: budget,
            restart_window_ms: 1_000,
            ..JobSettings::default()
        })
    }

    #[test]
    fn the_first_retry_comes_at_once_and_later_ones_wait_longer_up_to_a_bound() {
        let mut policy = policy(0);
        let mut delays = (0..12).map(|_| policy.failed(Kind::External, Duration::ZERO));
        assert_eq!(delays.next(), Some(Decision::RetryAfter(Duration::ZERO)));
        assert_eq!(delays.next(), Some(Decision::RetryAfter(DELAY_MIN)));
        assert_eq!(delays.next(), Some(Decision::RetryAfter(DELAY_MIN * 2)));
        assert_eq!(delays.last(), Some(Decision::RetryAfter(DELAY_MAX)));
        policy.committed();
        assert_eq!(
            policy.failed(Kind::External, Duration::ZERO),
            Decision::RetryAfter(Duration::ZERO)
        );
    }

    #[test]
    fn defects_use_up_the_budget_and_are_forgiven_after_the_window() {
        let mut policy = policy(2);
        let at = |millis| Duration::from_millis(millis);
        assert_ne!(policy.failed(Kind::Internal, at(0)), Decision::GiveUp);
        assert_ne!(policy.failed(Kind::Internal, at(10)), Decision::GiveUp);
        assert_ne!(
            policy.failed(Kind::Internal, at(1_500)),
            Decision::GiveUp,
            "the first two are old"
        );
        assert_ne!(policy.failed(Kind::Internal, at(1_501)), Decision::GiveUp);
        assert_eq!(policy.failed(Kind::Internal, at(1_502)), Decision::GiveUp);
    }

    #[test]
    fn a_failure_after_a_quiet_window_is_retried_at_once() {
        let mut policy = policy(9);
        let at = |millis| Duration::from_millis(millis);
        policy.failed(Kind::Internal, at(0));
        assert_eq!(
            policy.failed(Kind::Internal, at(999)),
            Decision::RetryAfter(DELAY_MIN)
        );
        assert_eq!(
            policy.failed(Kind::Internal, at(1_999)),
            Decision::RetryAfter(Duration::ZERO)
        );
    }

    #[test]
    fn what_the_user_has_to_mend_is_not_retried() {
        assert_eq!(
            policy(9).failed(Kind::User, Duration::ZERO),
            Decision::GiveUp
        );
    }
}
