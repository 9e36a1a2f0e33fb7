//! The protocol as a model for stateright: which steps each state allows, and what must hold in every state.
//!
//! The checker tries every order of steps. Nothing here is random or timed, and nothing counts crashes: a process may end at
//! any moment, as often as it likes. Only the lag of sinks has a bound.

use stateright::{Model, Property};

use crate::healed::Healed;
use crate::mistake::Mistake;
use crate::state::{Deliverer, Phase, State, bit};

/// No two epochs share a parent, and a master that was told of a commit was told the truth.
pub const ONE_CHAIN: &str = "INV-1 one chain";
/// No sink gets rows that the log does not hold.
pub const RECORDED: &str = "INV-2 sinks see only what the log holds";
/// No sink gets an epoch twice or leaves one out.
pub const PREFIX: &str = "INV-3 each sink is a prefix of the chain";
/// Neither an old term nor an old token changes anything.
pub const STALE: &str = "INV-4 whoever is stale has no effect";
/// Every epoch begins at the positions where its parent ended.
pub const TILED: &str = "INV-5 positions tile the input";
/// Once nothing fails, another epoch is committed and delivered.
pub const PROGRESS: &str = "progress once faults end";

/// How far a run goes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Epochs that the log may be ahead of the slowest sink; then barriers wait.
    pub lag: u8,
    /// The sinks, as bits.
    pub sinks: u8,
}

/// Both sinks.
pub const BOTH: u8 = 0b11;
/// The sink that checks the marker in its transaction.
pub const POSTGRES: u8 = 0b01;
/// The sink that checks only the fence.
pub const KAFKA: u8 = 0b10;

/// Which steps there are, and what they do.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// How far a run goes.
    pub bounds: Bounds,
    /// What is wrong with it.
    pub mistake: Option<Mistake>,
    /// The masters are alike: a state and its mirror image count as one.
    pub masters_alike: bool,
}

/// The model.
#[derive(Debug)]
pub struct Protocol {
    /// Which steps there are.
    pub rules: Rules,
    /// States from which the healed system is known to go on.
    pub(crate) healed: Healed,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A master is killed; what it has sent may still arrive.
    CrashMaster(u8),
    /// A fenced master tries to append, and ends.
    Refuse(u8),
    /// A master takes the other for lost and sends its Fence entry.
    TakeOver(u8),
    /// The entry of a master lands in the log.
    Land(u8),
    /// A master learns that its entry has landed.
    Learn(u8),
    /// The entry of a master that has ended lands in the log.
    LandLate,
    /// A master places the job.
    Assign(u8),
    /// A worker is killed, stalls or is cut off; what it delivers may still arrive.
    LoseWorker(u8),
    /// A worker ends its pipeline and dials a master.
    Join(u8, u8),
    /// A worker builds its part of the newest generation.
    Deploy(u8),
    /// A barrier passes a worker, which reports.
    PassBarrier(u8),
    /// The deliverer on a worker fences a sink.
    Fence(u8, u8),
    /// The deliverer on a worker applies an epoch to a sink.
    Apply(u8, u8, Answer),
}

/// Whether a deliverer hears that its commit succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It does.
    Heard,
    /// It does not, and has to look.
    Lost,
}

impl Protocol {
    /// The protocol as `rules` say.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            healed: Healed::default(),
        }
    }
}

impl Rules {
    /// Whether the model has this sink.
    pub(crate) fn delivers_to(&self, sink: u8) -> bool {
        self.bounds.sinks & bit(sink) != 0
    }

    fn master_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for master in 0..2 {
            if Self::can_take_over(state, master) {
                actions.push(Action::TakeOver(master));
                continue;
            }
            actions.push(Action::CrashMaster(master));
            if Self::can_be_refused(state, master) {
                actions.push(Action::Refuse(master));
            }
            if Self::can_land(state, master) {
                actions.push(Action::Land(master));
            }
            if Self::can_learn(state, master) {
                actions.push(Action::Learn(master));
            }
            if self.can_assign(state, master) {
                actions.push(Action::Assign(master));
            }
        }
        if state.late.is_some() {
            actions.push(Action::LandLate);
        }
    }

    fn worker_actions(&self, state: &State, actions: &mut Vec<Action>) {
        for worker in 0..2 {
            if state.master_of(worker).is_some() {
                actions.push(Action::LoseWorker(worker));
            }
            for master in 0..2 {
                if Self::can_join(state, worker, master) {
                    actions.push(Action::Join(worker, master));
                }
            }
            if Self::can_deploy(state, worker) {
                actions.push(Action::Deploy(worker));
            }
            if self.can_report(state, worker) {
                actions.push(Action::PassBarrier(worker));
            }
            for sink in 0..2 {
                if Self::can_fence(state, worker, sink) {
                    actions.push(Action::Fence(worker, sink));
                }
                if self.next_delivery(state, worker, sink).is_some() {
                    actions.push(Action::Apply(worker, sink, Answer::Heard));
                    actions.push(Action::Apply(worker, sink, Answer::Lost));
                }
            }
        }
    }

    /// The state right after `action`, which must be allowed.
    pub(crate) fn step(&self, state: &State, action: Action) -> State {
        let mut next = *state;
        match action {
            Action::CrashMaster(master) => Self::crash_master(&mut next, master),
            Action::Refuse(master) => next.masters[master as usize] = None,
            Action::TakeOver(master) => self.take_over(&mut next, master),
            Action::Land(master) => self.land(&mut next, master),
            Action::Learn(master) => self.learn(&mut next, master),
            Action::LandLate => Self::land_late(&mut next),
            Action::Assign(master) => Self::assign(&mut next, master),
            Action::LoseWorker(worker) => self.lose_worker(&mut next, worker),
            Action::Join(worker, master) => self.join(&mut next, worker, master),
            Action::Deploy(worker) => self.deploy(&mut next, worker),
            Action::PassBarrier(worker) => Self::pass_barrier(&mut next, worker),
            Action::Fence(worker, sink) => self.fence(&mut next, worker, sink),
            Action::Apply(worker, sink, answer) => self.apply(&mut next, worker, sink, answer),
        }
        next
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.rules.normal(State::first())]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.rules.master_actions(state, actions);
        self.rules.worker_actions(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let next = self.rules.normal(self.rules.step(state, action));
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = invariants();
        properties.extend(sights());
        properties
    }
}

/// What must hold in every state.
fn invariants() -> Vec<Property<Protocol>> {
    vec![
        Property::always(ONE_CHAIN, |_, state: &State| {
            !state.wrong.forked && !state.wrong.lost_commit
        }),
        Property::always(RECORDED, |_, state: &State| !state.wrong.unrecorded),
        Property::always(PREFIX, |_, state: &State| {
            let is_behind = |sink: &crate::state::SinkStore| sink.marker <= state.log.head;
            !state.wrong.not_a_prefix && state.sinks.iter().all(is_behind)
        }),
        Property::always(STALE, |_, state: &State| {
            !state.wrong.stale_delivery && !state.wrong.stale_object
        }),
        Property::always(TILED, |_, state: &State| !state.wrong.gap),
        Property::always(PROGRESS, Protocol::goes_on),
    ]
}

/// What must be seen in some state, lest the model hold its promises by doing nothing.
fn sights() -> Vec<Property<Protocol>> {
    vec![
        Property::sometimes(
            "a sink is as far behind as it can be",
            |protocol: &Protocol, state: &State| {
                let bounds = protocol.rules.bounds;
                state.log.head == bounds.lag
            },
        ),
        Property::sometimes("a master wakes behind its successor", |_, state: &State| {
            let mut reigns = state.masters.iter().flatten();
            reigns.any(|reign| state.is_stale(reign) && matches!(reign.phase, Phase::Deploying(_)))
        }),
        Property::sometimes("two workers deliver to one sink", |_, state: &State| {
            let delivering = |sink: usize| {
                let pipelines = state.workers.iter().filter_map(|worker| worker.pipeline);
                let deliverers = pipelines.map(move |pipeline| pipeline.deliverers[sink]);
                deliverers.filter(|deliverer| matches!(deliverer, Deliverer::Fenced(_)))
            };
            delivering(0).count() == 2 || delivering(1).count() == 2
        }),
        Property::sometimes("one worker has all splits", |_, state: &State| {
            let mut pipelines = state.workers.iter().filter_map(|worker| worker.pipeline);
            pipelines.any(|pipeline| pipeline.splits == bit(0) | bit(1))
        }),
        Property::sometimes(
            "a worker is lost while its epoch is on its way",
            |_, state: &State| {
                let mut reigns = state.masters.iter().flatten();
                reigns.any(|reign| reign.is_committing() && reign.phase == Phase::Waiting)
            },
        ),
        Property::sometimes(
            "the epoch of a dead master may still land",
            |_, state: &State| state.late == Some(crate::state::Late::Epoch),
        ),
    ]
}
