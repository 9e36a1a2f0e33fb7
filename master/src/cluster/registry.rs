//! The workers that have joined, and when they were last heard of.
//!
//! Pure; owned by the supervisor's actor. A worker joins with a session of its own; when its process joins again, the
//! first session ends, so frames and losses of the old one do not count (INV-4). Another process under its name is refused while
//! it lives: the two would throw each other out for ever. How long a silence is a loss: `patience.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millstream_common::ids::{JobName, WorkerId};
use millstream_common::link::{ToWorker, WorkerHello};
use tokio::sync::{mpsc, oneshot};

use super::leaving::Leaving;
use super::patience::{Patience, SILENCE_MAX};
use crate::job::job_actor::{WorkerHandle, Workers};

/// Workers send one this often.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(300);

/// The registry.
#[derive(Debug, Default)]
pub struct Registry {
    members: BTreeMap<WorkerId, Member>,
    sessions_opened: u64,
    patience: Patience,
    /// When silence was last looked for, monotonic.
    looked_at: Duration,
}

/// A session that has begun.
#[derive(Debug)]
pub struct Session {
    /// Its number.
    pub number: u64,
    /// Why the session does not count any more, once it does not: its stream has to end then, or a worker that
    /// was only slow would never learn that it is to join again. Without a reason the master itself has ended.
    pub over: oneshot::Receiver<String>,
}

/// Why a worker may not join.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "another worker of the name {worker} has joined, which other workers reach at {flight_address}: start this one with \
     another --name, or end that one first"
)]
pub struct NameTaken {
    /// The name.
    pub worker: WorkerId,
    /// Where the other one is.
    pub flight_address: String,
}

/// A worker and what is known of it.
#[derive(Debug)]
pub struct Member {
    /// What jobs use.
    pub handle: WorkerHandle,
    /// Unique to its process.
    process: String,
    /// Of its program.
    pub version: String,
    /// When it joined, monotonic.
    pub joined_at: Duration,
    /// When it was last heard of, monotonic.
    pub heard_at: Duration,
    /// It goes, or is to be idle; its handle says so too.
    pub leaving: Option<Leaving>,
    /// Ends the session's stream.
    over: oneshot::Sender<String>,
}

impl Registry {
    /// Takes a worker in. One whose name belongs to another process that is not silent is refused; it dials on, and is let in
    /// when the other one is gone.
    pub fn join(
        &mut self,
        hello: WorkerHello,
        frames: mpsc::Sender<ToWorker>,
        now: Duration,
    ) -> Result<Session, NameTaken> {
        let known = self.members.get(&hello.worker);
        let is_other = |known: &&Member| known.process != hello.process;
        let is_alive = |known: &&Member| now.saturating_sub(known.heard_at) <= SILENCE_MAX;
        if let Some(other) = known.filter(is_other).filter(is_alive) {
            return Err(NameTaken {
                flight_address: other.handle.flight_address.clone(),
                worker: hello.worker,
            });
        }
        self.patience.joined(&hello.process);
        self.sessions_opened += 1;
        let (sender, over) = oneshot::channel();
        let member = Member {
            handle: WorkerHandle {
                session: self.sessions_opened,
                slots: hello.slots.max(1),
                flight_address: hello.flight_address,
                held: hello.held.into(),
                is_leaving: hello.is_leaving,
                heard_us: Arc::new(AtomicU64::new(now.as_micros() as u64)),
                frames,
            },
            process: hello.process,
            version: hello.version,
            joined_at: now,
            heard_at: now,
            over: sender,
            leaving: hello.is_leaving.then(Leaving::default),
        };
        if let Some(before) = self.members.insert(hello.worker, member) {
            before.end("the worker has joined anew");
        }
        Ok(Session {
            number: self.sessions_opened,
            over,
        })
    }

    /// Notes a sign of life; false if the session is not the worker's newest.
    pub fn heard(&mut self, worker: &WorkerId, session: u64, now: Duration) -> bool {
        match self.members.get_mut(worker) {
            Some(member) if member.handle.session == session => {
                member.heard_at = now;
                let heard_us = now.as_micros() as u64;
                member.handle.heard_us.store(heard_us, Ordering::Relaxed);
                true
            }
            _ => false,
        }
    }

    /// Ends the session of a worker, which is told the reason if it listens; false if the session is not its newest.
    pub fn end(&mut self, worker: &WorkerId, session: u64, reason: &str) -> bool {
        let member = self.members.get(worker);
        let is_newest = member.is_some_and(|member| member.handle.session == session);
        if is_newest && let Some(member) = self.members.remove(worker) {
            member.end(reason);
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
        let mut lost = Vec::new();
        let patience = &mut self.patience;
        let is_silent = |_: &WorkerId, member: &mut Member| {
            let silence = now.saturating_sub(member.heard_at);
            silence > patience.silence_max(&member.process, now)
        };
        for (worker, member) in self.members.extract_if(.., is_silent) {
            let silence = now.saturating_sub(member.heard_at);
            lost.push((worker, member.process.clone()));
            member.end(&format!("nothing was heard of it for {silence:?}"));
        }
        for (_, process) in &lost {
            self.patience.lost(process, now);
        }
        lost.into_iter().map(|(worker, _)| worker).collect()
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

impl Member {
    fn end(self, reason: &str) {
        // A stream that has ended by itself needs no reason.
        let _ = self.over.send(reason.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(worker: &str, process: &str) -> WorkerHello {
        WorkerHello {
            worker: worker.into(),
            process: process.to_owned(),
            flight_address: format!("{process}:7080"),
            slots: 0,
            version: "0".to_owned(),
            held: Vec::new(),
            is_leaving: false,
        }
    }

    /// The process of a name that has one.
    fn join(registry: &mut Registry, worker: &str, now: Duration) -> Session {
        join_from(registry, worker, worker, now).expect("the name is its own")
    }

    fn join_from(
        registry: &mut Registry,
        worker: &str,
        process: &str,
        now: Duration,
    ) -> Result<Session, NameTaken> {
        registry.join(hello(worker, process), mpsc::channel(1).0, now)
    }

    const SHORT: Duration = Duration::from_millis(1);

    #[test]
    fn a_session_that_does_not_count_any_more_ends_its_stream_and_says_why() {
        let mut registry = Registry::default();
        let (mut old, mut new) = (
            join(&mut registry, "w", Duration::ZERO),
            join(&mut registry, "w", Duration::ZERO),
        );
        assert!(old.over.try_recv().expect("over").contains("joined anew"));
        assert!(new.over.try_recv().is_err());
        assert!(registry.expire(SILENCE_MAX).is_empty());
        let lost = registry.expire(SILENCE_MAX + SHORT);
        assert_eq!(lost, ["w".into()]);
        assert!(new.over.try_recv().expect("over").contains("901ms"));
    }

    #[test]
    fn a_silent_worker_is_lost_and_a_speaking_one_is_not() {
        let mut registry = Registry::default();
        join(&mut registry, "silent", Duration::ZERO);
        let session = join(&mut registry, "speaking", Duration::ZERO).number;
        assert!(registry.heard(&"speaking".into(), session, SILENCE_MAX));
        assert!(registry.expire(SILENCE_MAX).is_empty());
        let lost = registry.expire(SILENCE_MAX + SHORT);
        assert_eq!(lost, ["silent".into()]);
    }

    #[test]
    fn a_process_that_was_lost_for_its_silence_is_given_longer_and_others_once_it_is_back() {
        let mut registry = Registry::default();
        join_from(&mut registry, "w", "starved", Duration::ZERO).expect("free");
        registry.expire(SILENCE_MAX);
        let mut now = SILENCE_MAX + SHORT;
        assert_eq!(registry.expire(now), ["w".into()]);
        join_from(&mut registry, "w", "new", now).expect("free");
        now += SILENCE_MAX;
        assert!(registry.expire(now).is_empty());
        now += SHORT;
        assert_eq!(registry.expire(now), ["w".into()]);
        join_from(&mut registry, "w", "starved", now).expect("free");
        join_from(&mut registry, "v", "newer", now).expect("free");
        for _ in 0..2 {
            now += SILENCE_MAX;
            assert!(registry.expire(now).is_empty());
        }
        now += SHORT;
        assert_eq!(registry.expire(now), ["v".into(), "w".into()]);
    }

    #[test]
    fn of_two_processes_of_one_name_the_second_is_refused_until_the_first_is_silent_or_gone() {
        let mut registry = Registry::default();
        let mut first = join_from(&mut registry, "w", "one", Duration::ZERO).expect("free");
        let refused = join_from(&mut registry, "w", "two", SILENCE_MAX).expect_err("taken");
        let told = refused.to_string();
        assert!(
            told.contains("one:7080") && told.contains("--name"),
            "{told}"
        );
        assert!(first.over.try_recv().is_err(), "the first goes on");
        assert!(registry.end(&"w".into(), first.number, "its stream has ended"));
        let second = join_from(&mut registry, "w", "two", SILENCE_MAX).expect("free");
        let silent = SILENCE_MAX * 2 + SHORT;
        let third = join_from(&mut registry, "w", "three", silent).expect("the link is dead");
        assert!(second.number < third.number);
    }

    #[test]
    fn a_master_that_was_asleep_gives_everybody_the_whole_time_again() {
        let mut registry = Registry::default();
        join(&mut registry, "w", Duration::ZERO);
        let woken = SILENCE_MAX * 5;
        assert!(registry.expire(woken).is_empty());
        assert!(registry.expire(woken + SILENCE_MAX).is_empty());
        let later = woken + SILENCE_MAX + SHORT;
        assert_eq!(registry.expire(later), ["w".into()]);
    }

    #[test]
    fn the_end_of_an_old_session_does_not_remove_the_new_one() {
        let mut registry = Registry::default();
        let old = join(&mut registry, "w", Duration::ZERO).number;
        let new = join(&mut registry, "w", Duration::ZERO).number;
        assert!(!registry.end(&"w".into(), old, "left"));
        assert!(!registry.heard(&"w".into(), old, Duration::ZERO));
        assert_eq!(registry.workers().len(), 1);
        assert!(registry.end(&"w".into(), new, "left"));
        assert!(registry.workers().is_empty());
    }

    #[test]
    fn a_leaving_worker_that_joins_again_is_leaving_still_and_the_jobs_are_asked_again() {
        let mut registry = Registry::default();
        let jobs = ["clicks".into()];
        let old = join(&mut registry, "w", Duration::ZERO).number;
        assert!(registry.begin_leaving(&"w".into()));
        registry.vacated(&"w".into(), old, "clicks".into());
        assert_eq!(registry.release(jobs.iter()).len(), 1);
        let again = WorkerHello {
            is_leaving: true,
            ..hello("w", "w")
        };
        let new = registry.join(again, mpsc::channel(1).0, Duration::ZERO);
        let new = new.expect("the same process").number;
        assert!(registry.workers()[&WorkerId::from("w")].is_leaving && !registry.has_active());
        registry.vacated(&"w".into(), old, "clicks".into());
        assert!(registry.release(jobs.iter()).is_empty(), "an old session");
        registry.vacated(&"w".into(), new, "clicks".into());
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
