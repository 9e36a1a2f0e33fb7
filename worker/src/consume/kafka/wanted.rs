//! Records as the decoder takes them, and how many of them make a batch.
//!
//! Called by `reader_thread.rs` for each message; borrows from the client and copies nothing. Cannot fail.

use millstream_common::plan::{ColumnOrigin, Metadata, SourcePlan};

use super::batch_queue::Message;
use crate::decode::{HeaderLookup, RecordRef, SplitSlot};

/// Records of one batch.
pub(super) const BATCH_RECORDS_MAX: usize = 8_192;
/// Records asked for at once even if they are large.
const BATCH_RECORDS_MIN: usize = 64;
/// Payload of one batch, about: 1 MiB.
pub(super) const BATCH_BYTES: usize = 1 << 20;

/// Parts of a record that cost a call each: asked for only where an `INCLUDE` names them.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    key: bool,
    timestamp: bool,
    headers: bool,
}

impl Wanted {
    pub(super) fn by(plan: &SourcePlan) -> Self {
        let includes = |is: fn(&Metadata) -> bool| {
            plan.columns.iter().any(|column| match &column.origin {
                ColumnOrigin::Metadata(metadata) => is(metadata),
                _ => false,
            })
        };
        Self {
            key: includes(|metadata| *metadata == Metadata::Key),
            timestamp: includes(|metadata| *metadata == Metadata::Timestamp),
            headers: includes(|metadata| matches!(metadata, Metadata::Header(_))),
        }
    }

    pub(super) fn record(self, slot: SplitSlot, offset: i64, message: &Message) -> RecordRef<'_> {
        RecordRef {
            slot,
            position: offset,
            payload: message.payload(),
            key: self.key.then(|| message.key()).flatten(),
            timestamp_ms: self.timestamp.then(|| message.timestamp_ms()).flatten(),
            headers: self.headers.then_some(message as &dyn HeaderLookup),
        }
    }
}

/// The same memory for records of another batch: the emptied vector is collected in place.
pub(super) fn recycle<'next>(mut records: Vec<RecordRef<'_>>) -> Vec<RecordRef<'next>> {
    records.clear();
    records
        .into_iter()
        .map(|_| unreachable!("the vector has been cleared"))
        .collect()
}

/// How many records like the last ones make a batch.
pub(super) fn room_for(bytes: usize, record_count: usize) -> usize {
    let record_bytes = bytes / record_count.max(1);
    (BATCH_BYTES / record_bytes.max(1)).clamp(BATCH_RECORDS_MIN, BATCH_RECORDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_asks_for_a_mebibyte_of_records_like_the_last() {
        assert_eq!(room_for(0, 0), BATCH_RECORDS_MAX);
        assert_eq!(room_for(128 * 100, 100), 8_192);
        assert_eq!(room_for(1024 * 100, 100), 1_024);
        assert_eq!(room_for(BATCH_BYTES * 30, 30), BATCH_RECORDS_MIN);
    }

    #[test]
    fn emptied_records_keep_their_memory() {
        let records: Vec<RecordRef<'static>> = Vec::with_capacity(100);
        assert!(recycle(records).capacity() >= 100);
    }
}
