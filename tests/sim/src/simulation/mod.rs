//! One simulation from its seed to its verdict.
//!
//! Run by `pool.rs` in a child of its own. Owns the hosts, the network and the services; lets virtual time pass in steps, does what the
//! scenario says between them, and looks for broken rules after each: those that the ledger finds, state that is not what the
//! records come to at its epoch, tables that do not hold what they must at their marker. Failure: the first of these, a job that
//! gave up over nothing, or one that does not end in time.

mod verdict;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use millstream_common::report::RowCounters;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use turmoil::Sim;

use crate::blocked::{self, Blocked};
use crate::entropy;
use crate::hosts::{Host, JOB};
use crate::links::Links;
use crate::matrix::{self, Case, Victim};
use crate::outside::disk::{self, FOLDER};
use crate::outside::ledger::Chain;
use crate::outside::postgres::Row;
use crate::outside::trap::Trap;
use crate::outside::{Outside, World, topics};
use crate::people::{Errand, Stage};
use crate::quota;
use crate::scenario::{Action, MASTERS, Scenario, WORKERS, hosts};
use crate::state::States;
use crate::trace::{self, event};
use crate::workload::{TOPIC_OUT, Workload, sink_at};

/// Virtual time of one step: messages between hosts arrive at its multiples.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// Where hours pass.
const LONG_TICK: Duration = Duration::from_millis(50);
/// Virtual time in which a healed job has to come to its end.
const PROGRESS_MAX: Duration = Duration::from_secs(150);
/// Virtual time for late effects to show after the end.
const AFTERMATH: Duration = Duration::from_secs(3);
/// The person's host.
const CLIENT: &str = "client";

/// What a seed came to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Of everything that happened.
    pub(crate) hash: u64,
    /// How many things that were.
    pub(crate) event_count: u64,
    /// Virtual milliseconds.
    pub(crate) elapsed_ms: u64,
    /// Things that the scenario did.
    pub(crate) action_count: usize,
    /// Assignments of the job.
    pub(crate) generation_count: usize,
    /// Commits of the job.
    pub(crate) epoch_count: usize,
    /// For people.
    pub(crate) note: String,
    /// What was wrong.
    pub(crate) failure: Option<String>,
}

/// Plans a job once, so that what is made lazily for planning is made before the fork and not for every seed.
pub(crate) fn warm_up() {
    entropy::seed(0);
    let workload = Workload::draw(&mut SmallRng::seed_from_u64(0), true);
    let planned =
        millstream_master::plan::plan_job(&workload.sql, &millstream_common::secret::Environment);
    assert!(planned.is_ok(), "{planned:?}");
}

/// Runs one seed.
pub(crate) fn run(seed: u64, is_dumped: bool) -> Outcome {
    let chance = SmallRng::seed_from_u64(seed);
    let plan = |chance: &mut SmallRng| {
        let mut workload = Workload::draw(chance, false);
        let others = workload.others.iter().map(|other| match *other {
            TOPIC_OUT => topics::NAME,
            _ => disk::NAME,
        });
        let targets: Vec<&str> = workload.tables().chain(others).collect();
        let mut scenario = Scenario::draw(chance, &targets);
        if let Some(limit) = quota::draw(chance, &targets, &mut scenario) {
            workload.limit(&limit);
        }
        scenario.draw_more(chance);
        scenario.draw_memory(chance);
        (workload, scenario)
    };
    run_planned(seed, chance, is_dumped, plan, Special::None)
}

/// Runs one case of the step matrix.
pub(crate) fn run_case(case: Case, is_dumped: bool) -> Outcome {
    let plan = |chance: &mut SmallRng| (Workload::draw(chance, true), case.scenario());
    let seed = case.number as u64;
    run_planned(seed, case.chance(), is_dumped, plan, Special::Case(case))
}

/// Blocks a sink for so many hours.
pub(crate) fn run_blocked(hours: u32, is_dumped: bool) -> Outcome {
    let blocked = Blocked::new(hours);
    let chance = SmallRng::seed_from_u64(u64::from(hours));
    let plan = |chance: &mut SmallRng| {
        let workload = Workload::lasting(chance, blocked.span, blocked::RECORD_INTERVAL);
        (workload, blocked.scenario())
    };
    let special = Special::Blocked(blocked.clone());
    run_planned(u64::from(hours), chance, is_dumped, plan, special)
}

/// What a simulation is beside a seed.
enum Special {
    None,
    Case(Case),
    Blocked(Blocked),
}

fn run_planned(
    seed: u64,
    mut chance: SmallRng,
    is_dumped: bool,
    plan: impl FnOnce(&mut SmallRng) -> (Workload, Scenario),
    special: Special,
) -> Outcome {
    entropy::seed(seed);
    entropy::advance_to(Duration::ZERO);
    trace::begin(is_dumped);
    disk::enter().expect("a folder for files");
    let (mut workload, scenario) = plan(&mut chance);
    event!("{scenario:?}");
    let mut simulation = Simulation::new(seed, &workload, &scenario, special);
    let failure = simulation.run(&mut workload, &scenario);
    let trace = trace::so_far();
    let (generation_count, epoch_count) = simulation.outside.with(|world| {
        let chains = world.ledger.chains();
        chains.fold((0, 0), |(generations, epochs), chain| {
            (
                generations + chain.generations.len(),
                epochs + chain.epochs.len(),
            )
        })
    });
    Outcome {
        hash: trace.hash,
        event_count: trace.event_count,
        elapsed_ms: simulation.sim.elapsed().as_millis() as u64,
        action_count: scenario.actions.len(),
        generation_count,
        epoch_count,
        note: simulation
            .blocked
            .map_or_else(String::new, |blocked| blocked.describe()),
        failure,
    }
}

struct Simulation {
    sim: Sim<'static>,
    outside: Arc<Outside>,
    is_finished: Arc<AtomicBool>,
    clocks: BTreeMap<&'static str, Arc<AtomicI64>>,
    /// By worker: tells it to leave.
    leaves: BTreeMap<&'static str, Arc<Notify>>,
    links: Links,
    states: States,
    /// Of the step matrix, until its step has been made.
    case: Option<Case>,
    blocked: Option<Blocked>,
}

impl Simulation {
    fn new(seed: u64, workload: &Workload, scenario: &Scenario, special: Special) -> Self {
        let (case, blocked) = match special {
            Special::None => (None, None),
            Special::Case(case) => (Some(case), None),
            Special::Blocked(blocked) => (None, Some(blocked)),
        };
        let tick = match blocked {
            Some(_) => LONG_TICK,
            None => TICK,
        };
        let sim = turmoil::Builder::new()
            .rng_seed(seed)
            .epoch(UNIX_EPOCH + entropy::EPOCH)
            .tick_duration(tick)
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(scenario.latency_max)
            .simulation_duration(Duration::MAX)
            .tcp_capacity(4_096)
            .enable_random_order()
            .build();
        let mut simulation = Self {
            sim,
            outside: Outside::new(seed),
            is_finished: Arc::default(),
            clocks: hosts().map(|host| (host, Arc::default())).collect(),
            leaves: WORKERS.map(|worker| (worker, Arc::default())).into(),
            links: Links::new(hosts().chain([CLIENT])),
            states: States::default(),
            case,
            blocked,
        };
        simulation.outside.with(|world| {
            topics::create(&world.cluster, TOPIC_OUT);
            world.ledger.sink_count = workload.sink_count();
            world.trap = case.map(|case| case.trap());
            world.resumed_from = scenario.resumed_from;
        });
        simulation.add_hosts(workload, scenario);
        simulation
    }

    fn add_hosts(&mut self, workload: &Workload, scenario: &Scenario) {
        let leaves = self.leaves.clone();
        let host = |name: &'static str, clocks: &BTreeMap<_, Arc<AtomicI64>>| Host {
            name,
            outside: self.outside.clone(),
            topic: workload.topic.clone(),
            retention: scenario.retention,
            ahead_us: clocks.get(name).cloned().unwrap_or_default(),
            starts: Arc::new(AtomicU32::new(0)),
            leaves: leaves.get(name).cloned().unwrap_or_default(),
        };
        let masters = MASTERS.map(|name| host(name, &self.clocks));
        let client = host(CLIENT, &self.clocks);
        let workers = WORKERS.map(|name| host(name, &self.clocks));
        for (index, master) in masters.into_iter().enumerate() {
            let is_there = index == 0 || scenario.has_standby;
            self.sim.host(MASTERS[index], move || {
                let master = master.clone();
                async move {
                    match is_there {
                        true => master.run_master().await,
                        false => Ok(()),
                    }
                }
            });
        }
        for (index, worker) in workers.into_iter().enumerate() {
            let is_last = index + 1 == WORKERS.len();
            let joins_at = match is_last {
                true => scenario.joins_at,
                false => Some(Duration::ZERO),
            };
            let (slots, keeps_names) = (scenario.slots[index], scenario.keeps_names);
            let state_bytes = scenario.state_bytes;
            self.sim.host(WORKERS[index], move || {
                let worker = worker.clone();
                async move {
                    let Some(at) = joins_at else {
                        return Ok(());
                    };
                    tokio::time::sleep(at.saturating_sub(trace::now())).await;
                    worker.run_worker(slots, keeps_names, state_bytes).await
                }
            });
        }
        let (sql, is_finished) = (workload.sql.clone(), self.is_finished.clone());
        self.sim.client(CLIENT, async move {
            client.run_client(sql).await;
            is_finished.store(true, Ordering::Relaxed);
            Ok(())
        });
    }

    /// Runs to the end; the first thing that is wrong.
    fn run(&mut self, workload: &mut Workload, scenario: &Scenario) -> Option<String> {
        let mut actions: VecDeque<(Duration, Action)> = scenario.actions.clone().into();
        let mut healed_at = scenario.healed_at().max(workload.span);
        let mut finished_at = None;
        loop {
            let now = self.sim.elapsed();
            entropy::advance_to(now);
            trace::advance_to(now);
            self.outside.run_due(now);
            let blows = self.blows(now);
            healed_at = blows
                .iter()
                .map(|(at, _)| *at)
                .fold(healed_at, Duration::max);
            actions.extend(blows);
            actions.make_contiguous().sort_by_key(|(at, _)| *at);
            while let Some((_, action)) = actions.pop_front_if(|(at, _)| *at <= now) {
                event!("{action:?}");
                self.act(&action);
            }
            if let Err(error) = self.sim.step() {
                return Some(format!("a host failed: {error}"));
            }
            if let Some(broken) = self.broken(workload) {
                return Some(broken);
            }
            if finished_at.is_none() && self.is_finished.load(Ordering::Relaxed) {
                finished_at = Some(now);
            }
            match finished_at {
                Some(at) if now >= at + AFTERMATH && now >= healed_at => break,
                None if now > healed_at + PROGRESS_MAX => return Some(self.stuck()),
                _ => {}
            }
        }
        self.verdict(workload)
    }

    /// What comes of a step that was waited for and has been made now.
    fn blows(&mut self, now: Duration) -> Vec<(Duration, Action)> {
        let caught = self
            .outside
            .with(|world| world.trap.as_mut()?.sprung.take());
        let caller = caught.as_ref().map(|(caller, _)| caller);
        let caller = hosts().find(|host| Some(*host) == caller.map(String::as_str));
        let Some(case) = self.case else {
            return caller.map_or_else(Vec::new, |caller| matrix::killed(caller, now).to_vec());
        };
        let master = self.outside.with(|world| reigning(world));
        let Some((_, peer)) = caught else {
            return case.prelude(master, now);
        };
        self.case = None;
        let peer = hosts().find(|host| Some(*host) == peer.as_deref());
        let other = peer.or(master);
        let mut victims: Vec<&'static str> = match case.victim {
            Victim::Caller => caller.into_iter().collect(),
            Victim::Other => other.into_iter().collect(),
            Victim::Both => caller.into_iter().chain(other).collect(),
        };
        victims.dedup();
        case.blow(&victims, now)
    }

    fn broken(&mut self, workload: &mut Workload) -> Option<String> {
        let (states, blocked) = (&mut self.states, &mut self.blocked);
        let every = match blocked {
            Some(_) => blocked::COMPARED_EVERY,
            None => 1,
        };
        let now = self.sim.elapsed();
        self.outside.with(|world| {
            let differs = verdict::differs_at_epoch(world, states, workload, every);
            let noticed = blocked
                .as_mut()
                .and_then(|blocked| blocked.broken(world, now));
            let failures = world.ledger.failures.iter();
            let mut unexplained = failures.filter(|cause| !world.damage.is_named(cause));
            let gave_up = unexplained.next();
            let gave_up = gave_up.map(|cause| format!("the job gave up: {cause}"));
            let violation = world.ledger.violation().map(str::to_owned);
            violation.or(gave_up).or(differs).or(noticed)
        })
    }

    fn stuck(&self) -> String {
        let chains = self.outside.with(|world| {
            let chains = world.ledger.chains().map(Chain::describe);
            chains.collect::<Vec<_>>().join("; ")
        });
        format!(
            "no progress: the job has not ended {PROGRESS_MAX:?} after the last fault ({chains})"
        )
    }

    fn act(&mut self, action: &Action) {
        let (sim, links) = (&mut self.sim, &mut self.links);
        match action {
            Action::Kill(host) => {
                links.kill(sim, host);
                self.outside.linger(host);
            }
            Action::CutPower(host) => {
                links.cut_power(sim, host);
                self.outside.linger(host);
            }
            Action::Leave(host) => self.leaves[host].notify_one(),
            Action::Start(host) => links.start(sim, host),
            Action::Freeze(host, _) => links.freeze(sim, host),
            Action::Thaw(host) => links.thaw(sim, host),
            Action::Cut(from, to) => links.cut(sim, from, to),
            Action::Mend(from, to) => links.mend(sim, from, to),
            Action::JumpClock(host, jump) => {
                self.clocks[host].fetch_add(*jump, Ordering::Relaxed);
            }
            _ => {}
        }
        let now = self.sim.elapsed();
        self.outside.with(|world| match action {
            Action::Damage(wound, until) => world.damage.want(*wound, (*until).max(now)),
            Action::SendBack(target, share, manner) => world.errands.push(Errand {
                sink: sink_at(target),
                share: *share,
                manner: *manner,
                stage: Stage::Wanted,
            }),
            Action::Ask(wish) => world.wishes.push(*wish),
            Action::Ambush(step, count, moment) => {
                world.trap = Some(Trap::new(step, *count, *moment, now, true));
            }
            _ => world.weather.change(action),
        });
    }
}

/// The host of the master that writes heartbeats.
fn reigning(world: &World) -> Option<&'static str> {
    let heartbeat = world.objects.get("masters/heartbeat")?;
    let heartbeat: serde_json::Value = serde_json::from_slice(heartbeat).ok()?;
    let (host, _) = heartbeat["address"].as_str()?.split_once(':')?;
    MASTERS.into_iter().find(|master| *master == host)
}
