//! One simulation from its seed to its verdict.
//!
//! Run by `pool.rs` in a child of its own. Owns the hosts, the network and the services; lets virtual time pass in steps, does what the
//! scenario says between them, and looks for broken rules after each. Failure: the first of a broken invariant, a job that gave
//! up, a job that does not end in time, or a table that does not hold what it must.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use millstream_common::report::RowCounters;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde::{Deserialize, Serialize};
use turmoil::Sim;

use crate::entropy;
use crate::hosts::Host;
use crate::links::Links;
use crate::outside::Outside;
use crate::outside::ledger::Chain;
use crate::scenario::{Action, MASTERS, Scenario, WORKERS, hosts};
use crate::trace::{self, event};
use crate::workload::Workload;

/// Virtual time of one step: messages between hosts arrive at its multiples.
const TICK: Duration = Duration::from_millis(10);
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
    /// What was wrong.
    pub(crate) failure: Option<String>,
}

/// Plans a job once, so that what is made lazily for planning is made before the fork and not for every seed.
pub(crate) fn warm_up() {
    entropy::seed(0);
    let workload = Workload::draw(&mut SmallRng::seed_from_u64(0));
    let planned =
        millstream_master::plan::plan_job(&workload.sql, &millstream_common::secret::Environment);
    assert!(planned.is_ok(), "{planned:?}");
}

/// Runs one seed.
pub(crate) fn run(seed: u64, is_dumped: bool) -> Outcome {
    entropy::seed(seed);
    entropy::advance_to(Duration::ZERO);
    trace::begin(is_dumped);
    let mut chance = SmallRng::seed_from_u64(seed);
    let workload = Workload::draw(&mut chance);
    let tables: Vec<&str> = workload.tables().collect();
    let scenario = Scenario::draw(&mut chance, &tables);
    event!("{scenario:?}");
    let mut simulation = Simulation::new(seed, &workload, &scenario);
    let failure = simulation.run(&workload, &scenario);
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
        failure,
    }
}

struct Simulation {
    sim: Sim<'static>,
    outside: Arc<Outside>,
    is_finished: Arc<AtomicBool>,
    clocks: BTreeMap<&'static str, Arc<AtomicI64>>,
    links: Links,
}

impl Simulation {
    fn new(seed: u64, workload: &Workload, scenario: &Scenario) -> Self {
        let sim = turmoil::Builder::new()
            .rng_seed(seed)
            .epoch(UNIX_EPOCH + entropy::EPOCH)
            .tick_duration(TICK)
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
            links: Links::new(hosts().chain([CLIENT])),
        };
        simulation.add_hosts(workload, scenario);
        simulation
    }

    fn add_hosts(&mut self, workload: &Workload, scenario: &Scenario) {
        let host = |name: &'static str, clocks: &BTreeMap<_, Arc<AtomicI64>>| Host {
            name,
            outside: self.outside.clone(),
            topic: workload.topic.clone(),
            ahead_us: clocks.get(name).cloned().unwrap_or_default(),
            starts: Arc::new(AtomicU32::new(0)),
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
                        false => std::future::pending().await,
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
            self.sim.host(WORKERS[index], move || {
                let worker = worker.clone();
                async move {
                    match joins_at {
                        Some(at) => tokio::time::sleep(at.saturating_sub(trace::now())).await,
                        None => std::future::pending().await,
                    }
                    worker.run_worker(slots, keeps_names).await
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
    fn run(&mut self, workload: &Workload, scenario: &Scenario) -> Option<String> {
        let mut actions = scenario.actions.iter().peekable();
        let healed_at = scenario.healed_at();
        let mut finished_at = None;
        loop {
            let now = self.sim.elapsed();
            entropy::advance_to(now);
            trace::advance_to(now);
            while let Some((_, action)) = actions.next_if(|(at, _)| *at <= now) {
                event!("{action:?}");
                self.act(action);
            }
            self.outside.run_due(now);
            if let Err(error) = self.sim.step() {
                return Some(format!("a host failed: {error}"));
            }
            if let Some(broken) = self.broken() {
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

    fn broken(&self) -> Option<String> {
        self.outside.with(|world| {
            let gave_up = world.ledger.failures.first();
            let gave_up = gave_up.map(|cause| format!("the job gave up: {cause}"));
            world.ledger.violation().map(str::to_owned).or(gave_up)
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

    fn verdict(&self, workload: &Workload) -> Option<String> {
        self.outside.with(|world| {
            if let Some(difference) = workload.difference(&world.tables) {
                return Some(difference);
            }
            let mut sum = RowCounters::default();
            for chain in world.ledger.chains() {
                chain
                    .progress
                    .counters
                    .values()
                    .for_each(|one| sum.add(one));
            }
            let is_closed = sum.read == workload.record_count
                && sum.rejected == workload.rejected_count()
                && sum.read == sum.accepted + sum.rejected + sum.dropped;
            (!is_closed).then(|| {
                let records = workload.record_count;
                format!("INV-10: the counters say {sum:?} of {records} records")
            })
        })
    }

    fn act(&mut self, action: &Action) {
        let (sim, links) = (&mut self.sim, &mut self.links);
        match action {
            Action::Kill(host) => links.kill(sim, host),
            Action::CutPower(host) => links.cut_power(sim, host),
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
        self.outside.with(|world| world.weather.change(action));
    }
}
