//! The plan of one simulation: what fails, when, and when it is whole again; drawn from the seed.
//!
//! Swarm: each seed first draws which kinds of faults it has at all, so that some seeds have many of one kind and most
//! combinations occur. Every plan ends healed. Pure but for the chance handed in.

use std::time::Duration;

use millstream_master::retention::Retention;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use crate::outside::damage::Wound;
use crate::outside::{disk, topics};

/// The masters' hosts; the second one stands by, or is not there at all.
pub(crate) const MASTERS: [&str; 2] = ["master-0", "master-1"];
/// The workers' hosts; the last one may join late, or never.
pub(crate) const WORKERS: [&str; 3] = ["worker-0", "worker-1", "worker-2"];

/// Everything that a seed decides beside its workload.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// Longest way of a message between hosts.
    pub(crate) latency_max: Duration,
    /// A second master stands by.
    pub(crate) has_standby: bool,
    /// A restarted worker keeps its name.
    pub(crate) keeps_names: bool,
    /// Tasks of a stage that each worker takes.
    pub(crate) slots: [u32; 3],
    /// When the last worker joins.
    pub(crate) joins_at: Option<Duration>,
    /// What the collector keeps, and how often it looks.
    pub(crate) retention: Retention,
    /// What happens, by time.
    pub(crate) actions: Vec<(Duration, Action)>,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// The process ends at once; the kernel closes its connections.
    Kill(&'static str),
    /// The machine is gone: no word reaches anybody.
    CutPower(&'static str),
    /// The process, or machine, comes back.
    Start(&'static str),
    /// The process stands still, until then.
    Freeze(&'static str, Duration),
    /// It goes on.
    Thaw(&'static str),
    /// No message passes from the first to the second.
    Cut(&'static str, &'static str),
    /// Messages pass again.
    Mend(&'static str, &'static str),
    /// The wall clock of a host jumps by microseconds.
    JumpClock(&'static str, i64),
    /// The storage answers errors until then.
    StoreDown(Duration),
    /// The storage takes no bytes until then.
    StoreFull(Duration),
    /// The disk of the files sink takes no bytes until then.
    DiskFull(Duration),
    /// Calls outside fail and are slow by chance until then.
    Rough {
        until: Duration,
        fail_rate: f64,
        slow_rate: f64,
    },
    /// Somebody holds a lock on a table until then.
    Lock(&'static str, Duration),
    /// Postgres refuses connections until then.
    PostgresDown(Duration),
    /// No record can be fetched until then.
    KafkaDown(Duration),
    /// One object of the storage reads wrong until then.
    Damage(Wound, Duration),
    /// The storage answers nothing to one host until then, while all others reach it, and the host them.
    Stall(&'static str, Duration),
    /// A worker is told to leave in order, and begins anew.
    Leave(&'static str),
    /// A table is found as it was at such a share of the epochs that it has held, and its sink is sent back there.
    SendBack(&'static str, f64),
}

const KINDS: [Kind; 16] = [
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
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
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
}

/// Nothing new fails after this.
const FAULTS_END_MS: u64 = 14_000;
const FAULTS_MAX: usize = 12;
/// Of the plans in which an object is damaged, whatever else fails.
const DAMAGED_SHARE: f64 = 0.35;
/// Of the plans in which sinks are sent back.
const SENT_BACK_SHARE: f64 = 0.35;

impl Scenario {
    /// A plan for a job that writes `tables`.
    pub(crate) fn draw(chance: &mut SmallRng, tables: &[&'static str]) -> Self {
        // Held links and cut ones do not mix in the simulated network.
        let freezes = chance.random_bool(0.5);
        let fits = |kind: &Kind| match kind {
            Kind::Freeze => freezes,
            Kind::Partition | Kind::Power => !freezes,
            _ => true,
        };
        let mut kinds: Vec<Kind> = KINDS.iter().copied().filter(fits).collect();
        kinds.retain(|_| chance.random_bool(0.4));
        let mut actions = Vec::new();
        if !kinds.is_empty() {
            for _ in 0..chance.random_range(1..=FAULTS_MAX) {
                let kind = *kinds.choose(chance).expect("not empty");
                let at = Duration::from_millis(chance.random_range(100..FAULTS_END_MS));
                draw_fault(chance, kind, at, tables, &mut actions);
            }
        }
        // Beside the others: what is damaged has to be read, and to matter, too.
        if chance.random_bool(DAMAGED_SHARE) {
            let at = Duration::from_millis(chance.random_range(1_000..FAULTS_END_MS));
            let long = Duration::from_millis(chance.random_range(500..6_000));
            draw_damage(chance, at, long, &mut actions);
        }
        let joins = chance.random_range(0..3);
        let mut scenario = Self {
            latency_max: Duration::from_millis(chance.random_range(2..30)),
            has_standby: chance.random_bool(0.5),
            keeps_names: chance.random_bool(0.5),
            slots: [(); 3].map(|()| chance.random_range(1..=2)),
            joins_at: match joins {
                0 => None,
                1 => Some(Duration::ZERO),
                _ => Some(Duration::from_millis(chance.random_range(500..10_000))),
            },
            retention: draw_retention(chance),
            actions,
        };
        // Behind everything else, so that what else happens is as it was.
        if chance.random_bool(SENT_BACK_SHARE) {
            let rest = [topics::NAME, disk::NAME];
            let is_table = |name: &&&str| !rest.contains(*name);
            let tables: Vec<&'static str> = tables.iter().filter(is_table).copied().collect();
            for _ in 0..chance.random_range(1..=2) {
                let at = Duration::from_millis(chance.random_range(3_000..FAULTS_END_MS));
                let table = tables.choose(chance).copied().expect("tables");
                let send_back = Action::SendBack(table, chance.random_range(0.0..1.0));
                scenario.actions.push((at, send_back));
            }
        }
        scenario.actions.sort_by_key(|(at, _)| *at);
        scenario
    }

    /// A plan in which nothing fails.
    pub(crate) fn calm(keeps_names: bool) -> Self {
        Self {
            latency_max: Duration::from_millis(8),
            has_standby: true,
            keeps_names,
            slots: [1, 2, 1],
            joins_at: Some(Duration::ZERO),
            retention: Retention::default(),
            actions: Vec::new(),
        }
    }

    /// When everything is whole again.
    pub(crate) fn healed_at(&self) -> Duration {
        let ends = self.actions.iter().map(|(at, action)| match action {
            Action::StoreDown(until)
            | Action::StoreFull(until)
            | Action::DiskFull(until)
            | Action::Rough { until, .. }
            | Action::Lock(_, until)
            | Action::PostgresDown(until)
            | Action::KafkaDown(until)
            | Action::Damage(_, until)
            | Action::Stall(_, until) => *until,
            _ => *at,
        });
        let joined = self.joins_at.unwrap_or_default();
        ends.max().unwrap_or_default().max(joined)
    }
}

fn any_host(chance: &mut SmallRng) -> &'static str {
    let hosts: &[&str] = match chance.random_bool(0.4) {
        true => &MASTERS,
        false => &WORKERS,
    };
    hosts.choose(chance).expect("not empty")
}

fn draw_fault(
    chance: &mut SmallRng,
    kind: Kind,
    at: Duration,
    tables: &[&'static str],
    actions: &mut Vec<(Duration, Action)>,
) {
    let host = any_host(chance);
    let short = Duration::from_millis(chance.random_range(50..2_500));
    let long = Duration::from_millis(chance.random_range(500..6_000));
    match kind {
        Kind::Kill => {
            actions.push((at, Action::Kill(host)));
            actions.push((at + short, Action::Start(host)));
        }
        Kind::KillAgain => {
            let other = any_host(chance);
            let again = at + Duration::from_millis(chance.random_range(0..2_000));
            actions.push((at, Action::Kill(host)));
            actions.push((at + short, Action::Start(host)));
            actions.push((again, Action::Kill(other)));
            actions.push((again + long, Action::Start(other)));
        }
        Kind::Power => {
            actions.push((at, Action::CutPower(host)));
            actions.push((at + long, Action::Start(host)));
        }
        Kind::Freeze => {
            actions.push((at, Action::Freeze(host, at + long)));
            actions.push((at + long, Action::Thaw(host)));
        }
        Kind::Partition => {
            let others: Vec<&str> = hosts().filter(|other| *other != host).collect();
            let other = others.choose(chance).copied().expect("other hosts");
            let ways = chance.random_range(0..3);
            for (from, to, is_cut) in [(host, other, ways != 1), (other, host, ways != 0)] {
                if is_cut {
                    actions.push((at, Action::Cut(from, to)));
                    actions.push((at + long, Action::Mend(from, to)));
                }
            }
        }
        Kind::Clock => {
            let hour_us = 3_600_000_000;
            let jump = chance.random_range(-hour_us..hour_us);
            actions.push((at, Action::JumpClock(host, jump)));
        }
        Kind::StoreDown => actions.push((at, Action::StoreDown(at + short))),
        Kind::StoreFull => actions.push((at, Action::StoreFull(at + long))),
        Kind::DiskFull => actions.push((at, Action::DiskFull(at + long))),
        Kind::Rough => {
            let rough = Action::Rough {
                until: at + long,
                fail_rate: chance.random_range(0.02..0.4),
                slow_rate: chance.random_range(0.0..0.5),
            };
            actions.push((at, rough));
        }
        Kind::Lock => {
            let table = tables.choose(chance).copied().expect("tables");
            let is_long = chance.random_bool(0.1);
            let minutes = Duration::from_secs(chance.random_range(60..240));
            let until = at + if is_long { minutes } else { long };
            actions.push((at, Action::Lock(table, until)));
        }
        Kind::PostgresDown => actions.push((at, Action::PostgresDown(at + long))),
        Kind::KafkaDown => actions.push((at, Action::KafkaDown(at + long))),
        Kind::Damage => draw_damage(chance, at, long, actions),
        Kind::Leave => {
            let worker = WORKERS.choose(chance).copied().expect("workers");
            actions.push((at, Action::Leave(worker)));
        }
        Kind::Stall => actions.push((at, Action::Stall(host, at + long))),
    }
}

/// What is written is seldom read: so whoever reads it is killed as it is damaged.
fn draw_damage(
    chance: &mut SmallRng,
    at: Duration,
    long: Duration,
    actions: &mut Vec<(Duration, Action)>,
) {
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
    actions.push((at, Action::Damage(wound, at + long)));
    let worker = WORKERS.choose(chance).copied().expect("workers");
    let readers: &[&'static str] = match prefix {
        "log/" | "boundary/" => &MASTERS,
        _ => &[worker],
    };
    for reader in readers {
        let back = at + Duration::from_millis(chance.random_range(50..400));
        actions.push((at, Action::Kill(reader)));
        actions.push((back, Action::Start(reader)));
    }
}

/// Half of the plans keep what an endless job would keep, the others as little as there may be.
fn draw_retention(chance: &mut SmallRng) -> Retention {
    if chance.random_bool(0.5) {
        return Retention::default();
    }
    let mut millis = |from, to| Duration::from_millis(chance.random_range(from..to));
    Retention {
        interval: millis(400, 3_000),
        log: millis(1_000, 6_000),
        segments: millis(200, 4_000),
        checkpoints: chance.random_range(1..4),
        objects_per_boundary: chance.random_range(1..8),
        ..Retention::default()
    }
}

/// All hosts of the cluster.
pub(crate) fn hosts() -> impl Iterator<Item = &'static str> {
    MASTERS.into_iter().chain(WORKERS)
}
