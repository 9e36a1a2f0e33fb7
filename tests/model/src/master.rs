//! The steps of masters: take over, append, place the job, end.
//!
//! Stands for `master.rs`, `log_actor.rs` and `job/{lifecycle,commit}.rs`. A create is sent, lands, and is learned of:
//! three steps, with anything between them. An answer that is lost is a long time before the last, for the object is then read back and known
//! by its nonce; a create that fails is a long time before the second. An Assign entry takes one step: until workers are told of it, nothing depends on it.

use crate::mistake::Mistake;
use crate::model::Rules;
use crate::state::{Append, Late, Phase, Reign, State, bit};

impl Rules {
    /// Whether a master without a reign may begin one. It may at any time: nobody knows whether the other still lives.
    pub(crate) fn can_take_over(state: &State, master: u8) -> bool {
        state.masters[master as usize].is_none()
    }

    /// It reads the log, and its Fence entry is on its way.
    pub(crate) fn take_over(&self, state: &mut State, master: u8) {
        let phase = match self.mistake {
            Some(Mistake::SkipFence) => Phase::Waiting,
            _ => Phase::Fencing,
        };
        let mut reign = Reign::begin(state.log.term + 1, state.log.head, phase);
        if phase == Phase::Fencing {
            reign.append = Append::Sent;
        }
        state.masters[master as usize] = Some(reign);
    }

    /// Whether an entry of this master can land. Those of fenced masters are gone from the normal form.
    pub(crate) fn can_land(state: &State, master: u8) -> bool {
        let reign = state.masters[master as usize].as_ref();
        reign.is_some_and(|reign| reign.append == Append::Sent)
    }

    /// The object is created: from here on it counts, whether its master hears of it or not.
    pub(crate) fn land(&self, state: &mut State, master: u8) {
        let Some(mut reign) = state.masters[master as usize] else {
            return;
        };
        write_object(state, reign.term);
        if reign.is_committing() {
            // Replay counts an epoch if it is of the newest generation.
            match reign.generation == state.log.generation {
                true => append_epoch(state, reign.head, reign.gap),
                false => state.wrong.lost_commit = true,
            }
        }
        reign.append = Append::Landed;
        state.masters[master as usize] = Some(reign);
    }

    pub(crate) fn can_learn(state: &State, master: u8) -> bool {
        let reign = state.masters[master as usize].as_ref();
        reign.is_some_and(|reign| reign.append == Append::Landed)
    }

    /// The master hears that its object is written, or reads it back and knows it by its nonce.
    pub(crate) fn learn(&self, state: &mut State, master: u8) {
        let Some(mut reign) = state.masters[master as usize] else {
            return;
        };
        if reign.phase == Phase::Fencing {
            reign.append = Append::Idle;
            reign.phase = Phase::Waiting;
            if self.mistake != Some(Mistake::ReadLogBeforeFence) {
                reign.head = state.log.head;
            }
        } else if self.mistake == Some(Mistake::DropNonce) {
            reign.append = Append::Sent;
        } else {
            committed(&mut reign);
        }
        state.masters[master as usize] = Some(reign);
    }

    /// Whether the job can be placed, on whoever has joined.
    pub(crate) fn can_assign(&self, state: &State, master: u8) -> bool {
        let Some(reign) = &state.masters[master as usize] else {
            return false;
        };
        let is_free =
            reign.append == Append::Idle || self.mistake == Some(Mistake::AssignWhileCommitting);
        reign.phase == Phase::Waiting && is_free && !state.is_stale(reign) && reign.joined != 0
    }

    pub(crate) fn assign(state: &mut State, master: u8) {
        let Some(mut reign) = state.masters[master as usize] else {
            return;
        };
        if reign.append == Append::Sent {
            // Planted: the epoch lands first, and this assignment knows nothing of it.
            append_epoch(state, reign.head, reign.gap);
        }
        reign.append = Append::Idle;
        write_object(state, reign.term);
        state.log.generation += 1;
        reign.generation = state.log.generation;
        reign.sessions = reign.joined;
        reign.reported = 0;
        reign.gap = false;
        reign.phase = Phase::Deploying(reign.sessions);
        state.masters[master as usize] = Some(reign);
    }

    /// Takes a worker's report. With the last one the Epoch entry is on its way.
    pub(crate) fn report(reign: &mut Reign, worker: u8, begins_at_head: bool) {
        reign.reported |= bit(worker);
        reign.gap |= !begins_at_head;
        if reign.reported == reign.sessions {
            reign.append = Append::Sent;
        }
    }

    /// A fenced master tries to append, finds the newer object in its way, and ends.
    pub(crate) fn can_be_refused(state: &State, master: u8) -> bool {
        let reign = state.masters[master as usize].as_ref();
        reign.is_some_and(|reign| state.is_stale(reign))
    }

    /// The process ends; it begins again knowing nothing. What it has sent may still arrive.
    pub(crate) fn crash_master(state: &mut State, master: u8) {
        if let Some(reign) = state.masters[master as usize].take() {
            match (reign.append, reign.phase) {
                (Append::Sent, Phase::Fencing) => state.late = Some(Late::Fence),
                (Append::Sent, _) if reign.generation == state.log.generation => {
                    state.late = Some(Late::Epoch);
                }
                (Append::Idle | Append::Sent | Append::Landed, _) => {}
            }
        }
    }

    /// A create whose sender has ended arrives.
    pub(crate) fn land_late(state: &mut State) {
        match state.late.take() {
            Some(Late::Fence) => state.log.term += 1,
            Some(Late::Epoch) => append_epoch(state, state.log.head, false),
            None => {}
        }
    }
}

/// An epoch of this master is in the log, and it knows. A worker that has joined meanwhile is given its share now.
fn committed(reign: &mut Reign) {
    reign.append = Append::Idle;
    reign.gap = false;
    reign.head += 1;
    reign.reported = 0;
    let has_joined = reign.joined & !reign.sessions != 0;
    if reign.phase == Phase::Running && has_joined {
        reign.abandon();
    }
}

/// An object takes the next position, which is free no more for those that are late.
fn write_object(state: &mut State, term: u8) {
    state.late = None;
    state.wrong.stale_object |= term < state.log.term;
    state.log.term = state.log.term.max(term);
}

fn append_epoch(state: &mut State, parent: u8, gap: bool) {
    state.wrong.forked |= parent != state.log.head;
    state.wrong.gap |= gap;
    state.log.head += 1;
}
