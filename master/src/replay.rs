//! Folds the log into the jobs it tells of: what a starting master begins with.
//!
//! Called by the trail of a master (`reign/trail.rs`) and by the supervisor when a job's actor has failed. Pure. Failure: an Epoch entry that breaks its
//! job's chain, which no master of ours can have written.

use std::collections::BTreeMap;

use millstream_common::ids::{Generation, Incarnation, JobName, Seq, Term};
use millstream_common::log::entry::{
    Assignment, BrokenChain, JobEnd, JobEntry, JobProgress, generation_of,
};
use millstream_common::log::savepoint::{Savepoint, Savepoints};
use millstream_common::log::{Entry, LogObject};
use serde::{Deserialize, Serialize};

use crate::job::reattach::Lasting;
use crate::letters::index::Letters;

/// A job as the log tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplayedJob {
    /// As submitted, in its newest life.
    pub entry: JobEntry,
    /// What its epochs came to.
    pub progress: JobProgress,
    /// How it ended, unless it is to go on.
    pub end: Option<JobEnd>,
    /// Of its newest assignment: an epoch of an older one does not count (INV-4).
    pub generation: Generation,
    /// Its newest assignment, unless it has ended since.
    pub assignment: Option<Assignment>,
    /// Its dead letters that are kept.
    #[serde(default)]
    pub letters: Letters,
    /// Its checkpoints that are kept by name, over all its lives.
    #[serde(default)]
    pub savepoints: Savepoints,
}

impl ReplayedJob {
    /// What workers may have kept of it.
    pub(crate) fn lasting(&self) -> Option<Lasting> {
        let assignment = self.assignment.clone()?;
        Some(Lasting {
            incarnation: self.entry.incarnation,
            generation: self.generation,
            assignment,
        })
    }
}

/// Jobs by name, as far as the log has been read.
pub type ReplayedJobs = BTreeMap<JobName, ReplayedJob>;

/// What the log comes to, folded object by object.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Replay {
    /// The last position folded.
    pub through: Seq,
    /// The newest term; an object of an older one does not count (INV-4).
    pub term: Term,
    /// The jobs.
    pub jobs: ReplayedJobs,
}

impl Replay {
    /// Folds the object at the next position.
    pub fn take(&mut self, seq: Seq, object: &LogObject) -> Result<(), BrokenChain> {
        self.through = seq;
        if object.term < self.term {
            return Ok(());
        }
        self.term = object.term;
        let mut entries = object.entries.iter();
        entries.try_for_each(|entry| apply(&mut self.jobs, seq, entry))
    }
}

/// The jobs that canonical `entries` tell of.
pub fn replay<'a>(
    entries: impl IntoIterator<Item = (Seq, &'a Entry)>,
) -> Result<ReplayedJobs, BrokenChain> {
    let mut jobs = ReplayedJobs::new();
    for (seq, entry) in entries {
        apply(&mut jobs, seq, entry)?;
    }
    Ok(jobs)
}

/// Folds the next canonical entry in.
pub fn apply(jobs: &mut ReplayedJobs, seq: Seq, entry: &Entry) -> Result<(), BrokenChain> {
    match entry {
        Entry::Fence { .. } => {}
        Entry::Assign(assign) => {
            if let Some(job) = living(jobs, &assign.job, assign.incarnation) {
                job.generation = generation_of(seq);
                job.assignment = Some(assign.assignment.clone());
            }
        }
        Entry::Job(job) => {
            begin(jobs, job.as_ref().clone(), JobProgress::default());
        }
        Entry::Carried(carried) => begin(jobs, carried.job.clone(), carried.progress.clone()),
        Entry::Savepoint(kept) => {
            let job = living(jobs, &kept.job, kept.incarnation);
            if let Some(job) = job.filter(|job| job.progress.epoch == kept.epoch) {
                let savepoint = Savepoint::of(&job.entry, &job.progress, kept.made_at_us);
                job.savepoints.entry(kept.name.clone()).or_insert(savepoint);
            }
        }
        Entry::SavepointDropped { job, name } => {
            if let Some(job) = jobs.get_mut(job) {
                job.savepoints.remove(name);
            }
        }
        Entry::Epoch(epoch) => {
            let job = living(jobs, &epoch.job, epoch.incarnation);
            if let Some(job) = job.filter(|job| job.generation == epoch.generation) {
                job.progress.apply(epoch)?;
                job.letters.note(&job.entry.plan, epoch);
                job.progress.note_delivered(job.entry.plan.sinks.len());
            }
        }
        Entry::Ended {
            job,
            incarnation,
            end,
        } => {
            if let Some(job) = living(jobs, job, *incarnation) {
                job.end = Some(end.clone());
                job.assignment = None;
            }
        }
        Entry::Replay(replay) => {
            if let Some(job) = living(jobs, &replay.job, replay.incarnation) {
                let (split, object) = (replay.split.clone(), replay.object.clone());
                job.progress.add_replay(replay.source, split, object);
            }
        }
        Entry::Backlog {
            job,
            incarnation,
            part,
        } => {
            if let Some(job) = living(jobs, job, *incarnation) {
                job.progress.fold(part);
            }
        }
        Entry::SinkCommanded {
            job,
            incarnation,
            sink,
            command,
            by_quota,
        } => {
            if let Some(job) = living(jobs, job, *incarnation) {
                job.progress.command_sink(*sink, *command, *by_quota);
            }
        }
        Entry::SinkRewound {
            job,
            incarnation,
            sink,
            to,
        } => {
            if let Some(job) = living(jobs, job, *incarnation) {
                job.progress.rewind_sink(*sink, *to, seq);
            }
        }
        Entry::Forgotten {
            job,
            incarnation,
            through,
        } => {
            if let Some(job) = living(jobs, job, *incarnation) {
                job.progress.forget(*through);
            }
        }
        Entry::Resumed { job, incarnation } => {
            if let Some(job) = living(jobs, job, *incarnation) {
                job.end = None;
            }
        }
    }
    Ok(())
}

/// A job begins, or goes on under another plan. Its savepoints stay. Epochs of assignments of before do not count.
fn begin(jobs: &mut ReplayedJobs, entry: JobEntry, progress: JobProgress) {
    let old = jobs.remove(&entry.job);
    let same_life = old
        .as_ref()
        .filter(|old| old.entry.incarnation == entry.incarnation);
    let replayed = ReplayedJob {
        // Outputs keep their numbers under every plan of a life.
        letters: same_life.map_or_else(Letters::default, |old| old.letters.clone()),
        progress,
        end: None,
        generation: Generation::default(),
        assignment: None,
        savepoints: old.map(|old| old.savepoints).unwrap_or_default(),
        entry,
    };
    jobs.insert(replayed.entry.job.clone(), replayed);
}

/// The job, if this is its newest life.
fn living<'a>(
    jobs: &'a mut ReplayedJobs,
    job: &JobName,
    incarnation: Incarnation,
) -> Option<&'a mut ReplayedJob> {
    let job = jobs.get_mut(job);
    job.filter(|job| job.entry.incarnation == incarnation)
}

#[cfg(test)]
mod tests {
    use millstream_common::control::SinkCommand;
    use millstream_common::ids::{Epoch, SinkIndex};
    use millstream_common::log::entry::{AssignEntry, EpochEntry};
    use millstream_common::log::savepoint::{CarriedEntry, SavepointEntry};
    use millstream_common::plan::{JobPlan, JobSettings, LetterRetention};

    use super::*;

    const SINKLESS: JobPlan = JobPlan {
        settings: JobSettings {
            checkpoint_interval_ms: 1,
            restart_budget: 1,
            restart_window_ms: 1,
            dead_letters: LetterRetention::DEFAULT,
            segment_retention_ms: None,
        },
        sources: Vec::new(),
        stages: Vec::new(),
        outputs: Vec::new(),
        sinks: Vec::new(),
    };

    fn job(incarnation: Incarnation) -> Entry {
        Entry::Job(Box::new(JobEntry {
            job: "clicks".into(),
            incarnation,
            sql: String::new(),
            plan: SINKLESS,
            submitted_at_us: 0,
        }))
    }

    fn assign(incarnation: Incarnation) -> Entry {
        Entry::Assign(Box::new(AssignEntry {
            job: "clicks".into(),
            incarnation,
            restore_from: Epoch(0),
            assignment: Assignment::default(),
        }))
    }

    fn epoch(incarnation: Incarnation, number: u64, generation: u64) -> Entry {
        Entry::Epoch(Box::new(EpochEntry {
            job: "clicks".into(),
            incarnation,
            epoch: Epoch(number),
            parent: Epoch(number - 1),
            committed_at_us: 0,
            generation: Generation(generation),
            splits: BTreeMap::new(),
            watermarks: BTreeMap::new(),
            parts: BTreeMap::new(),
            segments: Vec::new(),
            counters: BTreeMap::new(),
            flows: BTreeMap::new(),
            sink_markers: BTreeMap::new(),
            refused: Vec::new(),
            dropped: BTreeMap::new(),
            drained: false,
            without_barrier: false,
        }))
    }

    fn replayed(entries: &[Entry]) -> ReplayedJob {
        let numbered = entries
            .iter()
            .enumerate()
            .map(|(index, entry)| (Seq(index as u64 + 1), entry));
        let mut jobs = replay(numbered).expect("a chain");
        jobs.remove(&JobName::from("clicks")).expect("the job")
    }

    #[test]
    fn an_epoch_of_an_older_assignment_does_not_count() {
        let life = Incarnation::fresh();
        let entries = [
            job(life),
            assign(life),
            epoch(life, 1, 2),
            assign(life),
            epoch(life, 2, 2),
            epoch(life, 2, 4),
        ];
        let job = replayed(&entries);
        assert_eq!(job.progress.epoch, Epoch(2));
        assert_eq!(job.generation, Generation(4));
    }

    #[test]
    fn a_new_life_forgets_the_old_ones_epochs() {
        let (old, new) = (Incarnation::fresh(), Incarnation::fresh());
        let entries = [
            job(old),
            assign(old),
            epoch(old, 1, 2),
            job(new),
            epoch(old, 2, 2),
        ];
        let job = replayed(&entries);
        assert_eq!(job.entry.incarnation, new);
        assert_eq!(job.progress.epoch, Epoch(0));
    }

    #[test]
    fn a_resumed_job_has_not_ended() {
        let life = Incarnation::fresh();
        let ended = Entry::Ended {
            job: "clicks".into(),
            incarnation: life,
            end: JobEnd::Stopped,
        };
        assert_eq!(
            replayed(&[job(life), ended.clone()]).end,
            Some(JobEnd::Stopped)
        );
        let resumed = Entry::Resumed {
            job: "clicks".into(),
            incarnation: life,
        };
        assert_eq!(replayed(&[job(life), ended, resumed]).end, None);
    }

    #[test]
    fn a_pause_of_a_sink_holds_over_a_stop_and_in_a_boundary_until_it_is_resumed_or_the_life_ends()
    {
        let life = Incarnation::fresh();
        let sink = SinkIndex(1);
        let commanded = |command| Entry::SinkCommanded {
            job: "clicks".into(),
            incarnation: life,
            sink,
            command,
            by_quota: false,
        };
        let ended = Entry::Ended {
            job: "clicks".into(),
            incarnation: life,
            end: JobEnd::Stopped,
        };
        let resumed = Entry::Resumed {
            job: "clicks".into(),
            incarnation: life,
        };
        let paused = [job(life), commanded(SinkCommand::Pause), ended, resumed];
        let replayed_job = replayed(&paused);
        let folded = serde_json::to_vec(&replayed_job).expect("plain data");
        let folded: ReplayedJob = serde_json::from_slice(&folded).expect("plain data");
        for found in [replayed_job, folded] {
            assert_eq!(found.progress.paused_sinks, [sink].into());
        }
        for end in [commanded(SinkCommand::Resume), job(Incarnation::fresh())] {
            let entries = paused.iter().cloned().chain([end]).collect::<Vec<_>>();
            assert!(replayed(&entries).progress.paused_sinks.is_empty());
        }
    }

    #[test]
    fn only_the_newest_assignment_of_a_job_that_has_not_ended_may_go_on() {
        let life = Incarnation::fresh();
        let ended = Entry::Ended {
            job: "clicks".into(),
            incarnation: life,
            end: JobEnd::Stopped,
        };
        let resumed = Entry::Resumed {
            job: "clicks".into(),
            incarnation: life,
        };
        let lasting = replayed(&[job(life), assign(life), assign(life)]).lasting();
        let lasting = lasting.expect("an assignment");
        assert_eq!(
            (lasting.incarnation, lasting.generation),
            (life, Generation(3))
        );
        let over = replayed(&[job(life), assign(life), ended, resumed]);
        assert!(over.lasting().is_none());
    }

    #[test]
    fn a_savepoint_is_of_its_epoch_whatever_comes_behind_and_outlives_its_life() {
        let life = Incarnation::fresh();
        let kept = |number, name: &str| {
            Entry::Savepoint(SavepointEntry {
                job: "clicks".into(),
                incarnation: life,
                epoch: Epoch(number),
                name: name.to_owned(),
                made_at_us: 5,
            })
        };
        let mut entries = vec![
            job(life),
            assign(life),
            epoch(life, 1, 2),
            kept(1, "first"),
            epoch(life, 2, 2),
            kept(1, "not of the newest"),
            kept(2, "first"),
        ];
        let savepoints = replayed(&entries).savepoints;
        assert_eq!(savepoints.keys().collect::<Vec<_>>(), ["first"]);
        assert_eq!(savepoints["first"].progress.epoch, Epoch(1));
        entries.push(job(Incarnation::fresh()));
        assert_eq!(replayed(&entries).savepoints, savepoints);
        entries.push(Entry::SavepointDropped {
            job: "clicks".into(),
            name: "first".to_owned(),
        });
        assert!(replayed(&entries).savepoints.is_empty());
    }

    #[test]
    fn a_job_that_goes_on_under_another_plan_begins_with_what_was_carried_and_no_older_assignment()
    {
        let life = Incarnation::fresh();
        let progress = JobProgress {
            epoch: Epoch(1),
            ..JobProgress::default()
        };
        let Entry::Job(other) = job(life) else {
            panic!("a job");
        };
        let carried = Entry::Carried(Box::new(CarriedEntry {
            job: JobEntry {
                sql: "other".to_owned(),
                ..*other
            },
            progress,
        }));
        let entries = [
            job(life),
            assign(life),
            epoch(life, 1, 2),
            carried,
            epoch(life, 2, 2),
            assign(life),
            epoch(life, 2, 6),
        ];
        let before = replayed(&entries[..5]);
        assert_eq!(before.progress.epoch, Epoch(1), "of an assignment before");
        assert!(before.assignment.is_none());
        let after = replayed(&entries);
        assert_eq!(
            (after.progress.epoch, after.entry.sql.as_str()),
            (Epoch(2), "other")
        );
    }
}
