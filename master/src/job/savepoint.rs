//! Savepoints: epochs of the job that are kept by name.
//!
//! Called by `job_actor.rs` and `commit.rs`. A savepoint is of the epoch that the next barrier ends; where nothing runs, or nothing has changed,
//! it is of the last one. It is named in the log behind its epoch and before the next, so that who reads the log knows what it was; the
//! supervisor is told, for submissions that go on from one. Where such a submission could come between, the entry goes through the
//! supervisor, which hands both to the log: one is dropped, or made of a job that has ended, before a submission or not at all, and
//! no state is collected that an entry on its way names (INV-8). Failure: a name that is taken, wrong or unknown is refused, and so is a
//! savepoint of a job that has no epoch yet, or has read everything: nobody could go on from there.

use std::collections::BTreeSet;

use millstream_common::control::{ControlError, LATEST, SavepointView};
use millstream_common::ids::Epoch;
use millstream_common::log::Entry;
use millstream_common::log::savepoint::{Savepoint, SavepointEntry, Savepoints};
use millstream_common::suggest::nearest;
use ractor::RpcReplyPort;
use tracing::info;

use super::job_actor::{JobState, Phase};
use super::lifecycle::Handled;
use super::recorded::Recorded;
use crate::supervisor::supervisor_actor::{SupervisorMessage, answer};

/// Whoever asked.
pub(super) type Reply = RpcReplyPort<Result<SavepointView, ControlError>>;

const NAME_CHARS_MAX: usize = 64;

/// The savepoints of a job.
#[derive(Default)]
pub(super) struct Kept {
    known: Savepoints,
    /// Asked for, until the next epoch.
    waiting: Vec<(Option<String>, Reply)>,
    /// On their way into the log, or out of it.
    recording: BTreeSet<String>,
}

impl Kept {
    /// Those that the log tells of.
    pub(super) fn of(known: Savepoints) -> Self {
        Self {
            known,
            ..Self::default()
        }
    }
}

impl JobState {
    pub(super) fn create_savepoint(&mut self, name: Option<String>, reply: Reply) -> Handled {
        if let Some(refusal) = name.as_deref().and_then(|name| self.refuse_name(name)) {
            answer(reply, Err(refusal));
            return Ok(());
        }
        self.savepoints.waiting.push((name, reply));
        match self.phase {
            // Behind the next barrier, or behind the one that is under way.
            Phase::Running => self.barrier_due(),
            _ if self.committing => Ok(()),
            _ => self.keep_savepoints(),
        }
    }

    fn refuse_name(&self, name: &str) -> Option<ControlError> {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_well_formed = (1..=NAME_CHARS_MAX).contains(&name.len())
            && name.bytes().all(is_good)
            && !name.bytes().all(|byte| byte.is_ascii_digit())
            && name != LATEST;
        let kept = &self.savepoints;
        let job = &self.entry.job;
        let mut waiting = kept.waiting.iter();
        if !is_well_formed {
            return Some(ControlError::Invalid(format!(
                "a savepoint's name is 1 to {NAME_CHARS_MAX} letters, digits, '-' and '_', with another than digits, and not {LATEST:?}: {name:?} is not"
            )));
        }
        if let Some(known) = kept.known.get(name) {
            return Some(ControlError::Invalid(format!(
                "job {job} has savepoint {name} of epoch {} already; choose another name, or drop it first (`millstream savepoint drop {job} {name}`)",
                known.progress.epoch
            )));
        }
        let is_coming = kept.recording.contains(name)
            || waiting.any(|(other, _)| other.as_deref() == Some(name));
        is_coming.then(|| busy(job.as_str(), name))
    }

    /// An epoch is committed, or nothing has changed since the last: it is what was asked for.
    pub(super) fn keep_savepoints(&mut self) -> Handled {
        for (name, reply) in std::mem::take(&mut self.savepoints.waiting) {
            let epoch = self.progress.epoch;
            if let Some(refusal) = self.nothing_to_keep() {
                answer(reply, Err(refusal));
                continue;
            }
            let name = name.unwrap_or_else(|| format!("savepoint-{epoch}"));
            if let Some(known) = self.savepoints.known.get(&name) {
                // Asked for twice, without a name, in one epoch.
                answer(reply, Ok(SavepointView::of(&name, known)));
                continue;
            }
            if !self.savepoints.recording.insert(name.clone()) {
                answer(reply, Err(busy(self.entry.job.as_str(), &name)));
                continue;
            }
            let made_at_us = self.clock.unix_micros();
            let entry = SavepointEntry {
                job: self.entry.job.clone(),
                incarnation: self.entry.incarnation,
                epoch,
                name: name.clone(),
                made_at_us,
            };
            let savepoint = Savepoint::of(&self.entry, &self.progress, made_at_us);
            let savepoint = Box::new(savepoint);
            let recorded = Recorded::Savepoint {
                name,
                savepoint,
                reply,
            };
            match self.is_over() {
                true => self.pass_on(Entry::Savepoint(entry), recorded)?,
                false => self.append(Entry::Savepoint(entry), recorded)?,
            }
        }
        Ok(())
    }

    /// Why nobody could go on from the last epoch.
    fn nothing_to_keep(&self) -> Option<ControlError> {
        let (job, epoch) = (&self.entry.job, self.progress.epoch);
        let cause = if epoch == Epoch::default() {
            format!("job {job} has committed no epoch yet: there is nothing to keep")
        } else if self.progress.drained {
            format!(
                "job {job} has read everything up to epoch {epoch}: nothing could go on from there"
            )
        } else {
            return None;
        };
        Some(ControlError::Invalid(cause))
    }

    pub(super) fn savepoint_recorded(
        &mut self,
        name: String,
        savepoint: Savepoint,
        reply: Reply,
    ) -> Handled {
        info!(job = %self.entry.job, savepoint = %name, epoch = %savepoint.progress.epoch, "savepoint");
        self.savepoints.recording.remove(&name);
        answer(reply, Ok(SavepointView::of(&name, &savepoint)));
        self.savepoints.known.entry(name).or_insert(savepoint);
        match self.is_over() {
            // It has passed this one on.
            true => Ok(()),
            false => self.tell_savepoints(),
        }
    }

    pub(super) fn drop_savepoint(&mut self, name: String, reply: Reply) -> Handled {
        let Some(dropped) = self.savepoints.known.remove(&name) else {
            let unknown = unknown(self.entry.job.as_str(), &name, &self.savepoints.known);
            answer(reply, Err(unknown));
            return Ok(());
        };
        let view = Box::new(SavepointView::of(&name, &dropped));
        self.savepoints.recording.insert(name.clone());
        let entry = Entry::SavepointDropped {
            job: self.entry.job.clone(),
            name,
        };
        self.pass_on(entry, Recorded::SavepointDropped { view, reply })
    }

    pub(super) fn savepoint_dropped(&mut self, view: SavepointView, reply: Reply) -> Handled {
        self.savepoints.recording.remove(&view.name);
        self.answer(reply, |_| Ok(view))
    }

    /// To the log, in one queue with the submissions that go on from a savepoint.
    fn pass_on(&self, entry: Entry, recorded: Recorded) -> Handled {
        self.supervisor.cast(SupervisorMessage::RecordSavepoint {
            job: self.entry.job.clone(),
            actor: self.myself.clone(),
            entry: Box::new(entry),
            recorded: Box::new(recorded),
        })?;
        Ok(())
    }

    pub(super) fn savepoint_views(&self) -> Vec<SavepointView> {
        let known = self.savepoints.known.iter();
        let mut views: Vec<SavepointView> = known
            .map(|(name, savepoint)| SavepointView::of(name, savepoint))
            .collect();
        views.sort_by_key(|view| (view.made_at_us, view.epoch));
        views
    }

    fn tell_savepoints(&self) -> Handled {
        self.supervisor.cast(SupervisorMessage::SavepointsChanged {
            job: self.entry.job.clone(),
            savepoints: Box::new(self.savepoints.known.clone()),
        })?;
        Ok(())
    }
}

fn busy(job: &str, name: &str) -> ControlError {
    ControlError::Invalid(format!(
        "savepoint {name} of job {job} is being made or dropped"
    ))
}

/// There is no savepoint of that name.
pub(crate) fn unknown(job: &str, name: &str, known: &Savepoints) -> ControlError {
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    let hint = match (nearest(name, names.iter().copied()), names.as_slice()) {
        (Some(nearest), _) => format!("did you mean {nearest}?"),
        (None, []) => format!("it has none; `millstream savepoint {job}` makes one"),
        (None, names) => format!("it has {}", names.join(", ")),
    };
    ControlError::Invalid(format!("job {job} has no savepoint {name}: {hint}"))
}
