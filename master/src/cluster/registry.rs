//! The workers that have joined, and when they were last heard of.
//!
//! Pure; owned by the supervisor's actor. A worker joins with a session of its own; a second join under its name ends the
//! first session, so frames and losses of the old one do not count (INV-4).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream_common::ids::{JobName, WorkerId};
use millstream_common::link::{ToWorker, WorkerHello};
use tokio::sync::{mpsc, oneshot};

use super::leaving::Leaving;
use crate::job::job_actor::{WorkerHandle, Workers};

/// Workers send one this often.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(300);
/// A worker silent for this long is lost: three heartbeats.
const SILENCE_MAX: Duration = Duration::from_millis(900);

/// The registry.
#[derive(Debug, Default)]
pub struct Registry {
    members: BTreeMap<WorkerId, Member>,
    sessions_opened: u64,
    /// When silence was last looked for, monotonic.
    looked_at: Duration,
}

/// A session that has begun.
#[derive(Debug)]
pub struct Session {
    /// Its number.
    pub number: u64,
    /// Ends when the session does not count any more: its stream has to end then, or a worker that
    /// was only slow would never learn that it is to join again.
    pub over: oneshot::Receiver<()>,
}

/// A worker and what is known of it.
#[derive(Debug)]
pub struct Member {
    /// What jobs use.
    pub handle: WorkerHandle,
    /// Of its program.
    pub version: String,
    /// When it joined, monotonic.
    pub joined_at: Duration,
    /// When it was last heard of, monotonic.
    pub heard_at: Duration,
    /// It goes, or is to be idle; its handle says so too.
    pub leaving: Option<Leaving>,
    /// Dropped with the member, which ends the session's stream.
    _over: oneshot::Sender<()>,
}

impl Registry {
    /// Takes a worker in.
    pub fn join(
        &mut self,
        hello: WorkerHello,
        frames: mpsc::Sender<ToWorker>,
        now: Duration,
    ) -> Session {
        self.sessions_opened += 1;
        let (sender, over) = oneshot::channel();
        let member = Member {
            handle: WorkerHandle {
                session: self.sessions_opened,
                slots: hello.slots.max(1),
                flight_address: hello.flight_address,
                held: hello.held.into(),
                is_leaving: hello.is_leaving,
                frames,
            },
            version: hello.version,
            joined_at: now,
            heard_at: now,
            leaving: hello.is_leaving.then(Leaving::default),
            _over: sender,
        };
        self.members.insert(hello.worker, member);
        Session {
            number: self.sessions_opened,
            over,
        }
    }

    /// Notes a sign of life; false if the session is not the worker's newest.
    pub fn heard(&mut self, worker: &WorkerId, session: u64, now: Duration) -> bool {
        match self.members.get_mut(worker) {
            Some(member) if member.handle.session == session => {
                member.heard_at = now;
                true
            }
            _ => false,
        }
    }

    /// Removes a worker whose stream has ended; false if the session is not its newest.
    pub fn leave(&mut self, worker: &WorkerId, session: u64) -> bool {
        let is_newest = self
            .members
            .get(worker)
            .is_some_and(|member| member.handle.session == session);
        if is_newest {
            self.members.remove(worker);
        }
        is_newest
    }

    /// From now on a worker is given no tasks; who asks again is told again. False if it is not there.
    pub fn begin_leaving(&mut self, worker: &WorkerId) -> bool {
        let Some(member) = self.members.get_mut(worker) else {
            return false;
        };
        member.handle.is_leaving = true;
        member.leaving.get_or_insert_default().asked_again();
        true
    }

    /// A job does not count on a session of a leaving worker any more.
    pub fn vacated(&mut self, worker: &WorkerId, session: u64, job: JobName) {
        if let Some(member) = self.members.get_mut(worker)
            && member.handle.session == session
            && let Some(leaving) = &mut member.leaving
        {
            leaving.vacated(job);
        }
    }

    /// Releases the leaving workers that none of `jobs` counts on; those who are to be told.
    pub fn release<'a>(
        &mut self,
        jobs: impl Iterator<Item = &'a JobName> + Clone,
    ) -> Vec<(WorkerId, WorkerHandle)> {
        let mut released = Vec::new();
        for (worker, member) in &mut self.members {
            let leaving = member.leaving.as_mut();
            if leaving.is_some_and(|leaving| leaving.release(jobs.clone())) {
                released.push((worker.clone(), member.handle.clone()));
            }
        }
        released
    }

    /// Whether a worker is there that is given tasks.
    pub fn has_active(&self) -> bool {
        let mut members = self.members.values();
        members.any(|member| member.leaving.is_none())
    }

    /// Removes the workers that have been silent for too long. A master that did not even look for so long was asleep
    /// itself: what it did not hear then says nothing, and everybody has the whole time again.
    pub fn expire(&mut self, now: Duration) -> Vec<WorkerId> {
        let was_asleep = now.saturating_sub(self.looked_at) > SILENCE_MAX;
        self.looked_at = now;
        if was_asleep {
            for member in self.members.values_mut() {
                member.heard_at = now;
            }
            return Vec::new();
        }
        let is_silent = |member: &Member| now.saturating_sub(member.heard_at) > SILENCE_MAX;
        let silent: Vec<WorkerId> = self
            .members
            .iter()
            .filter(|(_, member)| is_silent(member))
            .map(|(worker, _)| worker.clone())
            .collect();
        for worker in &silent {
            self.members.remove(worker);
        }
        silent
    }

    /// The workers as jobs see them.
    pub fn workers(&self) -> Workers {
        let handles = self
            .members
            .iter()
            .map(|(worker, member)| (worker.clone(), member.handle.clone()));
        Arc::new(handles.collect())
    }

    /// All that is known.
    pub fn members(&self) -> &BTreeMap<WorkerId, Member> {
        &self.members
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(worker: &str) -> WorkerHello {
        WorkerHello {
            worker: worker.into(),
            flight_address: "127.0.0.1:1".to_owned(),
            slots: 0,
            version: "0".to_owned(),
            held: Vec::new(),
            is_leaving: false,
        }
    }

    fn join(registry: &mut Registry, worker: &str, now: Duration) -> u64 {
        registry.join(hello(worker), mpsc::channel(1).0, now).number
    }

    #[test]
    fn a_session_that_does_not_count_any_more_ends_its_stream() {
        let mut registry = Registry::default();
        let mut join = || registry.join(hello("w"), mpsc::channel(1).0, Duration::ZERO);
        let (mut old, mut new) = (join(), join());
        let is_over = |session: &mut Session| {
            session.over.try_recv() == Err(oneshot::error::TryRecvError::Closed)
        };
        assert!(is_over(&mut old) && !is_over(&mut new));
        assert!(registry.expire(SILENCE_MAX).is_empty());
        let lost = registry.expire(SILENCE_MAX + Duration::from_millis(1));
        assert_eq!(lost, ["w".into()]);
        assert!(is_over(&mut new));
    }

    #[test]
    fn a_silent_worker_is_lost_and_a_speaking_one_is_not() {
        let mut registry = Registry::default();
        join(&mut registry, "silent", Duration::ZERO);
        let session = join(&mut registry, "speaking", Duration::ZERO);
        assert!(registry.heard(&"speaking".into(), session, SILENCE_MAX));
        assert!(registry.expire(SILENCE_MAX).is_empty());
        let lost = registry.expire(SILENCE_MAX + Duration::from_millis(1));
        assert_eq!(lost, ["silent".into()]);
    }

    #[test]
    fn a_master_that_was_asleep_gives_everybody_the_whole_time_again() {
        let mut registry = Registry::default();
        join(&mut registry, "w", Duration::ZERO);
        let woken = SILENCE_MAX * 5;
        assert!(registry.expire(woken).is_empty());
        assert!(registry.expire(woken + SILENCE_MAX).is_empty());
        let later = woken + SILENCE_MAX + Duration::from_millis(1);
        assert_eq!(registry.expire(later), ["w".into()]);
    }

    #[test]
    fn the_end_of_an_old_session_does_not_remove_the_new_one() {
        let mut registry = Registry::default();
        let old = join(&mut registry, "w", Duration::ZERO);
        let new = join(&mut registry, "w", Duration::ZERO);
        assert!(!registry.leave(&"w".into(), old));
        assert!(!registry.heard(&"w".into(), old, Duration::ZERO));
        assert_eq!(registry.workers().len(), 1);
        assert!(registry.leave(&"w".into(), new));
        assert!(registry.workers().is_empty());
    }

    #[test]
    fn a_leaving_worker_that_joins_again_is_leaving_still_and_the_jobs_are_asked_again() {
        let mut registry = Registry::default();
        let jobs = ["clicks".into()];
        let old = join(&mut registry, "w", Duration::ZERO);
        assert!(registry.begin_leaving(&"w".into()));
        registry.vacated(&"w".into(), old, "clicks".into());
        assert_eq!(registry.release(jobs.iter()).len(), 1);
        let again = WorkerHello {
            is_leaving: true,
            ..hello("w")
        };
        let new = registry.join(again, mpsc::channel(1).0, Duration::ZERO);
        assert!(registry.workers()[&WorkerId::from("w")].is_leaving && !registry.has_active());
        registry.vacated(&"w".into(), old, "clicks".into());
        assert!(registry.release(jobs.iter()).is_empty(), "an old session");
        registry.vacated(&"w".into(), new.number, "clicks".into());
        assert_eq!(registry.release(jobs.iter()).len(), 1);
        assert!(!registry.begin_leaving(&"unknown".into()));
    }

    #[test]
    fn every_worker_has_at_least_one_slot() {
        let mut registry = Registry::default();
        join(&mut registry, "w", Duration::ZERO);
        assert_eq!(registry.workers()[&WorkerId::from("w")].slots, 1);
    }
}
