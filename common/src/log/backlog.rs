//! The backlog of a job: epochs that some sink has lacked for long, kept as objects of their own.
//!
//! A sink that is down for days leaves an epoch behind every second. In memory, in boundaries and in a Deploy they would
//! grow without a bound (INV-9), so the master writes the oldest of them to storage, a few thousand an object
//! ([`store`]), and an entry of the log puts a [`BacklogPart`] in their place: about one byte in a thousand is left. The
//! entry comes behind the object (INV-8), so whoever folds the log comes to the same. A deliverer reads a part when it
//! gets there ([`load`]). The log's own objects would not do: they are collected after a day, and hold all jobs.
//! Failure: a part that is missing or damaged is refused by name.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::entry::CommittedEpoch;
use crate::ids::{Epoch, Incarnation, OutputIndex, nonce};
use crate::store::{Error as StoreError, StoreRef};

/// Epochs stay in memory until they weigh this much, where a master is not told otherwise: a segment is 1, and so is the epoch itself;
/// about 2 MiB.
pub const RECENT_WEIGHT_MAX: usize = 8_192;

/// Consecutive epochs of a job's chain, in an object of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BacklogPart {
    /// Its key in storage.
    pub path: String,
    /// CRC-32C of the object (INV-8).
    pub checksum: u32,
    /// The epoch before the first.
    pub parent: Epoch,
    /// The last epoch.
    pub last: Epoch,
    /// How many there are.
    pub epoch_count: u64,
    /// What is in their segments, to be shown.
    pub outputs: BTreeMap<OutputIndex, OutputSum>,
}

/// What is in some segments of an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputSum {
    /// Rows.
    pub row_count: u64,
    /// Size in storage.
    pub bytes: u64,
}

/// Why a part cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Storage does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is not what was written.
    #[error("read {path}: {cause}; put the object back from a copy of the storage")]
    Broken {
        /// Its key.
        path: String,
        /// What is wrong with it.
        cause: String,
    },
}

/// Of epochs in order, the oldest half, which is to become a part if they weigh `weight_max` or more.
pub fn foldable(undelivered: &[CommittedEpoch], weight_max: usize) -> Option<&[CommittedEpoch]> {
    let weight = |epoch: &CommittedEpoch| 1 + epoch.segments.len();
    let total: usize = undelivered.iter().map(weight).sum();
    if total < weight_max {
        return None;
    }
    let mut taken = 0;
    let count = undelivered.iter().take_while(|epoch| {
        taken += weight(epoch);
        taken <= weight_max / 2
    });
    // The newest stays: it says whether it is the last.
    let count = count.count().max(1).min(undelivered.len() - 1);
    (count > 0).then(|| &undelivered[..count])
}

/// Writes consecutive `epochs`; `None` if there are none.
pub async fn store(
    store: &StoreRef,
    incarnation: Incarnation,
    epochs: &[CommittedEpoch],
) -> Result<Option<BacklogPart>, Error> {
    let (Some(first), Some(last)) = (epochs.first(), epochs.last()) else {
        return Ok(None);
    };
    let mut outputs: BTreeMap<OutputIndex, OutputSum> = BTreeMap::new();
    for segment in epochs.iter().flat_map(|epoch| &epoch.segments) {
        let sum = outputs.entry(segment.output).or_default();
        sum.row_count += segment.row_count;
        sum.bytes += segment.bytes;
    }
    let path = format!("backlog/{incarnation}/{:012}-{}", last.epoch.0, nonce());
    let object = serde_json::to_vec(epochs).map_err(|error| Error::Broken {
        path: path.clone(),
        cause: error.to_string(),
    })?;
    let part = BacklogPart {
        checksum: crc32c::crc32c(&object),
        parent: first.parent,
        last: last.epoch,
        epoch_count: epochs.len() as u64,
        outputs,
        path,
    };
    store.create(&part.path, Bytes::from(object)).await?;
    Ok(Some(part))
}

/// Reads the epochs of a part.
pub async fn load(store: &StoreRef, part: &BacklogPart) -> Result<Vec<CommittedEpoch>, Error> {
    let broken = |cause: String| Error::Broken {
        path: part.path.clone(),
        cause,
    };
    let object = store.get(&part.path).await?;
    let object = object.ok_or_else(|| broken("it is missing".to_owned()))?;
    let found = crc32c::crc32c(&object);
    if found != part.checksum {
        return Err(broken(format!(
            "its checksum is {found:08x}: it was changed"
        )));
    }
    serde_json::from_slice(&object).map_err(|error| broken(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(count: u64) -> Vec<CommittedEpoch> {
        let epoch = |epoch| CommittedEpoch {
            epoch: Epoch(epoch),
            parent: Epoch(epoch - 1),
            segments: Vec::new(),
            refused: Vec::new(),
            last: false,
        };
        (1..=count).map(epoch).collect()
    }

    #[test]
    fn the_oldest_half_goes_when_there_are_too_many_and_the_newest_stays() {
        assert_eq!(foldable(&epochs(99), 100), None);
        let all = epochs(100);
        let folded = foldable(&all, 100).expect("too many");
        assert_eq!(folded, &all[..50]);
        assert_eq!(foldable(&epochs(1), 1), None, "the newest");
    }
}
