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

/// From one listing of the boundaries to the next, in looks. One that stands by is behind the newest only if it slept for as long
/// as the log is kept: to find that out sixteen seconds later does no harm, and a listing is the dearest call of an object store.
const LOOKS_PER_LISTING: u32 = 64;

/// How far the log has been read.
pub struct Trail {
    store: StoreRef,
    replay: Replay,
    /// Since the boundaries were listed.
    looks: u32,
}

impl Trail {
    /// At the log's beginning.
    pub fn new(store: StoreRef) -> Self {
        Self {
            store,
            replay: Replay::default(),
            looks: 0,
        }
    }

    /// Reads on to where the log seems to end, as one that stands by does again and again.
    pub async fn follow(&mut self) -> Result<(), TrailError> {
        self.looks += 1;
        if self.replay.through == Seq(0) || self.looks >= LOOKS_PER_LISTING {
            return self.follow_to_end().await;
        }
        self.read_on().await
    }

    /// Reads on to the log's end: from the newest boundary at first, and if what comes next is behind it. The first
    /// reading refuses a log with a hole, for a Fence must never go into one.
    pub async fn follow_to_end(&mut self) -> Result<(), TrailError> {
        if self.replay.through == Seq(0) {
            self.replay = read_history(&self.store).await?;
        }
        self.read_on().await?;
        let newest = Boundary::newest(&self.store)
            .await
            .map_err(log::Error::from)?;
        let is_behind = newest.is_some_and(|boundary| boundary.seq >= self.next());
        if is_behind {
            self.replay = read_history(&self.store).await?;
        }
        self.looks = 0;
        Ok(())
    }

    async fn read_on(&mut self) -> Result<(), TrailError> {
        while let Some(object) = log::read(&self.store, self.next()).await? {
            self.replay.take(self.next(), &object)?;
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
    use crate::retention::history::write_boundary;
    use crate::testing::memory;

    async fn write(store: &StoreRef, seq: u64) {
        let object = LogObject {
            term: Term(1),
            nonce: seq.to_string(),
            entries: Vec::new(),
        };
        let bytes = log::encode(&object).expect("plain data");
        let created = store.create(&log::key(Seq(seq)), bytes).await;
        created.expect("create");
    }

    #[tokio::test]
    async fn one_that_stands_by_lists_seldom_and_finds_the_end_though_it_was_collected_behind_it() {
        let memory = memory();
        let store: StoreRef = memory.clone();
        write(&store, 1).await;
        let mut trail = Trail::new(Arc::clone(&store));
        trail.follow().await.expect("follow");
        let listed = memory.listed();
        for seq in 2..LOOKS_PER_LISTING {
            write(&store, seq.into()).await;
            trail.follow().await.expect("follow");
            assert_eq!(trail.next(), Seq(u64::from(seq) + 1));
        }
        assert_eq!(memory.listed(), listed);
        let next = trail.next();
        for seq in [next, next.next(), next.next().next()] {
            write(&store, seq.0).await;
        }
        let folded = read_history(&store).await.expect("read");
        let boundary = write_boundary(&store, &folded, 0).await.expect("write");
        store.delete(&log::key(next)).await.expect("delete");
        for _ in 0..LOOKS_PER_LISTING {
            trail.follow().await.expect("follow");
        }
        assert_eq!(trail.next(), boundary.seq.next());
    }

    #[tokio::test]
    async fn a_log_with_a_hole_is_refused_by_the_name_of_what_is_missing() {
        let store: StoreRef = memory();
        for seq in [1, 2, 4] {
            write(&store, seq).await;
        }
        let mut trail = Trail::new(Arc::clone(&store));
        let refused = trail.follow().await.expect_err("a hole").to_string();
        assert!(refused.contains("log/000000000003"), "{refused}");
    }
}
