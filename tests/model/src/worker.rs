//! The steps of workers and their deliverers: join, deploy, pass barriers, fence sinks, apply epochs.
//!
//! Stands for the worker's `supervisor_actor.rs` and pipelines, and for `sinks/src/{delivery,sink_actor}.rs`. A worker acts on what
//! its master says now, at any later time or never: that is a slow link and a stalled worker alike. A worker that has lost its
//! link, or died, may go on delivering for any time: that is what fences are for. What was sent by one that died is the same.

use crate::mistake::Mistake;
use crate::model::{Answer, Rules};
use crate::state::{Append, Deliverer, PAIR, Phase, Pipeline, State, Worker, bit};

impl Rules {
    /// A worker is lost to its master, which finds out: it was killed, it stalls, or the link is cut. The whole job goes back to
    /// the last epoch.
    pub(crate) fn lose_worker(&self, state: &mut State, worker: u8) {
        let Some(master) = state.master_of(worker) else {
            return;
        };
        let Some(reign) = &mut state.masters[master as usize] else {
            return;
        };
        reign.joined &= !bit(worker);
        let is_heard = match reign.phase {
            Phase::Fencing | Phase::Waiting => false,
            Phase::Deploying(_) => self.mistake != Some(Mistake::DeafWhileDeploying),
            Phase::Running => true,
        };
        if is_heard && reign.sessions & bit(worker) != 0 {
            reign.abandon();
        }
    }

    /// Whether the worker, without a master or with one that is fenced, can dial this one. Nobody needs to dial a fenced one: it
    /// can place nothing.
    pub(crate) fn can_join(state: &State, worker: u8, master: u8) -> bool {
        let Some(reign) = &state.masters[master as usize] else {
            return false;
        };
        let has_other = state.master_of(worker).is_some_and(|linked| {
            let linked = state.masters[linked as usize];
            linked.is_some_and(|linked| !state.is_stale(&linked))
        });
        !has_other && reign.phase != Phase::Fencing && !state.is_stale(reign)
    }

    /// Its pipeline ends with the old link.
    pub(crate) fn join(&self, state: &mut State, worker: u8, master: u8) {
        self.lose_worker(state, worker);
        state.workers[worker as usize] = Worker {
            link: Some(master),
            pipeline: None,
        };
        if let Some(reign) = &mut state.masters[master as usize] {
            reign.joined |= bit(worker);
        }
    }

    pub(crate) fn can_deploy(state: &State, worker: u8) -> bool {
        let reign = state
            .master_of(worker)
            .and_then(|master| state.masters[master as usize].as_ref());
        reign.is_some_and(
            |reign| matches!(reign.phase, Phase::Deploying(who) if who & bit(worker) != 0),
        )
    }

    pub(crate) fn deploy(&self, state: &mut State, worker: u8) {
        let Some(master) = state.master_of(worker) else {
            return;
        };
        let Some(reign) = &mut state.masters[master as usize] else {
            return;
        };
        let Phase::Deploying(waiting) = reign.phase else {
            return;
        };
        reign.phase = match waiting & !bit(worker) {
            0 => Phase::Running,
            left => Phase::Deploying(left),
        };
        let old = state.workers[worker as usize].pipeline;
        let mut pipeline = Pipeline {
            generation: reign.generation,
            restored: reign.head,
            splits: 0,
            positions: [0; PAIR],
            reported: reign.head,
            deliverers: [Deliverer::None; PAIR],
        };
        for index in (0..2_u8).filter(|index| reign.owns(worker, *index)) {
            let survived = old.filter(|old| {
                self.mistake == Some(Mistake::RewindOnlyTheDead) && old.splits & bit(index) != 0
            });
            let place = index as usize;
            pipeline.splits |= bit(index);
            pipeline.positions[place] = survived.map_or(reign.head, |old| old.positions[place]);
            if self.delivers_to(index) {
                pipeline.deliverers[place] = Deliverer::Unfenced;
            }
        }
        state.workers[worker as usize].pipeline = Some(pipeline);
    }

    /// Whether the barrier behind the master's head has something to end on this worker.
    pub(crate) fn can_report(&self, state: &State, worker: u8) -> bool {
        let Some(pipeline) = &state.workers[worker as usize].pipeline else {
            return false;
        };
        let reign = state
            .master_of(worker)
            .and_then(|master| state.masters[master as usize].as_ref());
        reign.is_some_and(|reign| {
            reign.phase == Phase::Running
                && reign.generation == pipeline.generation
                && reign.append == Append::Idle
                && reign.reported & bit(worker) == 0
                && reign.head < self.bounds.lag
        })
    }

    /// The barrier passes the worker's tasks, one row further each split; segments and state are stored, the report is sent.
    pub(crate) fn pass_barrier(state: &mut State, worker: u8) {
        let Some(master) = state.master_of(worker) else {
            return;
        };
        let Some(pipeline) = &mut state.workers[worker as usize].pipeline else {
            return;
        };
        let Some(reign) = &mut state.masters[master as usize] else {
            return;
        };
        let mut begins_at_head = true;
        for index in (0..2_u8).filter(|index| pipeline.splits & bit(*index) != 0) {
            let position = &mut pipeline.positions[index as usize];
            begins_at_head &= *position == reign.head;
            *position += 1;
        }
        pipeline.reported = reign.head + 1;
        Self::report(reign, worker, begins_at_head);
    }

    pub(crate) fn can_fence(state: &State, worker: u8, sink: u8) -> bool {
        let pipeline = state.workers[worker as usize].pipeline.as_ref();
        let deliverer = pipeline.map(|pipeline| pipeline.deliverers[sink as usize]);
        matches!(deliverer, Some(Deliverer::Unfenced | Deliverer::Read(_)))
    }

    /// Fences smaller tokens, and only then reads the marker.
    pub(crate) fn fence(&self, state: &mut State, worker: u8, sink: u8) {
        let Some(pipeline) = &mut state.workers[worker as usize].pipeline else {
            return;
        };
        let store = &mut state.sinks[sink as usize];
        let token = pipeline.generation;
        let deliverer = &mut pipeline.deliverers[sink as usize];
        let is_refused = match self.mistake {
            // The token is noted only for the check of INV-4.
            Some(Mistake::SkipSinkFence) => false,
            Some(Mistake::MarkerBeforeFence) if *deliverer == Deliverer::Unfenced => {
                *deliverer = Deliverer::Read(store.marker);
                return;
            }
            Some(Mistake::FenceNeedsANewToken) => token <= store.token,
            _ => token < store.token,
        };
        if is_refused {
            *deliverer = Deliverer::None;
            return;
        }
        store.token = store.token.max(token);
        *deliverer = match (*deliverer, self.mistake) {
            (Deliverer::Read(marker), _) => Deliverer::Fenced(marker),
            (_, Some(Mistake::TrustTheMastersCursor)) => Deliverer::Fenced(pipeline.restored),
            _ => Deliverer::Fenced(store.marker),
        };
    }

    /// What the deliverer has to apply next: the epoch that its guard is the parent of, and whether the log holds it.
    pub(crate) fn next_delivery(
        &self,
        state: &State,
        worker: u8,
        sink: u8,
    ) -> Option<(u8, Recorded)> {
        let pipeline = state.workers[worker as usize].pipeline.as_ref()?;
        let Deliverer::Fenced(base) = pipeline.deliverers[sink as usize] else {
            return None;
        };
        if base < state.log.head {
            return Some((base, Recorded::Yes));
        }
        let is_early =
            self.mistake == Some(Mistake::DeliverBeforeRecord) && pipeline.reported == base + 1;
        is_early.then_some((base, Recorded::No))
    }

    /// Applies the next epoch. Postgres checks token and marker in the transaction; Kafka only that no newer producer has
    /// fenced this one, which is why the order of fence and marker matters there.
    pub(crate) fn apply(&self, state: &mut State, worker: u8, sink: u8, answer: Answer) {
        let Some((base, recorded)) = self.next_delivery(state, worker, sink) else {
            return;
        };
        let Some(pipeline) = &mut state.workers[worker as usize].pipeline else {
            return;
        };
        let store = &mut state.sinks[sink as usize];
        let deliverer = &mut pipeline.deliverers[sink as usize];
        let is_stale = pipeline.generation < store.token;
        if is_stale && self.mistake != Some(Mistake::SkipSinkFence) {
            *deliverer = Deliverer::None;
            return;
        }
        let guards_marker = sink == 0;
        if guards_marker && store.marker != base {
            // It holds the epoch already, or something is wrong: look again.
            *deliverer = Deliverer::Unfenced;
            return;
        }
        state.wrong.stale_delivery |= is_stale;
        state.wrong.unrecorded |= recorded == Recorded::No;
        state.wrong.not_a_prefix |= store.marker != base;
        store.marker = base + 1;
        *deliverer = match (answer, self.mistake) {
            (Answer::Heard, _) => Deliverer::Fenced(base + 1),
            (Answer::Lost, Some(Mistake::ApplyAgainUnasked)) => Deliverer::Fenced(base),
            (Answer::Lost, _) => Deliverer::Unfenced,
        };
    }
}

/// Whether the log holds an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// Its rows are fixed.
    Yes,
    /// Only the worker knows of it.
    No,
}
