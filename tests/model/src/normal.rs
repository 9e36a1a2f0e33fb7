//! Brings a state into its normal form: forgets what makes no difference any more and counts anew.
//!
//! Two states with one normal form allow the same steps from there on, so the checker visits one of them. What makes no
//! difference depends on the protocol being followed; where a planted mistake makes it matter, it is kept.

use crate::mistake::Mistake;
use crate::model::Rules;
use crate::state::{Append, Deliverer, NEWEST, PAIR, Phase, Pipeline, Reign, State, bit};

/// More generations than one state, or a short walk without normal forms, can hold.
const GENERATIONS_MAX: usize = 64;

impl Rules {
    /// The normal form of `state`.
    pub(crate) fn normal(&self, mut state: State) -> State {
        for sink in 0..PAIR as u8 {
            if !self.delivers_to(sink) {
                state.sinks[sink as usize].marker = state.log.head;
            }
        }
        self.forget_stale_masters(&mut state);
        for worker in 0..PAIR as u8 {
            self.forget_idle_pipeline(&mut state, worker);
        }
        count_epochs_anew(&mut state);
        count_generations_anew(&mut state);
        let ahead = state.log.term - NEWEST;
        for reign in state.masters.iter_mut().flatten() {
            reign.term = reign.term.saturating_sub(ahead).max(NEWEST - 1);
        }
        state.log.term = NEWEST;
        if self.masters_alike {
            put_masters_in_order(&mut state);
        }
        state
    }

    /// A fenced master can still deploy a generation that it has in the log. It can append nothing, and ends when it tries; one
    /// whose entry is on its way has tried.
    fn forget_stale_masters(&self, state: &mut State) {
        let log = state.log;
        for master in &mut state.masters {
            let Some(reign) = master else {
                continue;
            };
            let is_fencing = reign.phase == Phase::Fencing;
            let is_fenced = match (is_fencing, self.mistake) {
                (_, Some(Mistake::OverwriteLog)) => false,
                (true, Some(Mistake::EqualTermWins)) | (false, _) => reign.term < log.term,
                (true, _) => reign.term <= log.term,
            };
            if is_fenced && reign.append == Append::Sent {
                *master = None;
                continue;
            }
            // It reads the log once more before it acts.
            if is_fencing && self.mistake != Some(Mistake::ReadLogBeforeFence) {
                reign.head = log.head;
            }
            if reign.append == Append::Landed {
                continue;
            }
            match reign.phase {
                Phase::Deploying(_) if is_fenced => reign.head = log.head,
                _ if is_fenced => *reign = Reign::begin(reign.term, log.head, Phase::Waiting),
                Phase::Waiting if reign.append == Append::Idle => reign.generation = 0,
                _ => {}
            }
        }
    }

    fn forget_idle_pipeline(&self, state: &mut State, worker: u8) {
        let is_linked = state.master_of(worker).is_some();
        if !is_linked {
            state.workers[worker as usize].link = None;
        }
        let Some(mut pipeline) = state.workers[worker as usize].pipeline else {
            return;
        };
        if self.mistake != Some(Mistake::TrustTheMastersCursor) {
            pipeline.restored = state.log.head;
        }
        for (deliverer, sink) in pipeline.deliverers.iter_mut().zip(&state.sinks) {
            // The sink will refuse it, whatever it knows.
            if let Deliverer::Fenced(base) = deliverer
                && pipeline.generation < sink.token
                && self.mistake != Some(Mistake::SkipSinkFence)
            {
                *base = sink.marker;
            }
        }
        let works = state.works(worker, &pipeline);
        let keeps_state = is_linked && self.mistake == Some(Mistake::RewindOnlyTheDead);
        let keeps_report = self.mistake == Some(Mistake::DeliverBeforeRecord);
        if !works && !keeps_state {
            pipeline.splits = 0;
            pipeline.positions = [0; PAIR];
        }
        if !keeps_report {
            pipeline.reported = state.log.head;
        }
        let delivers = pipeline.deliverers != [Deliverer::None; PAIR];
        state.workers[worker as usize].pipeline =
            (works || delivers || keeps_state).then_some(pipeline);
    }
}

fn put_masters_in_order(state: &mut State) {
    let [first, second] = state.masters;
    if first < second {
        state.masters = [second, first];
        for worker in &mut state.workers {
            worker.link = worker.link.map(|master| 1 - master);
        }
    }
}

fn count_epochs_anew(state: &mut State) {
    let mut least = state.log.head;
    for_each_epoch(state, |epoch| least = least.min(*epoch));
    for_each_epoch(state, |epoch| *epoch -= least);
}

fn for_each_epoch(state: &mut State, mut visit: impl FnMut(&mut u8)) {
    visit(&mut state.log.head);
    for reign in state.masters.iter_mut().flatten() {
        visit(&mut reign.head);
    }
    for sink in &mut state.sinks {
        visit(&mut sink.marker);
    }
    for pipeline in pipelines(state) {
        visit(&mut pipeline.restored);
        visit(&mut pipeline.reported);
        for (index, position) in pipeline.positions.iter_mut().enumerate() {
            if pipeline.splits & bit(index as u8) != 0 {
                visit(position);
            }
        }
        for deliverer in &mut pipeline.deliverers {
            match deliverer {
                Deliverer::Read(base) | Deliverer::Fenced(base) => visit(base),
                Deliverer::None | Deliverer::Unfenced => {}
            }
        }
    }
}

fn count_generations_anew(state: &mut State) {
    let mut is_present = [false; GENERATIONS_MAX];
    for_each_generation(state, |generation| is_present[*generation as usize] = true);
    is_present[0] = false;
    let mut ranks = [0; GENERATIONS_MAX];
    let mut rank = 0;
    for (generation, _) in is_present.iter().enumerate().filter(|(_, is)| **is) {
        rank += 1;
        ranks[generation] = rank;
    }
    for_each_generation(state, |generation| {
        *generation = ranks[*generation as usize]
    });
}

fn for_each_generation(state: &mut State, mut visit: impl FnMut(&mut u8)) {
    visit(&mut state.log.generation);
    for reign in state.masters.iter_mut().flatten() {
        visit(&mut reign.generation);
    }
    for sink in &mut state.sinks {
        visit(&mut sink.token);
    }
    for pipeline in pipelines(state) {
        visit(&mut pipeline.generation);
    }
}

fn pipelines(state: &mut State) -> impl Iterator<Item = &mut Pipeline> {
    let workers = state.workers.iter_mut();
    workers.filter_map(|worker| worker.pipeline.as_mut())
}

#[cfg(test)]
mod tests {
    use stateright::Model;

    use crate::model::{BOTH, Bounds, Protocol, Rules};
    use crate::state::State;

    const RULES: Rules = Rules {
        bounds: Bounds {
            lag: 2,
            sinks: BOTH,
        },
        mistake: None,
        masters_alike: false,
    };

    /// Walks at random with normal forms and without: what was forgotten must not be missed.
    #[test]
    fn a_state_and_its_normal_form_go_the_same_ways() {
        let protocol = Protocol::new(RULES);
        let mut chance: u64 = 1;
        for walk in 0..2_000 {
            let mut state = State::first();
            for step in 0..50 {
                let normal = RULES.normal(state);
                let mut actions = Vec::new();
                protocol.actions(&normal, &mut actions);
                chance = chance
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let action = actions[(chance >> 33) as usize % actions.len()];
                let next = RULES.step(&state, action);
                assert_eq!(
                    RULES.normal(next),
                    RULES.normal(RULES.step(&normal, action)),
                    "walk {walk}, step {step}, {action:?}: {state:?}"
                );
                state = next;
            }
        }
    }

    #[test]
    fn the_normal_form_of_a_normal_form_is_itself() {
        let protocol = Protocol::new(RULES);
        let mut state = RULES.normal(State::first());
        for turn in 0..500_usize {
            let mut actions = Vec::new();
            protocol.actions(&state, &mut actions);
            state = RULES.normal(RULES.step(&state, actions[turn * 7 % actions.len()]));
            assert_eq!(RULES.normal(state), state);
        }
    }
}
