//! How an edge's messages look inside Flight's DoExchange.
//!
//! Called by `flight_client.rs` and `flight_server.rs`. One call is one edge. The sender's first message has a
//! descriptor whose command is an [`ExchangeHello`] as JSON; then come batches, with the Arrow IPC message in header and
//! body and a [`Frame`] in the metadata, and barriers, which are a frame alone. The schema is known on both sides and
//! only compared. The receiver answers with [`Answer`]s in the metadata.
//! Failure: what the peer sends is never trusted; a message that does not read is a [`WireError`].

use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_flight::utils::flight_data_to_arrow_batch;
use arrow_flight::{FlightData, FlightDescriptor};
use millstream_common::ids::{Generation, JobName, WorkerId};
use millstream_common::plan::PlanSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::message::{EdgeBarrier, EdgeId};

/// The most that a batch may take when encoded: batches are cut at 1 MiB, so only a single huge row comes near.
pub(super) const ENCODED_BATCH_BYTES_MAX: usize = 64 << 20;
/// The most that a message may hold: a batch, or a barrier with the watermarks of many sources.
pub(super) const MESSAGE_BYTES_MAX: usize = ENCODED_BATCH_BYTES_MAX + (1 << 20);

/// What opens an edge: who sends what to whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ExchangeHello {
    pub(super) job: JobName,
    pub(super) generation: Generation,
    pub(super) edge: EdgeId,
    /// The sending worker, for error texts.
    pub(super) worker: WorkerId,
    /// Of every batch on the edge.
    pub(super) schema: PlanSchema,
}

/// What a message of the sender is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Frame {
    /// Rows, holding this much credit.
    Batch {
        credit_bytes: u32,
    },
    Barrier(EdgeBarrier),
}

/// What the receiver says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// The edge is open, with this budget.
    Accepted { budget_bytes: u32 },
    /// Credit that is free again.
    Credit { bytes: u32 },
}

/// A message that does not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the first message has no descriptor")]
    NoDescriptor,
    #[error("read {what}")]
    Json {
        what: &'static str,
        #[source]
        cause: serde_json::Error,
    },
    #[error("read batch")]
    Batch(#[from] ArrowError),
}

pub(super) fn write_hello(hello: &ExchangeHello) -> Result<FlightData, WireError> {
    let command = write_json("hello", hello)?;
    let descriptor = FlightDescriptor::new_cmd(command);
    Ok(FlightData::new().with_descriptor(descriptor))
}

pub(super) fn read_hello(data: &FlightData) -> Result<ExchangeHello, WireError> {
    let descriptor = data.flight_descriptor.as_ref();
    let descriptor = descriptor.ok_or(WireError::NoDescriptor)?;
    read_json("hello", &descriptor.cmd)
}

pub(super) fn write_barrier(barrier: &EdgeBarrier) -> Result<FlightData, WireError> {
    let frame = write_json("barrier", &Frame::Barrier(barrier.clone()))?;
    Ok(FlightData::new().with_app_metadata(frame))
}

pub(super) fn read_frame(data: &FlightData) -> Result<Frame, WireError> {
    read_json("frame", &data.app_metadata)
}

pub(super) fn write_answer(answer: Answer) -> Result<FlightData, WireError> {
    let answer = write_json("answer", &answer)?;
    Ok(FlightData::new().with_app_metadata(answer))
}

pub(super) fn read_answer(data: &FlightData) -> Result<Answer, WireError> {
    read_json("answer", &data.app_metadata)
}

pub(super) fn read_batch(data: &FlightData, schema: &SchemaRef) -> Result<RecordBatch, WireError> {
    let dictionaries = HashMap::new();
    Ok(flight_data_to_arrow_batch(
        data,
        schema.clone(),
        &dictionaries,
    )?)
}

fn write_json<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, WireError> {
    serde_json::to_vec(value).map_err(|cause| WireError::Json { what, cause })
}

fn read_json<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(bytes).map_err(|cause| WireError::Json { what, cause })
}

/// Encodes the batches of one edge, or of one reader of a preview; its buffers are reused.
#[derive(Default)]
pub(crate) struct BatchEncoder {
    generator: IpcDataGenerator,
    options: IpcWriteOptions,
    context: IpcWriteContext,
}

impl BatchEncoder {
    pub(super) fn encode(
        &mut self,
        batch: &RecordBatch,
        credit_bytes: u32,
    ) -> Result<FlightData, WireError> {
        let frame = write_json("batch", &Frame::Batch { credit_bytes })?;
        Ok(self.rows(batch)?.with_app_metadata(frame))
    }

    /// The rows alone, as any Flight client reads them.
    pub(crate) fn rows(&mut self, batch: &RecordBatch) -> Result<FlightData, WireError> {
        let mut tracker = DictionaryTracker::new(true);
        let (dictionaries, encoded) =
            self.generator
                .encode(batch, &mut tracker, &self.options, &mut self.context)?;
        if !dictionaries.is_empty() {
            let text = "dictionary columns do not travel on edges".to_owned();
            return Err(ArrowError::NotYetImplemented(text).into());
        }
        Ok(FlightData::from(encoded))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, RecordBatchOptions, StringArray};
    use arrow::datatypes::{Int32Type, Schema};
    use millstream_common::ids::{Epoch, SourceIndex};
    use millstream_common::time::EventTime;

    use super::*;
    use crate::exchange::message::BarrierKind;
    use crate::exchange::testing::{edge, numbers};

    #[test]
    fn a_barrier_survives_the_wire() {
        let barrier = EdgeBarrier {
            epoch: Epoch(7),
            watermarks: BTreeMap::from([
                (SourceIndex(0), EventTime(-1)),
                (SourceIndex(2), EventTime::MAX),
            ]),
            kind: BarrierKind::Stop,
        };
        let frame = read_frame(&write_barrier(&barrier).expect("write")).expect("read");
        assert_eq!(frame, Frame::Barrier(barrier));
    }

    #[test]
    fn a_hello_survives_the_wire() {
        let hello = ExchangeHello {
            job: JobName::from("clicks"),
            generation: Generation(3),
            edge: edge(0, 1),
            worker: WorkerId::from("worker-1"),
            schema: PlanSchema(numbers([]).schema()),
        };
        let read = read_hello(&write_hello(&hello).expect("write")).expect("read");
        assert_eq!(read, hello);
    }

    #[test]
    fn slices_and_batches_without_columns_survive_the_wire() {
        let bare = RecordBatch::try_new_with_options(
            Arc::new(Schema::empty()),
            vec![],
            &RecordBatchOptions::new().with_row_count(Some(5)),
        )
        .expect("batch");
        let texts = StringArray::from(vec![Some("a"), None, Some("ccc"), Some("")]);
        let texts = RecordBatch::try_from_iter(vec![("t", Arc::new(texts) as _)]).expect("batch");
        let mut encoder = BatchEncoder::default();
        for batch in [numbers(0..100).slice(10, 20), texts.slice(1, 2), bare] {
            let data = encoder.encode(&batch, 9).expect("encode");
            let frame = read_frame(&data).expect("frame");
            assert_eq!(frame, Frame::Batch { credit_bytes: 9 });
            assert_eq!(read_batch(&data, &batch.schema()).expect("read"), batch);
        }
    }

    #[test]
    fn a_slice_is_sent_without_what_it_does_not_show() {
        let data = BatchEncoder::default().encode(&numbers(0..10_000).slice(5, 1), 1);
        assert!(data.expect("encode").data_body.len() < 1_000);
    }

    #[test]
    fn dictionaries_do_not_travel() {
        let column: DictionaryArray<Int32Type> = ["a", "b"].into_iter().collect();
        let batch = RecordBatch::try_from_iter(vec![("d", Arc::new(column) as _)]);
        let refused = BatchEncoder::default().encode(&batch.expect("batch"), 1);
        assert!(matches!(refused, Err(WireError::Batch(_))));
    }

    #[test]
    fn nonsense_is_refused() {
        let nonsense = FlightData::new().with_app_metadata(b"{\"batch\":{}}".to_vec());
        assert!(read_frame(&nonsense).is_err());
        assert!(read_hello(&nonsense).is_err());
        assert!(read_answer(&nonsense).is_err());
        assert!(read_batch(&nonsense, &numbers([]).schema()).is_err());
    }
}
