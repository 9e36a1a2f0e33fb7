//! The log: `log/{seq}` objects, each created only if absent. The one commit point of a cluster.
//!
//! Read whole by a starting master ([`read_all`]); appended to by the master's log actor ([`append`]).
//! Keeps INV-4: of two masters that create the same position one wins, and the loser reads the winner's
//! object; a stale term shows there. Failure: an unknown result is read back and compared by nonce before
//! anything else is tried.

pub mod entry;

use bytes::Bytes;

pub use entry::{Entry, LogObject};

use crate::ids::{Seq, Term};
use crate::store::{Error as StoreError, StoreRef};

/// What the log can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The storage did not answer; whether an append happened is unknown.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object that is no log object: nothing is guessed, a person has to look.
    #[error(
        "read log object {seq}: {cause}; the storage holds something that Millstream did not write"
    )]
    Broken {
        /// Its position.
        seq: Seq,
        /// What is wrong with it.
        cause: String,
    },
}

/// What became of an append.
#[derive(Debug, PartialEq)]
pub enum Appended {
    /// The object stands at its position.
    Written,
    /// Another master's object stands there.
    Taken(Box<LogObject>),
}

/// The key of a position; names sort like positions.
pub fn key(seq: Seq) -> String {
    format!("log/{:012}", seq.0)
}

/// Reads the object at `seq`, if there is one.
pub async fn read(store: &StoreRef, seq: Seq) -> Result<Option<LogObject>, Error> {
    let Some(bytes) = store.get(&key(seq)).await? else {
        return Ok(None);
    };
    match serde_json::from_slice(&bytes) {
        Ok(object) => Ok(Some(object)),
        Err(error) => Err(Error::Broken {
            seq,
            cause: error.to_string(),
        }),
    }
}

/// Reads the log from its first position to its end, in order.
pub async fn read_all(store: &StoreRef) -> Result<Vec<(Seq, LogObject)>, Error> {
    let mut objects = Vec::new();
    let mut seq = Seq(1);
    while let Some(object) = read(store, seq).await? {
        objects.push((seq, object));
        seq = seq.next();
    }
    Ok(objects)
}

/// The entries that count: those whose object is not below the newest Fence before it (INV-4).
pub fn canonical(objects: &[(Seq, LogObject)]) -> Vec<(Seq, &Entry)> {
    let mut newest = Term(0);
    let mut entries = Vec::new();
    for (seq, object) in objects {
        if object.term < newest {
            continue;
        }
        newest = object.term;
        entries.extend(object.entries.iter().map(|entry| (*seq, entry)));
    }
    entries
}

/// Creates the object at `seq`. After an unknown result the position is read back: our own nonce
/// there means that it was written after all.
pub async fn append(store: &StoreRef, seq: Seq, object: &LogObject) -> Result<Appended, Error> {
    let bytes = serde_json::to_vec(object).map_err(|error| Error::Broken {
        seq,
        cause: error.to_string(),
    })?;
    match store.create(&key(seq), Bytes::from(bytes)).await {
        Ok(()) => return Ok(Appended::Written),
        Err(StoreError::Exists { .. }) => {}
        Err(unknown) => {
            return match read(store, seq).await? {
                Some(found) if found.nonce == object.nonce => Ok(Appended::Written),
                Some(found) => Ok(Appended::Taken(Box::new(found))),
                None => Err(unknown.into()),
            };
        }
    }
    match read(store, seq).await? {
        Some(found) if found.nonce == object.nonce => Ok(Appended::Written),
        Some(found) => Ok(Appended::Taken(Box::new(found))),
        None => Err(Error::Broken {
            seq,
            cause: "its key is taken, but nothing can be read there".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests;
