//! Workers that come and go as planned: gathered, then the job is placed anew at an epoch's end, where nothing is read twice.
//!
//! Called by `job_actor.rs` and `lifecycle.rs`. A worker that joins is to get its share, one that is leaving to get rid of its own; both
//! wait for [`GATHERING`], so that a whole set of them means one move. Then a last barrier ends the generation, its epoch is committed, and
//! the next one begins behind it on whoever is there by then. A leaving worker is told nothing but frames of generations that count on it;
//! the supervisor is told when none does. Failure: a worker that goes before is lost, and the job is rewound as after any loss.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millstream_common::ids::WorkerId;
use millstream_common::log::entry::JobEnd;

use super::job_actor::{Due, JobState, Phase, WorkerHandle, Workers};
use super::lifecycle::Handled;
use crate::supervisor::supervisor_actor::SupervisorMessage;

/// How long workers that come and go are gathered.
const GATHERING: Duration = Duration::from_secs(1);

/// What is known of a move to other workers.
#[derive(Debug, Default)]
pub(super) struct Rescale {
    /// Workers are being gathered.
    is_gathering: bool,
    /// The next barrier is the last one of the generation.
    pub(super) is_due: bool,
    /// Sessions of leaving workers that the supervisor knows to be free of this job.
    vacated: BTreeSet<u64>,
}

/// What to do when workers have been gathered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    /// The job stands where it should, or is about to be placed on whoever is there.
    None,
    /// Its tasks are being built: not before they run.
    Later,
    /// Behind the next barrier.
    Barrier,
    /// At once: no row flows any more.
    Now,
}

/// The workers that can be given tasks.
pub(super) fn candidates(workers: &Workers) -> impl Iterator<Item = (&WorkerId, &WorkerHandle)> {
    workers.iter().filter(|(_, handle)| !handle.is_leaving)
}

fn is_placed(workers: &Workers, sessions: &BTreeMap<WorkerId, u64>) -> bool {
    let wanted = candidates(workers).map(|(worker, handle)| (worker, &handle.session));
    wanted.eq(sessions)
}

fn decide(phase: &Phase, workers: &Workers, sessions: &BTreeMap<WorkerId, u64>) -> Move {
    let is_left = || {
        let mut sessions = sessions.keys();
        sessions.any(|worker| {
            let handle = workers.get(worker);
            handle.is_some_and(|handle| handle.is_leaving)
        })
    };
    match phase {
        _ if is_placed(workers, sessions) => Move::None,
        Phase::Running => Move::Barrier,
        Phase::Assigning | Phase::Deploying(_) => Move::Later,
        // For a worker that joins, nothing is left to do.
        Phase::Delivering(JobEnd::Finished) if is_left() => Move::Now,
        // The others end within their time, or are placed on whoever is there.
        Phase::Delivering(_)
        | Phase::Reattaching { .. }
        | Phase::Waiting
        | Phase::Recovering
        | Phase::Ending
        | Phase::Ended(_) => Move::None,
    }
}

/// Whether a generation, or what may become one, counts on the session.
fn counts_on(
    phase: &Phase,
    sessions: &BTreeMap<WorkerId, u64>,
    worker: &WorkerId,
    session: u64,
) -> bool {
    match phase {
        Phase::Reattaching { .. } => true,
        Phase::Assigning | Phase::Deploying(_) | Phase::Running | Phase::Delivering(_) => {
            sessions.get(worker) == Some(&session)
        }
        Phase::Waiting | Phase::Recovering | Phase::Ending | Phase::Ended(_) => false,
    }
}

impl JobState {
    /// Workers may have come or be leaving: gathers them if the job does not stand where it should.
    pub(super) fn gather(&mut self) {
        let is_right = decide(&self.phase, &self.workers, &self.sessions) == Move::None;
        if !is_right && !std::mem::replace(&mut self.rescale.is_gathering, true) {
            self.remind(GATHERING, Due::Rescale);
        }
    }

    pub(super) fn gathered(&mut self) -> Handled {
        self.rescale.is_gathering = false;
        match decide(&self.phase, &self.workers, &self.sessions) {
            Move::None => Ok(()),
            Move::Later => {
                self.gather();
                Ok(())
            }
            Move::Barrier => {
                self.rescale.is_due = true;
                self.barrier_due()
            }
            Move::Now => self.place_anew(),
        }
    }

    /// Tells the supervisor of leaving workers that this job does not count on any more.
    pub(super) fn vacate(&mut self) -> Handled {
        for (worker, handle) in self.workers.iter() {
            let session = handle.session;
            let is_free = !counts_on(&self.phase, &self.sessions, worker, session);
            if handle.is_leaving && is_free && self.rescale.vacated.insert(session) {
                self.supervisor.cast(SupervisorMessage::Vacated {
                    worker: worker.clone(),
                    session,
                    job: self.entry.job.clone(),
                })?;
            }
        }
        let sessions = self.workers.values().map(|handle| handle.session);
        let known: BTreeSet<u64> = sessions.collect();
        self.rescale
            .vacated
            .retain(|session| known.contains(session));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::*;

    fn workers(list: &[(&str, u64, bool)]) -> Workers {
        let handles = list.iter().map(|(worker, session, is_leaving)| {
            let handle = WorkerHandle {
                session: *session,
                slots: 1,
                flight_address: String::new(),
                held: Arc::new([]),
                is_leaving: *is_leaving,
                heard_us: Default::default(),
                frames: mpsc::channel(1).0,
            };
            (WorkerId::from(*worker), handle)
        });
        Arc::new(handles.collect())
    }

    fn sessions(list: &[(&str, u64)]) -> BTreeMap<WorkerId, u64> {
        let sessions = list
            .iter()
            .map(|(worker, session)| ((*worker).into(), *session));
        sessions.collect()
    }

    #[test]
    fn joins_and_leaves_move_a_running_job_and_a_worker_that_has_nothing_may_go() {
        let on = sessions(&[("a", 1), ("b", 2)]);
        let decided = |list: &[(&str, u64, bool)]| decide(&Phase::Running, &workers(list), &on);
        assert_eq!(decided(&[("a", 1, false), ("b", 2, false)]), Move::None);
        let idle = [("a", 1, false), ("b", 2, false), ("c", 3, true)];
        assert_eq!(decided(&idle), Move::None);
        let joined = [("a", 1, false), ("b", 2, false), ("c", 3, false)];
        assert_eq!(decided(&joined), Move::Barrier);
        assert_eq!(decided(&[("a", 1, false), ("b", 2, true)]), Move::Barrier);
        assert_eq!(decided(&[("a", 1, true), ("b", 2, true)]), Move::Barrier);
        let replaced = [("a", 1, true), ("b", 2, false), ("c", 3, false)];
        assert_eq!(decided(&replaced), Move::Barrier);
    }

    #[test]
    fn a_move_waits_until_tasks_run_and_needs_no_barrier_when_nothing_flows() {
        let on = sessions(&[("a", 1), ("b", 2)]);
        let left = workers(&[("a", 1, false), ("b", 2, true)]);
        let joined = workers(&[("a", 1, false), ("b", 2, false), ("c", 3, false)]);
        assert_eq!(decide(&Phase::Assigning, &left, &on), Move::Later);
        let delivering = Phase::Delivering(JobEnd::Finished);
        assert_eq!(decide(&delivering, &left, &on), Move::Now);
        assert_eq!(decide(&delivering, &joined, &on), Move::None);
        let stopping = Phase::Delivering(JobEnd::Stopped);
        assert_eq!(decide(&stopping, &left, &on), Move::None);
    }

    #[test]
    fn a_job_counts_on_a_worker_as_long_as_a_generation_of_it_may_run_there() {
        let on = sessions(&[("a", 1)]);
        let counts = |phase: &Phase, worker: &str, session| {
            counts_on(phase, &on, &WorkerId::from(worker), session)
        };
        assert!(counts(&Phase::Running, "a", 1) && counts(&Phase::Assigning, "a", 1));
        assert!(!counts(&Phase::Running, "a", 2) && !counts(&Phase::Running, "b", 2));
        assert!(!counts(&Phase::Waiting, "a", 1) && !counts(&Phase::Recovering, "a", 1));
        assert!(!counts(&Phase::Ended(JobEnd::Stopped), "a", 1));
    }
}
