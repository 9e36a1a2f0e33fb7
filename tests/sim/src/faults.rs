//! What fails: each kind of fault, drawn as the actions that it consists of, and those that make it whole again.
//!
//! Used by `scenario.rs`, which says how many there are and when the last may begin. Pure but for the chance handed in.

use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use crate::outside::damage::Wound;
use crate::outside::trap::Moment;
use crate::outside::{disk, topics};
use crate::scenario::{Action, MASTERS, WORKERS, hosts};

/// Actions by time.
type Actions = Vec<(Duration, Action)>;

const KINDS: [Kind; 17] = [
    Kind::Kill,
    Kind::KillAgain,
    Kind::Power,
    Kind::Freeze,
    Kind::Partition,
    Kind::Clock,
    Kind::StoreDown,
    Kind::StoreFull,
    Kind::DiskFull,
    Kind::Rough,
    Kind::Lock,
    Kind::PostgresDown,
    Kind::KafkaDown,
    Kind::Damage,
    Kind::Stall,
    Kind::Leave,
    Kind::Ambush,
];

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Kill,
    /// Two hosts within a second, or one during the recovery from the other.
    KillAgain,
    Power,
    Freeze,
    Partition,
    Clock,
    StoreDown,
    StoreFull,
    DiskFull,
    Rough,
    Lock,
    PostgresDown,
    KafkaDown,
    Damage,
    Stall,
    Leave,
    Ambush,
}

/// Steps of the protocol in which somebody is killed. What ends a transaction is there more than once: it has to come late, and
/// at its moment, to show whether whoever takes over looks at a marker that can still move.
const STEPS: [&str; 15] = [
    "create log fence",
    "create log assign",
    "create log epoch",
    "create log epoch",
    "create segments",
    "create state",
    "fence postgres",
    "apply postgres",
    "fence kafka",
    "send kafka",
    "commit kafka",
    "commit kafka",
    "commit kafka",
    USE_DISK,
    USE_DISK,
];
const USE_DISK: &str = "use disk";
/// Of the ambushes, those after which the request comes late.
const LATE_SHARE: f64 = 0.5;

/// The kinds that one plan has.
pub(crate) fn draw_kinds(chance: &mut SmallRng) -> Vec<Kind> {
    // Held links and cut ones do not mix in the simulated network.
    let freezes = chance.random_bool(0.5);
    let fits = |kind: &Kind| match kind {
        Kind::Freeze => freezes,
        Kind::Partition | Kind::Power => !freezes,
        _ => true,
    };
    let mut kinds: Vec<Kind> = KINDS.iter().copied().filter(fits).collect();
    kinds.retain(|_| chance.random_bool(0.4));
    kinds
}

/// Where and when something fails, and for how long.
pub(crate) struct Fault {
    at: Duration,
    host: &'static str,
    short: Duration,
    long: Duration,
}

impl Fault {
    /// One that begins before `end_ms`.
    pub(crate) fn draw(chance: &mut SmallRng, end_ms: u64) -> Self {
        Self {
            at: Duration::from_millis(chance.random_range(100..end_ms)),
            host: any_host(chance),
            short: Duration::from_millis(chance.random_range(50..2_500)),
            long: Duration::from_millis(chance.random_range(500..6_000)),
        }
    }

    /// A fault of one of `kinds`, which are some.
    pub(crate) fn draw_one_of(
        &self,
        kinds: &[Kind],
        chance: &mut SmallRng,
        targets: &[&'static str],
        actions: &mut Actions,
    ) {
        let (at, host) = (self.at, self.host);
        let until = at + self.long;
        match *kinds.choose(chance).expect("not empty") {
            Kind::Kill => self.down(Action::Kill(host), self.short, actions),
            Kind::KillAgain => self.kill_again(chance, actions),
            Kind::Power => self.down(Action::CutPower(host), self.long, actions),
            Kind::Freeze => {
                actions.push((at, Action::Freeze(host, until)));
                actions.push((until, Action::Thaw(host)));
            }
            Kind::Partition => self.partition(chance, actions),
            Kind::Clock => {
                let hour_us = 3_600_000_000;
                let jump = chance.random_range(-hour_us..hour_us);
                actions.push((at, Action::JumpClock(host, jump)));
            }
            Kind::StoreDown => actions.push((at, Action::StoreDown(at + self.short))),
            Kind::StoreFull => actions.push((at, Action::StoreFull(until))),
            Kind::DiskFull => actions.push((at, Action::DiskFull(until))),
            Kind::Rough => {
                let rough = Action::Rough {
                    until,
                    fail_rate: chance.random_range(0.02..0.4),
                    slow_rate: chance.random_range(0.0..0.5),
                };
                actions.push((at, rough));
            }
            Kind::Lock => self.lock(chance, targets, actions),
            Kind::PostgresDown => actions.push((at, Action::PostgresDown(until))),
            Kind::KafkaDown => actions.push((at, Action::KafkaDown(until))),
            Kind::Damage => self.damage(chance, actions),
            Kind::Leave => {
                let worker = WORKERS.choose(chance).copied().expect("workers");
                actions.push((at, Action::Leave(worker)));
            }
            Kind::Stall => actions.push((at, Action::Stall(host, until))),
            Kind::Ambush => self.ambush(chance, targets, actions),
        }
    }

    fn down(&self, end: Action, for_long: Duration, actions: &mut Actions) {
        actions.push((self.at, end));
        actions.push((self.at + for_long, Action::Start(self.host)));
    }

    fn kill_again(&self, chance: &mut SmallRng, actions: &mut Actions) {
        let other = any_host(chance);
        let again = self.at + Duration::from_millis(chance.random_range(0..2_000));
        self.down(Action::Kill(self.host), self.short, actions);
        actions.push((again, Action::Kill(other)));
        actions.push((again + self.long, Action::Start(other)));
    }

    fn partition(&self, chance: &mut SmallRng, actions: &mut Actions) {
        let host = self.host;
        let others: Vec<&str> = hosts().filter(|other| *other != host).collect();
        let other = others.choose(chance).copied().expect("other hosts");
        let ways = chance.random_range(0..3);
        for (from, to, is_cut) in [(host, other, ways != 1), (other, host, ways != 0)] {
            if is_cut {
                actions.push((self.at, Action::Cut(from, to)));
                actions.push((self.at + self.long, Action::Mend(from, to)));
            }
        }
    }

    fn lock(&self, chance: &mut SmallRng, targets: &[&'static str], actions: &mut Actions) {
        let target = targets.choose(chance).copied().expect("targets");
        let is_long = chance.random_bool(0.1);
        let minutes = Duration::from_secs(chance.random_range(60..240));
        let until = self.at + if is_long { minutes } else { self.long };
        actions.push((self.at, Action::Lock(target, until)));
    }

    /// What is written is seldom read: so whoever reads it is killed as it is damaged.
    pub(crate) fn damage(&self, chance: &mut SmallRng, actions: &mut Actions) {
        let prefixes = [
            "log/",
            "log/",
            "log/",
            "state/",
            "state/",
            "state/",
            "segments/",
            "boundary/",
        ];
        let prefix = prefixes.choose(chance).copied().expect("prefixes");
        let wound = Wound {
            prefix,
            skipped_count: chance.random_range(0..8),
            place: chance.random_range(0.0..1.0),
            is_cut: chance.random_bool(0.3),
        };
        actions.push((self.at, Action::Damage(wound, self.at + self.long)));
        let worker = WORKERS.choose(chance).copied().expect("workers");
        let readers: &[&'static str] = match prefix {
            "log/" | "boundary/" => &MASTERS,
            _ => &[worker],
        };
        for reader in readers {
            let back = self.at + Duration::from_millis(chance.random_range(50..400));
            actions.push((self.at, Action::Kill(reader)));
            actions.push((back, Action::Start(reader)));
        }
    }

    /// Chance alone seldom kills in the few milliseconds of a step.
    pub(crate) fn ambush(
        &self,
        chance: &mut SmallRng,
        targets: &[&'static str],
        actions: &mut Actions,
    ) {
        let is_made = |step: &&'static str| match *step {
            USE_DISK => targets.contains(&disk::NAME),
            step if step.ends_with(topics::NAME) => targets.contains(&topics::NAME),
            _ => true,
        };
        let steps: Vec<&str> = STEPS.into_iter().filter(is_made).collect();
        let step = steps.choose(chance).copied().expect("steps");
        let moments = [Moment::Before, Moment::Applied, Moment::Answered];
        let moment = match chance.random_bool(LATE_SHARE) {
            true => Moment::Sent,
            false => *moments.choose(chance).expect("moments"),
        };
        let count = chance.random_range(1..=3);
        actions.push((self.at, Action::Ambush(step, count, moment)));
    }
}

fn any_host(chance: &mut SmallRng) -> &'static str {
    let hosts: &[&str] = match chance.random_bool(0.4) {
        true => &MASTERS,
        false => &WORKERS,
    };
    hosts.choose(chance).expect("not empty")
}
