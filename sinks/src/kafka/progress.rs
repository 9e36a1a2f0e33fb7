//! The sink's marker and fence in Kafka: two keys of a compacted topic, written in the sink's own transactions.
//!
//! Used by `mod.rs`. The marker says which epoch the sink holds and is committed with that epoch's records, so both are there
//! or neither (INV-3). The fence says which deliverer came last (INV-4); it also ends a look at the marker: whoever reads
//! its own fence record, committed, has read everything that was decided before it. Pure. Failure: a record that cannot be
//! read is not ours to overwrite, and is refused.

use millstream_common::ids::{Epoch, Seq, Token};
use millstream_common::mutant::{self, Mutant};
use serde::{Deserialize, Serialize};

use super::cluster::ReadRecord;
use crate::sink::Deliverer;

/// The progress topic has exactly so many partitions: another number would move the markers.
pub(super) const PARTITION_COUNT: usize = 16;
/// A sink's rows all go through one transaction; the number is part of every key.
const SINK_PARTITION: u32 = 0;

/// Where a sink's records are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// The partition of the progress topic.
    pub partition: i32,
    marker_key: Vec<u8>,
    fence_key: Vec<u8>,
}

#[derive(Serialize)]
struct Key<'a> {
    kind: &'a str,
    incarnation: String,
    sink: &'a str,
    partition: u32,
}

/// The value at the marker's key.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    job: String,
    epoch: Epoch,
    token: Token,
    /// The last rewind that the sink has followed.
    #[serde(default)]
    rewound: Seq,
}

/// The value at the fence's key.
#[derive(Debug, Serialize, Deserialize)]
struct Fence {
    job: String,
    token: Token,
    nonce: String,
}

impl Slot {
    /// The slot of the deliverer's sink.
    pub(super) fn of(deliverer: &Deliverer) -> Self {
        let key = |kind| {
            let key = Key {
                kind,
                incarnation: deliverer.incarnation.to_string(),
                sink: &deliverer.sink,
                partition: SINK_PARTITION,
            };
            serde_json::to_vec(&key).expect("texts and numbers have a JSON form")
        };
        let marker_key = key("marker");
        Self {
            partition: (crc32c::crc32c(&marker_key) % PARTITION_COUNT as u32) as i32,
            marker_key,
            fence_key: key("fence"),
        }
    }

    /// The stable name under which every deliverer of the sink produces.
    pub(super) fn transactional_id(deliverer: &Deliverer) -> String {
        let (incarnation, sink) = (deliverer.incarnation, &deliverer.sink);
        if mutant::is(Mutant::TransactionalIdOfDeliverer) {
            return format!("millstream.{incarnation}.{sink}.{}", deliverer.token);
        }
        format!("millstream.{incarnation}.{sink}.{SINK_PARTITION}")
    }

    /// Key and value that say: the sink holds `epoch`, and has followed the rewind at `rewound`.
    pub(super) fn marker(
        &self,
        deliverer: &Deliverer,
        epoch: Epoch,
        rewound: Seq,
    ) -> (&[u8], Vec<u8>) {
        let marker = Marker {
            job: deliverer.job.to_string(),
            epoch,
            token: deliverer.token,
            rewound,
        };
        (&self.marker_key, json(&marker))
    }

    /// Key and value that say: this deliverer came, and nobody older may write any more.
    pub(super) fn fence(&self, deliverer: &Deliverer, nonce: &str) -> (&[u8], Vec<u8>) {
        let fence = Fence {
            job: deliverer.job.to_string(),
            token: deliverer.token,
            nonce: nonce.to_owned(),
        };
        (&self.fence_key, json(&fence))
    }
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers have a JSON form")
}

/// What has been read of a slot so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The last committed marker.
    pub epoch: Option<Epoch>,
    /// The last rewind that the sink has followed.
    pub rewound: Seq,
    /// The greatest token of any deliverer.
    token: Option<Token>,
    /// The nonce of the fence that is waited for.
    awaited: String,
    has_awaited: bool,
}

impl Seen {
    /// Nothing yet; the fence with this nonce is waited for.
    pub(super) fn awaiting(nonce: &str) -> Self {
        Self {
            awaited: nonce.to_owned(),
            ..Self::default()
        }
    }

    /// Takes the next record of the partition; those of other sinks say nothing.
    pub(super) fn take(&mut self, slot: &Slot, record: &ReadRecord) -> Result<(), String> {
        let Some(value) = &record.value else {
            return Ok(());
        };
        let token = if record.key == slot.marker_key {
            let marker: Marker = read(value)?;
            self.epoch = Some(marker.epoch);
            self.rewound = marker.rewound;
            marker.token
        } else if record.key == slot.fence_key {
            let fence: Fence = read(value)?;
            self.has_awaited |= fence.nonce == self.awaited;
            fence.token
        } else {
            return Ok(());
        };
        self.token = self.token.max(Some(token));
        Ok(())
    }

    /// Whether the fence that is waited for has come.
    pub(super) fn has_awaited(&self) -> bool {
        self.has_awaited
    }

    /// The token of a deliverer that is newer than `own`.
    pub(super) fn newer_than(&self, own: Token) -> Option<Token> {
        self.token.filter(|token| *token > own)
    }
}

fn read<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(value).map_err(|error| {
        let text = String::from_utf8_lossy(value);
        format!("a progress record is not one of ours ({error}): {text}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::deliverer;

    fn record((key, value): (&[u8], Vec<u8>)) -> ReadRecord {
        ReadRecord {
            key: key.to_vec(),
            value: Some(value),
        }
    }

    #[test]
    fn the_last_marker_counts_and_the_greatest_token() {
        let slot = Slot::of(&deliverer(3));
        let mut seen = Seen::awaiting("mine");
        for (token, epoch) in [(3, 5), (4, 9)] {
            let written = record(slot.marker(&deliverer(token), Epoch(epoch), Seq(0)));
            seen.take(&slot, &written).expect("ours");
        }
        for (nonce, has_awaited) in [("other", false), ("mine", true), ("late", true)] {
            let fence = record(slot.fence(&deliverer(2), nonce));
            seen.take(&slot, &fence).expect("ours");
            assert_eq!(seen.has_awaited(), has_awaited, "{nonce}");
        }
        assert_eq!(seen.epoch, Some(Epoch(9)));
        assert_eq!(seen.newer_than(Token(3)), Some(Token(4)));
        assert_eq!(seen.newer_than(Token(4)), None);
    }

    #[test]
    fn records_of_other_sinks_and_tombstones_say_nothing() {
        let slot = Slot::of(&deliverer(1));
        let other = Deliverer {
            sink: "other".to_owned(),
            ..deliverer(9)
        };
        let mut seen = Seen::default();
        let of_other = record(Slot::of(&other).marker(&other, Epoch(7), Seq(0)));
        seen.take(&slot, &of_other).expect("skipped");
        let gone = ReadRecord {
            key: slot.marker_key.clone(),
            value: None,
        };
        seen.take(&slot, &gone).expect("skipped");
        assert_eq!(seen, Seen::default());
    }

    #[test]
    fn a_record_that_is_not_ours_is_refused_and_shown() {
        let slot = Slot::of(&deliverer(1));
        let strange = record((&slot.marker_key, b"{\"epoch\":\"x\"}".to_vec()));
        let refused = Seen::default().take(&slot, &strange);
        assert!(refused.expect_err("strange").contains("{\"epoch\""));
    }
}
