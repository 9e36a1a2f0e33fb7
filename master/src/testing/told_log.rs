//! A log that a test writes entry by entry: one life of one job, its assignments and its epochs.

use millstream_common::ids::{Epoch, Generation, Incarnation, JobName, Seq, Term};
use millstream_common::log::entry::{AssignEntry, Assignment, EpochEntry, JobEntry, generation_of};
use millstream_common::log::{self, Appended, Entry, LogObject};
use millstream_common::store::StoreRef;

use super::plan;

/// A log with a job that was assigned.
pub(crate) struct ToldLog {
    pub(crate) store: StoreRef,
    pub(crate) job: JobName,
    pub(crate) life: Incarnation,
    /// Of the master that writes.
    pub(crate) term: Term,
    /// Of the newest assignment.
    pub(crate) generation: Generation,
    /// The last one.
    pub(crate) epoch: Epoch,
    seq: Seq,
}

impl ToldLog {
    /// Begins a log with the job of that SQL.
    pub(crate) async fn begin(store: StoreRef, job: &str, sql: &str) -> Self {
        let mut told = Self {
            store,
            job: job.into(),
            life: Incarnation::fresh(),
            term: Term(1),
            generation: Generation(0),
            epoch: Epoch(0),
            seq: Seq(0),
        };
        let entry = JobEntry {
            job: told.job.clone(),
            incarnation: told.life,
            sql: sql.to_owned(),
            plan: plan(sql),
            submitted_at_us: 0,
            submission: None,
        };
        told.append(Entry::Job(Box::new(entry))).await;
        told.assign().await;
        told
    }

    /// The entry is an object of its own.
    pub(crate) async fn append(&mut self, entry: Entry) {
        self.append_all(vec![entry]).await;
    }

    /// The entries are one object.
    async fn append_all(&mut self, entries: Vec<Entry>) {
        self.seq = self.seq.next();
        let object = LogObject {
            term: self.term,
            nonce: self.seq.to_string(),
            entries,
        };
        let appended = log::append(&self.store, self.seq, &object).await;
        assert_eq!(appended.expect("append"), Appended::Written);
    }

    /// Another generation.
    pub(crate) async fn assign(&mut self) {
        let assign = AssignEntry {
            job: self.job.clone(),
            incarnation: self.life,
            restore_from: self.epoch,
            assignment: Assignment::default(),
            placement: None,
        };
        self.append(Entry::Assign(Box::new(assign))).await;
        self.generation = generation_of(self.seq);
    }

    /// The next epoch, with nothing in it; it is for the caller to fill and to [`Self::commit`].
    pub(crate) fn next_epoch(&self) -> EpochEntry {
        EpochEntry::empty(
            (&self.job, self.life),
            self.epoch,
            self.epoch.next(),
            self.generation,
        )
    }

    pub(crate) async fn commit(&mut self, entry: EpochEntry) {
        self.commit_behind(Vec::new(), entry).await;
    }

    /// With other entries before it, in one object.
    pub(crate) async fn commit_behind(&mut self, mut before: Vec<Entry>, entry: EpochEntry) {
        self.epoch = entry.epoch;
        before.push(Entry::Epoch(Box::new(entry)));
        self.append_all(before).await;
    }
}
