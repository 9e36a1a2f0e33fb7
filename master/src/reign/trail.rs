//! The log as far as this master has read it, folded into the jobs it tells of.
//!
//! Owned by the office, which follows it while it stands by, so that a takeover reads only what is new. Failure: storage that does not
//! answer leaves the trail where it is; an object or a chain that no master of ours wrote is an error that names it.

use millstream_common::ids::{Seq, Term};
use millstream_common::log::entry::BrokenChain;
use millstream_common::log::{self, LogObject};
use millstream_common::store::StoreRef;

use crate::replay::{ReplayedJobs, apply};

/// Why the log cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum TrailError {
    /// It cannot be read.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// It holds epochs that do not form a chain.
    #[error(transparent)]
    Chain(#[from] BrokenChain),
}

impl TrailError {
    /// Whether the storage only has to answer again.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Log(log::Error::Store(_)))
    }
}

/// How far the log has been read.
pub struct Trail {
    store: StoreRef,
    next: Seq,
    term: Term,
    jobs: ReplayedJobs,
}

impl Trail {
    /// At the log's beginning.
    pub fn new(store: StoreRef) -> Self {
        Self {
            store,
            next: Seq(1),
            term: Term(0),
            jobs: ReplayedJobs::new(),
        }
    }

    /// Reads on to the log's end.
    pub async fn follow(&mut self) -> Result<(), TrailError> {
        while let Some(object) = log::read(&self.store, self.next).await? {
            self.take(&object)?;
        }
        Ok(())
    }

    /// An object below the newest term does not count (INV-4).
    fn take(&mut self, object: &LogObject) -> Result<(), TrailError> {
        let seq = self.next;
        self.next = seq.next();
        if object.term < self.term {
            return Ok(());
        }
        self.term = object.term;
        for entry in &object.entries {
            apply(&mut self.jobs, seq, entry)?;
        }
        Ok(())
    }

    /// The first position that has not been read.
    pub fn next(&self) -> Seq {
        self.next
    }

    /// The newest term.
    pub fn term(&self) -> Term {
        self.term
    }

    /// The jobs.
    pub fn jobs(&self) -> &ReplayedJobs {
        &self.jobs
    }
}
