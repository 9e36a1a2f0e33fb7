//! The rows of a segment with dead letters, read column by column.
//!
//! Used by the listing and by whoever sends letters again. Failure: a segment of another shape, which the log cannot have named.

use arrow::array::{
    Array, AsArray, BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use millstream_common::control::{ControlError, DeadLetterView, LetterFilter};
use millstream_common::error::chain;
use millstream_common::ids::Epoch;
use millstream_common::ipc::{self, ObjectError};
use millstream_common::replay_split::LetterName;
use millstream_common::report::Segment;
use millstream_common::store::StoreRef;

/// What a listing shows of a payload; a message holds little more.
const SHOWN_BYTES_MAX: usize = 4 << 20;

/// The batches of a segment; none where the retention took it meanwhile.
pub(super) async fn load(
    store: &StoreRef,
    segment: &Segment,
) -> Result<Vec<RecordBatch>, ControlError> {
    match ipc::load(store, &segment.path, segment.checksum).await {
        Ok(batches) => Ok(batches),
        Err(ObjectError::Missing { .. }) => Ok(Vec::new()),
        Err(error) => Err(unreadable(&error)),
    }
}

/// What a client is told of an object that cannot be read.
pub(super) fn unreadable(error: &ObjectError) -> ControlError {
    match error {
        ObjectError::Store(error) => ControlError::Unavailable {
            cause: chain(error),
            active: None,
        },
        ObjectError::Damaged { .. } | ObjectError::Missing { .. } => {
            ControlError::Invalid(error.to_string())
        }
        ObjectError::Arrow { .. } => ControlError::Internal(error.to_string()),
    }
}

/// The columns of a batch.
pub(super) struct LetterRows<'a> {
    sources: &'a StringArray,
    origins: &'a StringArray,
    positions: &'a Int64Array,
    payloads: &'a StringArray,
    payload_bytes: &'a BinaryArray,
    codes: &'a StringArray,
    reasons: &'a StringArray,
    event_times: &'a TimestampMicrosecondArray,
    received: &'a TimestampMicrosecondArray,
}

impl<'a> LetterRows<'a> {
    /// Of a batch that has the shape of dead letters.
    pub(super) fn new(batch: &'a RecordBatch) -> Result<Self, ControlError> {
        Self::columns(batch).ok_or_else(|| {
            ControlError::Internal(format!("these are no dead letters: {:?}", batch.schema()))
        })
    }

    fn columns(batch: &'a RecordBatch) -> Option<Self> {
        let column = |name: &str| batch.column_by_name(name);
        let text = |name: &str| column(name)?.as_string_opt::<i32>();
        let time = |name: &str| column(name)?.as_primitive_opt::<TimestampMicrosecondType>();
        Some(Self {
            sources: text("source")?,
            origins: text("origin")?,
            positions: column("position")?.as_primitive_opt::<Int64Type>()?,
            payloads: text("payload")?,
            payload_bytes: column("payload_bytes")?.as_binary_opt::<i32>()?,
            codes: text("code")?,
            reasons: text("reason")?,
            event_times: time("event_time")?,
            received: time("received_at")?,
        })
    }

    /// The numbers of the rows that `filter` takes, whoever owns them.
    pub(super) fn matching<'f>(
        &'f self,
        filter: &'f LetterFilter,
    ) -> impl DoubleEndedIterator<Item = usize> + 'f {
        (0..self.codes.len()).filter(|row| self.matches(*row, filter))
    }

    fn matches(&self, row: usize, filter: &LetterFilter) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        };
        let received = self.received.value(row);
        is(&filter.code, self.codes.value(row))
            && is(&filter.origin, self.origins.value(row))
            && filter.since_us.is_none_or(|since| received >= since)
            && filter.until_us.is_none_or(|until| received < until)
    }

    /// The code of a row.
    pub(super) fn code(&self, row: usize) -> &'a str {
        self.codes.value(row)
    }

    /// Which letter a row is.
    pub(super) fn name(&self, row: usize) -> LetterName {
        LetterName {
            origin: self.origins.value(row).to_owned(),
            position: self.positions.value(row),
            code: self.codes.value(row).to_owned(),
        }
    }

    /// The record, exactly as it came.
    pub(super) fn payload(&self, row: usize) -> Option<&'a [u8]> {
        if self.payload_bytes.is_valid(row) {
            return Some(self.payload_bytes.value(row));
        }
        self.payloads
            .is_valid(row)
            .then(|| self.payloads.value(row).as_bytes())
    }

    /// The row for people.
    pub(super) fn view(&self, row: usize, epoch: Epoch) -> DeadLetterView {
        let payload = self
            .payloads
            .is_valid(row)
            .then(|| self.payloads.value(row));
        let bytes = self
            .payload_bytes
            .is_valid(row)
            .then(|| self.payload_bytes.value(row));
        let is_cut = payload.is_some_and(|payload| payload.len() > SHOWN_BYTES_MAX)
            || bytes.is_some_and(|bytes| bytes.len() > SHOWN_BYTES_MAX);
        DeadLetterView {
            source: self.sources.value(row).to_owned(),
            origin: self.origins.value(row).to_owned(),
            position: self.positions.value(row),
            payload: payload
                .map(|payload| payload[..payload.floor_char_boundary(SHOWN_BYTES_MAX)].to_owned()),
            payload_bytes: bytes.map(|bytes| bytes[..bytes.len().min(SHOWN_BYTES_MAX)].to_vec()),
            code: self.codes.value(row).to_owned(),
            reason: self.reasons.value(row).to_owned(),
            event_time_us: self
                .event_times
                .is_valid(row)
                .then(|| self.event_times.value(row)),
            received_at_us: self.received.value(row),
            epoch,
            is_cut,
        }
    }
}
