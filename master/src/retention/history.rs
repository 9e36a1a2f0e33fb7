//! Reads what the log comes to: its newest boundary and the objects behind.
//!
//! Called by a starting master, and when a job's actor has failed. Failure: a boundary or log object that is broken or
//! missing is refused by name; nothing is begun from a part of the log.

use millstream_common::ids::Seq;
use millstream_common::log::boundary::Boundary;
use millstream_common::log::entry::BrokenChain;
use millstream_common::log::{self, read_from};
use millstream_common::store::{Error as StoreError, StoreRef};

use crate::replay::Replay;

/// Why the log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Storage does not answer, or an object is broken.
    #[error(transparent)]
    Log(#[from] log::Error),
    /// It holds epochs that do not form a chain.
    #[error(transparent)]
    Chain(#[from] BrokenChain),
}

impl From<StoreError> for HistoryError {
    fn from(error: StoreError) -> Self {
        Self::Log(error.into())
    }
}

impl HistoryError {
    /// Storage may answer later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Log(log::Error::Store(_)))
    }
}

/// Everything the log tells.
pub async fn read_history(store: &StoreRef) -> Result<Replay, HistoryError> {
    loop {
        let newest = Boundary::newest(store).await?;
        let result = read_behind(store, newest.as_ref()).await;
        // The objects behind an old boundary, or itself, may be collected while they are read: then there is a newer one.
        match result {
            Ok(Some(replay)) => return Ok(replay),
            Ok(None) => {}
            Err(error @ HistoryError::Log(log::Error::Broken { .. })) => {
                if Boundary::newest(store).await? == newest {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

async fn read_behind(
    store: &StoreRef,
    boundary: Option<&Boundary>,
) -> Result<Option<Replay>, HistoryError> {
    let mut replay = match boundary {
        None => Replay::default(),
        Some(boundary) => match read_boundary(store, boundary).await? {
            Some(replay) => replay,
            None => return Ok(None),
        },
    };
    for (seq, object) in read_from(store, replay.through.next()).await? {
        replay.take(seq, &object)?;
    }
    if replay.through == Seq(0) {
        refuse_leavings(store).await?;
    }
    Ok(Some(replay))
}

/// Where there is no log there may be nothing that only a log tells of: to begin from nothing would deliver again what sinks hold.
async fn refuse_leavings(store: &StoreRef) -> Result<(), HistoryError> {
    for folder in ["state/", "segments/"] {
        let left = store.list(folder).await?;
        // One that was appended meanwhile tells of them.
        let Some(first) = left.first() else { continue };
        if log::read(store, Seq(1)).await?.is_none() {
            return Err(HistoryError::Log(log::Error::Broken {
                key: log::key(Seq(1)),
                cause: format!("it is missing, as is every boundary, while {first} is there"),
            }));
        }
    }
    Ok(())
}

/// What the log came to at a boundary; `None` if it has been collected.
pub async fn read_boundary(
    store: &StoreRef,
    boundary: &Boundary,
) -> Result<Option<Replay>, log::Error> {
    let Some(folded) = boundary.read(store).await? else {
        return Ok(None);
    };
    let replay: Replay =
        serde_json::from_slice(&folded).map_err(|error| boundary.broken(error.to_string()))?;
    match replay.through == boundary.seq {
        true => Ok(Some(replay)),
        false => Err(boundary.broken(format!("it covers position {}", replay.through))),
    }
}

/// Folds the log into a boundary at where `replay` stands.
pub async fn write_boundary(
    store: &StoreRef,
    replay: &Replay,
    made_at_us: i64,
) -> Result<Boundary, log::Error> {
    let boundary = Boundary {
        seq: replay.through,
        made_at_us,
    };
    let folded = serde_json::to_vec(replay).map_err(|error| boundary.broken(error.to_string()))?;
    boundary.write(store, &folded).await?;
    Ok(boundary)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::testing::memory;

    #[tokio::test]
    async fn a_log_that_is_gone_is_no_new_storage_while_its_state_or_segments_are_there() {
        let empty: StoreRef = memory();
        let replay = read_history(&empty).await.expect("a new storage");
        assert_eq!(replay.through, Seq(0));
        for left in ["state/job/keys/1", "segments/job/0/1"] {
            let store: StoreRef = memory();
            store.create(left, Bytes::new()).await.expect("create");
            let refused = read_history(&store).await.expect_err("no log");
            let refused = refused.to_string();
            assert!(
                refused.contains("read log/000000000001: it is missing"),
                "{refused}"
            );
            assert!(refused.contains(left), "{refused}");
        }
    }
}
