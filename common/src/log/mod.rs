//! The log: `log/{seq}` objects, each created only if absent. The one commit point of a cluster.
//!
//! Read whole by a starting master ([`read_all`]); appended to by the master's log actor ([`append`]).
//! Keeps INV-4: of two masters that create the same position one wins, and the loser reads the winner's
//! object; a stale term shows there. Failure: an unknown result is read back and compared by nonce before
//! anything else is tried.

mod assignment;
pub mod backlog;
pub mod boundary;
mod commanded;
pub mod entry;
mod progress;
mod retained;
pub mod rewind;
pub mod savepoint;
mod seal;

use bytes::Bytes;

pub use boundary::Boundary;
pub use entry::{Entry, LogObject};

use crate::ids::{Seq, Term};
use crate::mutant::{self, Mutant};
use crate::store::{Error as StoreError, StoreRef};

/// What the log can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The storage did not answer; whether an append happened is unknown.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object that is no log object: nothing is guessed, a person has to look.
    #[error(
        "read {key}: {cause}; put the object back from a copy of the storage, or begin with an empty storage (sinks keep what they hold)"
    )]
    Broken {
        /// Its key.
        key: String,
        /// What is wrong with it.
        cause: String,
    },
}

/// What became of an append.
#[derive(Debug, PartialEq)]
pub enum Appended {
    /// The object stands at its position.
    Written,
    /// The position was taken long ago and its object has been collected since: whoever appends there has slept.
    Collected,
    /// Another master's object stands there.
    Taken(Box<LogObject>),
}

/// The key of a position; names sort like positions.
pub fn key(seq: Seq) -> String {
    format!("log/{:012}", seq.0)
}

/// Reads the object at `seq`, if there is one.
pub async fn read(store: &StoreRef, seq: Seq) -> Result<Option<LogObject>, Error> {
    match store.get(&key(seq)).await? {
        Some(bytes) => decode(&key(seq), &bytes).map(Some),
        None => Ok(None),
    }
}

/// The bytes of an object.
pub fn encode(object: &LogObject) -> Result<Bytes, serde_json::Error> {
    Ok(seal::seal(&serde_json::to_vec(object)?))
}

/// The object in the bytes at `key`.
pub fn decode(key: &str, bytes: &Bytes) -> Result<LogObject, Error> {
    let broken = |cause| Error::Broken {
        key: key.to_owned(),
        cause,
    };
    let body = seal::unseal(bytes).map_err(broken)?;
    serde_json::from_slice(&body).map_err(|error| broken(error.to_string()))
}

/// Reads a log of which nothing was collected, in order.
pub async fn read_all(store: &StoreRef) -> Result<Vec<(Seq, LogObject)>, Error> {
    read_from(store, Seq(1)).await
}

/// Reads the log from `seq` to its end, in order. A position without an object that has others behind it is
/// refused: what went on after it cannot be told from what was lost.
pub async fn read_from(store: &StoreRef, mut seq: Seq) -> Result<Vec<(Seq, LogObject)>, Error> {
    let mut objects = Vec::new();
    loop {
        while let Some(object) = read(store, seq).await? {
            objects.push((seq, object));
            seq = seq.next();
        }
        let keys = store.list("log/").await?;
        let Some(later) = keys.last().filter(|last| **last >= key(seq)) else {
            return Ok(objects);
        };
        // Another master may have appended between the two looks.
        if read(store, seq).await?.is_none() {
            return Err(Error::Broken {
                key: key(seq),
                cause: format!("it is missing, while {later} is there"),
            });
        }
    }
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
/// there means that it was written after all. A position behind a boundary is free again once its object
/// was collected, so the boundary is looked at after the create: objects are collected only behind one.
pub async fn append(store: &StoreRef, seq: Seq, object: &LogObject) -> Result<Appended, Error> {
    let bytes = encode(object).map_err(|error| Error::Broken {
        key: key(seq),
        cause: error.to_string(),
    })?;
    let unknown = match store.create(&key(seq), bytes).await {
        Ok(()) => return written(store, seq).await,
        Err(StoreError::Exists { .. }) => None,
        Err(unknown) => Some(unknown),
    };
    match (read(store, seq).await?, unknown) {
        (Some(found), _) if found.nonce == object.nonce || mutant::is(Mutant::TakeOthersObject) => {
            written(store, seq).await
        }
        (Some(found), _) => Ok(Appended::Taken(Box::new(found))),
        (None, Some(unknown)) => Err(unknown.into()),
        // It was collected between the two calls: the next try finds the boundary.
        (None, None) => Err(Error::Store(StoreError::Unavailable {
            key: key(seq),
            cause: "its key was taken, and nothing is there any more".to_owned(),
        })),
    }
}

/// Looks at the boundaries after the create: some sixteen keys. Nothing that was known before it can stand in for that, nor a clock: the
/// machine may have slept for days between the request and its effect.
async fn written(store: &StoreRef, seq: Seq) -> Result<Appended, Error> {
    let newest = Boundary::newest(store).await?;
    match newest.is_some_and(|boundary| boundary.seq >= seq) {
        true => Ok(Appended::Collected),
        false => Ok(Appended::Written),
    }
}

#[cfg(test)]
mod tests;
