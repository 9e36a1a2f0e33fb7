//! The cluster that a storage belongs to: written once by its first master, compared by every other.
//!
//! Called before a master reads the log, so that one started with the wrong storage disturbs nobody. Failure: another name is
//! refused with both names; nothing is changed then.

use bytes::Bytes;
use millstream_common::error::chain;
use millstream_common::store::{Error as StoreError, StoreRef};

/// Where it is.
const KEY: &str = "cluster";

/// Why a master may not use a storage.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It belongs to others.
    #[error(
        "the storage belongs to cluster {theirs:?}, not to {ours:?}; start with --cluster {theirs}, or \
         with a --storage of its own"
    )]
    Other {
        /// Whose it is.
        theirs: String,
        /// What was given.
        ours: String,
    },
    /// It does not answer.
    #[error("read the storage's cluster: {}", chain(.0))]
    Store(#[from] StoreError),
}

/// Checks that the storage belongs to cluster `ours`, or makes it so if it is new.
pub async fn check(store: &StoreRef, ours: &str) -> Result<(), Error> {
    let created = store.create(KEY, Bytes::from(ours.to_owned())).await;
    let unanswered = match created {
        Ok(()) => return Ok(()),
        Err(StoreError::Exists { .. }) => None,
        Err(error) => Some(error),
    };
    match (store.get(KEY).await?, unanswered) {
        (Some(theirs), _) if theirs == ours.as_bytes() => Ok(()),
        (Some(theirs), _) => Err(Error::Other {
            theirs: String::from_utf8_lossy(&theirs).into_owned(),
            ours: ours.to_owned(),
        }),
        (None, Some(error)) => Err(error.into()),
        (None, None) => Err(Error::Store(StoreError::Unavailable {
            key: KEY.to_owned(),
            cause: "it is there and cannot be read".to_owned(),
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::memory;

    #[tokio::test]
    async fn a_storage_belongs_to_the_cluster_of_its_first_master() {
        let store: StoreRef = memory();
        for _ in 0..2 {
            check(&store, "shop").await.expect("its own");
        }
        let refused = check(&store, "bank").await.expect_err("another's");
        assert!(refused.to_string().contains("--cluster shop"), "{refused}");
    }
}
