//! One reader of a preview: batches out of its basket, through the relation's transforms, onto the wire.
//!
//! Made by the board for a call of DoGet and driven by the call's answer stream: no task of its own. It works in turns: what came since
//! the last one, at most [`ROWS_MAX`] rows and [`BYTES_MAX`] bytes of it. So neither the reader's speed nor the rows' can make it work
//! more than that, and the rest is passed over and counted. Failure: rows that cannot be evaluated or encoded end the call.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::{FlightData, SchemaAsIpc};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use millstream_common::error::chain;
use millstream_common::preview::Marks;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tonic::Status;

use super::basket::{Basket, Taken};
use super::tap::OpenTap;
use crate::exchange::wire::BatchEncoder;
use crate::transform::BranchProgram;

/// From one turn to the next, at least: a person sees it as at once.
const TURN_INTERVAL: Duration = Duration::from_millis(50);
/// Rows of one turn.
const ROWS_MAX: usize = 1_000;
/// Bytes of the rows of one turn, unless a single row has more.
const BYTES_MAX: usize = 1 << 20;
/// A row that takes more than this when encoded is passed over: no client takes it.
const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// A reader's taps and what stands behind them.
pub(crate) struct Reading {
    basket: Arc<Basket>,
    programs: Vec<BranchProgram>,
    schema: SchemaRef,
    alive: watch::Receiver<()>,
    encoder: BatchEncoder,
    has_begun: bool,
    has_ended: bool,
    _taps: Vec<OpenTap>,
    _permit: OwnedSemaphorePermit,
}

impl Reading {
    /// Of open taps: one program each, all with this schema.
    pub(super) fn new(
        (basket, taps, programs): (Arc<Basket>, Vec<OpenTap>, Vec<BranchProgram>),
        schema: SchemaRef,
        alive: watch::Receiver<()>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            basket,
            programs,
            schema,
            alive,
            encoder: BatchEncoder::default(),
            has_begun: false,
            has_ended: false,
            _taps: taps,
            _permit: permit,
        }
    }

    /// The schema, then rows until the pipeline or the reader goes.
    pub(crate) fn messages(self) -> BoxStream<'static, Result<FlightData, Status>> {
        let options = IpcWriteOptions::default();
        let schema = FlightData::from(SchemaAsIpc::new(&self.schema, &options));
        let rows = stream::unfold(self, |mut reading| async move {
            let message = reading.next().await?;
            Some((message, reading))
        });
        stream::once(async move { Ok(schema) }).chain(rows).boxed()
    }

    async fn next(&mut self) -> Option<Result<FlightData, Status>> {
        while !self.has_ended {
            let basket = self.basket.clone();
            let is_first = !std::mem::replace(&mut self.has_begun, true);
            let taken = async move {
                if !is_first {
                    tokio::time::sleep(TURN_INTERVAL).await;
                }
                basket.take().await
            };
            let message = tokio::select! {
                biased;
                _ = self.alive.changed() => {
                    Err(Status::aborted("the generation has ended here"))
                }
                taken = taken => match self.turn(taken) {
                    Ok(None) => continue,
                    Ok(Some(message)) => Ok(message),
                    Err(cause) => Err(Status::internal(cause)),
                },
            };
            self.has_ended = message.is_err();
            return Some(message);
        }
        None
    }

    /// The message of a turn; `None` where no row passes and none was passed over.
    fn turn(&mut self, taken: Taken) -> Result<Option<FlightData>, String> {
        let mut skipped_rows = taken.skipped_rows;
        let mut parts = Vec::new();
        let mut room = ROWS_MAX;
        for offered in &taken.offered {
            if room == 0 {
                skipped_rows += offered.batch.num_rows() as u64;
                continue;
            }
            let program = &self.programs[offered.tap];
            let transformed = program.run(&offered.batch, None);
            let transformed = transformed.map_err(|error| chain(&error))?;
            // Rows on which an expression fails are no rows of the relation.
            let Some(rows) = transformed.batch else {
                continue;
            };
            let kept = rows.num_rows().min(room);
            skipped_rows += (rows.num_rows() - kept) as u64;
            room -= kept;
            parts.push(rows.slice(0, kept));
        }
        let rows = concat_batches(&self.schema, &parts).map_err(|error| error.to_string())?;
        let kept = rows_within(rows.num_rows(), rows.get_array_memory_size());
        skipped_rows += (rows.num_rows() - kept) as u64;
        self.message(&rows.slice(0, kept), skipped_rows)
    }

    fn message(
        &mut self,
        rows: &RecordBatch,
        mut skipped_rows: u64,
    ) -> Result<Option<FlightData>, String> {
        let mut data = FlightData::default();
        if rows.num_rows() > 0 {
            data = self.encoder.rows(rows).map_err(|error| chain(&error))?;
            if data.data_body.len() > MESSAGE_BYTES_MAX {
                skipped_rows += rows.num_rows() as u64;
                data = FlightData::default();
            }
        }
        if skipped_rows == 0 && data.data_header.is_empty() {
            return Ok(None);
        }
        let marks = serde_json::to_vec(&Marks { skipped_rows });
        let marks = marks.map_err(|error| error.to_string())?;
        Ok(Some(data.with_app_metadata(marks)))
    }
}

/// How many of `row_count` rows, which take `bytes`, one message carries.
fn rows_within(row_count: usize, bytes: usize) -> usize {
    match bytes > BYTES_MAX {
        true => (row_count * BYTES_MAX / bytes).clamp(1, row_count.max(1)),
        false => row_count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_carries_as_many_rows_as_fit_and_at_least_one() {
        assert_eq!(rows_within(0, 0), 0);
        assert_eq!(rows_within(900, BYTES_MAX), 900);
        assert_eq!(rows_within(900, BYTES_MAX * 3), 300);
        assert_eq!(rows_within(2, BYTES_MAX * 50), 1);
    }
}
