//! Progress: from every state that a run can come to, the system goes on once nothing fails any more.
//!
//! The checker's own `eventually` is blind to runs that end in a circle, and this protocol has circles (a worker may come and go
//! for ever). So progress is checked in each state by trying: a fair schedule without faults is run from it, and must
//! commit another epoch and bring every sink to the end of the chain within [`STEPS_MAX`] steps. States passed on the way are
//! remembered, so each is gone through once.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

use crate::model::{Action, Answer, Protocol, Rules};
use crate::state::State;

/// A healthy run needs about forty.
const STEPS_MAX: usize = 120;
/// So that threads seldom wait for each other.
const SHARDS: usize = 64;

/// Fingerprints of states from which the system is known to go on.
#[derive(Debug)]
pub(crate) struct Healed {
    shards: Vec<Mutex<HashSet<u64>>>,
}

impl Default for Healed {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }
}

impl Healed {
    fn shard(&self, fingerprint: u64) -> &Mutex<HashSet<u64>> {
        &self.shards[fingerprint as usize % SHARDS]
    }

    fn holds(&self, fingerprint: u64) -> bool {
        let shard = self.shard(fingerprint).lock();
        let shard = shard.unwrap_or_else(PoisonError::into_inner);
        shard.contains(&fingerprint)
    }

    fn add(&self, fingerprint: u64) {
        let shard = self.shard(fingerprint).lock();
        let mut shard = shard.unwrap_or_else(PoisonError::into_inner);
        shard.insert(fingerprint);
    }
}

fn fingerprint(state: &State) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

impl Protocol {
    /// Whether the system without further faults commits another epoch and delivers it everywhere.
    pub(crate) fn goes_on(&self, start: &State) -> bool {
        let mut rules = self.rules;
        // So that a sink that is as far behind as it can be does not forbid the epoch that is waited for.
        rules.bounds.lag += 1;
        let mut state = *start;
        let mut has_committed = false;
        let mut passed = Vec::new();
        let mut steps = 0;
        while !(has_committed && rules.is_delivered(&state)) {
            let fingerprint = fingerprint(&state);
            if self.healed.holds(fingerprint) {
                break;
            }
            if !has_committed {
                passed.push(fingerprint);
            }
            steps += 1;
            match healing_action(&rules, &state) {
                Some(action) if steps < STEPS_MAX => {
                    let next = rules.step(&state, action);
                    has_committed |= next.log.head > state.log.head;
                    state = rules.normal(next);
                }
                _ => return false,
            }
        }
        for fingerprint in passed {
            self.healed.add(fingerprint);
        }
        true
    }
}

impl Rules {
    fn is_delivered(&self, state: &State) -> bool {
        let mut sinks = (0..2).filter(|sink| self.delivers_to(*sink));
        sinks.all(|sink| state.sinks[sink as usize].marker == state.log.head)
    }
}

/// The next step of the schedule: appends first, then a master that reigns, then its workers, deliveries before barriers.
fn healing_action(rules: &Rules, state: &State) -> Option<Action> {
    let landing = (0..2).find(|master| Rules::can_land(state, *master));
    if let Some(master) = landing {
        return Some(Action::Land(master));
    }
    let learning = (0..2).find(|master| Rules::can_learn(state, *master));
    if let Some(master) = learning {
        return Some(Action::Learn(master));
    }
    let reigns = (0..2_u8).filter_map(|master| Some((master, state.masters[master as usize]?)));
    let newest = reigns.max_by_key(|(_, reign)| reign.term);
    let Some((master, _)) = newest.filter(|(_, reign)| !state.is_stale(reign)) else {
        let idle = (0..2).find(|master| Rules::can_take_over(state, *master));
        // Both are fenced by a reign that ended: whoever tries to append ends too.
        return Some(idle.map_or(Action::Refuse(0), Action::TakeOver));
    };
    let joining = (0..2).find(|worker| state.master_of(*worker) != Some(master));
    if let Some(worker) = joining.filter(|worker| Rules::can_join(state, *worker, master)) {
        return Some(Action::Join(worker, master));
    }
    if rules.can_assign(state, master) {
        return Some(Action::Assign(master));
    }
    worker_action(rules, state)
}

fn worker_action(rules: &Rules, state: &State) -> Option<Action> {
    for worker in 0..2 {
        if Rules::can_deploy(state, worker) {
            return Some(Action::Deploy(worker));
        }
        for sink in 0..2 {
            if Rules::can_fence(state, worker, sink) {
                return Some(Action::Fence(worker, sink));
            }
            if rules.next_delivery(state, worker, sink).is_some() {
                return Some(Action::Apply(worker, sink, Answer::Heard));
            }
        }
    }
    let worker = (0..2).find(|worker| rules.can_report(state, *worker))?;
    Some(Action::PassBarrier(worker))
}
