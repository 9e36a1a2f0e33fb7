//! What fails at present outside: set by the scenario, asked at each call.
//!
//! Pure but for the chance handed in. Times are virtual, since the start; what lies in the past is over.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;

use super::stragglers::Behind;
use crate::scenario::Action;

/// The services' state of health.
#[derive(Debug, Default)]
pub(crate) struct Weather {
    /// The storage answers nothing but errors until then.
    pub(crate) store_down_until: Duration,
    /// The storage takes no new bytes until then.
    pub(crate) store_full_until: Duration,
    /// The disk of the files sink has no room for more than the beginning of a file until then.
    pub(crate) disk_full_until: Duration,
    /// Calls fail by chance until then.
    pub(crate) rough_until: Duration,
    /// The chance that a call fails, while it is rough; half of them after their effect.
    pub(crate) fail_rate: f64,
    /// The chance that a call takes up to three seconds, while it is rough.
    pub(crate) slow_rate: f64,
    /// A lock is held on these tables until then: calls wait.
    pub(crate) locked_until: BTreeMap<String, Duration>,
    /// Postgres refuses connections until then.
    pub(crate) postgres_down_until: Duration,
    /// No record can be fetched until then.
    pub(crate) kafka_down_until: Duration,
    /// These hosts stand still until then.
    pub(crate) frozen: BTreeMap<String, Duration>,
    /// These hosts get no answer from the storage until then.
    pub(crate) stalled: BTreeMap<String, Duration>,
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    /// Time it waits before its effect, beside the way.
    pub(crate) delay: Duration,
    /// Whether, and where, it fails.
    pub(crate) failure: Option<Failure>,
}

/// Where a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing happened.
    Before,
    /// It happened, but the caller is told that it failed.
    After,
    /// It happened, and a retry below the caller found it done: the key exists.
    AfterExists,
    /// The caller is told that it failed; it happens so much later.
    Late(Behind),
    /// No room.
    Full,
}

impl Weather {
    /// Until when `host` stands still; the past if it does not.
    pub(crate) fn frozen_until(&self, host: &str) -> Duration {
        self.frozen.get(host).copied().unwrap_or_default()
    }

    /// How long the storage keeps `host` waiting.
    pub(crate) fn stalls(&self, host: &str, now: Duration) -> Duration {
        let until = self.stalled.get(host).copied().unwrap_or_default();
        until.saturating_sub(now)
    }

    /// Takes what the scenario does, as far as it concerns the services.
    pub(crate) fn change(&mut self, action: &Action) {
        match action {
            Action::Freeze(host, until) => {
                let frozen = self.frozen.entry((*host).to_owned()).or_default();
                *frozen = (*frozen).max(*until);
            }
            Action::Stall(host, until) => {
                let stalled = self.stalled.entry((*host).to_owned()).or_default();
                *stalled = (*stalled).max(*until);
            }
            Action::StoreDown(until) => self.store_down_until = *until,
            Action::StoreFull(until) => self.store_full_until = *until,
            Action::DiskFull(until) => self.disk_full_until = *until,
            Action::Rough {
                until,
                fail_rate,
                slow_rate,
            } => {
                self.rough_until = *until;
                self.fail_rate = *fail_rate;
                self.slow_rate = *slow_rate;
            }
            Action::Lock(table, until) => {
                self.locked_until.insert((*table).to_owned(), *until);
            }
            Action::PostgresDown(until) => self.postgres_down_until = *until,
            Action::KafkaDown(until) => self.kafka_down_until = *until,
            Action::Kill(_)
            | Action::Leave(_)
            | Action::SendBack(..)
            | Action::Ask(_)
            | Action::Ambush(..)
            | Action::CutPower(_)
            | Action::Start(_)
            | Action::Thaw(_)
            | Action::Cut(..)
            | Action::Mend(..)
            | Action::Damage(..)
            | Action::JumpClock(..) => {}
        }
    }

    /// The fate of a call at `now`, to the storage or to a table.
    pub(crate) fn fate(&self, chance: &mut SmallRng, now: Duration, table: Option<&str>) -> Fate {
        let is_rough = now < self.rough_until;
        let mut fate = Fate {
            delay: Duration::ZERO,
            failure: None,
        };
        if is_rough && chance.random_bool(self.slow_rate) {
            fate.delay = Duration::from_millis(chance.random_range(100..3_000));
        }
        if is_rough && chance.random_bool(self.fail_rate) {
            fate.failure = Some(match chance.random_range(0..5) {
                0 | 1 => Failure::Before,
                2 => Failure::After,
                3 => Failure::AfterExists,
                _ => Failure::Late(Behind::draw(chance)),
            });
        }
        match table {
            None if now < self.store_down_until => fate.failure = Some(Failure::Before),
            None if now < self.store_full_until => fate.failure = Some(Failure::Full),
            None => {}
            Some(_) if now < self.postgres_down_until => fate.failure = Some(Failure::Before),
            Some(table) => {
                let free = self.locked_until.get(table).copied().unwrap_or_default();
                fate.delay = fate.delay.max(free.saturating_sub(now));
            }
        }
        fate
    }
}
