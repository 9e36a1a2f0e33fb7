//! What follows from how far behind a sink is and from the quota that its job gave it.
//!
//! Pure; asked by `quotas.rs`. From [`NEAR`] of its quota on a sink is warned of; with all of it used up the job does what `on_quota`
//! says. Not one of the three drops a row, nor could they: what a sink lacks is in the log, and the log is the promise. They differ in who
//! waits. `warn`: nobody, storage grows until the sink is back or somebody acts. `backpressure`: the sources, so that what waits stops
//! growing, at the price of the other sinks, which get nothing new either. `suspend`: only this sink, until a person resumes it. Its
//! rows go on waiting in storage, but a database that did not keep up is not also met by hours of them the moment it answers: when it
//! takes them is a person's choice. A sink that was resumed or sent back, or that begins with what is kept, is excused: it may use up
//! more than its quota until it has once caught up below [`NEAR`]; else resuming it would suspend it again, and sending it back would stop
//! the job.

use millstream_common::plan::{OnQuota, SinkQuota};

use super::lag::Lag;

/// The share of a quota from which on it is warned of, and below which a sink that had used up all of it counts as caught up.
pub(super) const NEAR: f64 = 0.8;

/// How a sink stands to its quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Nothing to say.
    #[default]
    Within,
    /// It is warned of.
    Near,
    /// It is used up, or was and the sink has not caught up since.
    Spent,
}

/// The larger share of a quota's bounds that is used up; `None` where there is no bound.
pub(super) fn used(quota: &SinkQuota, lag: &Lag, age_ms: Option<u64>) -> Option<f64> {
    let share = |used: u64, bound: u64| used as f64 / bound.max(1) as f64;
    let of_bytes = quota.bytes.map(|bound| share(lag.bytes, bound));
    let of_age = quota
        .age_ms
        .map(|bound| share(age_ms.unwrap_or_default(), bound));
    match (of_bytes, of_age) {
        (Some(bytes), Some(age)) => Some(bytes.max(age)),
        (bytes, age) => bytes.or(age),
    }
}

/// How a sink stands now that stood at `before`.
pub(super) fn standing(used: f64, before: Standing) -> Standing {
    match before {
        _ if used >= 1.0 => Standing::Spent,
        _ if used < NEAR => Standing::Within,
        Standing::Spent => Standing::Spent,
        Standing::Within | Standing::Near => Standing::Near,
    }
}

/// Whether sources have to wait for the sink.
pub(super) fn holds_back(policy: OnQuota, standing: Standing, is_excused: bool) -> bool {
    policy == OnQuota::Backpressure && standing == Standing::Spent && !is_excused
}

/// Whether the sink is to be suspended now.
pub(super) fn suspends(
    policy: OnQuota,
    standing: Standing,
    is_paused: bool,
    is_excused: bool,
) -> bool {
    policy == OnQuota::Suspend && standing == Standing::Spent && !is_paused && !is_excused
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(bytes: Option<u64>, age_ms: Option<u64>) -> SinkQuota {
        SinkQuota {
            bytes,
            age_ms,
            policy: OnQuota::Warn,
        }
    }

    #[test]
    fn the_tighter_of_two_bounds_counts_and_without_one_nothing_does() {
        let lag = Lag {
            bytes: 50,
            ..Lag::default()
        };
        let used = |quota: SinkQuota, age_ms| used(&quota, &lag, age_ms);
        assert_eq!(used(quota(None, None), Some(9)), None);
        assert_eq!(used(quota(Some(100), None), Some(9)), Some(0.5));
        assert_eq!(used(quota(Some(100), Some(10)), Some(9)), Some(0.9));
        assert_eq!(used(quota(Some(40), Some(10)), None), Some(1.25));
    }

    #[test]
    fn a_sink_that_used_up_its_quota_counts_as_caught_up_only_well_below_it() {
        use Standing::{Near, Spent, Within};
        let mut now = Within;
        let steps = [
            (0.79, Within),
            (0.8, Near),
            (0.99, Near),
            (1.0, Spent),
            (0.9, Spent),
            (0.79, Within),
            (0.9, Near),
        ];
        for (used, expected) in steps {
            now = standing(used, now);
            assert_eq!(now, expected, "{used}");
        }
    }

    #[test]
    fn only_the_chosen_policy_acts_and_only_on_a_quota_that_is_used_up() {
        for policy in [OnQuota::Warn, OnQuota::Backpressure, OnQuota::Suspend] {
            for standing in [Standing::Within, Standing::Near, Standing::Spent] {
                let is_spent = standing == Standing::Spent;
                let is_held = is_spent && policy == OnQuota::Backpressure;
                let is_suspended = is_spent && policy == OnQuota::Suspend;
                assert_eq!(holds_back(policy, standing, false), is_held);
                assert!(!holds_back(policy, standing, true), "it was sent back");
                assert_eq!(suspends(policy, standing, false, false), is_suspended);
                assert!(!suspends(policy, standing, true, false), "it is already");
                assert!(!suspends(policy, standing, false, true), "it was resumed");
            }
        }
    }
}
