//! The plan of one simulation: what fails, when, and when it is whole again; drawn from the seed.
//!
//! Swarm: each seed first draws which kinds of faults it has at all, so that some seeds have many of one kind and most
//! combinations occur. Every plan ends healed. Pure but for the chance handed in.

use std::time::Duration;

use millstream_master::retention::Retention;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use crate::faults::{self, Fault};
use crate::outside::damage::Wound;
use crate::outside::trap::Moment;
use crate::outside::{disk, topics};
use crate::people::Wish;
use crate::workload::REFUSED;

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
    /// Memory for keyed state of each worker; what has no room in it is spilled.
    pub(crate) state_bytes: usize,
    /// When the last worker joins.
    pub(crate) joins_at: Option<Duration>,
    /// What the collector keeps, and how often it looks.
    pub(crate) retention: Retention,
    /// A person resumes suspended sinks from then on.
    pub(crate) resumed_from: Duration,
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
    /// A person sends a sink back to such a share of the epochs that it has held.
    SendBack(&'static str, f64, Manner),
    /// A person asks something of the job.
    Ask(Wish),
    /// Whoever makes a step of that name for the n-th time from now on is killed before it, in it or behind it.
    Ambush(&'static str, u32, Moment),
}

/// How a sink is sent back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// What it holds stays: rows that it appends come twice.
    Again,
    /// Its table is restored from a copy of then while it is paused.
    Restored,
    /// The same, but the copy turns out to be older than that.
    RestoredOlder,
}

/// Nothing new fails after this.
const FAULTS_END_MS: u64 = 14_000;
const FAULTS_MAX: usize = 12;
/// Of the plans in which an object is damaged, whatever else fails.
const DAMAGED_SHARE: f64 = 0.35;
/// Of the plans in which sinks are sent back.
const SENT_BACK_SHARE: f64 = 0.45;
/// Of those in which the job is stopped, or an epoch kept by name.
const ASKED_SHARE: f64 = 0.3;
/// Of those in which epochs are put away long before they would be in a job of a person.
const PUT_AWAY_SHARE: f64 = 0.3;
/// Of those in which somebody is killed in a step of the protocol.
const AMBUSHED_SHARE: f64 = 0.5;
/// Of the seeds whose workers spill state, and what these have room for.
const SPILLED_SHARE: f64 = 0.5;
const STATE_BYTES_MAX: usize = 20_000;

impl Scenario {
    /// A plan for a job that writes to `targets`.
    pub(crate) fn draw(chance: &mut SmallRng, targets: &[&'static str]) -> Self {
        let kinds = faults::draw_kinds(chance);
        let mut actions = Vec::new();
        if !kinds.is_empty() {
            for _ in 0..chance.random_range(1..=FAULTS_MAX) {
                let fault = Fault::draw(chance, FAULTS_END_MS);
                fault.draw_one_of(&kinds, chance, targets, &mut actions);
            }
        }
        // Beside the others: what is damaged has to be read, and what is late to come at its moment, too.
        if chance.random_bool(DAMAGED_SHARE) {
            Fault::draw(chance, FAULTS_END_MS).damage(chance, &mut actions);
        }
        if chance.random_bool(AMBUSHED_SHARE) {
            Fault::draw(chance, FAULTS_END_MS).ambush(chance, targets, &mut actions);
        }
        let joins = chance.random_range(0..3);
        let mut scenario = Self {
            latency_max: Duration::from_millis(chance.random_range(2..30)),
            has_standby: chance.random_bool(0.5),
            keeps_names: chance.random_bool(0.5),
            slots: [(); 3].map(|()| chance.random_range(1..=2)),
            state_bytes: usize::MAX,
            joins_at: match joins {
                0 => None,
                1 => Some(Duration::ZERO),
                _ => Some(Duration::from_millis(chance.random_range(500..10_000))),
            },
            retention: draw_retention(chance),
            resumed_from: Duration::ZERO,
            actions,
        };
        // Behind everything else, so that what else happens is as it was.
        if chance.random_bool(SENT_BACK_SHARE) {
            draw_send_backs(chance, targets, &mut scenario.actions);
        }
        scenario.actions.sort_by_key(|(at, _)| *at);
        scenario
    }

    /// Adds what came to be drawn after everything else, so that what else happens is as it was.
    pub(crate) fn draw_more(&mut self, chance: &mut SmallRng) {
        if chance.random_bool(PUT_AWAY_SHARE) {
            self.retention.recent_weight_max = chance.random_range(8..80);
        }
        if !chance.random_bool(ASKED_SHARE) {
            return;
        }
        for _ in 0..chance.random_range(1..=3) {
            let at = Duration::from_millis(chance.random_range(500..FAULTS_END_MS));
            let wishes: &[Wish] = match chance.random_range(0..3) {
                0 => &[Wish::Stop],
                1 => &[Wish::Keep(SAVEPOINT)],
                _ => &[Wish::Keep(SAVEPOINT), Wish::Stop, Wish::Drop(SAVEPOINT)],
            };
            let asked = wishes.iter().map(|wish| (at, Action::Ask(*wish)));
            self.actions.extend(asked);
        }
        // Stable: what is asked at once stays in order.
        self.actions.sort_by_key(|(at, _)| *at);
    }

    /// Leaves workers less memory than their state needs, or none at all. Drawn after everything else.
    pub(crate) fn draw_memory(&mut self, chance: &mut SmallRng) {
        if chance.random_bool(SPILLED_SHARE) {
            self.state_bytes = chance.random_range(0..STATE_BYTES_MAX);
        }
    }

    /// A plan in which nothing fails.
    pub(crate) fn calm(keeps_names: bool) -> Self {
        Self {
            latency_max: Duration::from_millis(8),
            has_standby: true,
            keeps_names,
            slots: [1, 2, 1],
            state_bytes: usize::MAX,
            joins_at: Some(Duration::ZERO),
            retention: Retention::default(),
            resumed_from: Duration::ZERO,
            actions: Vec::new(),
        }
    }

    /// With more that happens at `at`, in that order.
    pub(crate) fn with(mut self, at: Duration, actions: impl IntoIterator<Item = Action>) -> Self {
        self.actions
            .extend(actions.into_iter().map(|action| (at, action)));
        self
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

/// Tables of one plan are sent back in one manner: what is there twice, and what a copy holds, need not be told apart then.
fn draw_send_backs(
    chance: &mut SmallRng,
    targets: &[&'static str],
    actions: &mut Vec<(Duration, Action)>,
) {
    let is_restored = chance.random_bool(0.5);
    for _ in 0..chance.random_range(1..=3) {
        let at = Duration::from_millis(chance.random_range(2_000..FAULTS_END_MS));
        let target = targets.choose(chance).copied().expect("targets");
        let share = chance.random_range(0.0..1.0);
        let is_older = chance.random_bool(0.4);
        let manner = match target {
            topics::NAME | disk::NAME => Manner::Again,
            // Which epoch names refused rows is chance, and so is how many would be there twice.
            REFUSED => Manner::Restored,
            _ if !is_restored => Manner::Again,
            _ if is_older => Manner::RestoredOlder,
            _ => Manner::Restored,
        };
        actions.push((at, Action::SendBack(target, share, manner)));
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

/// What a savepoint is called.
pub(crate) const SAVEPOINT: &str = "kept";

/// All hosts of the cluster.
pub(crate) fn hosts() -> impl Iterator<Item = &'static str> {
    MASTERS.into_iter().chain(WORKERS)
}
