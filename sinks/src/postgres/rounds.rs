//! Writes a run in rounds, where `on_violation = 'drop'` and a key.
//!
//! Called by `mod.rs` between guard and marker. Of several rows of a key one is written, so a row that is fine may have made way
//! for one that the table then refuses. With dead letters the log names the refused row and the next run is without it; a dropped
//! row is named nowhere, so the run is undone under a savepoint and written once more without it, until no refused row can have
//! displaced another. Each round leaves out at least one row more, and [`REJECTED_ROWS_MAX`] bounds them all.
//! Failure: that of a round, which ends the transaction.
//!
//! [`REJECTED_ROWS_MAX`]: crate::sink::REJECTED_ROWS_MAX

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use millstream_common::plan::OnViolation;
use tokio_postgres::Client;

use super::apply::{Plan, RunWriter, Written};
use super::error::classify;
use crate::left_out::place_without;
use crate::sink::{RunRows, SinkError};

const SAVEPOINT: &str = "millstream_round";
const BEGIN: &str = "SAVEPOINT millstream_round";
const UNDO: &str = "ROLLBACK TO SAVEPOINT millstream_round; RELEASE SAVEPOINT millstream_round";

/// Writes all rows of the run that the table takes.
pub(super) async fn write(
    client: &Client,
    plan: &Plan,
    rows: &dyn RunRows,
) -> Result<Written, SinkError> {
    if plan.on_violation != OnViolation::Drop || !plan.target.is_keyed() {
        return RunWriter::new(client, plan, 0).write(rows).await;
    }
    let failed = |error: tokio_postgres::Error| classify(&plan.what, &error);
    let mut left_out = Vec::new();
    loop {
        client.batch_execute(BEGIN).await.map_err(failed)?;
        let round = Rest {
            rows,
            left_out: &left_out,
        };
        let before = left_out.len() as u64;
        let mut written = RunWriter::new(client, plan, before).write(&round).await?;
        if written.refused.is_empty() || !written.has_displaced {
            written.row_count += before;
            written.savepoint = Some(SAVEPOINT);
            return Ok(written);
        }
        client.batch_execute(UNDO).await.map_err(failed)?;
        let refused = written.refused.iter();
        let places: Vec<u64> = refused.map(|row| place_without(&left_out, *row)).collect();
        left_out.extend(places);
        left_out.sort_unstable();
    }
}

/// The rows of a run without some of them.
struct Rest<'a> {
    rows: &'a dyn RunRows,
    /// Numbers in the run, ascending.
    left_out: &'a [u64],
}

impl RunRows for Rest<'_> {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn batches(&self) -> BoxStream<'_, Result<RecordBatch, SinkError>> {
        let mut first = 0;
        let kept = self.rows.batches().and_then(move |batch| {
            let rows = first..first + batch.num_rows() as u64;
            first = rows.end;
            std::future::ready(self.without_left_out(batch, rows))
        });
        kept.boxed()
    }
}

impl Rest<'_> {
    fn without_left_out(
        &self,
        batch: RecordBatch,
        rows: std::ops::Range<u64>,
    ) -> Result<RecordBatch, SinkError> {
        let is_left_out = |row: u64| self.left_out.binary_search(&row).is_ok();
        if !self.left_out.iter().any(|row| rows.contains(row)) {
            return Ok(batch);
        }
        let mask: BooleanArray = rows.map(|row| Some(!is_left_out(row))).collect();
        filter_record_batch(&batch, &mask)
            .map_err(|error| SinkError::refused("leave out dropped rows", error))
    }
}
