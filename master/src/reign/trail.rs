//! The log as far as this master has read it, folded into the jobs it tells of.
//!
//! Owned by the office, which follows it while it stands by, so that a takeover reads only what is new. Failure: storage that does not
//! answer leaves the trail where it is; an object or a chain that no master of ours wrote is an error that names it.

use millstream_common::ids::{Seq, Term};
use millstream_common::log::{self, Boundary};
use millstream_common::store::StoreRef;

use crate::replay::{Replay, ReplayedJobs};
pub use crate::retention::history::HistoryError as TrailError;
use crate::retention::history::read_history;

/// How far the log has been read.
pub struct Trail {
    store: StoreRef,
    replay: Replay,
}

impl Trail {
    /// At the log's beginning.
    pub fn new(store: StoreRef) -> Self {
        Self {
            store,
            replay: Replay::default(),
        }
    }

    /// Reads on to the log's end: from the newest boundary at first, and if what comes next is behind it. The first
    /// reading refuses a log with a hole, for a Fence must never go into one.
    pub async fn follow(&mut self) -> Result<(), TrailError> {
        if self.replay.through == Seq(0) {
            self.replay = read_history(&self.store).await?;
        }
        while let Some(object) = log::read(&self.store, self.next()).await? {
            self.replay.take(self.next(), &object)?;
        }
        let newest = Boundary::newest(&self.store)
            .await
            .map_err(log::Error::from)?;
        let is_behind = newest.is_some_and(|boundary| boundary.seq >= self.next());
        if is_behind {
            self.replay = read_history(&self.store).await?;
        }
        Ok(())
    }

    /// The first position that has not been read.
    pub fn next(&self) -> Seq {
        self.replay.through.next()
    }

    /// The newest term.
    pub fn term(&self) -> Term {
        self.replay.term
    }

    /// The jobs.
    pub fn jobs(&self) -> &ReplayedJobs {
        &self.replay.jobs
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use millstream_common::log::LogObject;

    use super::*;
    use crate::testing::memory;

    #[tokio::test]
    async fn a_log_with_a_hole_is_refused_by_the_name_of_what_is_missing() {
        let store: StoreRef = memory();
        for seq in [1, 2, 4] {
            let object = LogObject {
                term: Term(1),
                nonce: seq.to_string(),
                entries: Vec::new(),
            };
            let bytes = log::encode(&object).expect("plain data");
            let created = store.create(&log::key(Seq(seq)), bytes).await;
            created.expect("create");
        }
        let mut trail = Trail::new(Arc::clone(&store));
        let refused = trail.follow().await.expect_err("a hole").to_string();
        assert!(refused.contains("log/000000000003"), "{refused}");
    }
}
