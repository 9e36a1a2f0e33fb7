//! Boundaries: what the log up to a position comes to, so that the objects before can be collected.
//!
//! Written by the master's collector, read by a starting master, which replays only what lies behind. A boundary follows from the
//! log alone, so it needs no fence: whoever writes it writes the same. Objects are deleted only behind one, and an append
//! looks at them ([`super::append`]). Failure: one that is cut or changed is refused by name.

use bytes::Bytes;

use super::Error;
use super::seal::{seal, unseal};
use crate::ids::Seq;
use crate::store::{Error as StoreError, StoreRef};

/// Where boundaries lie: `boundary/{seq}-{made}`, so that names sort like positions.
pub const FOLDER: &str = "boundary/";

/// A boundary as its key tells it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boundary {
    /// The last position that it covers.
    pub seq: Seq,
    /// Wall clock of its writer, microseconds since 1970 UTC; only for how long objects are kept beyond need.
    pub made_at_us: i64,
}

impl Boundary {
    /// The boundary of that key.
    pub fn from_key(key: &str) -> Option<Self> {
        let (seq, made_at) = key.strip_prefix(FOLDER)?.split_once('-')?;
        Some(Self {
            seq: Seq(seq.parse().ok()?),
            made_at_us: made_at.parse().ok()?,
        })
    }

    /// Its key.
    pub fn key(&self) -> String {
        format!("{FOLDER}{:012}-{}", self.seq.0, self.made_at_us)
    }

    /// The newest in the storage.
    pub async fn newest(store: &StoreRef) -> Result<Option<Self>, StoreError> {
        let keys = store.list(FOLDER).await?;
        Ok(keys.iter().filter_map(|key| Self::from_key(key)).max())
    }

    /// Writes `folded` under its key; whoever was first is as good.
    pub async fn write(&self, store: &StoreRef, folded: &[u8]) -> Result<(), StoreError> {
        match store.create(&self.key(), seal(folded)).await {
            Err(StoreError::Exists { .. }) => Ok(()),
            result => result,
        }
    }

    /// What was written; `None` if it has been collected.
    pub async fn read(&self, store: &StoreRef) -> Result<Option<Bytes>, Error> {
        match store.get(&self.key()).await? {
            Some(sealed) => match unseal(&sealed) {
                Ok(folded) => Ok(Some(folded)),
                Err(cause) => Err(self.broken(cause)),
            },
            None => Ok(None),
        }
    }

    /// What a boundary with unreadable content is refused with.
    pub fn broken(&self, cause: String) -> Error {
        Error::Broken {
            key: self.key(),
            cause,
        }
    }
}
